//! A whole device with a gateway and a network that do anything, in any order: one last event for
//! everything asked, text only as it was sent, frames only where they belong.

mod peer;

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use bytes::Bytes;
use mesh_core::api::Method;
use mesh_core::device::unfinished::Unfinished;
use mesh_core::device::{
    AnswerEvent, AskError, AttemptId, Attempts, Config, Device, Input, Output, Rejected, State,
    Stats,
};
use mesh_core::ids::{DeviceId, RequestId};
use mesh_core::machine::{Machine, RootMachine};
use mesh_core::rng::Seed;
use mesh_core::time::Now;
use mesh_core::transport::{ConnId, Read};
use mesh_core::wire::message::{EscalationRequest, Vitals};
use serde_json::Value;

use self::peer::{Peer, Says, lost, piece, request_id, said};
use crate::steps::{self, Span};
use crate::wire::{self, Wire};

const DEVICE: DeviceId = DeviceId::from_u128(1);
/// More timeouts than this in one wait is a machine that spins.
const TIMEOUTS_MAX: usize = 20_000;

#[derive(Debug, Arbitrary)]
enum Step {
    Wait(Span),
    Connect,
    Disconnect,
    NetworkChanged,
    Woke(Span),
    Hot {
        gpu: u8,
    },
    Resolve {
        addresses: u8,
    },
    Peer {
        conn: u8,
        what: Peer,
    },
    Ask {
        id: u8,
        stream: bool,
        empty: bool,
    },
    Cancel {
        id: u8,
    },
    Pause {
        id: u8,
    },
    Unpause {
        id: u8,
    },
    Call {
        id: u8,
    },
    /// A session at once: a device that only fails to connect shows little.
    Establish,
    Stop,
}

/// What has been asked and answered under one name.
#[derive(Debug, Default)]
struct Asked {
    asked: usize,
    ended: usize,
    /// Of the answer that is under way.
    text: String,
}

struct World {
    now: Now,
    wire: Wire,
    device: Device<Wire>,
    resolving: Vec<AttemptId>,
    questions: BTreeMap<RequestId, Asked>,
    calls: BTreeMap<u64, Asked>,
    /// The gateway has contradicted itself: what text is right cannot be said any more.
    contradicted: bool,
    state: State,
    stats: Stats,
    stopped: usize,
}

impl World {
    fn new(forever: bool) -> Self {
        let wire = Wire::default();
        wire.0.borrow_mut().streams_max = 4;
        let config = Config {
            device_id: DEVICE,
            agent: "fuzz/1".to_owned(),
            attempts: if forever {
                Attempts::Forever
            } else {
                Attempts::AtMost(3)
            },
            privacy: mesh_core::privacy::Policy::default(),
            terms: mesh_core::device::Terms {
                keeps: true,
                ..mesh_core::device::Terms::default()
            },
        };
        Self {
            now: steps::origin(),
            device: Device::new(wire.clone(), config, &Seed::new([7; 32])),
            wire,
            resolving: Vec::new(),
            questions: BTreeMap::new(),
            calls: BTreeMap::new(),
            contradicted: false,
            state: State::Disconnected,
            stats: Stats::default(),
            stopped: 0,
        }
    }

    fn give(&mut self, input: Input) -> Result<(), Rejected> {
        let result = self.device.handle_input(self.now, input);
        self.take();
        result
    }

    /// What the wire has for the device is looked at.
    fn look(&mut self) {
        self.device.handle_timeout(self.now);
        self.take();
    }

    fn take(&mut self) {
        while let Some(output) = self.device.poll_output() {
            match output {
                Output::Resolve { attempt, .. } => self.resolving.push(attempt),
                Output::Changed { from, to, .. } => {
                    assert_eq!(from.name(), self.state.name());
                    self.state = to;
                }
                Output::Answer { request, event } => self.answered(request, event),
                Output::Replied { id, .. } => {
                    let call = self.calls.entry(id).or_default();
                    call.ended += 1;
                    assert!(call.ended <= call.asked, "a reply that nobody asked for");
                }
                Output::Stopped => self.stopped += 1,
                Output::Keep(unfinished) => {
                    let Ok(written) = unfinished.encode(DEVICE) else {
                        unreachable!("all of it is text")
                    };
                    let read = Unfinished::decode(&written, DEVICE);
                    assert_eq!(read, Ok(unfinished), "what is kept is not read again");
                }
                Output::Rebind | Output::Doubt(_) | Output::Notice(_) => {}
            }
        }
        assert_eq!(self.device.state().name(), self.state.name());
        self.counters();
    }

    fn answered(&mut self, request: RequestId, event: AnswerEvent) {
        let entry = self.questions.entry(request).or_default();
        match event {
            AnswerEvent::Chunk(text) => {
                assert!(entry.ended < entry.asked, "text after the end");
                entry.text += &text;
                let id = u8::try_from(request.as_u128() - 1).unwrap_or(u8::MAX);
                let whole: String = (0..=u8::MAX).map(|sequence| piece(id, sequence)).collect();
                let right = whole.starts_with(&entry.text);
                assert!(right || self.contradicted, "{}", entry.text);
            }
            AnswerEvent::Delta(_) => assert!(entry.ended < entry.asked, "a delta after the end"),
            AnswerEvent::Failed(AskError::Duplicate) => {
                // Of one that somebody reads, or of one with another body that nobody does any more:
                // cancelled, and the gateway is still to be told. Either way it is an asker's own end.
                assert!(entry.ended < entry.asked, "a duplicate of nothing");
                entry.ended += 1;
            }
            AnswerEvent::Cut | AnswerEvent::Resumed { .. } | AnswerEvent::Notice(_) => {}
            AnswerEvent::Ended(_) | AnswerEvent::Whole(_) | AnswerEvent::Failed(_) => {
                entry.ended += 1;
                assert!(entry.ended <= entry.asked, "a second last event");
                entry.text.clear();
            }
        }
    }

    fn counters(&mut self) {
        let (old, new) = (self.stats, self.device.stats());
        assert!(new.heartbeats_sent >= old.heartbeats_sent);
        assert!(new.heartbeats_acked >= old.heartbeats_acked);
        assert!(new.heartbeats_acked <= new.heartbeats_sent);
        assert!(new.requests_sent >= old.requests_sent);
        assert!(new.sent_bytes >= old.sent_bytes);
        assert!(new.reconnections >= old.reconnections);
        let asked: usize = self.questions.values().map(|entry| entry.asked).sum();
        assert!(new.requests_succeeded + new.requests_failed <= asked as u64);
        assert!(new.requests_sent <= asked as u64);
        self.stats = new;
    }

    fn wait(&mut self, span: std::time::Duration) {
        let end = self.now.after(span);
        for count in 0.. {
            let Some((due, why)) = self
                .device
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

    fn establish(&mut self) {
        let _up_already = self.give(Input::Connect);
        if let Some(attempt) = self.resolving.pop() {
            let result = Ok(vec![wire::address(1)]);
            assert_eq!(self.give(Input::Resolved { attempt, result }), Ok(()));
        }
        let newest = self.wire.0.borrow().conns.keys().last().copied();
        if let Some(conn) = newest {
            self.wire.complete(conn, None);
            self.look();
            if let Some(control) = self.wire.pick_stream(conn, 0) {
                let hello = Bytes::from(said(&Says::HelloAck { secs: 30 }));
                self.wire.arrives(conn, control, Read::Data(hello));
                self.look();
            }
        }
    }

    fn says(&mut self, conn: ConnId, stream: u8, bytes: Vec<u8>, cut: bool) {
        let Some(stream) = self.wire.pick_stream(conn, stream) else {
            return;
        };
        let mut bytes = Bytes::from(bytes);
        if cut {
            let front = bytes.split_to(bytes.len() / 3);
            self.wire.arrives(conn, stream, Read::Data(front));
            self.look();
        }
        self.wire.arrives(conn, stream, Read::Data(bytes));
        self.look();
    }

    fn ask(&mut self, id: u8, stream: bool, empty: bool) {
        let request_id = request_id(id);
        self.questions.entry(request_id).or_default().asked += 1;
        let request = EscalationRequest {
            request_id,
            session_id: "s".to_owned(),
            query: if empty {
                String::new()
            } else {
                "Which valve?".to_owned()
            },
            context: mesh_core::wire::message::Context::default(),
            model: "auto".to_owned(),
            max_tokens: 10,
            stream,
            project_id: None,
            system: None,
            lora_id: None,
            timeout_secs: None,
            retry_of: None,
            chat: None,
        };
        assert_eq!(self.give(Input::Escalate(Box::new(request))), Ok(()));
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Wait(span) => self.wait(span.duration()),
            Step::Connect => {
                let up = !matches!(self.state, State::Disconnected | State::Failed);
                let expected = if up { Err(Rejected::AlreadyUp) } else { Ok(()) };
                assert_eq!(self.give(Input::Connect), expected);
            }
            Step::Disconnect => self.fine(Input::Disconnect),
            Step::NetworkChanged => self.fine(Input::NetworkChanged),
            Step::Woke(span) => self.fine(Input::Woke {
                asleep: span.duration(),
            }),
            Step::Hot { gpu } => {
                // Over 1.0 is no fraction.
                let usage = f32::from(*gpu) / 200.0;
                let result = self.give(Input::Vitals(Vitals {
                    gpu_usage: Some(usage),
                    ..Vitals::default()
                }));
                assert_eq!(result.is_ok(), *gpu <= 200);
            }
            Step::Resolve { addresses } => {
                if let Some(attempt) = self.resolving.pop() {
                    let all = (0..addresses % 10).map(wire::address).collect();
                    let result = if *addresses == u8::MAX {
                        Err("no".to_owned())
                    } else {
                        Ok(all)
                    };
                    self.fine(Input::Resolved { attempt, result });
                }
            }
            Step::Ask { id, stream, empty } => self.ask(*id, *stream, *empty),
            Step::Cancel { id } => self.fine(Input::Cancel(request_id(*id))),
            Step::Pause { id } => self.fine(Input::Pause(request_id(*id))),
            Step::Unpause { id } => self.fine(Input::Unpause(request_id(*id))),
            Step::Call { id } => {
                let id = u64::from(id % 6);
                let entry = self.calls.entry(id).or_default();
                entry.asked += 1;
                let busy = entry.ended + 1 < entry.asked;
                let input = Input::Call {
                    id,
                    method: Method::Ping,
                    params: None,
                };
                let result = self.give(input);
                if busy {
                    assert_eq!(result, Err(Rejected::DuplicateCall));
                    self.calls.entry(id).or_default().asked -= 1;
                } else {
                    assert_eq!(result, Ok(()));
                }
            }
            Step::Establish => self.establish(),
            Step::Stop => {
                self.fine(Input::Stop);
                assert_eq!(self.state, State::Disconnected);
            }
            Step::Peer { conn, what } => {
                if let Some(conn) = self.wire.pick(*conn) {
                    self.peer(conn, what);
                    self.look();
                }
            }
        }
    }

    fn fine(&mut self, input: Input) {
        assert_eq!(self.give(input), Ok(()));
    }

    fn peer(&mut self, conn: ConnId, what: &Peer) {
        let pick = |stream: u8| self.wire.pick_stream(conn, stream);
        match what {
            Peer::Up => self.wire.complete(conn, None),
            Peer::Lost(why) => self.wire.lost(conn, lost(why)),
            Peer::Acknowledges => self.wire.acknowledge(conn),
            Peer::Allows { more } => self.wire.allow_streams(conn, more % 4),
            Peer::OpensAStream => self.wire.opened(conn),
            Peer::Ends { stream, reset } => {
                if let Some(stream) = pick(*stream) {
                    let what = if *reset { Read::Reset(1) } else { Read::End };
                    self.wire.arrives(conn, stream, what);
                }
            }
            Peer::Stops { stream } => {
                if let Some(stream) = pick(*stream) {
                    self.wire.stopped(conn, stream);
                }
            }
            Peer::Says { stream, what, cut } => {
                self.contradicted |= matches!(what, Says::Chunk { other: true, .. });
                self.says(conn, *stream, said(what), *cut);
            }
            Peer::Raw { stream, bytes } => self.says(conn, *stream, bytes.to_vec(), false),
        }
    }

    /// After a stop everything has its end, and nothing is due any more.
    fn finish(mut self) {
        self.fine(Input::Stop);
        assert!(self.stopped > 0, "a stop without an end");
        self.wait(std::time::Duration::from_secs(3600));
        for (id, entry) in &self.questions {
            assert_eq!(entry.asked, entry.ended, "{id} has no last event");
        }
        for (id, entry) in &self.calls {
            assert_eq!(entry.asked, entry.ended, "call {id} has no reply");
        }
        assert_eq!(self.device.questions_under_way(), 0);
        assert_eq!(self.device.poll_timeout(), None);
        assert!(
            self.wire.0.borrow().conns.is_empty(),
            "a connection was left"
        );
        self.frames();
    }

    /// What was sent, and where.
    fn frames(&self) {
        for (_, streams) in self.wire.sent() {
            // The control stream is the first that is opened.
            for (at, frames) in streams.iter().enumerate() {
                let mut beats = 0;
                for (n, (number, data)) in frames.iter().enumerate() {
                    let right = match (at, n) {
                        (0, 0) => *number == 0x10,
                        (0, _) => matches!(number, 0x01 | 0x08),
                        (_, 0) => matches!(number, 0x03 | 0x13 | 0x20),
                        (_, _) => matches!(number, 0x14 | 0x15),
                    };
                    assert!(right, "0x{number:02x} as frame {n} of stream {at}");
                    if *number == 0x01 {
                        assert_eq!(data["sequence"], beats);
                        beats += 1;
                    }
                    if matches!(number, 0x01 | 0x08 | 0x10) {
                        assert_eq!(data["device_id"], DEVICE.to_string());
                    }
                    if *number == 0x03 {
                        self.was_asked(data);
                    }
                    if *number == 0x13 {
                        // Of which nothing has come is sent again as it was, unless it is not
                        // wanted any more.
                        let cancels = frames.get(n + 1).is_some_and(|next| next.0 == 0x14);
                        assert!(data["next_sequence"].as_u64() > Some(0) || cancels);
                    }
                }
            }
        }
    }

    /// A question that was sent is one that was asked, or is asked again in its name.
    fn was_asked(&self, request: &Value) {
        let named = |field: &str| request[field].as_str()?.parse::<RequestId>().ok();
        let asked = [named("retry_of"), named("request_id")];
        let known = asked
            .into_iter()
            .flatten()
            .any(|id| self.questions.contains_key(&id));
        assert!(known, "{request} was never asked");
    }
}

/// See the module documentation.
pub fn run(data: &[u8]) {
    let Some((forever, steps)) = steps::script::<bool, Step>(data) else {
        return;
    };
    let mut world = World::new(forever);
    for step in &steps {
        world.step(step);
    }
    world.finish();
}
