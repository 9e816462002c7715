//! A model server for tests: a real TCP socket, HTTP/1.1 written by hand so that every byte is the
//! script's, OpenAI's `/v1/chat/completions` and `/v1/models` and Anthropic's `/v1/messages`.
//!
//! ```text
//!   test ──always/once(Behaviour)──▶ queue ─┐
//!   client ──request──▶ connection task ────┴▶ steps (script.rs) ──bytes──▶ client
//!                            │ records requests and events
//!   test ◀──request(n), wait_for(event)─────┘
//! ```
//!
//! # Invariants
//!
//! 1. A request takes the oldest behaviour queued with [`FakeUpstream::once`], else the standing one.
//! 2. Each piece of an answer passes the answer's gate before it is written, so a test decides when
//!    the client sees what.
//! 3. A client that goes away while an answer is under way is noticed at once, at the gate too, and
//!    recorded as [`Event::Disconnected`].

pub(crate) mod http;
mod script;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

pub use self::http::Request;
use self::script::Step;
pub use self::script::{Answer, Behaviour, Dialect, Ending, LineEnds, Usage};

/// What happened to the `n`th request (from 0), in the order in which it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The whole request was read.
    Requested(usize),
    /// The script has come to a closed gate, or hangs.
    Waiting(usize),
    /// A piece of the answer was written.
    Piece(usize),
    /// Everything the script says was written.
    Finished(usize),
    /// The client went away before the script's end.
    Disconnected(usize),
}

/// Holds a script back until the test lets it go on.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn closed() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Lets `pieces` more through.
    pub fn let_through(&self, pieces: usize) {
        self.0.add_permits(pieces);
    }

    /// Lets everything through from now on.
    pub fn open(&self) {
        self.0.close();
    }

    /// Takes a place if one is free.
    fn try_pass(&self) -> bool {
        match self.0.try_acquire() {
            Ok(permit) => {
                permit.forget();
                true
            }
            Err(_) => self.0.is_closed(),
        }
    }

    async fn pass(&self) {
        if let Ok(permit) = self.0.acquire().await {
            permit.forget();
        }
    }
}

#[derive(Debug, Default)]
struct Scripts {
    once: VecDeque<Behaviour>,
    always: Behaviour,
}

#[derive(Debug)]
struct Shared {
    scripts: Mutex<Scripts>,
    requests: Mutex<Vec<Request>>,
    /// Every event so far; a watch, so that a test can wait for the one it needs.
    events: watch::Sender<Vec<Event>>,
}

impl Shared {
    fn report(&self, event: Event) {
        self.events.send_modify(|events| events.push(event));
    }

    fn next_behaviour(&self) -> Behaviour {
        let mut scripts = lock(&self.scripts);
        let next = scripts.once.pop_front();
        next.unwrap_or_else(|| scripts.always.clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The server. Stops when dropped.
#[derive(Debug)]
pub struct FakeUpstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl FakeUpstream {
    /// Listens on an ephemeral loopback port; answers as [`Behaviour::default`] says.
    ///
    /// # Errors
    ///
    /// When the socket cannot be bound.
    pub async fn start() -> io::Result<Self> {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Listens on `address`.
    ///
    /// # Errors
    ///
    /// When the socket cannot be bound.
    pub async fn start_on(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            scripts: Mutex::default(),
            requests: Mutex::default(),
            events: watch::Sender::new(Vec::new()),
        });
        let task = tokio::spawn(accept_all(listener, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            task,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What every request meets that finds nothing queued.
    pub fn always(&self, behaviour: Behaviour) {
        lock(&self.shared.scripts).always = behaviour;
    }

    /// What the next request meets, after what is queued already.
    pub fn once(&self, behaviour: Behaviour) {
        lock(&self.shared.scripts).once.push_back(behaviour);
    }

    /// Every request so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.requests).clone()
    }

    /// The questions so far: what is left of [`Self::requests`] without lists of models and the
    /// like.
    #[must_use]
    pub fn questions(&self) -> Vec<Request> {
        self.requests()
            .into_iter()
            .filter(|r| r.method == "POST")
            .collect()
    }

    /// Every event so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.shared.events.borrow().clone()
    }

    /// Waits until `event` has happened, at once if it has.
    pub async fn wait_for(&self, event: Event) {
        self.wait_until(|events| events.contains(&event)).await;
    }

    /// Waits until the events so far satisfy `satisfied`.
    pub async fn wait_until(&self, mut satisfied: impl FnMut(&[Event]) -> bool) {
        let mut events = self.shared.events.subscribe();
        // The sender lives in `self`, so waiting cannot end in an error.
        let _ = events.wait_for(|events| satisfied(events)).await;
    }
}

impl Drop for FakeUpstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept_all(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve(stream, Arc::clone(&shared)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Serves one connection until either side closes it.
async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let mut unread = BytesMut::new();
    while let Ok(Some(request)) = http::read_request(&mut stream, &mut unread).await {
        let number = {
            let mut requests = lock(&shared.requests);
            requests.push(request.clone());
            requests.len() - 1
        };
        shared.report(Event::Requested(number));
        let steps = match Dialect::of(&request) {
            Some(dialect) => shared.next_behaviour().steps(dialect, &request),
            None => script::aside(&request),
        };
        let mut play = Play {
            stream: &mut stream,
            unread: &mut unread,
            shared: &shared,
            number,
        };
        match play.all(steps).await {
            Ok(true) => shared.report(Event::Finished(number)),
            Ok(false) => {
                shared.report(Event::Finished(number));
                return;
            }
            Err(_) => {
                shared.report(Event::Disconnected(number));
                return;
            }
        }
    }
}

/// One request's script on its way to the client.
struct Play<'a> {
    stream: &'a mut TcpStream,
    unread: &'a mut BytesMut,
    shared: &'a Shared,
    number: usize,
}

impl Play<'_> {
    /// Plays every step; whether the connection stays open. An error means that the client has gone.
    async fn all(&mut self, steps: Vec<Step>) -> io::Result<bool> {
        for step in steps {
            match step {
                Step::Write(bytes) => self.stream.write_all(&bytes).await?,
                Step::Piece(writes) => {
                    for bytes in writes {
                        self.stream.write_all(&bytes).await?;
                        // A turn of the scheduler between writes, so that each leaves as a segment
                        // of its own (Nagle is off).
                        tokio::task::yield_now().await;
                    }
                    self.shared.report(Event::Piece(self.number));
                }
                Step::Pass(gate) => {
                    if !gate.try_pass() {
                        self.shared.report(Event::Waiting(self.number));
                        self.unless_gone(gate.pass()).await?;
                    }
                }
                Step::Hang => {
                    self.shared.report(Event::Waiting(self.number));
                    self.unless_gone(std::future::pending::<()>()).await?;
                }
                Step::Close => return Ok(false),
                Step::Reset => {
                    SockRef::from(&*self.stream).set_linger(Some(std::time::Duration::ZERO))?;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Waits for `event`, or fails as soon as the client has closed its side.
    async fn unless_gone(&mut self, event: impl Future<Output = ()>) -> io::Result<()> {
        tokio::pin!(event);
        loop {
            tokio::select! {
                () = &mut event => return Ok(()),
                read = self.stream.read_buf(self.unread) => {
                    if read? == 0 {
                        return Err(io::ErrorKind::ConnectionAborted.into());
                    }
                }
            }
        }
    }
}
