//! Devices and a gateway over real QUIC and TLS, on a wire in memory and a clock that jumps to the
//! next event; the gateway's outside world is a script and a real account.

mod outside;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

pub(super) use self::outside::Upstream;
use self::outside::{Outside, SSE_END, sse_text, told};
use super::super::unfinished::Unfinished;
use super::super::{AnswerEvent, AskError, Attempts, Config, Device, Input, Output, State, Terms};
use crate::api::{self, Method};
use crate::billing::account::alert::{Alert, Mark};
use crate::billing::account::{self, Account, Command, Denied, Entry, Facts, Prior};
use crate::billing::ledger::{Charge, Loss};
use crate::billing::money::Nanos;
use crate::billing::price::Price;
use crate::billing::tier::Tier;
use crate::dialect::MaxTokensField;
use crate::dialect::exchange::{Broken, Head};
use crate::escalation::context::Question;
use crate::gateway::{
    self, Admitted, Ask, AskId, Gateway, Granted, HoldFailed, NotAdmitted, Progress, Recalled,
    SettleFailed, Settled, Told, Transcript, Unavailable,
};
use crate::ids::{AccountId, DeviceId, RequestId};
use crate::machine::{Machine, RootMachine};
use crate::privacy::Policy;
use crate::quic::Quic;
use crate::quic::tests::{Leaf, WALL, World};
use crate::rng::Seed;
use crate::time::{Now, origin};
use crate::transport::{Datagram, Priority, Transport};
use crate::wire::message::{DialectName, EscalationResponse, Message, StreamEnd};

pub(super) const DEVICE: DeviceId = DeviceId::from_u128(1);
pub(super) const ACCOUNT: AccountId = AccountId::from_u128(5);

pub(super) fn gateway_config() -> gateway::Config {
    gateway::Config {
        models: vec![gateway::Model {
            name: "sonnet".into(),
            provider: "provider".into(),
            dialect: DialectName::Openai,
            provider_model: "sonnet-real".into(),
            max_tokens_field: MaxTokensField::MaxTokens,
            price: Price::CLAUDE_SONNET,
        }],
        default_model: "sonnet".into(),
        tunnels_max: 100,
        keeping: gateway::Keeping::default(),
        rates: gateway::Rates::default(),
    }
}

pub(super) fn device_config() -> Config {
    Config {
        device_id: DEVICE,
        agent: "test/1".into(),
        attempts: Attempts::Forever,
        privacy: Policy::default(),
        terms: Terms::default(),
    }
}

/// One device and what it said.
pub(super) struct End {
    pub(super) device: Device<Quic>,
    pub(super) changes: Vec<(Duration, State)>,
    pub(super) doubts: Vec<bool>,
    pub(super) texts: BTreeMap<RequestId, String>,
    pub(super) chunks: usize,
    pub(super) cuts: usize,
    pub(super) resumed: Vec<u64>,
    pub(super) ended: BTreeMap<RequestId, StreamEnd>,
    pub(super) whole: BTreeMap<RequestId, EscalationResponse>,
    pub(super) failed: BTreeMap<RequestId, AskError>,
    pub(super) replies: BTreeMap<u64, Result<String, AskError>>,
    pub(super) stopped: bool,
    /// Questions whose readers were told that a limit came near.
    pub(super) notices: Vec<RequestId>,
    /// What is on its disk, and how often that was written.
    pub(super) kept: Unfinished,
    pub(super) writes: usize,
    lives: u8,
    /// Where it looked for a gateway, and when.
    pub(super) sought: Vec<(Duration, Option<String>)>,
}

/// The whole small world.
pub(super) struct Net {
    pub(super) world: World,
    pub(super) gateway: Gateway<Quic>,
    pub(super) outside: Outside,
    pub(super) ends: Vec<End>,
    pub(super) now: Now,
    pub(super) origin: Instant,
    /// Lose every datagram.
    pub(super) black: bool,
    /// Lose every datagram of a device.
    pub(super) mute: bool,
    /// What arrives at a device at one moment is read at once, as by a process that was busy.
    pub(super) reads_at_once: bool,
    /// How often the devices' router has forgotten them: each time they come from other addresses, and
    /// what is sent to the old ones is lost.
    pub(super) rebinds: u16,
    /// The rebinding whose datagrams are swallowed on their way up.
    pub(super) swallowed: Option<u16>,
    /// What a resolver says.
    pub(super) addresses: Result<Vec<SocketAddr>, String>,
    /// What it says of any other name than the gateway's.
    pub(super) alternate: Result<Vec<SocketAddr>, String>,
    /// (arrives, order) → (from, to, bytes)
    wire: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    sent: u64,
}

pub(super) const DELAY: Duration = Duration::from_millis(10);

fn gateway_address() -> SocketAddr {
    "[::1]:4443".parse().unwrap()
}

impl Net {
    /// A gateway and one device that is not connected.
    pub(super) fn new() -> Self {
        let mut net = Self::without_devices();
        let leaf = net.world.device_leaf(2040);
        net.add_device(Some(leaf), Attempts::Forever);
        net
    }

    pub(super) fn without_devices() -> Self {
        let world = World::new();
        let origin = origin();
        Self {
            gateway: Gateway::new(world.server(1), gateway_config()).unwrap(),
            world,
            outside: Outside::new(),
            ends: Vec::new(),
            now: Now {
                instant: origin,
                wall: WALL,
            },
            origin,
            black: false,
            mute: false,
            reads_at_once: false,
            rebinds: 0,
            swallowed: None,
            addresses: Ok(vec![gateway_address()]),
            alternate: Err("no such name".to_owned()),
            wire: BTreeMap::new(),
            sent: 0,
        }
    }

    /// The same with a session.
    pub(super) fn connected() -> Self {
        let mut net = Self::new();
        net.give(0, Input::Connect);
        net.run(Duration::from_secs(1));
        assert_eq!(net.state(0), UP);
        net
    }

    pub(super) fn add_device(&mut self, leaf: Option<Leaf>, attempts: Attempts) {
        let seed = Seed::new([u8::try_from(self.ends.len()).unwrap(); 32]);
        let config = Config {
            attempts,
            ..device_config()
        };
        let device = Device::new(self.world.seeded_client(leaf, &seed), config, &seed);
        self.ends.push(End {
            device,
            changes: Vec::new(),
            doubts: Vec::new(),
            texts: BTreeMap::new(),
            chunks: 0,
            cuts: 0,
            resumed: Vec::new(),
            ended: BTreeMap::new(),
            whole: BTreeMap::new(),
            failed: BTreeMap::new(),
            replies: BTreeMap::new(),
            stopped: false,
            notices: Vec::new(),
            kept: Unfinished::default(),
            writes: 0,
            lives: 0,
            sought: Vec::new(),
        });
    }

    pub(super) fn state(&self, end: usize) -> State {
        self.ends[end].device.state()
    }

    pub(super) fn since_start(&self) -> Duration {
        self.now.instant.duration_since(self.origin)
    }

    pub(super) fn give(&mut self, end: usize, input: Input) {
        self.ends[end].device.handle_input(self.now, input).unwrap();
        self.settle();
    }

    pub(super) fn tell(&mut self, input: gateway::Input) {
        self.gateway.handle_input(self.now, input).unwrap();
        self.settle();
    }

    /// Asks a question; the answer is found under the id that comes back.
    pub(super) fn ask(&mut self, number: u128, question: Question) -> RequestId {
        let id = RequestId::from_u128(number);
        let request = question.into_request(id);
        self.give(0, Input::Escalate(Box::new(request)));
        id
    }

    /// The gateway is made with other terms; before anything else.
    pub(super) fn configure(&mut self, change: impl FnOnce(&mut gateway::Config)) {
        let mut config = gateway_config();
        change(&mut config);
        self.gateway = Gateway::new(self.world.server(1), config).unwrap();
    }

    /// The usual device comes and has a session.
    pub(super) fn join(&mut self) {
        let leaf = self.world.device_leaf(2040);
        self.add_device(Some(leaf), Attempts::Forever);
        self.give(0, Input::Connect);
        self.run_to(Duration::from_secs(1), |net| net.state(0) == UP);
    }

    /// Another device of the same account.
    pub(super) fn add_stranger(&mut self) -> usize {
        let device_id = DeviceId::from_u128(2);
        let at = self.ends.len();
        let leaf = self.world.leaf_of(device_id, 2040);
        self.add_device(Some(leaf), Attempts::Forever);
        let seed = Seed::new([77; 32]);
        let leaf = self.world.leaf_of(device_id, 2040);
        let config = Config {
            device_id,
            ..device_config()
        };
        let client = self.world.seeded_client(Some(leaf), &seed);
        self.ends[at].device = Device::new(client, config, &seed);
        at
    }

    /// The usual device's process dies, and another comes that has only what was written down. Who
    /// read the answers is gone.
    pub(super) fn restart(&mut self) {
        let leaf = self.world.device_leaf(2040);
        let end = &mut self.ends[0];
        end.lives += 1;
        let seed = Seed::new([100 + end.lives; 32]);
        let terms = Terms {
            keeps: true,
            ..Terms::default()
        };
        let config = Config {
            terms,
            ..device_config()
        };
        let client = self.world.seeded_client(Some(leaf), &seed);
        end.device = Device::new(client, config, &seed);
        end.texts.clear();
        let written = end.kept.encode(DEVICE).unwrap();
        let read = Unfinished::decode(&written, DEVICE).unwrap();
        self.give(0, Input::Connect);
        if !read.is_empty() {
            self.give(0, Input::Restore(read));
        }
    }

    /// A device that keeps its questions, with a session.
    pub(super) fn keeping() -> Self {
        let mut net = Self::new();
        net.restart();
        net.run_to(Duration::from_secs(1), |net| net.state(0) == UP);
        net
    }

    /// The model server that was called last says one piece more.
    pub(super) fn upstream_goes_on(&mut self, piece: &str) {
        let id = *self.outside.calls.last().expect("a call");
        let piece = Progress::Body(sse_text(piece));
        self.tell(gateway::Input::Progress { id, piece });
    }

    /// It says these pieces and comes to its end.
    pub(super) fn upstream_says(&mut self, pieces: &[&str]) {
        for piece in pieces {
            self.upstream_goes_on(piece);
        }
        let id = *self.outside.calls.last().expect("a call");
        let piece = Progress::Body(Bytes::from_static(SSE_END));
        self.tell(gateway::Input::Progress { id, piece });
        self.tell(told(id, Told::Called(Ok(()))));
    }

    /// Its connection breaks.
    pub(super) fn upstream_breaks(&mut self) {
        let id = *self.outside.calls.last().expect("a call");
        self.tell(told(id, Told::Called(Err(Broken::Reset))));
    }

    /// A device says something on a stream of its own that no question of it would say.
    pub(super) fn raw(&mut self, end: usize, message: &Message) {
        let device = &mut self.ends[end].device;
        let (attempt, _) = device.tunnel.session().expect("a session");
        let conn = device.links[&attempt].conn().expect("a connection");
        let stream = device.transport.open(conn, Priority::Escalation).unwrap();
        device.send(conn, stream, message);
        self.give(end, Input::Timeout);
    }

    /// The gateway is started anew: its sessions are forgotten, its store and keys are not.
    pub(super) fn restart_gateway(&mut self) {
        self.gateway = Gateway::new(self.world.server(2), gateway_config()).unwrap();
    }

    /// Devices come to another gateway from now on; the first, for which time stands still meanwhile.
    pub(super) fn other_gateway(&mut self) -> Gateway<Quic> {
        self.swap_gateway(Gateway::new(self.world.server(3), gateway_config()).unwrap())
    }

    pub(super) fn swap_gateway(&mut self, gateway: Gateway<Quic>) -> Gateway<Quic> {
        std::mem::replace(&mut self.gateway, gateway)
    }

    /// Everything that is due now, all ends, until nothing moves.
    fn settle(&mut self) {
        let mut moved = true;
        while moved {
            moved = false;
            while let Some(output) = self.gateway.poll_output() {
                moved = true;
                self.gateway_says(output);
            }
            for end in 0..self.ends.len() {
                while let Some(output) = self.ends[end].device.poll_output() {
                    moved = true;
                    self.device_says(end, output);
                }
            }
        }
        let mut buf = Vec::new();
        while let Some(transmit) = self.gateway.poll_transmit(self.now, &mut buf) {
            let segment = transmit.segment_size.unwrap_or(transmit.size);
            self.send(
                gateway_address(),
                transmit.remote,
                &buf[..transmit.size],
                segment,
            );
            buf.clear();
        }
        for end in 0..self.ends.len() {
            while let Some(transmit) = self.ends[end].device.poll_transmit(self.now, &mut buf) {
                let segment = transmit.segment_size.unwrap_or(transmit.size);
                self.send(
                    self.device_address(end),
                    transmit.remote,
                    &buf[..transmit.size],
                    segment,
                );
                buf.clear();
            }
        }
    }

    fn gateway_says(&mut self, output: gateway::Output) {
        match output {
            gateway::Output::Ask { id, ask } => {
                for input in self.outside.reply(id, ask) {
                    // A call that was abandoned meanwhile is answered all the same.
                    self.gateway.handle_input(self.now, input).unwrap();
                }
            }
            gateway::Output::Abandon { id } => {
                let input = told(id, Told::Called(Err(Broken::Reset)));
                self.gateway.handle_input(self.now, input).unwrap();
                self.outside.asked.push("abandon");
            }
            gateway::Output::Credit { .. } => {}
            gateway::Output::Warm { .. } => self.outside.warmed += 1,
            gateway::Output::Event(event) => self.outside.events.push(event),
            gateway::Output::Stopped => self.outside.stopped = true,
        }
    }

    fn device_says(&mut self, at: usize, output: Output) {
        let elapsed = self.since_start();
        let end = &mut self.ends[at];
        match output {
            Output::Resolve { attempt, alternate } => {
                let home = self.addresses.clone();
                let result = alternate.as_ref().map_or(home, |_| self.alternate.clone());
                end.sought.push((elapsed, alternate));
                let input = Input::Resolved { attempt, result };
                end.device.handle_input(self.now, input).unwrap();
            }
            Output::Rebind => {
                self.rebinds += 1;
                self.swallowed = None;
                for end in &mut self.ends {
                    end.device.handle_rebind(self.now);
                }
            }
            Output::Changed { to, .. } => end.changes.push((elapsed, to)),
            Output::Doubt(doubt) => end.doubts.push(doubt),
            Output::Answer { request, event } => match event {
                AnswerEvent::Chunk(text) => {
                    end.chunks += 1;
                    end.texts.entry(request).or_default().push_str(&text);
                }
                AnswerEvent::Delta(_) => {}
                AnswerEvent::Cut => end.cuts += 1,
                AnswerEvent::Notice(_) => end.notices.push(request),
                AnswerEvent::Resumed { at } => end.resumed.push(at),
                AnswerEvent::Ended(receipt) => {
                    assert!(end.ended.insert(request, receipt).is_none(), "two ends");
                }
                AnswerEvent::Whole(answer) => {
                    assert!(end.whole.insert(request, *answer).is_none(), "two ends");
                }
                AnswerEvent::Failed(error) => {
                    assert!(end.failed.insert(request, error).is_none(), "two ends");
                }
            },
            Output::Replied { id, result } => {
                let result = result.map(|raw| raw.get().to_owned());
                assert!(end.replies.insert(id, result).is_none(), "two replies");
            }
            Output::Notice(_) => {}
            Output::Keep(unfinished) => {
                end.writes += 1;
                end.kept = unfinished;
            }
            Output::Stopped => end.stopped = true,
        }
    }

    fn device_address(&self, index: usize) -> SocketAddr {
        let port = 1000 + 1000 * (self.rebinds % 60) + u16::try_from(index).unwrap();
        SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port))
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8], segment: usize) {
        for datagram in bytes.chunks(segment) {
            self.sent += 1;
            let mute = self.mute || self.swallowed == Some(self.rebinds);
            let lost = self.black || mute && to == gateway_address();
            if !lost {
                let key = (self.now.instant + DELAY, self.sent);
                self.wire.insert(key, (from, to, datagram.to_vec()));
            }
        }
    }

    /// Runs for so long.
    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now.instant + span;
        self.run_until(end, |_| false);
    }

    /// Runs until something is so, and says how long it took; at most so long.
    pub(super) fn run_to(&mut self, most: Duration, so: impl Fn(&Self) -> bool) -> Duration {
        let began = self.now.instant;
        self.run_until(began + most, &so);
        assert!(so(self), "it did not come to that within {most:?}");
        self.now.instant - began
    }

    fn run_until(&mut self, end: Instant, so: impl Fn(&Self) -> bool) {
        self.settle();
        while !so(self) {
            let arrival = self.wire.keys().next().map(|&(at, _)| at);
            let timers = self.ends.iter().filter_map(|end| end.device.poll_timeout());
            let timers = timers.chain(self.gateway.poll_timeout()).map(|(at, _)| at);
            let Some(at) = timers.chain(arrival).min().filter(|&at| at <= end) else {
                let rest = end.saturating_duration_since(self.now.instant);
                self.now = self.now.after(rest);
                return self.settle();
            };
            let step = at.saturating_duration_since(self.now.instant);
            self.now = self.now.after(step);
            self.deliver();
            let due = |deadline: Option<(Instant, _)>, now: Now| {
                deadline.is_some_and(|(at, _)| at <= now.instant)
            };
            if due(self.gateway.poll_timeout(), self.now) {
                self.gateway.handle_timeout(self.now);
            }
            for end in &mut self.ends {
                if due(end.device.poll_timeout(), self.now) {
                    end.device.handle_timeout(self.now);
                }
            }
            self.settle();
        }
    }

    fn deliver(&mut self) {
        let mut waiting: Vec<Vec<Datagram>> = self.ends.iter().map(|_| Vec::new()).collect();
        self.deliver_into(&mut waiting);
        for (end, datagrams) in self.ends.iter_mut().zip(waiting) {
            if !datagrams.is_empty() {
                end.device.handle_datagrams(self.now, datagrams.into_iter());
            }
        }
    }

    fn deliver_into(&mut self, waiting: &mut [Vec<Datagram>]) {
        while let Some((&(arrives, order), _)) = self.wire.first_key_value() {
            if arrives > self.now.instant {
                return;
            }
            let (from, to, bytes) = self.wire.remove(&(arrives, order)).unwrap();
            let datagram = Datagram {
                remote: from,
                local_ip: None,
                ecn: None,
                data: BytesMut::from(&bytes[..]),
            };
            if to == gateway_address() {
                self.gateway.handle_datagram(self.now, datagram);
            } else if let Some(end) =
                (0..self.ends.len()).find(|&end| self.device_address(end) == to)
            {
                if self.reads_at_once {
                    waiting[end].push(datagram);
                } else {
                    self.ends[end].device.handle_datagram(self.now, datagram);
                }
            }
        }
    }
}

pub(super) const UP: State = State::Connected { in_doubt: false };
