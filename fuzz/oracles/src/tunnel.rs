//! The tunnel under arbitrary inputs and times: the properties of every machine, the legal
//! transitions, and the book of its attempts.

use std::collections::BTreeMap;
use std::time::Duration;

use arbitrary::Arbitrary;
use mesh_core::heartbeat::Traffic;
use mesh_core::machine::Machine;
use mesh_core::machine::properties::{self, Subject};
use mesh_core::rng::Seed;
use mesh_core::time::Now;
use mesh_core::tunnel::{
    AttemptId, Attempts, Failure, FailureKind, Input, Output, Rejected, State, Tunnel,
};
use mesh_core::wire::message::Vitals;

use crate::steps::{self, Span};

/// Without a server's word the next attempt is at most this far away.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A server's word is taken up to this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Between two pre-warm signals.
const PREWARM_EVERY: Duration = Duration::from_secs(60);

/// The transitions that are legal, by name.
const LEGAL: [(&str, &str); 13] = [
    ("Disconnected", "Connecting"),
    ("Connecting", "Connected"),
    ("Connecting", "Reconnecting"),
    ("Connecting", "Failed"),
    ("Connecting", "Disconnected"),
    ("Connected", "Reconnecting"),
    ("Connected", "Disconnected"),
    ("Reconnecting", "Reconnecting"),
    ("Reconnecting", "Connected"),
    ("Reconnecting", "Failed"),
    ("Reconnecting", "Disconnected"),
    ("Failed", "Connecting"),
    ("Failed", "Disconnected"),
];

/// A probe a second for so long, undrained, and there is room left.
const UNDRAINED_MAX: Duration = Duration::from_secs(600);

#[derive(Debug, Arbitrary)]
struct Head {
    attempts: Option<u8>,
    seed: u8,
}

#[derive(Debug, Arbitrary)]
struct Step {
    wait: Span,
    what: What,
}

/// An attempt is named by how many attempts before the newest it is: most scripts hit one that lives.
#[derive(Clone, Debug, Arbitrary)]
enum What {
    Connect,
    Disconnect,
    NetworkChanged,
    Woke {
        asleep: Span,
    },
    Established {
        back: Back,
        heartbeat: Span,
    },
    AttemptFailed {
        back: Back,
        why: Cause,
    },
    SessionLost {
        back: Back,
        why: Cause,
    },
    Traffic {
        back: Back,
        received_ago: Span,
        in_flight: bool,
        busy: bool,
    },
    Acked {
        back: Back,
        sequence: u8,
    },
    GoAway {
        back: Back,
        reconnect_in: Span,
        try_for: Span,
    },
    Hot {
        gpu: u8,
    },
    Timeout,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Back {
    Newest,
    OneBefore,
    TwoBefore,
    Never,
}

#[derive(Clone, Debug, Arbitrary)]
enum Cause {
    TimedOut,
    Refused,
    Replaced,
    Overloaded { retry_after: Option<Span> },
    Revoked,
    Protocol,
}

impl Cause {
    fn failure(&self) -> Failure {
        let (kind, retry_after) = match self {
            Self::TimedOut => (FailureKind::TimedOut, None),
            Self::Refused => (FailureKind::Refused, None),
            Self::Replaced => (FailureKind::Replaced, None),
            Self::Overloaded { retry_after } => (FailureKind::Overloaded, *retry_after),
            Self::Revoked => (FailureKind::Revoked, None),
            Self::Protocol => (FailureKind::Protocol, None),
        };
        Failure {
            retry_after: retry_after.map(Span::duration),
            ..kind.into()
        }
    }
}

struct Tunnels {
    attempts: Attempts,
    seed: u8,
}

/// The tunnel and the attempts that it has started, which is what a parent knows.
struct Parented {
    tunnel: Tunnel,
    started: Vec<AttemptId>,
    queue: std::collections::VecDeque<Output>,
}

impl Parented {
    fn attempt(&self, back: Back) -> Option<AttemptId> {
        let back = match back {
            Back::Newest => 0,
            Back::OneBefore => 1,
            Back::TwoBefore => 2,
            Back::Never => return None,
        };
        self.started.iter().rev().nth(back).copied()
    }

    /// What was started in this step is known to the next.
    fn note(&mut self) {
        while let Some(output) = self.tunnel.poll_output() {
            if let Output::StartAttempt { attempt, .. } = &output {
                self.started.push(*attempt);
            }
            self.queue.push_back(output);
        }
    }

    fn give(&mut self, now: Now, what: &What) -> Result<(), Rejected> {
        let vitals;
        let input = match what {
            What::Connect => Input::Connect,
            What::Disconnect => Input::Disconnect,
            What::NetworkChanged => Input::NetworkChanged,
            What::Woke { asleep } => Input::Woke {
                asleep: asleep.duration(),
            },
            What::Timeout => Input::Timeout,
            What::Hot { gpu } => {
                vitals = Vitals {
                    gpu_usage: Some(f32::from(*gpu) / 255.0),
                    ..Vitals::default()
                };
                Input::Vitals(&vitals)
            }
            What::Established { back, .. }
            | What::AttemptFailed { back, .. }
            | What::SessionLost { back, .. }
            | What::Traffic { back, .. }
            | What::Acked { back, .. }
            | What::GoAway { back, .. } => match self.attempt(*back) {
                Some(attempt) => of_attempt(now, attempt, what),
                None => Input::Timeout,
            },
        };
        let result = self.tunnel.handle_input(now, input);
        self.note();
        result
    }
}

fn of_attempt(now: Now, attempt: AttemptId, what: &What) -> Input<'static> {
    match what {
        What::Established { heartbeat, .. } => Input::AttemptEstablished {
            attempt,
            heartbeat: heartbeat.duration(),
        },
        What::AttemptFailed { why, .. } => Input::AttemptFailed {
            attempt,
            failure: why.failure(),
        },
        What::SessionLost { why, .. } => Input::SessionLost {
            attempt,
            failure: why.failure(),
        },
        What::Traffic {
            received_ago,
            in_flight,
            busy,
            ..
        } => Input::Traffic {
            attempt,
            traffic: Traffic {
                last_received: now
                    .instant
                    .checked_sub(received_ago.duration())
                    .unwrap_or(now.instant)
                    .max(steps::origin().instant),
                in_flight: *in_flight,
                rtt: Duration::from_millis(20),
            },
            busy: *busy,
            wanted: *busy && *in_flight,
        },
        What::Acked { sequence, .. } => Input::HeartbeatAcked {
            attempt,
            sequence: u64::from(*sequence),
        },
        What::GoAway {
            reconnect_in,
            try_for,
            ..
        } => Input::GoAway {
            attempt,
            reconnect_in: reconnect_in.duration(),
            try_for: try_for.duration(),
        },
        What::Connect
        | What::Disconnect
        | What::NetworkChanged
        | What::Woke { .. }
        | What::Hot { .. }
        | What::Timeout => Input::Timeout,
    }
}

impl Machine for Parented {
    type Input<'a> = &'a What;
    type Output = Output;
    type Rejected = Rejected;

    fn handle_input(&mut self, now: Now, what: &What) -> Result<(), Rejected> {
        self.give(now, what)
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.queue.pop_front()
    }

    fn poll_timeout(&self) -> Option<(std::time::Instant, &'static str)> {
        self.tunnel.poll_timeout()
    }
}

impl Subject for Tunnels {
    type Machine = Parented;
    type Step = What;

    fn make(&self) -> Parented {
        Parented {
            tunnel: Tunnel::new(self.attempts, &Seed::new([self.seed; 32])),
            started: Vec::new(),
            queue: std::collections::VecDeque::new(),
        }
    }

    fn apply(&self, tunnel: &mut Parented, now: Now, what: &What) -> Result<(), Rejected> {
        tunnel.give(now, what)
    }

    fn timeout(&self, tunnel: &mut Parented, now: Now) {
        assert_eq!(tunnel.give(now, &What::Timeout), Ok(()));
    }

    fn digest(&self, tunnel: &Parented) -> String {
        format!("{:?}", tunnel.tunnel)
    }
}

/// Where an attempt stands, as a parent knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Trying,
    Session,
}

/// The book of attempts, and the state as it was told.
struct Book {
    state: State,
    attempts: BTreeMap<AttemptId, Stand>,
    beats: BTreeMap<AttemptId, u64>,
    last_prewarm: Option<Now>,
}

impl Book {
    /// What a parent says of an attempt before the tunnel has answered.
    fn said(&mut self, tunnel: &Parented, what: &What) {
        match what {
            What::Established { back, .. } => {
                if let Some(attempt) = tunnel.attempt(*back)
                    && let Some(stand) = self.attempts.get_mut(&attempt)
                {
                    *stand = Stand::Session;
                }
            }
            What::AttemptFailed { back, .. } => {
                let attempt = tunnel.attempt(*back);
                self.attempts
                    .retain(|known, stand| Some(*known) != attempt || *stand == Stand::Session);
            }
            What::SessionLost { back, .. } => {
                let attempt = tunnel.attempt(*back);
                self.attempts
                    .retain(|known, stand| Some(*known) != attempt || *stand == Stand::Trying);
            }
            What::Connect
            | What::Disconnect
            | What::NetworkChanged
            | What::Woke { .. }
            | What::Traffic { .. }
            | What::Acked { .. }
            | What::GoAway { .. }
            | What::Hot { .. }
            | What::Timeout => {}
        }
    }

    fn outputs(&mut self, now: Now, tunnel: &mut Parented) {
        while let Some(output) = tunnel.poll_output() {
            match output {
                Output::StartAttempt {
                    attempt,
                    give_up_at,
                } => {
                    assert!(give_up_at > now.instant);
                    let newest = self.beats.keys().last().is_none_or(|last| *last < attempt);
                    assert!(newest, "an attempt's name came again");
                    self.attempts.insert(attempt, Stand::Trying);
                    self.beats.insert(attempt, 0);
                }
                Output::AbandonAttempt { attempt } => {
                    let known = self.attempts.remove(&attempt);
                    assert!(known.is_some(), "{attempt:?} was abandoned after its end");
                }
                Output::Changed { from, to, .. } => self.changed(from, to),
                Output::Rebind => assert!(
                    matches!(self.state, State::Connecting | State::Reconnecting { .. }),
                    "another port while there is a tunnel, or nobody wants one"
                ),
                Output::Doubt(doubt) => self.state = State::Connected { in_doubt: doubt },
                Output::SendHeartbeat { attempt, sequence } => {
                    assert_eq!(self.attempts.get(&attempt), Some(&Stand::Session));
                    let next = self.beats.entry(attempt).or_default();
                    assert_eq!(sequence, *next, "beats of a session count from 0 by one");
                    *next += 1;
                }
                Output::Probe { attempt } => {
                    assert_eq!(self.attempts.get(&attempt), Some(&Stand::Session));
                }
                Output::SendPrewarm { attempt, .. } => {
                    assert_eq!(self.attempts.get(&attempt), Some(&Stand::Session));
                    if let Some(last) = self.last_prewarm.replace(now) {
                        let apart = now.instant.duration_since(last.instant);
                        assert!(apart >= PREWARM_EVERY, "signals {apart:?} apart");
                    }
                }
            }
        }
        self.rules(now, tunnel);
    }

    fn changed(&mut self, from: State, to: State) {
        assert_eq!(from.name(), self.state.name(), "a change from elsewhere");
        assert!(LEGAL.contains(&(from.name(), to.name())), "{from} to {to}");
        match (from, to) {
            (State::Reconnecting { attempt: n }, State::Reconnecting { attempt: next }) => {
                assert_eq!(next, n + 1);
            }
            (_, State::Reconnecting { attempt: n }) => assert_eq!(n, 1),
            _ => {}
        }
        self.state = to;
    }

    fn rules(&self, now: Now, tunnel: &Parented) {
        let state = tunnel.tunnel.state();
        assert_eq!(
            state.name(),
            self.state.name(),
            "a change that was not told"
        );
        let count = |stand| self.attempts.values().filter(|s| **s == stand).count();
        let (trying, sessions) = (count(Stand::Trying), count(Stand::Session));
        let allowed = match state {
            State::Disconnected | State::Failed => trying == 0 && sessions == 0,
            State::Connecting => trying == 1 && sessions == 0,
            // And one that was left, while answers are finished on it.
            State::Connected { .. } => trying == 0 && (1..=2).contains(&sessions),
            State::Reconnecting { .. } => trying <= 1 && sessions <= 2,
        };
        assert!(
            allowed,
            "{trying} attempts and {sessions} sessions in {state}"
        );
        let due = tunnel.poll_timeout();
        match state {
            State::Disconnected | State::Failed => assert_eq!(due, None),
            State::Connecting | State::Connected { .. } | State::Reconnecting { .. } => {
                let Some((due, why)) = due else {
                    unreachable!("{state} without a deadline");
                };
                let ahead = due.saturating_duration_since(now.instant);
                assert!(
                    ahead <= RETRY_AFTER_MAX.max(BACKOFF_MAX),
                    "{why} in {ahead:?}"
                );
            }
        }
    }
}

/// See the module documentation.
pub fn run(data: &[u8]) {
    let Some((head, steps)) = steps::script::<Head, Step>(data) else {
        return;
    };
    let tunnels = Tunnels {
        attempts: head.attempts.map_or(Attempts::Forever, |most| {
            Attempts::AtMost(u32::from(most % 12))
        }),
        seed: head.seed,
    };
    let script: Vec<_> = steps
        .into_iter()
        .map(|step| (step.wait.duration(), step.what))
        .collect();
    let start = steps::within(&script, UNDRAINED_MAX);
    properties::check(&tunnels, steps::origin(), start);

    let mut tunnel = tunnels.make();
    let mut now = steps::origin();
    let mut book = Book {
        state: State::Disconnected,
        attempts: BTreeMap::new(),
        beats: BTreeMap::new(),
        last_prewarm: None,
    };
    for (wait, what) in &script {
        let end = now.after(*wait);
        while let Some((due, _)) = tunnel.poll_timeout().filter(|(at, _)| *at <= end.instant) {
            now = now.after(due.saturating_duration_since(now.instant));
            tunnels.timeout(&mut tunnel, now);
            book.outputs(now, &mut tunnel);
        }
        now = end;
        let up = !matches!(tunnel.tunnel.state(), State::Disconnected | State::Failed);
        book.said(&tunnel, what);
        let result = tunnels.apply(&mut tunnel, now, what);
        let expected = if up && matches!(what, What::Connect) {
            Err(Rejected::AlreadyUp)
        } else {
            Ok(())
        };
        assert_eq!(result, expected, "{what:?}");
        book.outputs(now, &mut tunnel);
    }
}
