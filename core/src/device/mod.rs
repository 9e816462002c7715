//! The device's root machine: one tunnel, the questions asked through it, and the QUIC below.
//!
//! ```text
//!   commands ─▶ questions, calls ─┐            ┌─ tunnel (states, heart, backoff)
//!                                 ▼            ▼
//!                              links: one per attempt and the session it became
//!                                 │   (addresses tried in turn, control stream)
//!                                 ▼
//!   datagrams ◀──────────────▶ transport
//! ```
//!
//! * `link`: an attempt's addresses, connections and control stream.
//! * `asked`: what is under way, each on its stream; `question`: how a question outlives a tunnel;
//!   `cancel`: how it is stopped; `keep`, [`unfinished`]: how it outlives the device's process;
//!   `calls`: typed calls.
//! * [`status`]: how it fares, for whoever asks; [`control`]: how other programs ask;
//!   [`endpoint`]: who may use the local HTTP endpoint, and for what.
//!
//! # Invariants
//!
//! 1. Every question and every call has exactly one last event.
//! 2. What is asked before the tunnel is up waits, bounded in number and time, and is sent once; a
//!    question whose tunnel is lost waits likewise, and goes on where it was.
//! 3. Text of an answer is handed out in order, each piece once, and never more than was sent.
//! 4. A frame on the wrong stream or in the wrong direction ends what it is on, never the machine.
//! 5. What is private in a question is hidden before it is encoded, and what it was stays here.
//! 6. What a question has so far is said often enough for it to outlive the process
//!    ([`Output::Keep`]), and what is said of it is enough for another process to go on.
//! 7. At most one attempt dials, and of its connections the first to complete wins.

mod asked;
mod calls;
mod cancel;
pub mod control;
mod course;
pub mod endpoint;
mod inflow;
mod keep;
mod link;
pub mod local;
mod question;
pub mod route;
pub mod status;
pub mod terms;
#[cfg(test)]
mod tests;
pub mod unfinished;
mod words;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::{Duration, Instant};

use self::asked::Lane;
use self::calls::AskedCall;
use self::course::Course;
use self::keep::{Pace, Shelved};
use self::link::Link;
use self::question::Question;
pub use self::terms::Terms;
pub use self::words::{AnswerEvent, AskError, Input, Output, Rejected};
use crate::buggify;
use crate::buggify::Buggify;
use crate::heartbeat::Traffic;
use crate::ids::{DeviceId, RequestId};
use crate::limits;
use crate::machine::{Machine, RootMachine};
use crate::privacy::Policy;
use crate::rng::Seed;
use crate::time::{Monotonic, Now, UnixMillis, earliest};
use crate::transport::{self, ConnId, Datagram, StreamId, Transmit, Transport};
use crate::tunnel::{self, Tunnel};
pub use crate::tunnel::{AttemptId, Attempts, Failure, State, Why};
use crate::vitals;
use crate::wire::close::CloseCode;
use crate::wire::message::{Notice, Vitals};

/// What a device is made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its id, which its certificate names too.
    pub device_id: DeviceId,
    /// Program and version, told to the gateway.
    pub agent: String,
    /// How often a lost session is tried to be had back.
    pub attempts: Attempts,
    /// What of a question stays on the device.
    pub privacy: Policy,
    /// What else its owner may set.
    pub terms: Terms,
}

/// Counters of the device's life, over all its sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// UDP payload bytes sent.
    pub sent_bytes: u64,
    /// UDP payload bytes received.
    pub received_bytes: u64,
    /// Heartbeats sent.
    pub heartbeats_sent: u64,
    /// Heartbeats acknowledged.
    pub heartbeats_acked: u64,
    /// Questions sent.
    pub requests_sent: u64,
    /// Questions answered.
    pub requests_succeeded: u64,
    /// Questions that failed.
    pub requests_failed: u64,
    /// How often the tunnel came back.
    pub reconnections: u64,
    /// Smoothed round-trip time of the session in use.
    pub rtt: Option<Duration>,
    /// How long the last handshake took.
    pub handshake: Option<Duration>,
    /// When the last pre-warm signal went out.
    pub prewarmed_at: Option<UnixMillis>,
    /// The number of the last session.
    pub epoch: Option<u64>,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Device<T> {
    transport: T,
    config: Config,
    clock: Monotonic,
    tunnel: Tunnel,
    links: BTreeMap<AttemptId, Link>,
    course: Course,
    /// Which attempt a connection belongs to.
    conns: BTreeMap<ConnId, AttemptId>,
    /// Bytes sent and received on each of `conns` when last looked: one that is over tells no more.
    meters: BTreeMap<ConnId, (u64, u64)>,
    questions: BTreeMap<RequestId, Question>,
    calls: BTreeMap<u64, AskedCall>,
    lanes: BTreeMap<(ConnId, StreamId), Lane>,
    /// Questions and calls that wait for a session or for a stream, in their order.
    waiting: VecDeque<Lane>,
    /// Questions whose tunnel was lost in this step.
    newly_cut: Vec<RequestId>,
    /// Kept, and not under way.
    shelf: BTreeMap<RequestId, Shelved>,
    pace: Pace,
    /// Something worth keeping happened in this step.
    touched: bool,
    /// What nobody was there to be told.
    unheard: Option<Notice>,
    /// The last that were told, the newest first.
    notices: VecDeque<Notice>,
    vitals: Vitals,
    stats: Stats,
    outputs: VecDeque<Output>,
    stopping: bool,
    buggify: Buggify,
}

impl<T: Transport> Device<T> {
    /// A device that is not connected.
    pub fn new(transport: T, config: Config, seed: &Seed) -> Self {
        let tunnel = Tunnel::new(config.attempts, &seed.child("tunnel"))
            .with_silence(config.terms.silence)
            .with_beats(config.terms.beat_max);
        Self {
            transport,
            config,
            clock: Monotonic::default(),
            tunnel,
            links: BTreeMap::new(),
            course: Course::default(),
            conns: BTreeMap::new(),
            meters: BTreeMap::new(),
            questions: BTreeMap::new(),
            calls: BTreeMap::new(),
            lanes: BTreeMap::new(),
            waiting: VecDeque::new(),
            newly_cut: Vec::new(),
            shelf: BTreeMap::new(),
            pace: Pace::default(),
            touched: false,
            unheard: None,
            notices: VecDeque::new(),
            vitals: Vitals::default(),
            stats: Stats::default(),
            outputs: VecDeque::new(),
            stopping: false,
            buggify: Buggify::new(&seed.child("device")),
        }
    }

    /// The tunnel's state.
    #[must_use]
    pub fn state(&self) -> State {
        self.tunnel.state()
    }

    /// Counters, with those of the sessions that live. None ever goes back.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = self.stats;
        for (sent, received) in self.meters.values() {
            stats.sent_bytes += sent;
            stats.received_bytes += received;
        }
        for link in self.links.values() {
            stats.heartbeats_sent += link.beats.0;
            stats.heartbeats_acked += link.beats.1;
        }
        if let Some((attempt, _)) = self.tunnel.session() {
            let conn = self.links.get(&attempt).and_then(Link::conn);
            stats.rtt = conn
                .and_then(|conn| self.transport.stats(conn))
                .map(|live| live.rtt);
        }
        stats
    }

    /// Questions that have not had their last event.
    #[must_use]
    pub fn questions_under_way(&self) -> usize {
        self.questions.len()
    }

    /// Tells the tunnel and carries out what it says. What it rejects is passed on.
    fn tell_tunnel(&mut self, now: Now, input: tunnel::Input<'_>) -> Result<(), tunnel::Rejected> {
        self.tunnel.handle_input(now, input)?;
        self.keep_heart_counts();
        while let Some(output) = self.tunnel.poll_output() {
            self.tunnel_says(now, output);
        }
        Ok(())
    }

    /// What a tunnel that was told in passing would reject cannot happen: it is drained each time.
    fn note_tunnel(&mut self, now: Now, input: tunnel::Input<'_>) {
        let _never = self.tell_tunnel(now, input);
    }

    /// A heart that ends takes its counts with it: remember them after its every step.
    fn keep_heart_counts(&mut self) {
        if let Some((attempt, heart)) = self.tunnel.session()
            && let Some(link) = self.links.get_mut(&attempt)
        {
            link.beats = (heart.sent(), heart.acked());
        }
    }

    fn tunnel_says(&mut self, now: Now, output: tunnel::Output) {
        match output {
            tunnel::Output::StartAttempt { attempt, .. } => {
                let alternate = self.course.next().map(ToOwned::to_owned);
                self.links.insert(attempt, Link::new(alternate.is_some()));
                self.outputs
                    .push_back(Output::Resolve { attempt, alternate });
            }
            tunnel::Output::AbandonAttempt { attempt } => self.abandon(now, attempt),
            tunnel::Output::Rebind => self.outputs.push_back(Output::Rebind),
            tunnel::Output::Changed { from, to, why } => self.changed(now, from, to, why),
            tunnel::Output::Doubt(doubt) => self.outputs.push_back(Output::Doubt(doubt)),
            tunnel::Output::SendHeartbeat { attempt, sequence } => {
                self.send_heartbeat(now, attempt, sequence);
            }
            tunnel::Output::Probe { attempt } => {
                if let Some(conn) = self.links.get(&attempt).and_then(Link::conn) {
                    self.transport.probe(now, conn);
                }
            }
            tunnel::Output::SendPrewarm { attempt, strain } => {
                self.stats.prewarmed_at = Some(now.wall);
                self.send_prewarm(now, attempt, &strain.to_string());
            }
        }
    }

    fn changed(&mut self, now: Now, from: State, to: State, why: Why) {
        if matches!(
            (from, to),
            (State::Reconnecting { .. }, State::Connected { .. })
        ) {
            self.stats.reconnections += 1;
        }
        if matches!(why, Why::Failed(_))
            && matches!(from, State::Connecting | State::Reconnecting { .. })
        {
            self.course.failed();
        }
        let failure = match &why {
            Why::Failed(failure) => Some(failure.clone()),
            Why::Asked
            | Why::Established
            | Why::Answered
            | Why::Silent
            | Why::AskedToMove
            | Why::NetworkChanged => None,
        };
        self.outputs.push_back(Output::Changed { from, to, why });
        if matches!(to, State::Disconnected | State::Failed) {
            self.refuse_waiting(failure.as_ref());
        }
        if to == State::Connecting {
            self.unpark(now);
        }
        if matches!(to, State::Connected { .. }) {
            self.send_waiting(now);
        }
    }

    /// After every input: what the transport has heard, then the timers, then what came of them.
    /// In this order, so that an answer that arrived in time is not called missing.
    fn settle_step(&mut self, now: Now) {
        self.drain_transport(now);
        self.tell_traffic(now);
        self.note_tunnel(now, tunnel::Input::Timeout);
        self.dial_due(now);
        self.expire(now);
        if !self.waiting.is_empty() {
            self.send_waiting(now);
        }
        self.drain_transport(now);
        self.tell_cuts();
        self.read_meters();
        let stopped = self.stopping && self.conns.is_empty();
        self.keep(now, stopped);
        if stopped {
            self.stopping = false;
            self.outputs.push_back(Output::Stopped);
        }
    }

    /// Until nothing moves.
    fn drain_transport(&mut self, now: Now) {
        loop {
            self.transport.flush(now);
            let Some(event) = self.transport.poll_event() else {
                break;
            };
            self.transport_event(now, event);
        }
    }

    fn read_meters(&mut self) {
        for &conn in self.conns.keys() {
            if let Some(live) = self.transport.stats(conn) {
                let bytes = (live.sent_bytes, live.received_bytes);
                self.meters.insert(conn, bytes);
            }
        }
    }

    /// A connection is over: its bytes stay counted.
    fn close_meter(&mut self, conn: ConnId) {
        if let Some((sent, received)) = self.meters.remove(&conn) {
            self.stats.sent_bytes += sent;
            self.stats.received_bytes += received;
        }
    }

    /// The tunnel's suspicion lives on what the transport has heard.
    fn tell_traffic(&mut self, now: Now) {
        let wanted = !self.waiting.is_empty();
        let mut next = self.links.keys().next().copied();
        while let Some(attempt) = next {
            if let Some(traffic) = self.traffic_of(attempt) {
                let input = tunnel::Input::Traffic {
                    attempt,
                    traffic,
                    busy: self.is_busy(attempt),
                    wanted,
                };
                self.note_tunnel(now, input);
            }
            // Telling it may have ended some of them.
            let after = (Bound::Excluded(attempt), Bound::Unbounded);
            next = self.links.range(after).next().map(|(&later, _)| later);
        }
    }

    /// Whether anything is under way on the session that an attempt became.
    fn is_busy(&self, attempt: AttemptId) -> bool {
        let Some(conn) = self.links.get(&attempt).and_then(Link::conn) else {
            return false;
        };
        let streams = (conn, StreamId(0))..=(conn, StreamId(u64::MAX));
        self.lanes.range(streams).next().is_some()
    }

    fn traffic_of(&self, attempt: AttemptId) -> Option<Traffic> {
        let link = self
            .links
            .get(&attempt)
            .filter(|link| link.is_established())?;
        let live = self.transport.stats(link.conn()?)?;
        Some(Traffic {
            last_received: live.last_received,
            in_flight: live.in_flight,
            rtt: live.rtt,
        })
    }

    fn transport_event(&mut self, now: Now, event: transport::Event) {
        match event {
            transport::Event::Connected {
                conn, handshake, ..
            } => self.connected(now, conn, handshake),
            transport::Event::Closed { conn, reason } => self.closed(now, conn, &reason),
            transport::Event::Readable { conn, stream } => self.read(now, conn, stream),
            transport::Event::StreamsAvailable { .. } => self.send_waiting(now),
            transport::Event::Stopped { conn, stream, .. } => self.stopped(now, conn, stream),
            // A gateway opens no stream and is connected to, never the other way round.
            transport::Event::Incoming { conn, .. } => self.transport.refuse(now, conn),
            transport::Event::Opened { conn, stream } => {
                self.transport
                    .stop(conn, stream, CloseCode::Protocol.as_u32());
            }
            transport::Event::Writable { .. } | transport::Event::Finished { .. } => {}
        }
    }

    fn stop(&mut self, now: Now) {
        self.stopping = true;
        self.forget_cancelled();
        self.note_tunnel(now, tunnel::Input::Disconnect);
    }

    fn try_input(&mut self, now: Now, input: Input) -> Result<(), Rejected> {
        match input {
            Input::Datagram(datagram) => self.transport.handle_datagram(now, datagram),
            Input::Timeout => self.transport.handle_timeout(now),
            Input::Connect => {
                self.tell_tunnel(now, tunnel::Input::Connect).map_err(
                    |rejected| match rejected {
                        tunnel::Rejected::Backlog => Rejected::Backlog,
                        tunnel::Rejected::AlreadyUp => Rejected::AlreadyUp,
                    },
                )?;
            }
            Input::Disconnect => self.note_tunnel(now, tunnel::Input::Disconnect),
            Input::NetworkChanged => self.note_tunnel(now, tunnel::Input::NetworkChanged),
            Input::Woke { asleep } => self.note_tunnel(now, tunnel::Input::Woke { asleep }),
            Input::Vitals(vitals) => {
                vitals::validate(&vitals)?;
                self.note_tunnel(now, tunnel::Input::Vitals(&vitals));
                self.vitals = vitals;
            }
            Input::Escalate(request) => self.escalate(now, request),
            Input::Cancel(request) => self.cancel(now, request),
            Input::Pause(request) => self.pause(request),
            Input::Unpause(request) => self.unpause(now, request),
            Input::Call { id, method, params } => {
                if self.calls.contains_key(&id) {
                    return Err(Rejected::DuplicateCall);
                }
                self.call(now, id, method, params);
            }
            Input::Resolved { attempt, result } => self.resolved(now, attempt, result),
            Input::Restore(unfinished) => self.restore(now, unfinished),
            Input::Attach(request) => self.attach(now, request),
            Input::Taken(request) => self.taken(request),
            Input::Stop => self.stop(now),
        }
        Ok(())
    }
}

impl<T: Transport> Machine for Device<T> {
    type Input<'a> = Input;
    type Output = Output;
    type Rejected = Rejected;

    fn handle_input(&mut self, now: Now, input: Input) -> Result<(), Rejected> {
        if self.outputs.len() >= limits::OUTPUT_BACKLOG_MAX {
            return Err(Rejected::Backlog);
        }
        let now = self.clock.clamp(now);
        self.try_input(now, input)?;
        self.settle_step(now);
        if buggify!(self.buggify, "device: it wakes without a reason") {
            self.transport.handle_timeout(now);
            self.settle_step(now);
        }
        Ok(())
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let dial = self.links.values().filter_map(Link::next_dial).min();
        let keep = self.next_keep().map(|at| (at, "what is to be kept"));
        let dial = dial.map(|at| (at, "the next address"));
        let own = earliest(earliest(dial, keep), self.next_expiry());
        let below = earliest(self.tunnel.poll_timeout(), self.transport.poll_timeout());
        earliest(own, below)
    }
}

impl<T: Transport> RootMachine for Device<T> {
    /// With a backlog of outputs the datagram is dropped, as a full socket would.
    fn handle_datagram(&mut self, now: Now, datagram: Datagram) {
        let _dropped = self.handle_input(now, Input::Datagram(datagram));
    }

    fn handle_datagrams(&mut self, now: Now, datagrams: impl Iterator<Item = Datagram>) {
        if self.outputs.len() >= limits::OUTPUT_BACKLOG_MAX {
            return;
        }
        let now = self.clock.clamp(now);
        for datagram in datagrams {
            self.transport.handle_datagram(now, datagram);
        }
        self.settle_step(now);
    }

    fn handle_timeout(&mut self, now: Now) {
        let _postponed = self.handle_input(now, Input::Timeout);
    }

    fn handle_rebind(&mut self, now: Now) {
        let now = self.clock.clamp(now);
        self.transport.handle_rebind(now);
        self.settle_step(now);
    }

    fn poll_transmit(&mut self, now: Now, buf: &mut Vec<u8>) -> Option<Transmit> {
        let now = self.clock.clamp(now);
        let transmit = self.transport.poll_transmit(now, buf);
        if transmit.is_some() {
            self.read_meters();
        }
        transmit
    }
}
