//! Between a client and the device's machine: orders in, outputs out. Decides nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use event_listener::Event;
use mesh_core::api::{Method, Params};
use mesh_core::device::status::Standing;
use mesh_core::device::unfinished::Listed;
use mesh_core::device::{
    AnswerEvent, AskError, AttemptId, Attempts, Config, Device, Failure, Input, Output, Terms, Why,
};
use mesh_core::error::ErrorClass;
use mesh_core::identity::GATEWAY_NAME;
use mesh_core::identity::enrolment::Enrolment;
use mesh_core::ids::RequestId;
use mesh_core::machine::Machine as _;
use mesh_core::privacy::Policy;
use mesh_core::quic::{ClientConfig, Quic};
use mesh_core::time::Now;
use mesh_core::vitals::with_questions;
use mesh_core::wire::message::{EscalationRequest, Vitals};
use mesh_shell::book::{Found, Keeper};
use mesh_shell::random;
use serde_json::value::RawValue;
use smol::channel::{Sender, WeakSender};

use super::answer::{News, PIECES_WAITING_MAX, Source};
use super::route;
use crate::driver::{Binding, Driver, Host, Request, Socket};
use crate::error::Error;

/// What the host is told to do.
#[derive(Debug)]
pub(crate) enum Order {
    /// Bring the tunnel up.
    Connect,
    /// Ask a question; news goes to the source.
    Ask(Box<EscalationRequest>, Source),
    /// Give an unfinished question's answer, from its first word on.
    Attach(RequestId, Source),
    /// An answer's end was had.
    Taken(RequestId),
    /// What processes that are gone left behind.
    Restore(Found),
    /// Which questions are unfinished?
    Unfinished(Sender<Vec<Listed>>),
    /// Stop an answer.
    Cancel(RequestId),
    /// An answer's reader is slow: its gateway is to wait.
    Pause(RequestId),
    /// The reader has caught up.
    ReadOn(RequestId),
    /// A typed call without parameters.
    Call {
        /// Which.
        method: Method,
        /// With what.
        params: Params,
        /// Where its result goes.
        reply: Sender<Result<Box<RawValue>, AskError>>,
    },
    /// A new measurement.
    Vitals(Vitals),
    /// The network changed: move to a new socket and try again at once.
    NetworkChanged,
    /// The gateway's addresses, as the host looked them up.
    Resolved(AttemptId, Result<Vec<SocketAddr>, String>),
    /// Say goodbye and end.
    Close,
}

/// How the tunnel stands, for whoever watches; written by the host alone.
#[derive(Debug, Default)]
pub(crate) struct Board {
    standing: RefCell<Standing>,
    changed: Event,
}

impl Board {
    /// How it stands now.
    pub(crate) fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Waits until the tunnel stands as is `wanted`.
    pub(crate) async fn wait_for(&self, mut wanted: impl FnMut(&Standing) -> bool) -> Standing {
        loop {
            let changed = self.changed.listen();
            if wanted(&self.standing.borrow()) {
                return self.standing();
            }
            changed.await;
        }
    }

    fn publish(&self, standing: Standing) {
        let shown = self.standing.replace(standing);
        let standing = self.standing.borrow();
        // An acknowledged heartbeat is a sign of life that a watcher may wait for.
        if standing.is_news_after(&shown)
            || standing.statistics.heartbeats_acked != shown.statistics.heartbeats_acked
        {
            self.changed.notify(usize::MAX);
        }
    }
}

/// A driver for this enrolment, which connects once it runs.
///
/// # Errors
///
/// When the enrolment cannot be used or there is no socket.
pub(super) fn driver(
    enrolment: &Enrolment,
    folder: &Path,
    attempts: Attempts,
    orders: &Sender<Order>,
    board: Rc<Board>,
) -> Result<Driver<DeviceHost>, Error> {
    let seed = random::seed()?;
    let certificate = |words: String| Error::new(ErrorClass::Certificate, words);
    let quic = ClientConfig {
        tls: enrolment
            .tls(random::provider())
            .map_err(|error| certificate(error.to_string()))?,
        server_name: GATEWAY_NAME.to_owned(),
    };
    let quic =
        Quic::client(quic, &seed.child("quic")).map_err(|error| certificate(error.to_string()))?;
    let mut terms = Terms::default()
        .with_environment(|name| std::env::var(name).ok())
        .map_err(|bad| Error::new(ErrorClass::Validation, bad.to_string()))?;
    terms.keeps = true;
    let keeper = Keeper::start(folder, enrolment.device_id)
        .map_err(|error| Error::io("starting a thread", &error))?;
    let config = Config {
        device_id: enrolment.device_id,
        agent: concat!("synesis-lite/", env!("CARGO_PKG_VERSION")).to_owned(),
        attempts,
        privacy: Policy::default(),
        terms,
    };
    let machine = Device::new(quic, config, &seed.child("device"));
    let host = DeviceHost {
        gateway: enrolment.tunnel_address.clone(),
        orders: orders.downgrade(),
        answers: BTreeMap::new(),
        calls: BTreeMap::new(),
        last_call: 0,
        last_failure: None,
        board,
        keeper: Some(keeper),
    };
    Ok(Driver::new(Socket::bind(Binding::ANY)?, machine, host))
}

#[derive(Debug)]
pub(super) struct DeviceHost {
    gateway: String,
    orders: WeakSender<Order>,
    answers: BTreeMap<RequestId, Open>,
    calls: BTreeMap<u64, Sender<Result<Box<RawValue>, AskError>>>,
    last_call: u64,
    last_failure: Option<Failure>,
    board: Rc<Board>,
    keeper: Option<Keeper>,
}

/// An answer under way.
#[derive(Debug)]
struct Open {
    source: Source,
    session: String,
}

impl Host for DeviceHost {
    type Machine = Device<Quic>;
    type Command = Order;

    fn command(&mut self, now: Now, machine: &mut Device<Quic>, order: Order) -> Request {
        let mut request = Request::None;
        let input = match order {
            Order::Connect => Input::Connect,
            Order::Ask(question, source) => match self.ask(question, source) {
                Some(question) => Input::Escalate(question),
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
                let _gone = reply.try_send(machine.unfinished());
                return Request::None;
            }
            Order::Cancel(id) if self.answers.contains_key(&id) => Input::Cancel(id),
            // It has ended since.
            Order::Cancel(_) => return Request::None,
            Order::Pause(id) => Input::Pause(id),
            Order::ReadOn(id) => {
                if let Some(open) = self.answers.get(&id) {
                    open.source.paused.store(false, Ordering::Relaxed);
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
        // What the machine rejects (a tunnel asked for twice, a backlog) has changed nothing.
        let _rejected = machine.handle_input(now, input);
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
                route::lookup(gateway, move |result| {
                    if let Some(orders) = orders.upgrade() {
                        // The driver has ended: nobody wants to know.
                        let _ended = orders.send_blocking(Order::Resolved(attempt, result));
                    }
                });
            }
            Output::Changed { why, .. } => {
                if let Why::Failed(failure) = why {
                    self.last_failure = Some(failure);
                }
            }
            Output::Answer { request, event } => self.news(request, event),
            Output::Replied { id, result } => {
                if let Some(reply) = self.calls.remove(&id) {
                    // Whoever asked may have given up.
                    let _gone = reply.try_send(result);
                }
            }
            Output::Keep(unfinished) => {
                if let Some(keeper) = &self.keeper {
                    keeper.keep(unfinished);
                }
            }
            // The first shows in the standing; who asks is told of the second with the answer.
            Output::Doubt(_) | Output::Notice(_) => {}
            Output::Rebind => return ControlFlow::Continue(Request::Rebind),
            Output::Stopped => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(Request::None)
    }

    fn woke(&mut self, now: Now, machine: &mut Device<Quic>, asleep: Duration) -> Request {
        let _rejected = machine.handle_input(now, Input::Woke { asleep });
        Request::Rebind
    }

    fn turn_over(&mut self, machine: &Device<Quic>) {
        let failure = self.last_failure.clone();
        self.board
            .publish(Standing::new(machine.state(), &machine.stats(), failure));
    }
}

impl DeviceHost {
    /// Remembers where an answer goes; the question itself goes on, unless its id is taken.
    fn ask(
        &mut self,
        question: Box<EscalationRequest>,
        source: Source,
    ) -> Option<Box<EscalationRequest>> {
        let id = question.request_id;
        if self.answers.contains_key(&id) {
            let _gone = source
                .news
                .try_send(News::Failed(AskError::Duplicate.into()));
            return None;
        }
        let session = question.session_id.clone();
        self.answers.insert(id, Open { source, session });
        Some(question)
    }

    /// The same for an answer that goes on.
    fn attach(&mut self, id: RequestId, source: Source) -> Option<RequestId> {
        if self.answers.contains_key(&id) {
            let duplicate = News::Failed(AskError::Duplicate.into());
            let _gone = source.news.try_send(duplicate);
            return None;
        }
        let session = String::new();
        self.answers.insert(id, Open { source, session });
        Some(id)
    }

    /// The driver has ended: who still has to write down what is to be kept.
    pub(super) fn into_keeper(self) -> Option<Keeper> {
        self.keeper
    }

    /// Hands news to the reader, and has the gateway wait when too much of it lies unread. An
    /// answer that has had its last news is forgotten.
    fn news(&mut self, id: RequestId, event: AnswerEvent) {
        let Some(Open { source, .. }) = self.answers.get(&id) else {
            return;
        };
        let mut last = false;
        for news in event.into_news() {
            last = news.is_last();
            // A reader that is gone has cancelled; what still comes finds nobody.
            let _gone = source.news.try_send(news.map_failure(Error::from));
        }
        if last {
            self.answers.remove(&id);
        } else if source.news.len() > PIECES_WAITING_MAX
            && !source.paused.load(Ordering::Relaxed)
            && let Some(orders) = self.orders.upgrade()
            && orders.try_send(Order::Pause(id)).is_ok()
        {
            source.paused.store(true, Ordering::Relaxed);
        }
    }

    /// The host's own part of the vitals.
    fn with_questions(&self, vitals: Vitals, machine: &Device<Quic>) -> Vitals {
        let sessions = self.answers.values().map(|open| open.session.as_str());
        with_questions(vitals, sessions, machine.questions_under_way())
    }
}

#[cfg(test)]
mod tests {
    use smol::channel::{self, Receiver};
    use smol::future::poll_once;

    use super::*;
    use crate::device::answer::{Answer, Part};

    const QUESTION: RequestId = RequestId::from_u128(7);

    /// A host with one answer under way, and the orders that come of it.
    fn answering() -> (DeviceHost, Answer, Receiver<Order>, Sender<Order>) {
        let (orders, inbox) = channel::bounded(16);
        let (answer, source) = Answer::new(QUESTION, orders.clone());
        let session = "default".to_owned();
        let host = DeviceHost {
            gateway: "gw.example:4141".to_owned(),
            orders: orders.downgrade(),
            answers: BTreeMap::from([(QUESTION, Open { source, session })]),
            calls: BTreeMap::new(),
            last_call: 0,
            last_failure: None,
            board: Rc::default(),
            keeper: None,
        };
        (host, answer, inbox, orders)
    }

    fn piece() -> AnswerEvent {
        AnswerEvent::Chunk("x".to_owned())
    }

    #[test]
    fn the_gateway_waits_for_a_slow_reader_and_goes_on_when_it_has_caught_up() {
        let (mut host, mut answer, inbox, _orders) = answering();
        for _ in 0..PIECES_WAITING_MAX {
            host.news(QUESTION, piece());
        }
        assert!(inbox.is_empty());
        for _ in 0..10 {
            host.news(QUESTION, piece());
        }
        assert!(matches!(inbox.try_recv(), Ok(Order::Pause(QUESTION))));
        assert!(inbox.is_empty(), "it is asked once");
        smol::block_on(async {
            for _ in 0..PIECES_WAITING_MAX + 10 {
                assert_eq!(
                    answer.next().await.unwrap(),
                    Some(Part::Text("x".to_owned()))
                );
            }
            assert!(inbox.is_empty(), "not before all of it is read");
            assert!(poll_once(answer.next()).await.is_none());
        });
        assert!(matches!(inbox.try_recv(), Ok(Order::ReadOn(QUESTION))));
    }

    #[test]
    fn an_answer_that_nobody_reads_any_more_is_cancelled_and_forgotten() {
        let (mut host, answer, inbox, _orders) = answering();
        drop(answer);
        assert!(matches!(inbox.try_recv(), Ok(Order::Cancel(QUESTION))));
        host.news(QUESTION, piece());
        host.news(QUESTION, AnswerEvent::Failed(AskError::Cancelled));
        assert!(host.answers.is_empty());
    }

    #[test]
    fn an_answer_ends_once_with_its_last_news() {
        let (mut host, mut answer, inbox, _orders) = answering();
        host.news(QUESTION, piece());
        host.news(QUESTION, AnswerEvent::Failed(AskError::TimedOut));
        smol::block_on(async {
            assert_eq!(
                answer.next().await.unwrap(),
                Some(Part::Text("x".to_owned()))
            );
            assert_eq!(
                answer.next().await.unwrap_err().class(),
                ErrorClass::Timeout
            );
            assert_eq!(answer.next().await.unwrap(), None);
        });
        drop(answer);
        assert!(
            matches!(inbox.try_recv(), Ok(Order::Taken(QUESTION))),
            "what is over needs no cancelling"
        );
    }
}
