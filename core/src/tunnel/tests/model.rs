//! The tunnel beside its rules written otherwise: flags and counters instead of states.

use proptest::prelude::*;

use super::*;

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
                // It answers the beats that were missed, too.
                self.rig.answer_everything();
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
