//! The outbox against a naive Stripe that forgets, over a network that loses and delays.

use proptest::prelude::*;

use super::*;

const ACCOUNT: AccountId = AccountId::from_u128(5);
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const HOUR_MS: u64 = 60 * 60 * 1000;
/// 2026-11-18T04:26:40Z.
const START: UnixMillis = UnixMillis(1_795_000_000_000);

fn event(month: i32, cents: i64) -> MeterEvent {
    let customer = "cus_1".parse().unwrap();
    MeterEvent::new(ACCOUNT, Month::from_index(month), cents, customer, START)
}

/// What a meter has counted, and which identifiers it would notice again.
#[derive(Debug, Default)]
struct Stripe {
    counted: Vec<(u64, i64)>,
    known: Vec<(String, u64)>,
}

impl Stripe {
    fn take(&mut self, at_ms: u64, identifier: &str, minute: u64, cents: i64) {
        self.known.retain(|(_, since)| at_ms < since + DAY_MS);
        if self.known.iter().any(|(known, _)| known == identifier) {
            return;
        }
        self.known.push((identifier.to_owned(), at_ms));
        self.counted.push((minute, cents));
    }

    fn sum(&self, from: u64, to: u64) -> i64 {
        let within = self
            .counted
            .iter()
            .filter(|(minute, _)| (from..to).contains(minute));
        within.map(|(_, cents)| cents).sum()
    }

    fn total(&self) -> i64 {
        self.counted.iter().map(|(_, cents)| cents).sum()
    }
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It never arrives.
    Lost,
    /// It arrives after so many minutes; whoever sent it hears nothing.
    Unheard(u64),
    /// It arrives at once and is answered.
    Answered,
    /// It arrives at once; the process dies before it has written that down.
    Crashed,
    /// The process dies before it is sent.
    NeverSent,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        3 => Just(Fate::Lost),
        3 => (0u64..60).prop_map(Fate::Unheard),
        1 => Just(Fate::Answered),
        2 => Just(Fate::Crashed),
        1 => Just(Fate::NeverSent),
    ]
}

/// Everything around the outbox.
#[derive(Debug)]
struct World {
    now: u64,
    stripe: Stripe,
    /// Arrives when, as what.
    under_way: Vec<(u64, String, u64, i64)>,
}

impl World {
    fn advance(&mut self, to: u64) {
        self.now = self.now.max(to);
        self.under_way.sort();
        while let Some((at, identifier, minute, cents)) = self.under_way.first().cloned() {
            if at > self.now {
                break;
            }
            self.under_way.remove(0);
            self.stripe.take(at, &identifier, minute, cents);
        }
    }

    /// One look at one event, as a shell does it. What is kept went through the disk.
    fn turn(&mut self, kept: &mut MeterEvent, fate: Fate) {
        let now = UnixMillis(self.now);
        let written = serde_json::to_string(kept).unwrap();
        let mut event: MeterEvent = serde_json::from_str(&written).unwrap();
        assert_eq!(&event, kept);
        match event.step(now) {
            Step::Send { at } => {
                event.sending(now);
                *kept = event.clone();
                let request = |delay| (now.0 + delay, event.identifier(), at, event.cents);
                match fate {
                    Fate::Lost | Fate::NeverSent => {}
                    Fate::Unheard(minutes) => self.under_way.push(request(minutes * 60_000)),
                    Fate::Crashed => self.under_way.push(request(0)),
                    Fate::Answered => {
                        self.under_way.push(request(0));
                        kept.recorded();
                    }
                }
                self.advance(self.now);
            }
            Step::Look { from, to } => {
                // Words may get lost here as well.
                if !matches!(fate, Fate::Lost) {
                    kept.counted(now, self.stripe.sum(from, to));
                }
            }
            Step::Wait(until) => assert!(until > now, "a wait that is over"),
            Step::Done | Step::Stuck(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_collected_is_what_was_invoiced_whatever_gets_lost(
        invoices in proptest::collection::vec(0i64..100_000, 1..4),
        turns in proptest::collection::vec((0usize..4, fate(), 0u64..40 * HOUR_MS), 0..40),
    ) {
        let mut world = World { now: START.0, stripe: Stripe::default(), under_way: Vec::new() };
        let mut events: Vec<MeterEvent> = invoices
            .iter()
            .zip(24_310..)
            .map(|(cents, month)| event(month, *cents))
            .collect();
        for (which, fate, wait) in turns {
            let which = which % events.len();
            world.turn(&mut events[which], fate);
            world.advance(world.now + wait);
            prop_assert!(world.stripe.total() <= invoices.iter().sum());
        }
        // Then everything works, as often as it takes.
        for _ in 0..200 {
            for event in &mut events {
                world.turn(event, Fate::Answered);
            }
            world.advance(world.now + HOUR_MS);
        }
        let mut expected = 0;
        for event in &events {
            match event.step(UnixMillis(world.now)) {
                Step::Done => expected += event.cents,
                Step::Stuck(Stuck::TooOld) => {
                    // What a person is told of is not there; never is more collected.
                    let minute = world.stripe.counted.iter().filter(|(_, cents)| *cents == event.cents);
                    prop_assert!(minute.count() <= invoices.iter().filter(|cents| **cents == event.cents).count());
                }
                step @ (Step::Send { .. } | Step::Look { .. } | Step::Wait(_) | Step::Stuck(_)) => prop_assert!(false, "{step:?} after everything worked"),
            }
        }
        if events.iter().all(|event| event.step(UnixMillis(world.now)) == Step::Done) {
            prop_assert_eq!(world.stripe.total(), expected);
            prop_assert_eq!(expected, invoices.iter().sum::<i64>());
        }
    }
}

#[test]
fn the_way_it_usually_goes() {
    let mut event = event(24_310, 10_815);
    assert_eq!(
        event.identifier(),
        "synesis:acct_00000000000000000000000000000005:2025-11"
    );
    let Step::Send { at } = event.step(START) else {
        panic!("not sent")
    };
    event.sending(START);
    event.recorded();
    assert_eq!(event.step(START), Step::Done);
    assert_eq!(at % 60, 0);
    // Of the hour before: from 60 to 120 minutes ago, or from 0 to 60.
    assert!((START.as_secs() - at) < 2 * 60 * 60 && at < START.as_secs());
}

#[test]
fn an_invoice_of_nothing_is_not_sent() {
    assert_eq!(event(1, 0).step(START), Step::Done);
}

#[test]
fn a_doubtful_event_is_sent_again_while_it_is_surely_remembered_and_then_looked_up() {
    let mut event = event(24_310, 5);
    event.sending(START);
    let after = |ms: u64| UnixMillis(START.0 + ms);
    assert_eq!(event.step(after(29_999)), Step::Wait(after(30_000)));
    assert!(matches!(event.step(after(30_000)), Step::Send { .. }));
    event.sending(after(11 * HOUR_MS));
    // Half a day after the first, not the last; but an hour after the last.
    assert!(matches!(event.step(after(12 * HOUR_MS)), Step::Look { .. }));
    event.sending(after(12 * HOUR_MS - 1));
    assert_eq!(
        event.step(after(12 * HOUR_MS)),
        Step::Wait(after(13 * HOUR_MS - 1))
    );
    let Step::Look { from, to } = event.step(after(13 * HOUR_MS)) else {
        panic!("not looked up")
    };
    assert_eq!(to - from, 60);

    let mut counted = event.clone();
    counted.counted(after(13 * HOUR_MS), 5);
    assert_eq!(counted.step(after(13 * HOUR_MS)), Step::Done);

    let mut other = event.clone();
    other.counted(after(13 * HOUR_MS), 6);
    assert_eq!(
        other.step(after(13 * HOUR_MS)),
        Step::Stuck(Stuck::Differs { found: 6 })
    );

    let mut missing = event.clone();
    missing.counted(after(13 * HOUR_MS), 0);
    assert_eq!(missing.step(after(13 * HOUR_MS)), Step::Send { at: from });
    missing.sending(after(13 * HOUR_MS));
    assert!(matches!(
        missing.step(after(14 * HOUR_MS)),
        Step::Send { .. }
    ));

    event.counted(after(12 * HOUR_MS), 0);
    assert!(
        matches!(event.step(after(12 * HOUR_MS)), Step::Wait(_)),
        "a word that comes too early"
    );
}

#[test]
fn months_of_one_account_have_minutes_of_their_own() {
    let mut minutes: Vec<u64> = (24_300..24_360)
        .map(|month| minute_of(Month::from_index(month), START))
        .collect();
    minutes.extend(
        (24_300..24_360)
            .map(|month| minute_of(Month::from_index(month), UnixMillis(START.0 + HOUR_MS))),
    );
    minutes.sort_unstable();
    minutes.dedup();
    assert_eq!(minutes.len(), 120);
}

#[test]
fn what_could_not_be_sent_for_a_month_is_for_a_person() {
    let mut event = event(24_310, 5);
    event.sending(START);
    let late = UnixMillis(START.0 + 36 * DAY_MS);
    assert!(matches!(event.step(late), Step::Look { .. }));
    event.counted(late, 0);
    assert_eq!(event.step(late), Step::Stuck(Stuck::TooOld));
}
