//! The world: devices and gateways as they are in production, on a virtual clock.
//!
//! ```text
//!   queue ─▶ datagram, timer, happening, word of the outside world
//!              │
//!              ▼                                     ┌─▶ record ─▶ invariants
//!           one node's step ─▶ outputs ─▶ carried out ┤
//!              │                                     └─▶ trace
//!              ▼
//!           datagrams ─▶ pipes (loss, delay, …) ─▶ queue
//! ```
//!
//! * `device`, `gateway`: a node's step and what its outputs lead to.
//! * `happen`: what a plan lets happen, and the healing.
//! * `recall`: answers that outlive their gateway.
//! * `rates`: how much is asked, and what is refused for that.
//! * `money`: orders, the gateways' regular work on accounts, and who watches the ledgers.
//!
//! There are no threads. The first invariant that does not hold stops the run.

mod device;
mod disk;
mod drain;
mod gateway;
mod happen;
mod money;
mod observe;
mod rates;
mod recall;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use mesh_core::gateway::AskId;
use mesh_core::ids::{AccountId, DeviceId, RequestId};
use mesh_core::machine::RootMachine;
use mesh_core::time::{Now, UnixMillis};
use mesh_core::transport::{Datagram, Transmit};

use self::device::DeviceNode;
use self::gateway::{GatewayNode, StoreJob};
use self::money::Watch;
use self::recall::Recalls;
use crate::chance::{Chance, seed_of};
use crate::invariants::{self, Seen};
use crate::outside::store::Store;
use crate::outside::upstream::Call;
use crate::plan::Plan;
use crate::queue::{Micros, Queue, SECOND};
use crate::record::{Record, TunnelRecord, Violation};
use crate::recorder::Recorder;
use crate::sometimes::Sometimes;
use crate::trace::Trace;
use crate::wire::certificates::Authority;
use crate::wire::{Unbuildable, Wire};

/// From the healing on, so long until every tunnel must be back: the longest backoff, an attempt, and
/// what a resolver and a handshake take.
const BACK_WITHIN: Micros = 80 * SECOND;
/// From then on, so long until everything must be at rest: a settle's longest pause, a store's
/// deadline, a device's patience with the last question (its own and its grace), and idle sessions
/// that nobody closed.
const AT_REST_WITHIN: Micros = 200 * SECOND;

/// One end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Gateway(usize),
    Device(usize),
}

impl End {
    fn number(self) -> u64 {
        match self {
            Self::Gateway(at) => at as u64,
            Self::Device(at) => 1000 + at as u64,
        }
    }
}

/// What the queue holds.
#[derive(Debug)]
enum Event {
    Datagram {
        to: End,
        /// The sender as the receiver sees it, and the port it is sent to.
        from: SocketAddr,
        port: u16,
        bytes: Bytes,
    },
    Timer(End),
    Happening(usize),
    Undo(usize),
    Heal,
    /// A device asks whether all is well again, or everyone does.
    Probe(Option<usize>),
    StoreDone(Box<StoreJob>),
    /// A gateway looks after the accounts.
    Rounds(usize),
    Upstream(u64),
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The digest of everything that happened.
    pub digest: String,
    /// Virtual time, µs.
    pub virtual_us: Micros,
    /// Events of the queue.
    pub events: u64,
    /// Datagrams sent.
    pub datagrams: u64,
    /// Questions asked.
    pub questions: usize,
    /// Questions answered to their end.
    pub answered: usize,
    /// The first invariant that did not hold.
    pub violation: Option<Violation>,
    /// Rare states.
    pub sometimes: Sometimes,
}

/// See the module documentation.
#[derive(Debug)]
pub struct World<W: Wire> {
    plan: Plan,
    origin: Instant,
    queue: Queue<Event>,
    trace: Trace,
    authority: Authority,
    devices: Vec<DeviceNode<W>>,
    gateways: Vec<GatewayNode<W>>,
    store: Store,
    money: Watch,
    recalls: Recalls,
    store_chance: Chance,
    store_slow: (Micros, Micros),
    store_broken_until: Micros,
    upstream_chance: Chance,
    calls: BTreeMap<u64, Call>,
    by_ask: BTreeMap<(usize, u32, AskId), u64>,
    next_call: u64,
    healed: bool,
    record: Record,
    probes: Vec<(usize, RequestId)>,
    sometimes: Sometimes,
    violation: Option<Violation>,
    datagrams: u64,
    buf: Vec<u8>,
    recorder: Option<Box<Recorder>>,
}

impl<W: Wire> World<W> {
    /// The world of a plan, with every note kept if `whole_trace`.
    ///
    /// # Errors
    ///
    /// [`Unbuildable`] when certificates or configurations cannot be made, or the plan names what is
    /// not there.
    pub fn new(plan: Plan, whole_trace: bool) -> Result<Self, Unbuildable> {
        Self::with_recorder(plan, whole_trace, None)
    }

    fn with_recorder(
        plan: Plan,
        whole_trace: bool,
        recorder: Option<Box<Recorder>>,
    ) -> Result<Self, Unbuildable> {
        let seed = plan.seed;
        let mut world = Self {
            origin: origin(),
            queue: Queue::default(),
            trace: Trace::new(whole_trace),
            authority: Authority::new(&seed_of(seed, "authority"))?,
            devices: Vec::new(),
            gateways: Vec::new(),
            store: Store::default(),
            money: Watch::new(seed)?,
            recalls: Recalls::default(),
            store_chance: Chance::of(seed, "store", "delay"),
            store_slow: (0, 0),
            store_broken_until: 0,
            upstream_chance: Chance::of(seed, "upstream", "delay"),
            calls: BTreeMap::new(),
            by_ask: BTreeMap::new(),
            next_call: 0,
            healed: false,
            record: Record {
                kept: Micros::from(plan.kept_secs) * SECOND,
                rates: crate::record::rates::Rates::new(plan.rates),
                ..Record::default()
            },
            probes: Vec::new(),
            sometimes: Sometimes::default(),
            violation: None,
            datagrams: 0,
            buf: Vec::new(),
            recorder,
            plan,
        };
        for account in 0..world.plan.ceilings.len() {
            let ceiling = world.plan.ceilings[account];
            world
                .store
                .open(account_id(account), ceiling, UnixMillis(world.plan.wall_ms))
                .map_err(Unbuildable)?;
        }
        for gateway in 0..world.plan.gateways as usize {
            world.gateways.push(GatewayNode::default());
            world.start_gateway(gateway)?;
            world.queue.put(money::ROUNDS_EVERY, Event::Rounds(gateway));
        }
        for device in 0..world.plan.devices.len() {
            let node = DeviceNode::new(&world.plan, &world.authority, device)?;
            world.store.enrol(
                device_id(device),
                account_id(world.plan.devices[device].account),
                node.fingerprint(),
            );
            world.devices.push(node);
            world.record.tunnels.push(TunnelRecord::default());
            world.start_device(device)?;
        }
        for (index, timed) in world.plan.happenings.iter().enumerate() {
            world.queue.put(timed.at, Event::Happening(index));
        }
        let healing = world.plan.faults_until;
        world.queue.put(healing, Event::Heal);
        world.put_probes(healing + BACK_WITHIN);
        Ok(world)
    }

    /// Runs to the end, or to the first invariant that does not hold.
    ///
    /// # Errors
    ///
    /// [`Unbuildable`] when a node cannot be started anew.
    pub fn run(&mut self) -> Result<Finished, Unbuildable> {
        let end = self.plan.faults_until + BACK_WITHIN + self.probes_take() + AT_REST_WITHIN;
        while self.violation.is_none() {
            let Some(event) = self.queue.take(end) else {
                self.check_end();
                break;
            };
            self.step(event)?;
        }
        Ok(self.finished())
    }

    /// Runs for so long without looking at the end.
    ///
    /// # Errors
    ///
    /// [`Unbuildable`].
    pub fn run_for(&mut self, span: Micros) -> Result<Finished, Unbuildable> {
        let end = self.queue.now() + span;
        while self.violation.is_none()
            && let Some(event) = self.queue.take(end)
        {
            self.step(event)?;
        }
        Ok(self.finished())
    }

    /// Bytes that a device sent and received, UDP payload; zero while its process is dead.
    #[must_use]
    pub fn device_bytes(&self, device: usize) -> u64 {
        let node = self.devices.get(device);
        let machine = node.and_then(|node| node.machine.as_ref());
        machine.map_or(0, |machine| {
            let stats = machine.stats();
            stats.sent_bytes + stats.received_bytes
        })
    }

    /// Devices that have a session.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.record
            .tunnels
            .iter()
            .filter(|tunnel| tunnel.is_up())
            .count()
    }

    /// What happened last, and everything if it was kept.
    #[must_use]
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// What is known of the run.
    #[must_use]
    pub const fn record(&self) -> &Record {
        &self.record
    }

    fn finished(&self) -> Finished {
        let questions = &self.record.questions;
        let answered = |asked: &&crate::record::Asked| {
            matches!(asked.outcome, Some(crate::record::Outcome::Answered { .. }))
        };
        Finished {
            digest: self.trace.digest(),
            virtual_us: self.queue.now(),
            events: self.queue.taken(),
            datagrams: self.datagrams,
            questions: questions.len(),
            answered: questions.values().filter(answered).count(),
            violation: self.violation.clone(),
            sometimes: self.sometimes.clone(),
        }
    }

    fn step(&mut self, event: Event) -> Result<(), Unbuildable> {
        match event {
            Event::Datagram {
                to,
                from,
                port,
                bytes,
            } => self.deliver(to, from, port, bytes),
            Event::Timer(end) => self.timer(end),
            Event::Happening(index) => {
                let what = self.plan.happenings[index].what.clone();
                self.happen(index, &what)?;
            }
            Event::Undo(index) => {
                let what = self.plan.happenings[index].what.clone();
                self.undo(index, &what)?;
            }
            Event::Heal => self.heal()?,
            Event::Probe(device) => self.probe(device),
            Event::StoreDone(job) => self.store_done(*job),
            Event::Rounds(gateway) => self.rounds(gateway),
            Event::Upstream(call) => self.upstream(call),
        }
        if self.recorder.is_some() {
            self.look_around();
        }
        Ok(())
    }

    fn deliver(&mut self, to: End, from: SocketAddr, port: u16, bytes: Bytes) {
        self.record_arrival(to, port);
        let datagram = Datagram {
            remote: from,
            local_ip: None,
            ecn: None,
            // Copied only where the link made two of it.
            data: bytes
                .try_into_mut()
                .unwrap_or_else(|shared| BytesMut::from(&shared[..])),
        };
        match to {
            End::Gateway(at) => self.gateway_datagram(at, datagram),
            End::Device(at) => self.device_datagram(at, port, datagram),
        }
    }

    fn timer(&mut self, end: End) {
        match end {
            End::Gateway(at) => self.gateway_timer(at),
            End::Device(at) => self.device_timer(at),
        }
    }

    /// Puts a transmit's datagrams on their way.
    fn send(&mut self, from: End, transmit: Transmit, bytes: &[u8]) {
        let now = self.queue.now();
        let segment = transmit.segment_size.unwrap_or(transmit.size).max(1);
        for datagram in bytes[..transmit.size].chunks(segment) {
            self.datagrams += 1;
            match from {
                End::Device(at) => {
                    let Some(to) = gateway_at(transmit.remote) else {
                        continue;
                    };
                    let node = &mut self.devices[at];
                    let seen_as = device_address(at, node.nat.out(now));
                    let passage = node.up.carry(now, datagram.len());
                    self.carry(from, End::Gateway(to), seen_as, 0, passage, datagram);
                }
                End::Gateway(at) => {
                    let Some(to) = device_at(transmit.remote) else {
                        continue;
                    };
                    let Some(node) = self.devices.get_mut(to) else {
                        continue;
                    };
                    let passage = node.down.carry(now, datagram.len());
                    let port = transmit.remote.port();
                    let seen_as = gateway_address(at);
                    self.carry(from, End::Device(to), seen_as, port, passage, datagram);
                }
            }
        }
    }

    fn carry(
        &mut self,
        from: End,
        to: End,
        seen_as: SocketAddr,
        port: u16,
        passage: Result<crate::net::Passage, crate::net::Lost>,
        datagram: &[u8],
    ) {
        let now = self.queue.now();
        self.trace
            .datagram(now, from.number(), to.number(), datagram);
        if let Some(recorder) = &mut self.recorder {
            recorder.sent(now, from.into(), to.into(), datagram.len(), passage);
        }
        let Ok(passage) = passage else { return };
        let mut bytes = BytesMut::from(datagram);
        if let Some(bit) = passage.damaged_bit {
            let byte = usize::try_from(bit / 8).unwrap_or_default();
            if let Some(byte) = bytes.get_mut(byte) {
                *byte ^= 1 << (bit % 8);
            }
        }
        let bytes = bytes.freeze();
        for at in [Some(passage.at), passage.again].into_iter().flatten() {
            let event = Event::Datagram {
                to,
                from: seen_as,
                port,
                bytes: bytes.clone(),
            };
            self.queue.put(at, event);
        }
    }

    /// Tells the invariants; the first that does not hold ends the run.
    fn see(&mut self, seen: &Seen<'_>) {
        if self.violation.is_none()
            && let Err(violation) = invariants::check(&self.record, self.queue.now(), seen)
        {
            self.note("invariant", format!("BROKEN: {}", violation.invariant));
            self.violation = Some(violation);
        }
    }

    fn note(&mut self, who: impl Into<String>, what: impl Into<String>) {
        self.trace.note(self.queue.now(), who, what);
    }

    fn wall(&self) -> UnixMillis {
        UnixMillis(self.plan.wall_ms + self.queue.now() / 1000)
    }

    /// Both clocks of a node that has slept `slept` µs and whose wall clock is `skew_ms` off.
    fn now_of(&self, slept: Micros, skew_ms: i64) -> Now {
        let awake = self.queue.now().saturating_sub(slept);
        Now {
            instant: self.origin + Duration::from_micros(awake),
            wall: UnixMillis(self.wall().0.saturating_add_signed(skew_ms)),
        }
    }

    /// A node's deadline as virtual time, never before the next microsecond: a timer that is due
    /// again at once would hold the world.
    fn due_at(&self, deadline: Instant, slept: Micros) -> Micros {
        let nanos = deadline.saturating_duration_since(self.origin).as_nanos();
        let micros = u64::try_from(nanos.div_ceil(1000)).unwrap_or(u64::MAX);
        micros.saturating_add(slept).max(self.queue.now() + 1)
    }

    /// Sends whatever the machine of an end has to send.
    fn send_all<M: RootMachine>(
        &mut self,
        end: End,
        now: Now,
        machine: impl Fn(&mut Self) -> Option<&mut M>,
    ) {
        let mut buf = std::mem::take(&mut self.buf);
        buf.clear();
        while let Some(transmit) =
            machine(self).and_then(|machine| machine.poll_transmit(now, &mut buf))
        {
            self.send(end, transmit, &buf);
            buf.clear();
        }
        self.buf = buf;
    }

    /// Re-arms a node's one timer entry when its deadline has moved earlier.
    fn arm(
        &mut self,
        end: End,
        deadline: Option<Instant>,
        slept: Micros,
        armed: Option<Micros>,
    ) -> Option<Micros> {
        let Some(deadline) = deadline else {
            return armed;
        };
        let due = self.due_at(deadline, slept);
        if armed.is_some_and(|armed| armed <= due) {
            return armed;
        }
        self.queue.put(due, Event::Timer(end));
        Some(due)
    }

    fn check_end(&mut self) {
        let connected: Vec<bool> = self
            .record
            .tunnels
            .iter()
            .map(TunnelRecord::is_up)
            .collect();
        let banned: Vec<bool> = self.devices.iter().map(|node| node.banned).collect();
        let machines = || {
            self.gateways
                .iter()
                .filter_map(|node| node.machine.as_ref())
        };
        let end = invariants::at_end::End {
            record: &self.record,
            store: &self.store,
            banned: &banned,
            under_way: machines().map(|gateway| gateway.answers_under_way()).sum(),
            sessions: machines().map(|gateway| gateway.sessions()).sum(),
            connected: connected.iter().filter(|&&up| up).count(),
            probes: &self.probes,
        };
        let judged = invariants::at_end::check(&end);
        if let Err(violation) = judged.and_then(|()| self.judge_money()) {
            self.violation = Some(violation);
        }
    }
}

/// The one moment taken from the system: instants have no other beginning. Nothing but spans from it
/// is ever looked at.
fn origin() -> Instant {
    Instant::now()
}

fn account_id(index: usize) -> AccountId {
    AccountId::from_u128(1 + index as u128)
}

fn device_id(index: usize) -> DeviceId {
    DeviceId::from_u128(1 + index as u128)
}

fn request_id(question: u64) -> RequestId {
    RequestId::from_u128(u128::from(question))
}

const GATEWAY_PORT: u16 = 4443;

/// What devices are told to go to when they are sent to this gateway.
fn alternate_name(index: usize) -> String {
    format!("gateway-{index}:4443")
}

fn gateway_address(index: usize) -> SocketAddr {
    let number = u32::try_from(index).unwrap_or_default();
    let ip = Ipv4Addr::from(0x0A00_0001 + number);
    SocketAddr::new(IpAddr::V4(ip), GATEWAY_PORT)
}

/// 100.x.y.z with the device's number in 24 bits, as its translator shows it.
fn device_address(index: usize, port: u16) -> SocketAddr {
    let number = u32::try_from(index).unwrap_or_default();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from(0x6400_0000 + number)), port)
}

fn number_at(address: SocketAddr, base: u32) -> Option<usize> {
    let IpAddr::V4(ip) = address.ip() else {
        return None;
    };
    let number = u32::from(ip).checked_sub(base)?;
    (number < 1 << 24).then_some(number as usize)
}

fn gateway_at(address: SocketAddr) -> Option<usize> {
    number_at(address, 0x0A00_0001)
}

fn device_at(address: SocketAddr) -> Option<usize> {
    number_at(address, 0x6400_0000)
}

/// A node's timer may have been set for a deadline that has moved since.
fn run_due(machine: &mut impl RootMachine, now: Now) {
    if machine
        .poll_timeout()
        .is_some_and(|(due, _)| due <= now.instant)
    {
        machine.handle_timeout(now);
    }
}
