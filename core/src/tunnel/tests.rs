//! The tunnel's transitions as documented, and what the tests of it share.

mod attempts;
mod doubt;
mod model;
mod moving;

use std::collections::BTreeSet;

use super::*;
use crate::backoff::wait_max;
use crate::heartbeat::Traffic;
use crate::machine::properties::{self, Subject};
use crate::time::{UnixMillis, origin};

/// One of each kind; a second Reconnecting for its step to itself.
const STATES: [State; 6] = [
    State::Disconnected,
    State::Connecting,
    State::Connected { in_doubt: false },
    State::Reconnecting { attempt: 1 },
    State::Reconnecting { attempt: 2 },
    State::Failed,
];

/// The rows of the table in the module documentation.
fn documented() -> BTreeSet<(String, String)> {
    include_str!("../tunnel.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! | "))
        .map(|row| row.split('|').map(str::trim).collect::<Vec<_>>())
        .filter(|cells| cells[0] != "from")
        .map(|cells| (cells[0].to_owned(), cells[1].to_owned()))
        .collect()
}

#[test]
fn the_code_allows_exactly_the_documented_transitions() {
    let mut allowed = BTreeSet::new();
    for from in STATES {
        for to in STATES {
            if from.may_become(to) {
                allowed.insert((from.name().to_owned(), to.name().to_owned()));
            }
        }
    }
    assert_eq!(allowed, documented());
    assert_eq!(allowed.len(), 13);
}

#[test]
fn reconnecting_counts_up_by_one_and_begins_at_one() {
    let n = |attempt| State::Reconnecting { attempt };
    assert!(n(4).may_become(n(5)));
    assert!(!n(4).may_become(n(4)) && !n(4).may_become(n(6)) && !n(4).may_become(n(3)));
    assert!(State::Connected { in_doubt: true }.may_become(n(1)));
    assert!(!State::Connecting.may_become(n(2)));
}

struct Rig {
    now: Now,
    tunnel: Tunnel,
    /// Attempts started and not abandoned, in order.
    live: Vec<AttemptId>,
    beats: Vec<(AttemptId, u64)>,
    changes: Vec<(State, State)>,
    started: usize,
    abandoned: usize,
    probes: usize,
}

impl Rig {
    fn new(attempts: Attempts) -> Self {
        Self::seeded(attempts, 3)
    }

    fn seeded(attempts: Attempts, seed: u8) -> Self {
        let now = Now {
            instant: origin(),
            wall: UnixMillis(0),
        };
        Self {
            now,
            tunnel: Tunnel::new(attempts, &Seed::new([seed; 32])),
            live: Vec::new(),
            beats: Vec::new(),
            changes: Vec::new(),
            started: 0,
            abandoned: 0,
            probes: 0,
        }
    }

    fn connected() -> Self {
        let mut rig = Self::new(Attempts::default());
        rig.give(Input::Connect);
        rig.establish();
        rig
    }

    fn give(&mut self, input: Input<'_>) -> Vec<Output> {
        self.tunnel.handle_input(self.now, input).unwrap();
        let outputs: Vec<_> = std::iter::from_fn(|| self.tunnel.poll_output()).collect();
        for output in &outputs {
            match output {
                Output::StartAttempt { attempt, .. } => {
                    self.started += 1;
                    self.live.push(*attempt);
                }
                Output::AbandonAttempt { attempt } => {
                    self.abandoned += 1;
                    self.live.retain(|live| live != attempt);
                }
                Output::Changed { from, to, .. } => self.changes.push((*from, *to)),
                Output::SendHeartbeat { attempt, sequence } => {
                    self.beats.push((*attempt, *sequence));
                }
                Output::Probe { .. } => self.probes += 1,
                Output::Rebind | Output::Doubt(_) | Output::SendPrewarm { .. } => {}
            }
        }
        outputs
    }

    /// Lets time pass, with timeouts on the way.
    fn wait(&mut self, span: Duration) -> Vec<Output> {
        let end = self.now.after(span);
        let mut outputs = Vec::new();
        while let Some((due, _)) = self
            .tunnel
            .poll_timeout()
            .filter(|(at, _)| *at <= end.instant)
        {
            let ahead = due.saturating_duration_since(self.now.instant);
            self.now = self.now.after(ahead);
            outputs.append(&mut self.give(Input::Timeout));
        }
        self.now = end;
        outputs
    }

    /// Lets time pass until an attempt is under way.
    fn wait_for_attempt(&mut self) {
        while self.tunnel.trying().is_none() {
            let (due, _) = self.tunnel.poll_timeout().unwrap();
            self.wait(due.saturating_duration_since(self.now.instant));
        }
    }

    /// Lets time pass while everything sent is answered.
    fn wait_healthy(&mut self, span: Duration) {
        let end = self.now.after(span);
        while self.now.instant < end.instant {
            let left = end.instant.saturating_duration_since(self.now.instant);
            self.wait(left.min(Duration::from_millis(900)));
            self.answer_everything();
        }
    }

    fn answer_everything(&mut self) {
        for (attempt, sequence) in std::mem::take(&mut self.beats) {
            self.give(Input::HeartbeatAcked { attempt, sequence });
        }
    }

    fn newest(&self) -> AttemptId {
        *self.live.last().unwrap()
    }

    fn establish(&mut self) -> Vec<Output> {
        let attempt = self.newest();
        self.give(Input::AttemptEstablished {
            attempt,
            heartbeat: limits::HEARTBEAT_EVERY,
        })
    }

    fn fail(&mut self, kind: FailureKind) -> Vec<Output> {
        let attempt = self.live.pop().unwrap();
        self.give(Input::AttemptFailed {
            attempt,
            failure: kind.into(),
        })
    }

    fn lose(&mut self, kind: FailureKind) -> Vec<Output> {
        let attempt = self.live.remove(0);
        self.give(Input::SessionLost {
            attempt,
            failure: kind.into(),
        })
    }

    fn traffic(&mut self, attempt: AttemptId, last_received: Instant, in_flight: bool) {
        let rtt = Duration::from_millis(20);
        self.give(Input::Traffic {
            attempt,
            traffic: Traffic {
                last_received,
                in_flight,
                rtt,
            },
            busy: false,
            wanted: false,
        });
    }

    /// In five seconds; what is under way is served for a minute.
    fn is_asked_to_move(&mut self) {
        let attempt = self.newest();
        self.give(Input::GoAway {
            attempt,
            reconnect_in: Duration::from_secs(5),
            try_for: Duration::from_secs(60),
        });
    }

    fn works(&mut self, attempt: AttemptId, busy: bool, wanted: bool) {
        let traffic = Traffic {
            last_received: self.now.instant,
            in_flight: false,
            rtt: Duration::ZERO,
        };
        self.give(Input::Traffic {
            attempt,
            traffic,
            busy,
            wanted,
        });
    }

    /// Something is sent and nothing comes back until the tunnel looks for another session.
    fn fall_silent(&mut self) {
        let attempt = self.newest();
        self.answer_everything();
        self.traffic(attempt, self.now.instant, true);
        self.wait(Duration::from_secs(21));
    }

    fn state(&self) -> State {
        self.tunnel.state()
    }
}

const UP: State = State::Connected { in_doubt: false };

fn again(attempt: u32) -> State {
    State::Reconnecting { attempt }
}

#[test]
fn a_hot_gpu_is_signalled_once_a_minute_and_only_on_a_session() {
    let hot = Vitals {
        gpu_temp_celsius: Some(91.0),
        ..Vitals::default()
    };
    let mut rig = Rig::new(Attempts::default());
    rig.give(Input::Connect);
    assert_eq!(rig.give(Input::Vitals(&hot)), []);
    rig.establish();
    assert_eq!(rig.give(Input::Vitals(&hot)).len(), 1);
    assert_eq!(rig.give(Input::Vitals(&hot)), []);
    rig.wait_healthy(Duration::from_secs(60));
    assert_eq!(rig.give(Input::Vitals(&hot)).len(), 1);
}

struct Tunnels;

impl Subject for Tunnels {
    type Machine = Tunnel;
    type Step = Input<'static>;

    fn make(&self) -> Tunnel {
        Tunnel::new(Attempts::AtMost(4), &Seed::new([5; 32]))
    }

    fn apply(&self, machine: &mut Tunnel, now: Now, step: &Self::Step) -> Result<(), Rejected> {
        machine.handle_input(now, step.clone())
    }

    fn timeout(&self, machine: &mut Tunnel, now: Now) {
        machine.handle_input(now, Input::Timeout).unwrap();
    }

    fn digest(&self, machine: &Tunnel) -> String {
        format!("{machine:?}")
    }
}

#[test]
fn it_keeps_the_contract_of_machines() {
    static HOT: Vitals = Vitals {
        cpu_usage: 0.1,
        memory_usage: 0.1,
        disk_usage: 0.1,
        gpu_usage: Some(0.9),
        gpu_vram_usage: None,
        gpu_temp_celsius: None,
        active_sessions: 0,
        pending_queries: 0,
        loaded_model: None,
    };
    let start = Now {
        instant: origin(),
        wall: UnixMillis(0),
    };
    let ms = Duration::from_millis;
    let heartbeat = limits::HEARTBEAT_EVERY;
    let script = [
        (ms(0), Input::NetworkChanged),
        (ms(0), Input::Connect),
        (ms(5), Input::Connect),
        (
            ms(5),
            Input::AttemptEstablished {
                attempt: AttemptId(1),
                heartbeat,
            },
        ),
        (ms(5), Input::Vitals(&HOT)),
        (
            ms(50),
            Input::HeartbeatAcked {
                attempt: AttemptId(1),
                sequence: 0,
            },
        ),
        (ms(31_000), Input::NetworkChanged),
        (
            ms(60_000),
            Input::AttemptFailed {
                attempt: AttemptId(2),
                failure: FailureKind::Refused.into(),
            },
        ),
        (ms(200_000), Input::Connect),
        (
            ms(5),
            Input::AttemptFailed {
                attempt: AttemptId(6),
                failure: FailureKind::Refused.into(),
            },
        ),
        (ms(5), Input::Disconnect),
    ];
    properties::check(&Tunnels, start, &script);
    let up = &script[1..4];
    properties::backlog_is_bounded(&Tunnels, start, up, |_| Input::NetworkChanged);
}
