//! A whole gateway with devices, a store and model servers that do anything, in any order: no money
//! is left held, nothing is charged twice, every answer is the upstream's text and ends once.
//!
//! The store is the real rules over a map; that they are right is the business of `account`.

mod outside;
mod script;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mesh_core::billing::account::Account;
use mesh_core::billing::ledger::{Charge, Loss};
use mesh_core::billing::money::Nanos;
use mesh_core::billing::tier::Tier;
use mesh_core::gateway::{
    Ask, AskId, Drain, Event, Gateway, Input, Output, Rejected, Told, Transcript,
};
use mesh_core::ids::{AccountId, RequestId};
use mesh_core::machine::{Machine, RootMachine};
use mesh_core::time::Now;
use mesh_core::transport::{CloseReason, ConnId, Read, StreamId};
use mesh_core::wire::message::DialectName;
use serde_json::Value;

use self::script::{Certificate, DeviceDoes, How, Says, Step, Upstream, config, device, said};
use crate::steps;
use crate::wire::{self, Frame, Wire};

const ACCOUNT: AccountId = AccountId::from_u128(5);
/// Made with `openssl req -x509 -newkey ed25519 -nodes -subj /CN=device-… -addext
/// subjectAltName=DNS:….device.synesis.internal -outform DER`; their keys were thrown away.
const CERTIFICATES: [&[u8]; 2] = [
    include_bytes!("../fixtures/device-1.der"),
    include_bytes!("../fixtures/device-2.der"),
];
/// Answers under way at once on one tunnel.
const ANSWERS_PER_TUNNEL: usize = 32;
/// More timeouts than this in one wait is a machine that spins.
const TIMEOUTS_MAX: usize = 20_000;

/// A call of a model server that the gateway has asked for.
#[derive(Debug)]
struct Call {
    dialect: DialectName,
    body: String,
    pieces: usize,
    /// It has sent what is no event, which may swallow a piece.
    garbled: bool,
    head: bool,
    abandoned: bool,
    over: bool,
}

struct World {
    now: Now,
    wire: Wire,
    gateway: Gateway<Wire>,
    pending: BTreeMap<AskId, Ask>,
    calls: BTreeMap<AskId, Call>,
    account: Account,
    ledger: BTreeMap<RequestId, Charge>,
    kept: BTreeMap<RequestId, Transcript>,
    lost: BTreeMap<RequestId, Loss>,
    epoch: u64,
    told_charged: BTreeSet<RequestId>,
    stopped: usize,
    /// Drained or stopped: nobody and nothing is taken in any more.
    sent_away: bool,
}

impl World {
    fn new() -> Option<Self> {
        let wire = Wire::default();
        let gateway = Gateway::new(wire.clone(), config("openai")).ok()?;
        Some(Self {
            now: steps::origin(),
            wire,
            gateway,
            pending: BTreeMap::new(),
            calls: BTreeMap::new(),
            account: Account::new(Tier::MANAGED, Nanos(1_000_000_000_000)),
            ledger: BTreeMap::new(),
            kept: BTreeMap::new(),
            lost: BTreeMap::new(),
            epoch: 0,
            told_charged: BTreeSet::new(),
            stopped: 0,
            sent_away: false,
        })
    }

    fn give(&mut self, input: Input) -> Result<(), Rejected> {
        let result = self.gateway.handle_input(self.now, input);
        self.take();
        result
    }

    fn fine(&mut self, input: Input) {
        assert_eq!(self.give(input), Ok(()));
    }

    fn look(&mut self) {
        self.gateway.handle_timeout(self.now);
        self.take();
    }

    fn take(&mut self) {
        while let Some(output) = self.gateway.poll_output() {
            // After the end there are only words for the log, and holds that came too late to use.
            let late = matches!(
                output,
                Output::Event(_)
                    | Output::Ask {
                        ask: Ask::Release { .. },
                        ..
                    }
            );
            assert!(self.stopped == 0 || late, "{output:?} after the end");
            match output {
                Output::Ask { id, ask } => self.asked(id, ask),
                Output::Credit { id, bytes } => {
                    assert!(self.calls.contains_key(&id) && bytes > 0);
                }
                Output::Abandon { id } => {
                    let call = self.calls.get_mut(&id);
                    let known =
                        call.is_some_and(|call| !std::mem::replace(&mut call.abandoned, true));
                    assert!(known, "abandoned twice, or never asked");
                }
                Output::Event(Event::Charged {
                    request, charge, ..
                }) => {
                    assert_eq!(self.ledger.get(&request), Some(&*charge));
                    assert!(self.told_charged.insert(request), "charged twice");
                }
                Output::Event(Event::TunnelUp { .. }) => {
                    assert!(
                        !self.sent_away,
                        "a device was taken in by a gateway that goes away"
                    );
                }
                Output::Event(_) | Output::Warm { .. } => {}
                Output::Stopped => self.stopped += 1,
            }
        }
        assert!(self.gateway.sessions() <= CERTIFICATES.len());
        assert!(self.gateway.sessions() <= self.gateway.tunnels());
        let most = ANSWERS_PER_TUNNEL * self.wire.0.borrow().conns.len().max(1);
        // Answers whose device has left end in their own time.
        assert!(self.gateway.answers_under_way() <= most + steps::STEPS_MAX);
    }

    fn establish(&mut self, first: bool, id: u8) {
        self.wire.incoming(wire::address(1), true);
        self.look();
        let newest = self.wire.0.borrow().conns.keys().last().copied();
        let Some(conn) = newest else { return };
        let certificate = CERTIFICATES[usize::from(!first)];
        self.wire
            .complete(conn, Some(Bytes::from_static(certificate)));
        self.look();
        self.answer_all(false);
        for what in [
            Says::Hello { device: first },
            Says::Question {
                id,
                other: false,
                stream: id < 200,
                model: id / 6,
                max_tokens: 100,
            },
        ] {
            self.wire.opened(conn);
            self.look();
            let newest = self.streams(conn).last().copied();
            if let Some(stream) = newest {
                self.wire
                    .arrives(conn, stream, Read::Data(said(&what).into()));
                self.look();
            }
        }
        self.answer_all(false);
    }

    fn streams(&self, conn: ConnId) -> Vec<StreamId> {
        let state = self.wire.0.borrow();
        let streams = state.conns.get(&conn).map(|entry| &entry.streams);
        streams
            .into_iter()
            .flat_map(BTreeMap::keys)
            .copied()
            .collect()
    }

    /// The outside world answers what it has been asked, model servers too if they shall.
    fn answer_all(&mut self, calls: bool) {
        for _ in 0..self.pending.len() {
            self.outside(0, How::Well);
            if calls {
                self.upstream(0, &Upstream::Over { broken: None });
            }
        }
    }

    fn device(&mut self, conn: ConnId, what: &DeviceDoes) {
        let pick = |stream: u8| self.wire.pick_stream(conn, stream);
        match what {
            DeviceDoes::Completes { certificate } => {
                let certificate = match certificate {
                    Certificate::First => Some(CERTIFICATES[0]),
                    Certificate::Second => Some(CERTIFICATES[1]),
                    Certificate::Garbage => Some(&b"garbage"[..]),
                    Certificate::None => None,
                };
                self.wire
                    .complete(conn, certificate.map(Bytes::from_static));
            }
            DeviceDoes::OpensAStream => self.wire.opened(conn),
            DeviceDoes::Says { stream, what, cut } => {
                let Some(stream) = pick(*stream) else { return };
                let mut bytes = Bytes::from(said(what));
                if *cut {
                    let front = bytes.split_to(bytes.len() / 3);
                    self.wire.arrives(conn, stream, Read::Data(front));
                    self.look();
                }
                self.wire.arrives(conn, stream, Read::Data(bytes));
            }
            DeviceDoes::Raw { stream, bytes } => {
                if let Some(stream) = pick(*stream) {
                    let bytes = Bytes::copy_from_slice(bytes);
                    self.wire.arrives(conn, stream, Read::Data(bytes));
                }
            }
            DeviceDoes::Ends { stream, reset } => {
                if let Some(stream) = pick(*stream) {
                    let what = if *reset { Read::Reset(1) } else { Read::End };
                    self.wire.arrives(conn, stream, what);
                }
            }
            DeviceDoes::Stops { stream } => {
                if let Some(stream) = pick(*stream) {
                    self.wire.stopped(conn, stream);
                }
            }
            DeviceDoes::Acknowledges => self.wire.acknowledge(conn),
            DeviceDoes::Leaves => self.wire.lost(conn, CloseReason::TimedOut),
        }
    }

    fn wait(&mut self, span: std::time::Duration) {
        let end = self.now.after(span);
        for count in 0.. {
            let Some((due, why)) = self
                .gateway
                .poll_timeout()
                .filter(|(at, _)| *at <= end.instant)
            else {
                break;
            };
            assert!(count < TIMEOUTS_MAX, "spins on {why:?}");
            self.now = self
                .now
                .after(due.saturating_duration_since(self.now.instant));
            self.wire.at(self.now);
            self.look();
        }
        self.now = end;
        self.wire.at(end);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Wait(span) => self.wait(span.duration()),
            Step::Knock { from, validated } => {
                self.wire.incoming(wire::address(from % 8), *validated);
                self.look();
            }
            Step::Device { conn, what } => {
                if let Some(conn) = self.wire.pick(*conn) {
                    self.device(conn, what);
                    self.look();
                }
            }
            Step::Outside { ask, how } => self.outside(*ask, *how),
            Step::Upstream { ask, what } => self.upstream(*ask, what),
            Step::Establish { device, id } => self.establish(*device, *id),
            Step::Revoke { device: first } => self.fine(Input::Revoked(device(*first))),
            Step::Configure { openai } => {
                let name = if *openai { "openai" } else { "anthropic" };
                self.fine(Input::Configured(config(name)));
                let nowhere = self.give(Input::Configured(config("nowhere")));
                assert_eq!(nowhere, Err(Rejected::NoDefaultModel));
            }
            Step::Unasked { id } => {
                let id = AskId(1_000_000 + u64::from(*id));
                let told = Told::Released(Ok(()));
                let result = self.give(Input::Told { id, told });
                assert_eq!(result, Err(Rejected::UnknownAsk));
            }
            Step::Stop => self.stop(),
            Step::Drain {
                limit,
                spread,
                alternates,
            } => {
                let named = |n| format!("gateway-{n}:4443");
                let drain = Drain {
                    limit: limit.duration(),
                    spread: spread.duration(),
                    store: Drain::default().store,
                    alternates: (0..*alternates % 3).map(named).collect(),
                };
                self.go_away(Input::Drain(drain));
            }
        }
    }

    fn stop(&mut self) {
        if self.stopped == 0 {
            self.go_away(Input::Stop);
        }
    }

    fn go_away(&mut self, input: Input) {
        self.sent_away = true;
        self.fine(input);
    }

    /// The outside world heals and the gateway stops: nothing is left, and nothing is held.
    fn finish(mut self) {
        self.stop();
        // Everything is answered at once, before its deadline.
        for count in 0.. {
            assert!(count < TIMEOUTS_MAX, "it never rests");
            self.answer_all(true);
            match self.gateway.poll_timeout() {
                Some((due, _)) => self.wait(due.saturating_duration_since(self.now.instant)),
                None if self.pending.is_empty() => break,
                None => {}
            }
        }
        assert_eq!(self.stopped, 1, "a stop without an end");
        assert!(self.account.holds.is_empty(), "money is left held");
        assert_eq!(self.gateway.answers_under_way(), 0);
        assert_eq!(
            (self.gateway.answers_kept(), self.gateway.kept_bytes()),
            (0, 0)
        );
        assert_eq!((self.gateway.tunnels(), self.gateway.sessions()), (0, 0));
        assert_eq!(self.gateway.poll_timeout(), None);
        assert_eq!(self.pending.len(), 0);
        for (_, streams) in self.wire.sent() {
            streams.iter().for_each(|frames| self.frames(frames));
        }
    }

    /// What was sent on one stream.
    fn frames(&self, frames: &[Frame]) {
        let control = frames.first().is_some_and(|(number, _)| *number == 0x11);
        let (mut text, mut next, mut is_final, mut over) = (String::new(), None, false, false);
        // A resumed stream begins where the device wanted it to.
        let mut from_start = true;
        for (at, (number, data)) in frames.iter().enumerate() {
            if control {
                let right = matches!((at, number), (0, 0x11) | (1.., 0x02 | 0x07 | 0x12 | 0x16));
                assert!(right, "0x{number:02x} as frame {at} of the control stream");
                continue;
            }
            assert!(!over, "0x{number:02x} after the last word");
            match number {
                0x05 => {
                    assert!(!is_final, "a piece after the final one");
                    let sequence = data["sequence"].as_u64().unwrap_or(u64::MAX);
                    from_start &= next.is_some() || sequence == 0;
                    assert_eq!(sequence, next.unwrap_or(sequence));
                    next = Some(sequence + 1);
                    text += data["content"].as_str().unwrap_or_default();
                    is_final = data["is_final"] == true;
                }
                0x06 => {
                    let resumed_at_end = next.is_none();
                    from_start &= !resumed_at_end;
                    assert!(is_final || resumed_at_end, "an end without a final piece");
                    over = true;
                }
                0x04 => {
                    text += data["content"].as_str().unwrap_or_default();
                    over = true;
                }
                0x07 | 0x21 => over = true,
                _ => unreachable!("0x{number:02x} to a device"),
            }
            if matches!(number, 0x04 | 0x06) {
                self.receipt(data, &text);
            }
        }
        self.is_of_one_call(&text, from_start);
    }

    /// A receipt is what the ledger says; without an entry nothing was charged. Cancelled before the
    /// first piece its id is free again, and the entry that a later asking made is not of this one.
    fn receipt(&self, data: &Value, text: &str) {
        let nothing = data["cost_nanos"] == 0 && data["base_nanos"] == 0;
        if nothing && data["finish_reason"] == "cancelled" && text.is_empty() {
            return;
        }
        let id = data["request_id"].as_str().unwrap_or_default();
        let charge = id
            .parse()
            .ok()
            .and_then(|id: RequestId| self.ledger.get(&id));
        let (cost, base) = charge.map_or((0, 0), |charge| (charge.charge.0, charge.base.0));
        assert_eq!(data["cost_nanos"], cost);
        assert_eq!(data["base_nanos"], base);
    }

    /// Text is what one call has said, from its beginning unless it was resumed.
    fn is_of_one_call(&self, text: &str, from_start: bool) {
        let Some((call, _)) = text.split_once('.') else {
            assert_eq!(text, "", "text that no upstream has said");
            return;
        };
        let made = call.parse().ok().and_then(|id| self.calls.get(&AskId(id)));
        if made.is_some_and(|made| made.garbled) {
            return;
        }
        let said = made.map(|made| {
            let pieces = (0..made.pieces).map(|at| format!("{call}.{at};"));
            pieces.collect::<String>()
        });
        let right =
            said.is_some_and(|said| said.starts_with(text) || (!from_start && said.contains(text)));
        assert!(right, "{text}");
    }
}

/// See the module documentation.
pub fn run(data: &[u8]) {
    let Some(((), steps)) = steps::script::<(), Step>(data) else {
        return;
    };
    let Some(mut world) = World::new() else {
        unreachable!("a configuration that is refused");
    };
    for step in &steps {
        world.step(step);
        if world.stopped > 0 {
            break;
        }
    }
    world.finish();
}
