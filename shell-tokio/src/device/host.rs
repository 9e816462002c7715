//! Between a client and the device's machine: orders in, outputs out. Decides nothing.
//!
//! A reader that is slower than its answer is told to the machine ([`Order::Pause`]), which slows
//! the gateway down; meanwhile what was on its way waits here, bounded by the transport's windows.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::time::Duration;

use mesh_core::device::{
    AnswerEvent, Attempts, Config, Device, Failure, Input, Output, Terms, Why,
};
use mesh_core::escalation::request::first_piece_timeout;
use mesh_core::identity::GATEWAY_NAME;
use mesh_core::ids::RequestId;
use mesh_core::limits::ESCALATION_TIMEOUT_DEFAULT;
use mesh_core::machine::Machine as _;
use mesh_core::quic::{ClientConfig, Quic};
use mesh_core::time::Now;
use mesh_core::vitals::with_questions;
use mesh_core::wire::message::{EscalationRequest, Notice, Vitals};
use mesh_shell::book::Keeper;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::answer::{News, Source};
use super::client::{Options, Order};
use super::credentials::Credentials;
use super::failures::{duplicate, of_ask};
use super::status::Standing;
use crate::driver::{Binding, Driver, Host, Request, Socket};
use crate::error::Error;
use crate::{log, random};

/// Starts a driver for these credentials, which begins to connect at once.
///
/// # Errors
///
/// When the credentials cannot be used or there is no socket.
pub(super) fn start(
    credentials: &Credentials,
    options: &Options,
    orders: &mpsc::Sender<Order>,
    inbox: mpsc::Receiver<Order>,
    publish: watch::Sender<Standing>,
) -> Result<JoinHandle<()>, Error> {
    let seed = random::seed()?;
    let quic = ClientConfig {
        tls: credentials.tls()?,
        server_name: GATEWAY_NAME.to_owned(),
    };
    let quic = Quic::client(quic, &seed.child("quic"))
        .map_err(|error| Error::Certificate(error.to_string()))?;
    let config = Config {
        device_id: credentials.device_id(),
        agent: concat!("synesis/", env!("CARGO_PKG_VERSION")).to_owned(),
        attempts: if options.persistent {
            Attempts::Forever
        } else {
            Attempts::default()
        },
        privacy: options.privacy.clone(),
        terms: Terms {
            keeps: options.keeps.is_some(),
            ..options.terms
        },
    };
    let machine = Device::new(quic, config, &seed.child("device"));
    let keeper = match &options.keeps {
        Some(folder) => Some(
            Keeper::start(folder, credentials.device_id())
                .map_err(|error| Error::io("starting a thread", error))?,
        ),
        None => None,
    };
    let host = DeviceHost {
        gateway: credentials.tunnel_address().to_owned(),
        orders: orders.downgrade(),
        answers: BTreeMap::new(),
        calls: BTreeMap::new(),
        last_call: 0,
        last_failure: None,
        publish,
        keeper,
        logs_notices: options.persistent,
        notice_told: false,
    };
    let driver = Driver::new(Socket::bind(Binding::ANY)?, machine, host);
    // The first order, before any that a caller may give.
    orders
        .try_send(Order::Connect)
        .map_err(|_| Error::NotConnected {
            doing: "connecting",
        })?;
    Ok(tokio::spawn(async move {
        let host = driver.run(inbox).await;
        if let Some(keeper) = host.keeper {
            // What is still to be written is, before this is over.
            let _panicked = tokio::task::spawn_blocking(move || keeper.finish()).await;
        }
    }))
}

struct DeviceHost {
    gateway: String,
    orders: mpsc::WeakSender<Order>,
    answers: BTreeMap<RequestId, Open>,
    calls: BTreeMap<u64, oneshot::Sender<Result<Box<RawValue>, Error>>>,
    last_call: u64,
    last_failure: Option<Failure>,
    publish: watch::Sender<Standing>,
    keeper: Option<Keeper>,
    /// A service's log has its notices; a command says them with its answer.
    logs_notices: bool,
    /// The notice that comes next was said with an answer.
    notice_told: bool,
}

/// An answer under way.
struct Open {
    news: mpsc::Sender<News>,
    /// What the reader had no room for, in order.
    waiting: VecDeque<News>,
    session: String,
    patience: Duration,
}

impl Host for DeviceHost {
    type Machine = Device<Quic>;
    type Command = Order;

    fn command(&mut self, now: Now, machine: &mut Device<Quic>, order: Order) -> Request {
        let mut request = Request::None;
        let input = match order {
            Order::Connect => Input::Connect,
            Order::Ask { request, source } => match self.ask(request, source) {
                Some(request) => Input::Escalate(request),
                None => return Request::None,
            },
            Order::Attach(id, source) => match self.attach(id, source) {
                Some(id) => Input::Attach(id),
                None => return Request::None,
            },
            Order::Taken(id) => Input::Taken(id),
            Order::Restore(found) => {
                if let Some(keeper) = &self.keeper {
                    keeper.adopt(found.left);
                }
                Input::Restore(found.unfinished)
            }
            Order::Unfinished(reply) => {
                let _gone = reply.send(machine.unfinished());
                return Request::None;
            }
            Order::Cancel(id) if self.answers.contains_key(&id) => Input::Cancel(id),
            // It has ended since.
            Order::Cancel(_) => return Request::None,
            Order::Pause(id) => Input::Pause(id),
            Order::Unpause(id) => {
                if !self.drain(id) {
                    self.wait_for_room(id, false);
                    return Request::None;
                }
                Input::Unpause(id)
            }
            Order::Call {
                method,
                params,
                reply,
            } => {
                self.last_call += 1;
                self.calls.insert(self.last_call, reply);
                Input::Call {
                    id: self.last_call,
                    method,
                    params: params.into_raw(),
                }
            }
            Order::Vitals(vitals) => Input::Vitals(self.with_questions(vitals, machine)),
            Order::NetworkChanged => {
                request = Request::Rebind;
                Input::NetworkChanged
            }
            Order::Resolved(attempt, result) => Input::Resolved { attempt, result },
            Order::Close => Input::Stop,
        };
        if let Err(rejected) = machine.handle_input(now, input) {
            tracing::warn!(%rejected, "the device would not take an input");
        }
        request
    }

    fn output(
        &mut self,
        _now: Now,
        _machine: &Device<Quic>,
        output: Output,
    ) -> ControlFlow<(), Request> {
        match output {
            Output::Resolve { attempt, alternate } => {
                let gateway = alternate.unwrap_or_else(|| self.gateway.clone());
                let orders = self.orders.clone();
                tokio::spawn(async move {
                    let found = tokio::net::lookup_host(&gateway).await;
                    let result = found
                        .map(Iterator::collect)
                        .map_err(|error| error.to_string());
                    if let Some(orders) = orders.upgrade() {
                        // The driver has ended: nobody wants to know.
                        let _ended = orders.send(Order::Resolved(attempt, result)).await;
                    }
                });
            }
            Output::Changed { from, to, why } => {
                tracing::info!(%from, %to, %why, "tunnel");
                if let Why::Failed(failure) = why {
                    self.last_failure = Some(failure);
                }
            }
            Output::Doubt(doubt) => tracing::info!(doubt, "tunnel"),
            Output::Answer { request, event } => self.news(request, event),
            Output::Replied { id, result } => {
                if let Some(reply) = self.calls.remove(&id) {
                    // Whoever asked may have given up.
                    let _gone = reply.send(result.map_err(|error| of_ask(error, CALL_PATIENCE)));
                }
            }
            Output::Notice(notice) => {
                let told = std::mem::take(&mut self.notice_told);
                if self.logs_notices || !told {
                    tell(&notice);
                }
            }
            Output::Keep(unfinished) => {
                if let Some(keeper) = &self.keeper {
                    keeper.keep(unfinished);
                }
            }
            Output::Rebind => return ControlFlow::Continue(Request::Rebind),
            Output::Stopped => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(Request::None)
    }

    fn woke(&mut self, now: Now, machine: &mut Device<Quic>, asleep: Duration) -> Request {
        tracing::info!(secs = asleep.as_secs(), "the machine slept");
        if let Err(rejected) = machine.handle_input(now, Input::Woke { asleep }) {
            tracing::warn!(%rejected, "the device would not take an input");
        }
        Request::Rebind
    }

    fn turn_over(&mut self, machine: &Device<Quic>) {
        let failure = self.last_failure.clone();
        let standing = Standing::new(machine.state(), &machine.stats(), failure);
        self.publish.send_if_modified(|shown| {
            let news = standing.is_news_after(shown);
            *shown = standing;
            news
        });
    }
}

/// How long the machine waits for a call's reply; for the words only.
const CALL_PATIENCE: Duration = mesh_core::limits::CALL_TIMEOUT;

impl DeviceHost {
    /// Remembers where an answer goes; the question itself goes on, unless its id is taken.
    fn ask(
        &mut self,
        request: Box<EscalationRequest>,
        source: Source,
    ) -> Option<Box<EscalationRequest>> {
        let id = request.request_id;
        if self.answers.contains_key(&id) {
            // Its channel is new, so there is room.
            let _gone = source.news.try_send(News::Failed(duplicate()));
            return None;
        }
        let open = Open {
            news: source.news,
            waiting: VecDeque::new(),
            session: request.session_id.clone(),
            patience: first_piece_timeout(&request),
        };
        self.answers.insert(id, open);
        Some(request)
    }

    /// The same for an answer that goes on.
    fn attach(&mut self, id: RequestId, source: Source) -> Option<RequestId> {
        if self.answers.contains_key(&id) {
            let _gone = source.news.try_send(News::Failed(duplicate()));
            return None;
        }
        let open = Open {
            news: source.news,
            waiting: VecDeque::new(),
            session: String::new(),
            patience: ESCALATION_TIMEOUT_DEFAULT,
        };
        self.answers.insert(id, open);
        Some(id)
    }

    fn news(&mut self, id: RequestId, event: AnswerEvent) {
        let Some(open) = self.answers.get_mut(&id) else {
            return;
        };
        self.notice_told |= matches!(event, AnswerEvent::Notice(_));
        let patience = open.patience;
        let news = event.into_news();
        let news = news.map(|news| news.map_failure(|error| of_ask(error, patience)));
        open.waiting.extend(news);
        let slow_already = open.waiting.len() > 1 && open.news.capacity() == 0;
        if !self.drain(id) && !slow_already {
            self.wait_for_room(id, true);
        }
    }

    /// Hands over what there is room for; whether that was everything. Forgets an answer that has
    /// had its last news, or that nobody reads any more.
    fn drain(&mut self, id: RequestId) -> bool {
        let Some(open) = self.answers.get_mut(&id) else {
            return true;
        };
        while let Some(news) = open.waiting.pop_front() {
            let last = news.is_last();
            match open.news.try_send(news) {
                Ok(()) if last => {
                    self.answers.remove(&id);
                    return true;
                }
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(news)) => {
                    open.waiting.push_front(news);
                    return false;
                }
                Err(mpsc::error::TrySendError::Closed(_)) => {
                    // The answer was dropped, which cancels it; its last event finds nobody.
                    open.waiting.clear();
                    if last {
                        self.answers.remove(&id);
                    }
                    return true;
                }
            }
        }
        true
    }

    /// Comes back with [`Order::Unpause`] when the reader has room again; before that the gateway is
    /// let wait, unless it waits already.
    fn wait_for_room(&self, id: RequestId, pause: bool) {
        let Some(open) = self.answers.get(&id) else {
            return;
        };
        let (news, orders) = (open.news.clone(), self.orders.clone());
        tokio::spawn(async move {
            if pause && let Some(orders) = orders.upgrade() {
                let _ended = orders.send(Order::Pause(id)).await;
            }
            // Room again, or nobody reads: both are looked at by `drain`.
            let _room = news.reserve().await.is_ok();
            if let Some(orders) = orders.upgrade() {
                let _ended = orders.send(Order::Unpause(id)).await;
            }
        });
    }

    /// The agent's own part of the vitals.
    fn with_questions(&self, vitals: Vitals, machine: &Device<Quic>) -> Vitals {
        let sessions = self.answers.values().map(|open| open.session.as_str());
        with_questions(vitals, sessions, machine.questions_under_way())
    }
}

/// Says what a person may want to know.
fn tell(notice: &Notice) {
    match notice.in_words() {
        Some(words) => tracing::warn!(target: log::NOTICES, "{words}"),
        None => tracing::info!(kind = notice.kind, "the gateway says"),
    }
}
