//! A small Stripe for tests: a real TCP socket, a state of its own, and a clock that a test moves.
//!
//! ```text
//!   gateway ── request ──▶ [fault?] ──▶ endpoints (books.rs) ──▶ [fault?] ──▶ answer
//!   test ── pay, refund, dispute ──▶ the same books ──▶ a Webhook, which the test delivers:
//!                                                       again, late, in another order, changed, never
//! ```
//!
//! # Invariants
//!
//! 1. A request without the right key and version changes nothing.
//! 2. A post said twice under one idempotency key is done once, and refused with other contents.
//! 3. A meter event's identifier is known for a day of the fake's own clock, and forgotten then.

mod books;
mod webhook;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use serde_json::Value;
use socket2::SockRef;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::books::Books;
pub use self::books::{MeterEvent, Standing};
pub use self::webhook::{Webhook, post as post_webhook};
use crate::upstream::Request;
use crate::upstream::http::{read_request, whole};

/// The secret key that requests must show.
pub const SECRET_KEY: &str = "sk_test_canary51StripeKey8d2e";
/// The secret that webhooks are signed with.
pub const WEBHOOK_SECRET: &str = "whsec_canaryWebhookSecret77b1";

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with this status and not done.
    Fails(u16),
    /// It is done, and the connection ends before the answer.
    LosesAnswer,
    /// The connection ends before it is done.
    LosesRequest,
}

#[derive(Debug, Default)]
struct Faults {
    /// Of posts, one each.
    next: VecDeque<Fault>,
    /// Of every request.
    all: Option<Fault>,
}

#[derive(Debug)]
struct Shared {
    books: Mutex<Books>,
    faults: Mutex<Faults>,
    /// Methods and paths of the requests so far.
    requests: watch::Sender<Vec<String>>,
}

/// The server. Stops when dropped.
#[derive(Debug)]
pub struct FakeStripe {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeStripe {
    /// Listens on an ephemeral loopback port.
    ///
    /// # Panics
    ///
    /// When the socket cannot be bound.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await;
        let (listener, address) = match listener.and_then(|l| Ok((l.local_addr()?, l))) {
            Ok((address, listener)) => (listener, address),
            Err(e) => panic!("no socket for Stripe: {e}"),
        };
        let shared = Arc::new(Shared {
            books: Mutex::new(Books::new(address)),
            faults: Mutex::default(),
            requests: watch::Sender::new(Vec::new()),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            task,
        }
    }

    /// What the gateway's `stripe.api_base` is to say.
    #[must_use]
    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next posts go wrong like this, one each.
    pub fn goes_wrong(&self, faults: &[Fault]) {
        lock(&self.shared.faults).next.extend(faults);
    }

    /// Every request goes wrong like this, until it is said otherwise.
    pub fn goes_down(&self, fault: Option<Fault>) {
        lock(&self.shared.faults).all = fault;
    }

    /// Moves the clock on.
    pub fn passes(&self, span: Duration) {
        self.books().ahead += span;
    }

    /// Methods and paths of the requests so far, `GET /v1/…`.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.borrow().clone()
    }

    /// Waits until so many requests to a path that begins like this have been read.
    pub async fn asked(&self, begins: &str, times: usize) {
        let mut requests = self.shared.requests.subscribe();
        let enough = |requests: &Vec<String>| {
            requests
                .iter()
                .filter(|path| path.starts_with(begins))
                .count()
                >= times
        };
        // The sender lives as long as we do.
        let _ = requests.wait_for(enough).await;
    }

    /// Somebody pays a session: the event that Stripe would tell of it.
    ///
    /// # Panics
    ///
    /// When there is no such session, or it cannot be paid.
    pub fn pay(&self, session: &str) -> Webhook {
        let object = self.books().pay(session, Standing::Paid);
        self.event("checkout.session.completed", &object)
    }

    /// Somebody pays with what takes days.
    ///
    /// # Panics
    ///
    /// As [`Self::pay`].
    pub fn pay_slowly(&self, session: &str) -> Webhook {
        let object = self.books().pay(session, Standing::Processing);
        self.event("checkout.session.completed", &object)
    }

    /// What takes days has come, or has failed.
    ///
    /// # Panics
    ///
    /// As [`Self::pay`].
    pub fn bank_says(&self, session: &str, yes: bool) -> Webhook {
        let standing = if yes {
            Standing::Paid
        } else {
            Standing::Failed
        };
        let object = self.books().pay(session, standing);
        let kind = if yes { "succeeded" } else { "failed" };
        self.event(&format!("checkout.session.async_payment_{kind}"), &object)
    }

    /// Nobody has paid in time.
    ///
    /// # Panics
    ///
    /// When there is no such session.
    pub fn expire(&self, session: &str) -> Webhook {
        let object = self.books().pay(session, Standing::Expired);
        self.event("checkout.session.expired", &object)
    }

    /// Changes a field of a session, as nobody should.
    ///
    /// # Panics
    ///
    /// When there is no such session.
    pub fn alter(&self, session: &str, field: &str, value: Value) {
        self.books().session(session)[field] = value;
    }

    /// The operator gives money back: `refund.created`, with the refund in that status.
    ///
    /// # Panics
    ///
    /// When the session was not paid.
    pub fn refund(&self, session: &str, cents: i64, status: &str) -> Webhook {
        let object = self.books().refund(session, cents, status);
        self.event("refund.created", &object)
    }

    /// A refund comes to another status.
    ///
    /// # Panics
    ///
    /// When there is none of that name.
    pub fn refund_becomes(&self, refund: &str, status: &str) -> Webhook {
        let object = self.books().becomes(refund, status);
        self.event("refund.updated", &object)
    }

    /// Whoever paid asks their bank for the money back.
    ///
    /// # Panics
    ///
    /// When the session was not paid.
    pub fn dispute(&self, session: &str, cents: i64) -> Webhook {
        let object = self.books().dispute(session, cents);
        self.event("charge.dispute.created", &object)
    }

    /// A dispute is decided.
    ///
    /// # Panics
    ///
    /// When there is none of that name.
    pub fn dispute_becomes(&self, dispute: &str, status: &str) -> Webhook {
        let object = self.books().becomes(dispute, status);
        self.event("charge.dispute.closed", &object)
    }

    /// The sessions that were made, oldest first: name and cents.
    #[must_use]
    pub fn sessions(&self) -> Vec<(String, i64)> {
        self.books().sessions()
    }

    /// What meters have counted.
    #[must_use]
    pub fn counted(&self) -> Vec<MeterEvent> {
        self.books().counted.clone()
    }

    /// An event about an object.
    #[must_use]
    pub fn event(&self, kind: &str, object: &Value) -> Webhook {
        let mut books = self.books();
        let id = books.name("evt");
        Webhook::new(&id, kind, object, books.now())
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        lock(&self.shared.books)
    }
}

impl Drop for FakeStripe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Seconds since the epoch.
fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, Arc::clone(&shared)));
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut unread = BytesMut::new();
    while let Ok(Some(request)) = read_request(&mut stream, &mut unread).await {
        let line = format!("{} {}", request.method, request.path);
        let fault = {
            let mut faults = lock(&shared.faults);
            let posted = request.method == "POST";
            let next = if posted {
                faults.next.pop_front()
            } else {
                None
            };
            faults.all.or(next)
        };
        let answer = match fault {
            Some(Fault::LosesRequest) => None,
            Some(Fault::Fails(status)) => Some((status, error("api_error", "scripted"))),
            Some(Fault::LosesAnswer) => {
                let _done = answer(&shared, &request);
                None
            }
            None => Some(answer(&shared, &request)),
        };
        shared.requests.send_modify(|requests| requests.push(line));
        let Some((status, body)) = answer else {
            // A reset, so that the client notices at once.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            return;
        };
        let reply = whole(status, &[], &body.to_string());
        if stream.write_all(&reply).await.is_err() {
            return;
        }
    }
}

fn answer(shared: &Shared, request: &Request) -> (u16, Value) {
    if request.header("authorization") != Some(&format!("Bearer {SECRET_KEY}")) {
        return (
            401,
            error("invalid_request_error", "Invalid API Key provided"),
        );
    }
    if request.header("stripe-version").is_none() {
        return (400, error("invalid_request_error", "which version?"));
    }
    lock(&shared.books).answer(request)
}

fn error(kind: &str, message: &str) -> Value {
    serde_json::json!({"error": {"type": kind, "message": message}})
}
