use proptest::prelude::*;

use super::*;
use crate::machine::properties::{self, Subject};
use crate::time::{UnixMillis, origin};

struct Heart {
    start: Now,
    now: Now,
    heart: Heartbeat,
}

impl Heart {
    fn new() -> Self {
        let start = Now {
            instant: origin(),
            wall: UnixMillis(0),
        };
        let heart = Heartbeat::new(start.instant, limits::HEARTBEAT_EVERY);
        Self {
            start,
            now: start,
            heart,
        }
    }

    /// Gives an input at so many milliseconds after the start, and takes what is said.
    fn at(&mut self, ms: u64, input: Input) -> Vec<Output> {
        self.now = self.start.after(Duration::from_millis(ms));
        self.heart.handle_input(self.now, input).unwrap();
        std::iter::from_fn(|| self.heart.poll_output()).collect()
    }

    fn traffic(&self, last_received_ms: u64, in_flight: bool, rtt_ms: u64) -> Input {
        Input::Traffic(Traffic {
            last_received: self.start.instant + Duration::from_millis(last_received_ms),
            in_flight,
            rtt: Duration::from_millis(rtt_ms),
        })
    }

    fn due_ms(&self) -> (u128, &'static str) {
        let (at, why) = self.heart.poll_timeout().unwrap();
        ((at - self.start.instant).as_millis(), why)
    }
}

const PROBE: Output = Output::Probe;

#[test]
fn it_beats_at_once_and_every_thirty_seconds_and_counts_answers() {
    let mut heart = Heart::new();
    assert_eq!(heart.at(0, Input::Timeout), [Output::Beat { sequence: 0 }]);
    assert_eq!(heart.due_ms(), (10_000, "heartbeat ack"));
    assert_eq!(heart.at(80, Input::Acked { sequence: 0 }), []);
    assert_eq!(heart.due_ms(), (30_000, "heartbeat"));
    assert_eq!(
        heart.at(30_000, Input::Timeout),
        [Output::Beat { sequence: 1 }]
    );
    heart.at(30_160, Input::Acked { sequence: 1 });
    // (7 × 80 + 160) / 8 = 90.
    assert_eq!(heart.heart.latency(), Some(Duration::from_millis(90)));
    assert_eq!(
        (
            heart.heart.sent(),
            heart.heart.acked(),
            heart.heart.missed()
        ),
        (2, 2, 0)
    );
}

#[test]
fn silence_is_probed_every_three_seconds_while_an_answer_is_awaited() {
    let mut heart = Heart::new();
    heart.at(0, Input::Timeout);
    heart.at(1, Input::Acked { sequence: 0 });
    // Long after anything was heard, it begins with the question and not with the silence before it.
    let quiet = heart.traffic(1, false, 20);
    assert_eq!(heart.at(20_000, quiet), []);
    assert_eq!(heart.at(20_000, Input::Awaited(true)), []);
    assert_eq!(heart.due_ms(), (23_000, "an answer is awaited"));
    assert_eq!(heart.at(22_999, Input::Timeout), []);
    assert_eq!(heart.at(23_000, Input::Timeout), [PROBE]);
    // The probe is in flight, and answered.
    let probing = heart.traffic(1, true, 20);
    assert_eq!(heart.at(23_001, probing), []);
    assert_eq!(heart.due_ms(), (24_001, "suspicion"));
    let heard = heart.traffic(23_020, false, 20);
    assert_eq!(heart.at(23_020, heard), []);
    assert_eq!(heart.at(24_000, Input::Awaited(true)), []);
    assert_eq!(heart.due_ms(), (26_020, "an answer is awaited"));
    assert_eq!(heart.at(26_020, Input::Timeout), [PROBE]);
    assert!(!heart.heart.in_doubt());
    // Answered: there is nothing more to wait for.
    let heard = heart.traffic(26_040, false, 20);
    heart.at(26_040, heard);
    heart.at(26_041, Input::Awaited(false));
    assert_eq!(heart.due_ms(), (30_000, "heartbeat"));
}

#[test]
fn an_answer_to_a_beat_never_sent_counts_for_nothing() {
    let mut heart = Heart::new();
    heart.at(0, Input::Timeout);
    heart.at(1, Input::Acked { sequence: 7 });
    assert_eq!(heart.heart.acked(), 0);
    assert_eq!(heart.due_ms(), (10_000, "heartbeat ack"));
}

#[test]
fn a_beat_answered_twice_counts_once() {
    let mut heart = Heart::new();
    heart.at(0, Input::Timeout);
    heart.at(1, Input::Acked { sequence: 0 });
    heart.at(2, Input::Acked { sequence: 0 });
    assert_eq!((heart.heart.sent(), heart.heart.acked()), (1, 1));
}

#[test]
fn one_missed_ack_is_doubt_until_it_comes() {
    let mut heart = Heart::new();
    heart.at(0, Input::Timeout);
    assert_eq!(
        heart.at(10_000, Input::Timeout),
        [Output::Doubt(true), PROBE]
    );
    assert_eq!(heart.at(11_000, Input::Timeout), [PROBE]);
    // Something from before the doubt proves nothing.
    assert_eq!(heart.at(11_500, heart.traffic(9_999, true, 20)), []);
    // What is received shows that one way lives, not that the other does.
    assert_eq!(heart.at(11_600, heart.traffic(11_600, true, 20)), []);
    assert_eq!(heart.at(11_700, Input::Acked { sequence: 0 }), []);
    assert_eq!(
        heart.at(11_700, heart.traffic(11_700, true, 20)),
        [Output::Doubt(false)]
    );
    assert_eq!(heart.heart.acked(), 1, "late, and an acknowledgement");
    assert_eq!(heart.heart.missed(), 1);
}

#[test]
fn silence_with_something_in_flight_is_doubt_after_a_second() {
    let mut heart = Heart::new();
    heart.at(0, Input::Timeout);
    heart.at(20, Input::Acked { sequence: 0 });
    assert_eq!(heart.at(5_000, heart.traffic(20, true, 20)), []);
    // Counted from the send, not from the silence before it.
    assert_eq!(heart.due_ms(), (6_000, "suspicion"));
    assert_eq!(heart.at(5_500, heart.traffic(5_400, true, 20)), []);
    assert_eq!(heart.due_ms(), (6_400, "suspicion"));
    assert_eq!(
        heart.at(6_400, Input::Timeout),
        [Output::Doubt(true), PROBE]
    );
}

#[test]
fn on_a_long_path_patience_is_four_round_trips() {
    let mut heart = Heart::new();
    heart.at(0, Input::Timeout);
    heart.at(600, Input::Acked { sequence: 0 });
    heart.at(1_000, heart.traffic(600, true, 600));
    assert_eq!(heart.due_ms(), (3_400, "suspicion"));
}

#[test]
fn nothing_in_flight_is_no_reason_for_doubt() {
    let mut heart = Heart::new();
    heart.at(0, Input::Timeout);
    heart.at(20, Input::Acked { sequence: 0 });
    heart.at(100, heart.traffic(20, true, 20));
    heart.at(130, heart.traffic(120, false, 20));
    assert_eq!(heart.due_ms(), (30_000, "heartbeat"));
}

#[test]
fn twenty_seconds_of_probing_without_an_answer_are_said_once_and_the_probes_go_on() {
    let mut heart = Heart::new();
    heart.at(0, heart.traffic(0, true, 20));
    let mut said = Vec::new();
    let (mut probes, mut end) = (0, 0);
    while end < 40_000 {
        let (due, _) = heart.due_ms();
        end = u64::try_from(due).unwrap();
        let (probed, other): (Vec<_>, Vec<_>) = heart
            .at(end, Input::Timeout)
            .into_iter()
            .partition(|output| *output == PROBE);
        probes += probed.len();
        said.extend(other.into_iter().map(|output| (end, output)));
    }
    // The beat of the first moment was said by the first input.
    assert_eq!(
        said,
        [(1_000, Output::Doubt(true)), (21_000, Output::Silent)]
    );
    assert_eq!(probes, 40, "at 1, 2, … 40 s");
    assert_eq!(heart.at(40_500, heart.traffic(40_400, false, 20)), []);
    assert_eq!(heart.at(40_600, Input::Acked { sequence: 0 }), []);
    assert_eq!(
        heart.at(40_600, heart.traffic(40_600, false, 20)),
        [Output::Doubt(false), Output::Beat { sequence: 1 }]
    );
}

#[test]
fn a_gateway_cannot_ask_for_a_beat_too_fast_or_too_slow() {
    for (asked, kept) in [(0, 5), (30, 30), (3600, 60)] {
        let t = origin();
        let mut heart = Heartbeat::new(t, Duration::from_secs(asked));
        let now = Now {
            instant: t,
            wall: UnixMillis(0),
        };
        heart.handle_input(now, Input::Timeout).unwrap();
        assert_eq!(heart.next_beat, t + Duration::from_secs(kept));
    }
}

/// What may happen to a heart. Times are milliseconds.
#[derive(Clone, Debug)]
enum Deed {
    /// Time passes, with a timeout whenever one is due.
    Wait(u64),
    /// Time passes and nobody looks: the next input comes late.
    Oversleep(u64),
    /// The answer to the beat that so many came after; past the first, to one never sent.
    Acked {
        back: u64,
    },
    Unsent {
        ahead: u64,
    },
    /// The transport's facts: when it last heard something, at most now.
    Traffic {
        ago: u64,
        in_flight: bool,
        rtt: u64,
    },
    ProbeNow,
    PresumeSilent,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let traffic = |ago: std::ops::Range<u64>| {
        (ago, any::<bool>(), prop_oneof![0u64..200, 200u64..2_000]).prop_map(
            |(ago, in_flight, rtt)| Deed::Traffic {
                ago,
                in_flight,
                rtt,
            },
        )
    };
    let deed = prop_oneof![
        6 => (0u64..15_000).prop_map(Deed::Wait),
        1 => (0u64..90_000).prop_map(Deed::Wait),
        1 => (0u64..40_000).prop_map(Deed::Oversleep),
        4 => (0u64..3).prop_map(|back| Deed::Acked { back }),
        1 => (0u64..3).prop_map(|ahead| Deed::Unsent { ahead }),
        3 => traffic(0..50),
        3 => traffic(0..20_000),
        1 => Just(Deed::ProbeNow),
        1 => Just(Deed::PresumeSilent),
    ];
    prop::collection::vec(deed, 1..80)
}

/// The rules again, as a diary of what was sent and heard, in milliseconds since the session began,
/// with every question put to the diary anew. Its figures are written out: it shares no limit with
/// what it judges.
#[derive(Debug, Default)]
struct Diary {
    every: u64,
    /// When each beat was sent.
    beats: Vec<u64>,
    /// Beats that nobody waits for any more: answered, or called missing.
    past: usize,
    /// The last beat that was answered.
    answered: Option<u64>,
    answers: u64,
    missing: u64,
    heard: u64,
    flying_since: Option<u64>,
    rtt: u64,
    doubted: Option<u64>,
    /// The beat that the gateway owes an answer to before the doubt is over.
    owed: Option<u64>,
    probed: u64,
    given_up: bool,
}

impl Diary {
    fn silence_is_suspicious_at(&self) -> Option<u64> {
        Some(self.flying_since?.max(self.heard) + 1_000.max(4 * self.rtt))
    }

    fn beat_is_due_at(&self) -> Option<u64> {
        let next = self.beats.last().map_or(0, |last| last + self.every);
        (!self.given_up).then_some(next)
    }

    fn answer_is_due_at(&self) -> Option<u64> {
        self.beats.get(self.past).map(|sent| sent + 10_000)
    }

    /// When something happens next if nothing is heard until then.
    fn next(&self) -> Option<u64> {
        let suspicion = match self.doubted {
            None => self.silence_is_suspicious_at(),
            Some(_) if self.given_up => Some(self.probed + 1_000),
            Some(since) => Some((self.probed + 1_000).min(since + 20_000)),
        };
        [self.beat_is_due_at(), self.answer_is_due_at(), suspicion]
            .into_iter()
            .flatten()
            .min()
    }

    fn begin_to_doubt(&mut self, now: u64, said: &mut Vec<Output>) {
        self.doubted = Some(now);
        self.probed = now;
        said.extend([Output::Doubt(true), Output::Probe]);
    }

    fn give_up(&mut self, said: &mut Vec<Output>) {
        if !self.given_up {
            said.push(Output::Silent);
        }
        self.given_up = true;
    }

    fn acked(&mut self, sequence: u64) {
        // Each beat is answered once, and none after a later one.
        if sequence < self.beats.len() as u64 && self.answered.is_none_or(|last| sequence > last) {
            self.answered = Some(sequence);
            self.answers += 1;
            if sequence >= self.past as u64 {
                self.past = self.beats.len();
            }
            self.owed = self.owed.filter(|owed| sequence < *owed);
        }
    }

    fn traffic(&mut self, now: u64, heard: u64, flying: bool, rtt: u64, said: &mut Vec<Output>) {
        (self.heard, self.rtt) = (heard, rtt);
        self.flying_since = flying.then(|| self.flying_since.unwrap_or(now));
        if self.owed.is_none() && self.doubted.is_some_and(|since| heard > since) {
            self.doubted = None;
            self.given_up = false;
            said.push(Output::Doubt(false));
        }
    }

    /// What the hour brings.
    fn tick(&mut self, now: u64, said: &mut Vec<Output>) {
        let due = |at: Option<u64>| at.is_some_and(|at| now >= at);
        let missing = due(self.answer_is_due_at());
        if missing {
            self.missing += 1;
            self.owed = self.owed.or(Some(self.past as u64));
            self.past = self.beats.len();
        }
        match self.doubted {
            None if missing || due(self.silence_is_suspicious_at()) => {
                self.begin_to_doubt(now, said);
            }
            None => {}
            Some(since) => {
                if now - self.probed >= 1_000 {
                    self.probed = now;
                    said.push(Output::Probe);
                }
                if now - since >= 20_000 {
                    self.give_up(said);
                }
            }
        }
        if due(self.beat_is_due_at()) {
            let sequence = self.beats.len() as u64;
            self.beats.push(now);
            said.push(Output::Beat { sequence });
        }
    }
}

struct Comparison {
    heart: Heart,
    ms: u64,
    diary: Diary,
}

impl Comparison {
    fn new(every_secs: u64) -> Self {
        let mut heart = Heart::new();
        heart.heart = Heartbeat::new(heart.start.instant, Duration::from_secs(every_secs));
        let diary = Diary {
            every: 1_000 * every_secs.clamp(5, 60),
            ..Diary::default()
        };
        Self {
            heart,
            ms: 0,
            diary,
        }
    }

    fn step(&mut self, input: Input, expected: impl FnOnce(&mut Diary, u64, &mut Vec<Output>)) {
        let mut said = Vec::new();
        expected(&mut self.diary, self.ms, &mut said);
        self.diary.tick(self.ms, &mut said);
        assert_eq!(self.heart.at(self.ms, input), said, "{:?}", self.diary);
        let heart = &self.heart.heart;
        let counted = (heart.sent(), heart.acked(), heart.missed());
        let beats = self.diary.beats.len() as u64;
        assert_eq!(counted, (beats, self.diary.answers, self.diary.missing));
        assert_eq!(heart.in_doubt(), self.diary.doubted.is_some());
    }

    fn wait(&mut self, span: u64) {
        let end = self.ms + span;
        loop {
            let due = self.heart.heart.poll_timeout();
            let due = due.map(|(at, _)| ms_since(self.heart.start.instant, at));
            assert_eq!(due, self.diary.next(), "{:?}", self.diary);
            // What an input that came late has left due is due at once.
            self.ms = due.map_or(end, |due| due.clamp(self.ms, end.max(self.ms)));
            self.step(Input::Timeout, |_, _, _| {});
            if self.ms >= end {
                return;
            }
        }
    }

    fn deed(&mut self, deed: &Deed) {
        let beats = self.diary.beats.len() as u64;
        match *deed {
            Deed::Wait(span) => self.wait(span),
            Deed::Oversleep(span) => self.ms += span,
            Deed::Acked { back } if back < beats => self.acked(beats - 1 - back),
            Deed::Acked { .. } => {}
            Deed::Unsent { ahead } => self.acked(beats + ahead),
            Deed::Traffic {
                ago,
                in_flight,
                rtt,
            } => {
                // What was heard once stays heard.
                let heard = self.ms.saturating_sub(ago).max(self.diary.heard);
                let input = self.heart.traffic(heard, in_flight, rtt);
                self.step(input, |diary, now, said| {
                    diary.traffic(now, heard, in_flight, rtt, said);
                });
            }
            Deed::ProbeNow => self.step(Input::ProbeNow, |_, _, said| said.push(Output::Probe)),
            Deed::PresumeSilent => self.step(Input::PresumeSilent, |diary, now, said| {
                if diary.doubted.is_none() {
                    diary.begin_to_doubt(now, said);
                }
                diary.give_up(said);
            }),
        }
    }

    fn acked(&mut self, sequence: u64) {
        self.step(Input::Acked { sequence }, |diary, _, _| {
            diary.acked(sequence)
        });
    }
}

fn ms_since(start: Instant, at: Instant) -> u64 {
    let span = at - start;
    assert_eq!(
        span.subsec_nanos() % 1_000_000,
        0,
        "no times but whole milliseconds"
    );
    u64::try_from(span.as_millis()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_heart_does_what_its_diary_says(every_secs in 0u64..90, deeds in deeds()) {
        let mut both = Comparison::new(every_secs);
        for deed in &deeds {
            both.deed(deed);
        }
    }
}

struct Hearts(Instant);

impl Subject for Hearts {
    type Machine = Heartbeat;
    type Step = Input;

    fn make(&self) -> Heartbeat {
        Heartbeat::new(self.0, limits::HEARTBEAT_EVERY)
    }

    fn apply(&self, machine: &mut Heartbeat, now: Now, step: &Input) -> Result<(), Rejected> {
        machine.handle_input(now, *step)
    }

    fn timeout(&self, machine: &mut Heartbeat, now: Now) {
        machine.handle_input(now, Input::Timeout).unwrap();
    }

    fn digest(&self, machine: &Heartbeat) -> String {
        format!("{machine:?}")
    }
}

#[test]
fn it_keeps_the_contract_of_machines() {
    let start = Heart::new();
    let subject = Hearts(start.start.instant);
    let secs = Duration::from_secs;
    let script = [
        (secs(0), Input::Timeout),
        (secs(1), Input::Acked { sequence: 0 }),
        (secs(1), start.traffic(1_000, true, 50)),
        (secs(40), Input::ProbeNow),
        (secs(1), start.traffic(43_000, false, 50)),
        (secs(90), Input::Acked { sequence: 9 }),
        (secs(1), Input::PresumeSilent),
    ];
    properties::check(&subject, start.start, &script);
    properties::backlog_is_bounded(&subject, start.start, &script, |_| Input::ProbeNow);
}
