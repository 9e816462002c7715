use std::collections::BTreeSet;

use proptest::prelude::*;

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
                Output::Doubt(_) | Output::SendPrewarm { .. } => {}
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
fn a_first_attempt_has_thirty_seconds_and_a_reconnect_five() {
    let mut rig = Rig::new(Attempts::default());
    rig.give(Input::Connect);
    assert_eq!(rig.state(), State::Connecting);
    rig.wait(Duration::from_millis(29_999));
    assert_eq!(rig.state(), State::Connecting);
    rig.wait(Duration::from_millis(1));
    assert_eq!(rig.state(), again(1));
    // The first retry is immediate.
    assert_eq!((rig.started, rig.abandoned), (2, 1));
    rig.wait(Duration::from_millis(4_999));
    assert_eq!((rig.state(), rig.abandoned), (again(1), 1));
    rig.wait(Duration::from_millis(1));
    assert_eq!((rig.state(), rig.abandoned), (again(2), 2));
    rig.wait(Duration::from_secs(1));
    assert_eq!(rig.started, 3, "the second within a second");
}

#[test]
fn attempts_are_used_up_and_then_it_waits_for_a_command_or_a_new_network() {
    let mut rig = Rig::new(Attempts::AtMost(3));
    rig.give(Input::Connect);
    for n in 1..=3 {
        rig.fail(FailureKind::Refused);
        assert_eq!(rig.state(), again(n));
        rig.wait_for_attempt();
    }
    rig.fail(FailureKind::Refused);
    assert_eq!(rig.state(), State::Failed);
    assert_eq!(rig.tunnel.failure().unwrap().kind, FailureKind::Refused);
    assert_eq!(rig.tunnel.poll_timeout(), None);
    rig.give(Input::NetworkChanged);
    assert_eq!(rig.state(), State::Connecting);
    rig.fail(FailureKind::Refused);
    assert_eq!(rig.state(), again(1), "a new network has its own attempts");
}

#[test]
fn an_agent_tries_for_ever_within_a_minute_each() {
    let mut rig = Rig::new(Attempts::Forever);
    rig.give(Input::Connect);
    for n in 1..=40 {
        rig.fail(FailureKind::Unreachable);
        assert_eq!(rig.state(), again(n));
        let (due, _) = rig.tunnel.poll_timeout().unwrap();
        assert!(due <= rig.now.instant + Duration::from_secs(60));
        rig.wait_for_attempt();
    }
}

#[test]
fn a_refused_certificate_fails_at_once() {
    let mut rig = Rig::new(Attempts::Forever);
    rig.give(Input::Connect);
    rig.fail(FailureKind::CertificateExpired);
    assert_eq!(rig.state(), State::Failed);
}

#[test]
fn revoking_a_live_session_fails_through_reconnecting() {
    let mut rig = Rig::connected();
    rig.lose(FailureKind::Revoked);
    assert_eq!(rig.state(), State::Failed);
    let changes = &rig.changes[rig.changes.len() - 2..];
    assert_eq!(changes, [(UP, again(1)), (again(1), State::Failed)]);
    assert_eq!(rig.started, 1, "nothing is tried");
}

#[test]
fn the_gateways_word_on_when_to_come_back_wins() {
    let mut rig = Rig::connected();
    let attempt = rig.live.pop().unwrap();
    let failure = Failure {
        retry_after: Some(Duration::from_secs(17)),
        ..FailureKind::Overloaded.into()
    };
    rig.give(Input::SessionLost { attempt, failure });
    rig.wait(Duration::from_millis(16_999));
    assert_eq!(rig.started, 1);
    rig.wait(Duration::from_millis(1));
    assert_eq!(rig.started, 2);
}

#[test]
fn who_was_replaced_by_the_same_device_elsewhere_does_not_fight_for_the_place() {
    let waits = (0..64).map(|seed| {
        let mut rig = Rig::seeded(Attempts::Forever, seed);
        rig.give(Input::Connect);
        rig.establish();
        rig.wait_healthy(Duration::from_secs(31));
        rig.lose(FailureKind::Replaced);
        assert_eq!((rig.state(), rig.started), (again(1), 1), "not at once");
        let lost = rig.now.instant;
        rig.tunnel.poll_timeout().unwrap().0 - lost
    });
    let waits: Vec<Duration> = waits.collect();
    assert!(waits.iter().all(|wait| *wait <= limits::BACKOFF_MAX));
    // Of 64 draws the chance that none is in the top tenth is about a thousandth, for these seeds
    // it is settled.
    assert!(
        waits
            .iter()
            .any(|wait| *wait > limits::BACKOFF_MAX * 9 / 10)
    );
}

#[test]
fn a_session_that_dies_young_does_not_reset_the_backoff() {
    let mut rig = Rig::new(Attempts::AtMost(4));
    rig.give(Input::Connect);
    for _ in 0..4 {
        rig.establish();
        rig.wait_healthy(Duration::from_secs(29));
        rig.lose(FailureKind::Protocol);
        assert_eq!(rig.state(), again(1));
        rig.wait(Duration::from_secs(4));
    }
    rig.establish();
    rig.lose(FailureKind::Protocol);
    assert_eq!(rig.state(), State::Failed);

    let mut rig = Rig::new(Attempts::AtMost(4));
    rig.give(Input::Connect);
    for _ in 0..9 {
        rig.establish();
        rig.wait_healthy(Duration::from_secs(30));
        let started = rig.started;
        rig.lose(FailureKind::Protocol);
        assert_eq!((rig.state(), rig.started), (again(1), started + 1));
    }
}

#[test]
fn a_silent_session_is_probed_beside_new_attempts_and_may_win() {
    let mut rig = Rig::connected();
    let old = rig.newest();
    rig.fall_silent();
    assert_eq!(rig.state(), again(1));
    let probes = rig.probes;
    rig.wait(Duration::from_secs(3));
    assert_eq!(rig.probes, probes + 3);
    let tried = rig.newest();
    rig.traffic(old, rig.now.instant, false);
    assert_eq!(rig.state(), UP);
    assert_eq!(rig.live, [old]);
    assert_ne!(old, tried);
    // Late words of the abandoned attempt are nothing.
    let heartbeat = limits::HEARTBEAT_EVERY;
    let attempt = tried;
    assert_eq!(
        rig.give(Input::AttemptEstablished { attempt, heartbeat }),
        []
    );
    assert_eq!(rig.tunnel.session().unwrap().0, old);
}

#[test]
fn a_new_session_replaces_the_silent_one() {
    let mut rig = Rig::connected();
    let old = rig.newest();
    rig.fall_silent();
    let outputs = rig.establish();
    assert_eq!(outputs[0], Output::AbandonAttempt { attempt: old });
    assert_eq!(rig.state(), UP);
    assert_eq!(rig.live.len(), 1);
}

#[test]
fn doubt_is_said_after_a_second_of_silence_and_taken_back() {
    let mut rig = Rig::connected();
    rig.answer_everything();
    let attempt = rig.newest();
    rig.traffic(attempt, rig.now.instant, true);
    let outputs = rig.wait(Duration::from_secs(1));
    assert_eq!(outputs, [Output::Doubt(true), Output::Probe { attempt }]);
    assert_eq!(rig.state(), State::Connected { in_doubt: true });
    rig.wait(Duration::from_millis(10));
    rig.traffic(attempt, rig.now.instant, false);
    assert_eq!(rig.state(), UP);
}

#[test]
fn asked_to_move_it_moves_in_time_and_finishes_beside_it_what_is_under_way() {
    for busy in [false, true] {
        let mut rig = Rig::connected();
        let old = rig.newest();
        rig.is_asked_to_move();
        rig.works(old, busy, false);
        rig.wait_healthy(Duration::from_secs(5) - Duration::from_millis(1));
        assert_eq!(rig.state(), UP);
        rig.wait(Duration::from_millis(1));
        assert_eq!(rig.state(), again(1));
        assert_eq!(rig.live.contains(&old), busy);
        rig.establish();
        assert_eq!(rig.state(), UP);
        assert_eq!(rig.live.contains(&old), busy);
        rig.works(old, false, false);
        assert_eq!(rig.live, [rig.newest()]);
    }
}

#[test]
fn what_is_under_way_on_a_session_that_was_left_has_the_gateways_time_and_no_more() {
    let mut rig = Rig::connected();
    let old = rig.newest();
    rig.is_asked_to_move();
    rig.works(old, true, false);
    rig.wait_healthy(Duration::from_secs(5));
    rig.establish();
    rig.wait_healthy(Duration::from_secs(56));
    assert!(rig.live.contains(&old));
    rig.wait_healthy(Duration::from_secs(1));
    assert_eq!(rig.live, [rig.newest()]);
    assert_eq!(rig.state(), UP);
}

#[test]
fn asked_to_move_it_moves_at_once_when_something_waits_to_be_begun() {
    let mut rig = Rig::connected();
    let old = rig.newest();
    rig.works(old, true, true);
    assert_eq!(rig.state(), UP, "nobody asked");
    rig.is_asked_to_move();
    assert!(rig.tunnel.is_asked_to_move());
    rig.works(old, true, true);
    assert_eq!(rig.state(), again(1));
    rig.establish();
    assert!(!rig.tunnel.is_asked_to_move());
    assert!(rig.live.contains(&old));
}

#[test]
fn attempts_do_not_run_out_while_answers_are_finished_on_a_session_that_was_left() {
    let mut rig = Rig::new(Attempts::AtMost(1));
    rig.give(Input::Connect);
    rig.establish();
    let old = rig.newest();
    rig.is_asked_to_move();
    rig.works(old, true, true);
    for n in 1..4 {
        assert_eq!(rig.state(), again(n));
        rig.wait_for_attempt();
        rig.fail(FailureKind::Refused);
    }
    rig.works(old, false, true);
    rig.wait_for_attempt();
    rig.fail(FailureKind::Refused);
    assert_eq!(rig.state(), State::Failed);
    assert!(rig.live.is_empty());
}

#[test]
fn a_session_that_was_left_may_be_lost_and_only_a_final_word_of_it_counts() {
    for (kind, state) in [
        (FailureKind::GoingAway, again(1)),
        (FailureKind::Revoked, State::Failed),
    ] {
        let mut rig = Rig::connected();
        let old = rig.newest();
        rig.is_asked_to_move();
        rig.works(old, true, true);
        rig.lose(kind);
        assert_eq!(rig.state(), state);
        assert!(!rig.live.contains(&old));
    }
    let mut rig = Rig::connected();
    let old = rig.newest();
    rig.is_asked_to_move();
    rig.works(old, true, true);
    rig.give(Input::Disconnect);
    assert_eq!(rig.state(), State::Disconnected);
    assert!(rig.live.is_empty(), "nothing of it is left");
}

#[test]
fn a_new_network_or_a_wake_retries_at_once_and_probes_a_session() {
    let mut rig = Rig::new(Attempts::Forever);
    rig.give(Input::Connect);
    for n in 1..=6 {
        rig.fail(FailureKind::Unreachable);
        if n > 1 {
            let asleep = Duration::from_secs(5);
            let woken = if n % 2 == 0 {
                Input::Woke { asleep }
            } else {
                Input::NetworkChanged
            };
            let started = rig.started;
            rig.give(woken);
            assert_eq!(rig.started, started + 1);
        }
        assert_eq!(rig.state(), again(n));
    }
    rig.establish();
    let probes = rig.probes;
    rig.give(Input::NetworkChanged);
    assert_eq!((rig.probes, rig.state()), (probes + 1, UP));
}

#[test]
fn after_a_sleep_longer_than_the_idle_timeout_the_session_is_not_waited_for() {
    let mut rig = Rig::connected();
    let asleep = Duration::from_secs(119);
    rig.give(Input::Woke { asleep });
    assert_eq!(rig.state(), UP);
    let asleep = Duration::from_secs(120);
    rig.give(Input::Woke { asleep });
    assert_eq!((rig.state(), rig.live.len()), (again(1), 2));
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

#[test]
fn connecting_twice_is_the_callers_mistake() {
    let mut rig = Rig::connected();
    let again = rig.tunnel.handle_input(rig.now, Input::Connect);
    assert_eq!(again, Err(Rejected::AlreadyUp));
    rig.give(Input::Disconnect);
    assert_eq!(rig.state(), State::Disconnected);
    assert!(rig.live.is_empty());
    assert_eq!(rig.give(Input::Disconnect), []);
}

/// What may happen to a tunnel, without the names of attempts.
#[derive(Clone, Debug)]
enum Deed {
    Connect,
    Disconnect,
    NetworkChanged,
    Woke,
    Wait(u64),
    Establish,
    Fail { last: bool },
    FailLater(u64),
    Lose { last: bool },
    FallSilent,
    OldAnswers,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        3 => Just(Deed::Connect),
        1 => Just(Deed::Disconnect),
        2 => Just(Deed::NetworkChanged),
        1 => Just(Deed::Woke),
        4 => (0u64..70_000).prop_map(Deed::Wait),
        6 => Just(Deed::Establish),
        5 => prop::bool::weighted(0.1).prop_map(|last| Deed::Fail { last }),
        1 => (0u64..100).prop_map(Deed::FailLater),
        3 => prop::bool::weighted(0.1).prop_map(|last| Deed::Lose { last }),
        2 => Just(Deed::FallSilent),
        2 => Just(Deed::OldAnswers),
    ];
    prop::collection::vec(deed, 1..60)
}

/// The rules again, as flags and counters instead of states that hold their data: what is expected
/// of the tunnel after each deed. Hearts are kept healthy but in `FallSilent`.
#[derive(Debug, Default)]
struct Model {
    wanted: bool,
    gave_up: bool,
    session: bool,
    /// A session that fell silent.
    ghost: bool,
    try_ends: Option<Instant>,
    rest_ends: Option<Instant>,
    round: u32,
    spent: u32,
    most: u32,
    born: Option<Instant>,
    ghost_born: Option<Instant>,
    starts: usize,
    drops: usize,
}

impl Model {
    fn state(&self) -> State {
        match (self.wanted, self.gave_up, self.session, self.round) {
            (false, ..) => State::Disconnected,
            (true, true, ..) => State::Failed,
            (true, false, true, _) => UP,
            (true, false, false, 0) => State::Connecting,
            (true, false, false, round) => again(round),
        }
    }

    fn start(&mut self, now: Instant, secs: u64) {
        self.drops += usize::from(self.try_ends.is_some());
        self.starts += 1;
        self.rest_ends = None;
        self.try_ends = Some(now + Duration::from_secs(secs));
    }

    fn begin(&mut self, now: Instant) {
        *self = Self {
            wanted: true,
            most: self.most,
            starts: self.starts,
            drops: self.drops,
            ..Self::default()
        };
        self.start(now, 30);
    }

    fn stop(&mut self) {
        let held = [self.session, self.ghost, self.try_ends.is_some()];
        self.drops += held.into_iter().filter(|held| *held).count();
        self.session = false;
        self.ghost = false;
        self.try_ends = None;
        self.rest_ends = None;
    }

    /// Something failed: another round, or the end. `rest` is what the tunnel chose to wait.
    fn next_round(&mut self, now: Instant, last: bool, asked: Option<u64>, rest: Option<Instant>) {
        self.try_ends = None;
        self.round += 1;
        if last || self.spent >= self.most {
            self.stop();
            self.gave_up = true;
            return;
        }
        self.spent += 1;
        match asked {
            Some(0) => self.start(now, 5),
            None if self.spent == 1 => self.start(now, 5),
            _ => {
                let rest = rest.expect("a deadline");
                match asked {
                    Some(secs) => assert_eq!(rest, now + Duration::from_secs(secs)),
                    None => assert!(rest <= now + wait_max(self.spent)),
                }
                self.rest_ends = Some(rest);
            }
        }
    }

    fn session_over(&mut self, now: Instant) {
        self.session = false;
        self.round = 0;
        if now - self.born.take().unwrap() >= Duration::from_secs(30) {
            self.spent = 0;
        }
    }

    fn tick(&mut self, now: Instant, rest: Option<Instant>) {
        if self.try_ends.is_some_and(|end| end <= now) {
            self.drops += 1;
            self.next_round(now, false, None, rest);
        }
        if self.rest_ends.is_some_and(|end| end <= now) {
            self.start(now, 5);
        }
    }
}

struct Comparison {
    rig: Rig,
    model: Model,
    seen: BTreeSet<(&'static str, &'static str)>,
}

impl Comparison {
    fn new(seed: u8, most: u32) -> Self {
        Self {
            rig: Rig::seeded(Attempts::AtMost(most), seed),
            model: Model {
                most,
                ..Model::default()
            },
            seen: BTreeSet::new(),
        }
    }

    fn rest(&self) -> Option<Instant> {
        if let Phase::Reconnecting {
            next: Next::Wait(until),
            ..
        } = &self.rig.tunnel.phase
        {
            return Some(*until);
        }
        None
    }

    /// Lets time pass step by step; in a session everything is answered.
    fn wait(&mut self, span: Duration) {
        let end = self.rig.now.after(span).instant;
        if self.rig.tunnel.session().is_some() {
            self.rig.answer_everything();
        }
        loop {
            let due = self
                .rig
                .tunnel
                .poll_timeout()
                .map_or(end, |(due, _)| due.min(end));
            let step = due.saturating_duration_since(self.rig.now.instant);
            self.rig.now = self.rig.now.after(step);
            self.rig.give(Input::Timeout);
            if self.rig.tunnel.session().is_some() {
                self.rig.answer_everything();
            }
            let rest = self.rest();
            self.model.tick(self.rig.now.instant, rest);
            self.compare();
            if due == end {
                return;
            }
        }
    }

    fn silence(&mut self) {
        let attempt = self.rig.tunnel.session().unwrap().0;
        self.rig.answer_everything();
        self.rig.traffic(attempt, self.rig.now.instant, true);
        // The beat of that time may or may not have been sent; doubt comes from what is in flight.
        self.rig.wait(Duration::from_secs(21));
        let now = self.rig.now.instant;
        self.model.ghost_born = self.model.born;
        self.model.session_over(now);
        let spent_up = self.model.spent >= self.model.most;
        self.model.ghost = true;
        let rest = self.rest();
        self.model.next_round(now, false, None, rest);
        if spent_up {
            assert!(self.model.gave_up);
        }
    }

    fn deed(&mut self, deed: &Deed) {
        let now = self.rig.now.instant;
        let trying = self.model.try_ends.is_some();
        match deed {
            Deed::Connect if self.model.wanted && !self.model.gave_up => {}
            Deed::Connect => {
                self.rig.give(Input::Connect);
                self.model.begin(now);
            }
            Deed::Disconnect => {
                self.rig.give(Input::Disconnect);
                self.model.stop();
                self.model.wanted = false;
            }
            Deed::NetworkChanged => {
                self.rig.give(Input::NetworkChanged);
                match self.model.state() {
                    State::Failed => self.model.begin(now),
                    State::Connecting => {
                        let ends = self.model.try_ends;
                        self.model.start(now, 30);
                        self.model.try_ends = ends;
                    }
                    State::Reconnecting { .. } => self.model.start(now, 5),
                    State::Disconnected | State::Connected { .. } => {}
                }
            }
            Deed::Woke => {
                let asleep = Duration::from_secs(9);
                self.rig.give(Input::Woke { asleep });
                if self.model.rest_ends.is_some() {
                    self.model.start(now, 5);
                }
            }
            Deed::Wait(ms) => self.wait(Duration::from_millis(*ms)),
            Deed::Establish if trying => {
                self.rig.establish();
                self.model.drops += usize::from(std::mem::take(&mut self.model.ghost));
                self.model.try_ends = None;
                self.model.session = true;
                self.model.born = Some(now);
            }
            Deed::Fail { last } if trying => {
                let kinds = [FailureKind::Refused, FailureKind::UnknownCa];
                self.rig.fail(kinds[usize::from(*last)]);
                let rest = self.rest();
                self.model.next_round(now, *last, None, rest);
            }
            Deed::FailLater(secs) if trying => {
                let attempt = self.rig.live.pop().unwrap();
                let failure = Failure {
                    retry_after: Some(Duration::from_secs(*secs)),
                    ..FailureKind::Overloaded.into()
                };
                self.rig.give(Input::AttemptFailed { attempt, failure });
                let rest = self.rest();
                self.model.next_round(now, false, Some(*secs), rest);
            }
            Deed::Lose { last } if self.model.session => {
                let kinds = [FailureKind::Forgotten, FailureKind::Revoked];
                self.rig.lose(kinds[usize::from(*last)]);
                self.model.session_over(now);
                let rest = self.rest();
                self.model.next_round(now, *last, None, rest);
            }
            Deed::Lose { last } if self.model.ghost => {
                let kinds = [FailureKind::TimedOut, FailureKind::Revoked];
                self.rig.lose(kinds[usize::from(*last)]);
                self.model.ghost = false;
                if *last {
                    self.model.stop();
                    self.model.gave_up = true;
                }
            }
            Deed::FallSilent if self.model.session => self.silence(),
            Deed::OldAnswers if self.model.ghost => {
                let old = self.rig.live[0];
                self.rig.now = self.rig.now.after(Duration::from_millis(1));
                self.rig.traffic(old, self.rig.now.instant, false);
                let rest = self.rest();
                self.model.tick(self.rig.now.instant, rest);
                self.model.ghost = false;
                self.model.stop();
                self.model.session = true;
                self.model.born = self.model.ghost_born;
            }
            Deed::Establish
            | Deed::Fail { .. }
            | Deed::FailLater(_)
            | Deed::Lose { .. }
            | Deed::FallSilent
            | Deed::OldAnswers => {}
        }
        self.compare();
    }

    fn compare(&mut self) {
        let rig = &self.rig;
        assert_eq!(rig.state(), self.model.state(), "{:?}", self.model);
        assert_eq!(rig.started, self.model.starts, "attempts started");
        assert_eq!(rig.abandoned, self.model.drops, "attempts abandoned");
        let kept = usize::from(self.model.session) + usize::from(self.model.ghost);
        assert_eq!(
            rig.live.len(),
            kept + usize::from(self.model.try_ends.is_some())
        );
        for (from, to) in &rig.changes {
            assert!(from.may_become(*to));
            self.seen.insert((from.name(), to.name()));
        }
        self.rig.changes.clear();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_tunnel_does_what_the_rules_written_otherwise_say(
        seed in any::<u8>(),
        most in 0u32..12,
        deeds in deeds(),
    ) {
        let mut both = Comparison::new(seed, most);
        for deed in &deeds {
            both.deed(deed);
        }
    }
}

#[test]
fn a_long_life_passes_through_every_documented_transition() {
    use Deed::{
        Connect, Disconnect, Establish, Fail, FallSilent, Lose, NetworkChanged, OldAnswers,
    };
    let fail = Fail { last: false };
    let die = Fail { last: true };
    let lose = Lose { last: false };
    let life = [
        Connect,
        Disconnect,
        Connect,
        die.clone(),
        Disconnect,
        Connect,
        fail.clone(),
        fail.clone(),
        Establish,
        lose.clone(),
        NetworkChanged,
        die.clone(),
        NetworkChanged,
        Establish,
        FallSilent,
        OldAnswers,
        Disconnect,
        Connect,
        fail,
        Disconnect,
    ];
    let mut both = Comparison::new(1, 10);
    for deed in &life {
        both.deed(deed);
    }
    let documented = documented();
    let seen: BTreeSet<_> = both
        .seen
        .iter()
        .map(|(from, to)| ((*from).to_owned(), (*to).to_owned()))
        .collect();
    assert_eq!(seen, documented);
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
