//! A device's tunnel for the commands: ask, call, and watch how the tunnel fares.
//!
//! ```text
//!   Client (cloneable) ── orders ──▶ driver: host ─▶ machine ─▶ socket
//!      ▲   ▲                              │
//!      │   └──────── Board (standing) ────┤
//!      └──────────── Answer (pieces) ◀────┘
//! ```
//!
//! Everything of it runs on the one thread of the executor that it was started on.
//!
//! # Invariants
//!
//! 1. The tunnel ends when the last clone is dropped, or at [`Client::close`], which says goodbye.
//! 2. Every order is answered once; what cannot be answered any more fails.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use async_io::Timer;
use mesh_core::api::{Method, Params, Pong};
use mesh_core::billing::account::Summary;
use mesh_core::device::status::{About, Standing, Status};
use mesh_core::device::unfinished::Listed;
use mesh_core::device::{Attempts, State};
use mesh_core::error::ErrorClass;
use mesh_core::escalation::request::validate;
use mesh_core::identity::enrolment::Enrolment;
use mesh_core::ids::RequestId;
use mesh_core::limits::{CALL_TIMEOUT, LAST_WORDS_TIMEOUT, PERSON_TIMEOUT};
use mesh_core::tunnel::FailureKind;
use mesh_core::wire::message::EscalationRequest;
use mesh_shell::book;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use smol::channel::{self, Sender, WeakSender};
use smol::future::FutureExt as _;
use smol::{LocalExecutor, Task};

use super::answer::Answer;
use super::host::{self, Board, Order};
use super::route;
use super::vitals::{FIRST_SAMPLE_AFTER, SAMPLE_EVERY, Sampler};
use crate::error::Error;

/// Orders that wait for the driver. Over it: whoever gives them waits.
const ORDERS_WAITING_MAX: usize = 256;

/// A device's tunnel. Clones share it.
#[derive(Clone, Debug)]
pub struct Client {
    orders: Sender<Order>,
    board: Rc<Board>,
    about: Rc<About>,
    began: Instant,
    driver: Rc<RefCell<Option<Task<()>>>>,
    /// The device's folder.
    folder: Rc<Path>,
}

impl Client {
    /// Starts to connect, as a person's command does: it gives up after some attempts.
    ///
    /// # Errors
    ///
    /// When the enrolment cannot be used or there is no socket.
    pub fn start(
        executor: &LocalExecutor<'static>,
        enrolment: &Enrolment,
        folder: &Path,
    ) -> Result<Self, Error> {
        Self::begin(executor, enrolment, folder, Attempts::default(), None)
    }

    /// Starts an agent's tunnel: it never gives up, follows changes of the network, and reports the
    /// machine's load with the disk that holds `folder`.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_agent(
        executor: &LocalExecutor<'static>,
        enrolment: &Enrolment,
        folder: &Path,
    ) -> Result<Self, Error> {
        let pid = Some(std::process::id());
        let client = Self::begin(executor, enrolment, folder, Attempts::Forever, pid)?;
        let orders = client.orders.downgrade();
        let gateway = enrolment.tunnel_address.clone();
        executor
            .spawn(route::watch(gateway, orders.clone()))
            .detach();
        executor
            .spawn(feed_vitals(Sampler::new(folder), orders))
            .detach();
        Ok(client)
    }

    fn begin(
        executor: &LocalExecutor<'static>,
        enrolment: &Enrolment,
        folder: &Path,
        attempts: Attempts,
        agent_pid: Option<u32>,
    ) -> Result<Self, Error> {
        let (orders, inbox) = channel::bounded(ORDERS_WAITING_MAX);
        let board = Rc::new(Board::default());
        let driver = host::driver(enrolment, folder, attempts, &orders, Rc::clone(&board))?;
        // The first order, before any that a caller may give.
        orders
            .try_send(Order::Connect)
            .map_err(|_| Error::not_connected("connecting"))?;
        let driver = executor.spawn(async move {
            let host = driver.run(inbox).await;
            // What is still to be written is, before this is over.
            if let Some(keeper) = host.into_keeper() {
                smol::unblock(move || keeper.finish()).await;
            }
        });
        let about = About {
            device: enrolment.device_id,
            gateway: enrolment.tunnel_address.clone(),
            certificate_ends_at: enrolment.not_after,
            agent_pid,
        };
        Ok(Self {
            orders,
            board,
            about: Rc::new(about),
            began: Instant::now(),
            driver: Rc::new(RefCell::new(Some(driver))),
            folder: folder.into(),
        })
    }

    /// Waits until the tunnel is up, as long as a person does.
    ///
    /// # Errors
    ///
    /// When it was given up or took too long, with the reason of the last attempt.
    pub async fn connected(&self) -> Result<(), Error> {
        // Disconnected is what it is before the driver's first turn.
        let settled = |s: &Standing| matches!(s.state, State::Connected { .. } | State::Failed);
        let settled = async { Some(self.board.wait_for(settled).await) };
        let too_long = async {
            Timer::after(PERSON_TIMEOUT).await;
            None
        };
        let standing = settled.or(too_long).await;
        if standing.as_ref().is_some_and(Standing::is_connected) {
            return Ok(());
        }
        let failure = standing.unwrap_or_else(|| self.standing()).last_failure;
        Err(failure
            .unwrap_or_else(|| FailureKind::TimedOut.into())
            .into())
    }

    /// How the tunnel stands now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.board.standing()
    }

    /// Waits until the tunnel stands as is `wanted`; asked whenever something changed.
    pub async fn wait_for(&self, wanted: impl FnMut(&Standing) -> bool) -> Standing {
        self.board.wait_for(wanted).await
    }

    /// What reports say of it.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Asks; the answer comes piece by piece.
    ///
    /// # Errors
    ///
    /// When the question breaks a rule.
    pub async fn ask(&self, question: EscalationRequest) -> Result<Answer, Error> {
        validate(&question)?;
        let (answer, source) = Answer::new(question.request_id, self.orders.clone());
        self.order(Order::Ask(Box::new(question), source)).await?;
        Ok(answer)
    }

    /// Picks up what processes of the device that are gone left unfinished. It goes on; who wants an
    /// answer of it asks with [`Self::resume`]. What is to be said of files that are not understood
    /// comes back; they are set aside.
    ///
    /// # Errors
    ///
    /// When the client was closed.
    pub async fn adopt(&self) -> Result<Vec<String>, Error> {
        let mut found = book::find(&self.folder, self.about.device);
        let trouble = std::mem::take(&mut found.trouble);
        if !found.left.is_empty() {
            self.order(Order::Restore(found)).await?;
        }
        Ok(trouble)
    }

    /// Questions that were asked by processes that are gone, or that no tunnel was left for, the
    /// oldest first.
    ///
    /// # Errors
    ///
    /// When the client was closed.
    pub async fn unfinished(&self) -> Result<Vec<Listed>, Error> {
        let (reply, listed) = channel::bounded(1);
        self.order(Order::Unfinished(reply)).await?;
        let closed = |_| Error::not_connected("listing unfinished questions");
        listed.recv().await.map_err(closed)
    }

    /// The answer to one of them, from its first word on.
    ///
    /// # Errors
    ///
    /// When the client was closed.
    pub async fn resume(&self, id: RequestId) -> Result<Answer, Error> {
        let (answer, source) = Answer::new(id, self.orders.clone());
        self.order(Order::Attach(id, source)).await?;
        Ok(answer)
    }

    /// One round trip through the tunnel, the gateway's own work included.
    ///
    /// # Errors
    ///
    /// When there is no tunnel, or no reply in time.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let asked = Instant::now();
        self.call::<Pong>(Method::Ping, Params::NONE).await?;
        Ok(asked.elapsed())
    }

    /// The whole report: tunnel, counters, and the account if the gateway can be asked.
    pub async fn status(&self) -> Status {
        let account = self
            .call::<Summary>(Method::AccountSummary, Params::NONE)
            .await
            .ok();
        let uptime = self.began.elapsed();
        Status::new((*self.about).clone(), self.standing(), uptime, account)
    }

    /// Says goodbye to the gateway and waits until that is sent. Answers under way fail.
    pub async fn close(&self) {
        if self.orders.send(Order::Close).await.is_err() {
            return;
        }
        let driver = self.driver.borrow_mut().take();
        if let Some(driver) = driver {
            let late = async {
                Timer::after(LAST_WORDS_TIMEOUT).await;
            };
            driver.or(late).await;
        }
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, params: Params) -> Result<T, Error> {
        let raw = self.call_raw(method, params).await?;
        serde_json::from_str(raw.get()).map_err(|error| {
            let words = format!("the gateway's reply is not understood: {error}");
            Error::new(ErrorClass::Serialization, words)
        })
    }

    /// A typed call, with its result as it came. It waits for no tunnel: whoever wants one waits with
    /// [`Self::connected`].
    ///
    /// # Errors
    ///
    /// When there is no tunnel, no reply in time, or the gateway refuses.
    pub async fn call_raw(&self, method: Method, params: Params) -> Result<Box<RawValue>, Error> {
        if !self.standing().is_connected() {
            return Err(Error::not_connected(method.as_str()));
        }
        let (reply, result) = channel::bounded(1);
        self.order(Order::Call {
            method,
            params,
            reply,
        })
        .await?;
        let answered = async { result.recv().await.ok() };
        // The machine itself ends a call in this time; the driver may end before it does.
        let late = async {
            Timer::after(CALL_TIMEOUT).await;
            None
        };
        let word = answered.or(late).await;
        let word = word.ok_or_else(|| Error::not_connected(method.as_str()))?;
        Ok(word?)
    }

    async fn order(&self, order: Order) -> Result<(), Error> {
        let closed = |_| Error::not_connected("the client was closed");
        self.orders.send(order).await.map_err(closed)
    }
}

/// Carries measurements to the machine until the client is gone.
async fn feed_vitals(mut sampler: Sampler, orders: WeakSender<Order>) {
    // The processors' load needs a while between two looks to mean anything.
    let mut wait = FIRST_SAMPLE_AFTER;
    loop {
        Timer::after(wait).await;
        wait = SAMPLE_EVERY;
        let Some(orders) = orders.upgrade() else {
            return;
        };
        if orders.send(Order::Vitals(sampler.sample())).await.is_err() {
            return;
        }
    }
}
