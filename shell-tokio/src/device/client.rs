//! A device's tunnel for programs: ask, and watch how the tunnel fares.
//!
//! ```text
//!   Client (cloneable) ── orders ──▶ driver task: host ─▶ machine ─▶ socket
//!      ▲   ▲                              │
//!      │   └──────── Standing (watch) ────┤
//!      └──────────── Answer (pieces) ◀────┘
//! ```
//!
//! # Invariants
//!
//! 1. The tunnel ends when the last clone is dropped, or at [`Client::close`], which says goodbye.
//! 2. Every order is answered once; what cannot be answered any more fails with
//!    [`Error::NotConnected`].
//! 3. An answer that nobody reads slows its gateway down; it is never buffered without bound.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_core::api::{CountTokens, Method, Models, Params, Pong, TokenCount};
use mesh_core::billing::account::Summary;
use mesh_core::device::unfinished::Listed;
use mesh_core::device::{AttemptId, State, Terms};
use mesh_core::escalation::context::Question;
use mesh_core::escalation::request::validate;
use mesh_core::ids::{DeviceId, RequestId};
use mesh_core::privacy::Policy;
use mesh_core::wire::message::{EscalationRequest, Vitals};
use mesh_shell::book::{self, Found};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::answer::{Answer, Collected, Source};
use super::credentials::Credentials;
use super::host;
use super::route;
use super::status::{About, Standing, Status};
use super::vitals;
use crate::error::Error;
use crate::random;

/// Orders that wait for the driver. Over it: whoever gives them waits.
const ORDERS_WAITING_MAX: usize = 256;
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long a typed call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How a client behaves.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Retry for ever instead of giving up after ten attempts, and watch for changes of the
    /// network: for services.
    pub persistent: bool,
    /// Measure this machine's load, with the disk that holds this folder, for its heartbeats.
    pub vitals_of: Option<PathBuf>,
    /// What of a question stays on this machine, and in what form.
    pub privacy: Policy,
    /// What else the owner of this machine has set.
    pub terms: Terms,
    /// The device's folder, if its questions are to outlive this process.
    pub keeps: Option<PathBuf>,
}

/// What the host is told to do.
#[derive(Debug)]
pub(crate) enum Order {
    /// Bring the tunnel up.
    Connect,
    /// Ask a question; news goes to the source.
    Ask {
        /// The question, validated.
        request: Box<EscalationRequest>,
        /// Where its news goes.
        source: Source,
    },
    /// Give an unfinished question's answer, from its first word on.
    Attach(RequestId, Source),
    /// An answer's end was had.
    Taken(RequestId),
    /// What processes that are gone left behind.
    Restore(Found),
    /// Which questions are unfinished?
    Unfinished(oneshot::Sender<Vec<Listed>>),
    /// Stop an answer.
    Cancel(RequestId),
    /// A typed call.
    Call {
        /// Which.
        method: Method,
        /// With what.
        params: Params,
        /// Where its result goes.
        reply: oneshot::Sender<Result<Box<RawValue>, Error>>,
    },
    /// A new measurement.
    Vitals(Vitals),
    /// The network changed: move to a new socket and try again at once.
    NetworkChanged,
    /// The gateway's addresses, as the host looked them up.
    Resolved(AttemptId, Result<Vec<SocketAddr>, String>),
    /// An answer's reader is slow: its gateway is to wait.
    Pause(RequestId),
    /// The reader has caught up.
    Unpause(RequestId),
    /// Say goodbye and end.
    Close,
}

/// A device's tunnel. Clones share it.
///
/// ```no_run
/// use mesh_core::escalation::context::Question;
/// use mesh_tokio::Client;
/// use mesh_tokio::device::credentials::Credentials;
///
/// # async fn example(folder: &std::path::Path) -> Result<(), mesh_tokio::Error> {
/// let Some(credentials) = Credentials::load(folder)? else { return Ok(()) };
/// let client = Client::connect(credentials).await?;
/// let mut answer = client.escalate_stream(Question::new("Why is the sky blue?")).await?;
/// while let Some(piece) = answer.recv_chunk().await? {
///     print!("{piece}");
/// }
/// if let Some(receipt) = answer.receipt() {
///     eprintln!("charged {}", receipt.cost_nanos);
/// }
/// client.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    orders: mpsc::Sender<Order>,
    standing: watch::Receiver<Standing>,
    about: About,
    began: Instant,
    driver: std::sync::Mutex<Option<JoinHandle<()>>>,
    keeps: Option<PathBuf>,
    vitals: watch::Receiver<Vitals>,
}

/// The last clone is gone: a goodbye on the way out, as far as the queue takes it.
impl Drop for Shared {
    fn drop(&mut self) {
        let _ = self.orders.try_send(Order::Close);
    }
}

impl Client {
    /// Connects and waits until the tunnel is up.
    ///
    /// # Errors
    ///
    /// When it is not after the attempts of [`Options::default`], with the reason of the last one.
    pub async fn connect(credentials: Credentials) -> Result<Self, Error> {
        let client = Self::start(credentials, Options::default())?;
        client.connected().await?;
        Ok(client)
    }

    /// Starts to connect. Questions may be asked at once: they wait for the tunnel as long as they
    /// may take.
    ///
    /// # Errors
    ///
    /// When the credentials cannot be used or there is no socket.
    pub fn start(credentials: Credentials, options: Options) -> Result<Self, Error> {
        let (orders, inbox) = mpsc::channel(ORDERS_WAITING_MAX);
        let (publish, standing) = watch::channel(Standing::default());
        let driver = host::start(&credentials, &options, &orders, inbox, publish)?;
        if options.persistent {
            let gateway = credentials.tunnel_address().to_owned();
            tokio::spawn(route::watch(gateway, orders.downgrade()));
        }
        let measured = match &options.vitals_of {
            Some(folder) => {
                let measured = vitals::watch(folder);
                tokio::spawn(feed_vitals(measured.clone(), orders.downgrade()));
                measured
            }
            None => watch::channel(Vitals::default()).1,
        };
        let about = About {
            device: credentials.device_id(),
            gateway: credentials.tunnel_address().to_owned(),
            certificate_ends_at: credentials.not_after(),
            agent_pid: options.persistent.then(std::process::id),
        };
        let keeps = options.keeps;
        Ok(Self::of(orders, standing, about, driver, keeps, measured))
    }

    /// A client of a driver that runs already.
    fn of(
        orders: mpsc::Sender<Order>,
        standing: watch::Receiver<Standing>,
        about: About,
        driver: JoinHandle<()>,
        keeps: Option<PathBuf>,
        vitals: watch::Receiver<Vitals>,
    ) -> Self {
        let driver = std::sync::Mutex::new(Some(driver));
        let shared = Shared {
            orders,
            standing,
            about,
            began: Instant::now(),
            driver,
            keeps,
            vitals,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Waits until the tunnel is up.
    ///
    /// # Errors
    ///
    /// When it was given up.
    pub async fn connected(&self) -> Result<(), Error> {
        let mut standing = self.subscribe();
        // Disconnected is what it is before the driver's first turn.
        let settled = |s: &Standing| matches!(s.state, State::Connected { .. } | State::Failed);
        match standing.wait_for(settled).await {
            Ok(standing) if standing.is_connected() => Ok(()),
            Ok(standing) => Err(match &standing.last_failure {
                Some(failure) => Error::from(failure.clone()),
                None => Error::NotConnected {
                    doing: "connecting",
                },
            }),
            Err(_) => Err(Error::NotConnected {
                doing: "connecting",
            }),
        }
    }

    /// This device.
    #[must_use]
    pub fn device_id(&self) -> DeviceId {
        self.shared.about.device
    }

    /// The gateway's tunnel address, `host:port`.
    #[must_use]
    pub fn gateway(&self) -> &str {
        &self.shared.about.gateway
    }

    /// How the tunnel fares, now and whenever it changes.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Standing> {
        self.shared.standing.clone()
    }

    /// Asks and waits for the whole answer.
    ///
    /// # Errors
    ///
    /// When the question breaks a rule, the gateway refuses it or the answer fails.
    pub async fn escalate(&self, question: Question) -> Result<Collected, Error> {
        self.escalate_stream(question.stream(false))
            .await?
            .collect()
            .await
    }

    /// Asks; the answer comes piece by piece.
    ///
    /// # Errors
    ///
    /// When the question breaks a rule.
    pub async fn escalate_stream(&self, question: Question) -> Result<Answer, Error> {
        self.ask(question.into_request(random::request_id()?)).await
    }

    /// Asks under an id that was chosen already.
    ///
    /// # Errors
    ///
    /// When the question breaks a rule.
    pub async fn ask(&self, request: EscalationRequest) -> Result<Answer, Error> {
        validate(&request)?;
        let request = Box::new(request);
        let id = request.request_id;
        self.begin(id, |source| Order::Ask { request, source })
            .await
    }

    /// Picks up what processes of the device that are gone left unfinished. It goes on; who wants an
    /// answer of it asks with [`Self::resume`].
    ///
    /// Files that are not understood are set aside; what is to be said of them comes back.
    ///
    /// # Errors
    ///
    /// When the client was closed.
    pub async fn adopt(&self) -> Result<Vec<String>, Error> {
        let Some(folder) = self.shared.keeps.clone() else {
            return Ok(Vec::new());
        };
        let device = self.shared.about.device;
        let found = tokio::task::spawn_blocking(move || book::find(&folder, device)).await;
        let mut found = found.unwrap_or_default();
        let trouble = std::mem::take(&mut found.trouble);
        for words in &trouble {
            tracing::warn!("{words}");
        }
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
        let (reply, listed) = oneshot::channel();
        self.order(Order::Unfinished(reply)).await?;
        listed.await.map_err(|_| Error::NotConnected {
            doing: "listing unfinished questions",
        })
    }

    /// The answer to one of them, from its first word on.
    ///
    /// # Errors
    ///
    /// When the client was closed.
    pub async fn resume(&self, id: RequestId) -> Result<Answer, Error> {
        self.begin(id, |source| Order::Attach(id, source)).await
    }

    async fn begin(
        &self,
        id: RequestId,
        order: impl FnOnce(Source) -> Order,
    ) -> Result<Answer, Error> {
        let (answer, mut source) = Answer::new(id);
        // The host keeps the sender; whether it is still wanted is looked after here.
        let (_, never) = oneshot::channel();
        let cancelled = std::mem::replace(&mut source.cancelled, never);
        self.order(order(source)).await?;
        let orders = self.shared.orders.downgrade();
        let answer = match &self.shared.keeps {
            Some(_) => answer.kept_by(orders.clone()),
            None => answer,
        };
        tokio::spawn(async move {
            // Cancelled or dropped: either way nobody wants more. A finished answer's id names
            // nothing any more, and cancelling it does nothing.
            let _ = cancelled.await;
            if let Some(orders) = orders.upgrade() {
                let _ = orders.send(Order::Cancel(id)).await;
            }
        });
        Ok(answer)
    }

    /// One round trip through the tunnel, the gateway's own work included.
    ///
    /// # Errors
    ///
    /// When there is no tunnel, or no reply in ten seconds.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let asked = Instant::now();
        self.call::<Pong>(Method::Ping, Params::NONE).await?;
        Ok(asked.elapsed())
    }

    /// How the account stands.
    ///
    /// # Errors
    ///
    /// As [`Self::ping`].
    pub async fn account(&self) -> Result<Summary, Error> {
        self.call(Method::AccountSummary, Params::NONE).await
    }

    /// What models the gateway has.
    ///
    /// # Errors
    ///
    /// As [`Self::ping`].
    pub async fn models(&self) -> Result<Models, Error> {
        self.call(Method::Models, Params::NONE).await
    }

    /// How many tokens a body of Anthropic's would be, as the model's own server counts; free.
    ///
    /// # Errors
    ///
    /// As [`Self::ping`], and what the gateway refuses with.
    pub async fn count_tokens(&self, count: &CountTokens) -> Result<TokenCount, Error> {
        let params = Params::new(count).map_err(|said| Error::Gateway(Box::new(said)))?;
        self.call(Method::CountTokens, params).await
    }

    /// This machine's load as last measured; zeros and nothing where it is not.
    #[must_use]
    pub fn vitals(&self) -> Vitals {
        self.shared.vitals.borrow().clone()
    }

    /// The whole report: tunnel, counters, and the account if the gateway can be asked.
    pub async fn status(&self) -> Status {
        let account = self.account().await.ok();
        let standing = self.shared.standing.borrow().clone();
        let uptime = self.shared.began.elapsed();
        Status::new(self.shared.about.clone(), standing, uptime, account)
    }

    /// The network changed (another Wi-Fi, a cable pulled): moves to a new socket at once.
    ///
    /// # Errors
    ///
    /// When the client was closed.
    pub async fn network_changed(&self) -> Result<(), Error> {
        self.order(Order::NetworkChanged).await
    }

    /// Says goodbye to the gateway and waits until that is sent. Answers under way fail.
    pub async fn close(&self) {
        if self.shared.orders.send(Order::Close).await.is_err() {
            return;
        }
        let driver = match self.shared.driver.lock() {
            Ok(mut driver) => driver.take(),
            Err(poisoned) => poisoned.into_inner().take(),
        };
        if let Some(driver) = driver {
            let _ = tokio::time::timeout(GOODBYE, driver).await;
        }
    }

    /// A typed call.
    ///
    /// # Errors
    ///
    /// As [`Self::ping`], and what the gateway refuses with.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        params: Params,
    ) -> Result<T, Error> {
        let raw = self.call_raw(method, params).await?;
        serde_json::from_str(raw.get()).map_err(|error| {
            Error::protocol(format!("the gateway's reply is not understood: {error}"))
        })
    }

    /// A typed call, with its result as it came.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub async fn call_raw(&self, method: Method, params: Params) -> Result<Box<RawValue>, Error> {
        // A call waits for no tunnel: whoever wants one waits with `connected`.
        if !self.shared.standing.borrow().is_connected() {
            return Err(Error::NotConnected {
                doing: method.as_str(),
            });
        }
        let (reply, result) = oneshot::channel();
        self.order(Order::Call {
            method,
            params,
            reply,
        })
        .await?;
        tokio::time::timeout(CALL_TIMEOUT, result)
            .await
            .map_err(|_| Error::Timeout {
                doing: format!("the call {}", method.as_str()),
                secs: CALL_TIMEOUT.as_secs(),
            })?
            .map_err(|_| Error::NotConnected {
                doing: method.as_str(),
            })?
    }

    async fn order(&self, order: Order) -> Result<(), Error> {
        let closed = |_| Error::NotConnected {
            doing: "the client was closed",
        };
        self.shared.orders.send(order).await.map_err(closed)
    }
}

/// Carries measurements to the machine until the client is gone.
async fn feed_vitals(mut measured: watch::Receiver<Vitals>, orders: mpsc::WeakSender<Order>) {
    while measured.changed().await.is_ok() {
        let vitals = measured.borrow_and_update().clone();
        let Some(orders) = orders.upgrade() else {
            return;
        };
        if orders.send(Order::Vitals(vitals)).await.is_err() {
            return;
        }
    }
}
