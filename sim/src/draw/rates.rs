//! How much may be asked, and devices that ask more than that at once. From a stream of chance of its own: a
//! seed without limits is what it was.

use super::QUIET_END;
use crate::chance::Chance;
use crate::plan::{Happening, RatesPlan, Script, Timed};
use crate::queue::{Micros, SECOND};

/// What [`rates`] draws.
pub(super) struct Drawn {
    pub(super) rates: Option<RatesPlan>,
    pub(super) happenings: Vec<Timed>,
}

pub(super) fn rates(seed: u64, until: Micros, devices: usize, others: &[Timed]) -> Drawn {
    let mut chance = Chance::of(seed, "plan", "rates");
    if !chance.happens(300_000) {
        return Drawn {
            rates: None,
            happenings: Vec::new(),
        };
    }
    let mut some = |likely, figures: &[u32], otherwise| {
        let drawn = chance.one_of(figures).copied().unwrap_or(otherwise);
        if chance.happens(likely) {
            drawn
        } else {
            otherwise
        }
    };
    let untold = RatesPlan::UNTOLD;
    let rates = RatesPlan {
        device_per_minute: some(600_000, &[1, 2, 3, 4, 6, 7, 10], untold.device_per_minute),
        // Enough for the questions at the end, one every ten seconds.
        account_per_minute: some(500_000, &[6, 7, 9, 12], untold.account_per_minute),
        device_at_once: some(500_000, &[1, 1, 2, 3], untold.device_at_once),
        account_at_once: some(400_000, &[1, 2, 4], untold.account_at_once),
    };
    let mut drawing = Drawing {
        chance,
        until,
        question: last_question(others),
        happenings: Vec::new(),
    };
    for device in 0..devices {
        drawing.bursts(device);
    }
    Drawn {
        rates: Some(rates),
        happenings: drawing.happenings,
    }
}

/// The highest number that a question has.
pub(super) fn last_question(others: &[Timed]) -> u64 {
    others
        .iter()
        .filter_map(number_of)
        .max()
        .unwrap_or_default()
}

const fn number_of(timed: &Timed) -> Option<u64> {
    let Happening::Ask { question, .. } = timed.what else {
        return None;
    };
    Some(question)
}

struct Drawing {
    chance: Chance,
    until: Micros,
    question: u64,
    happenings: Vec<Timed>,
}

impl Drawing {
    /// Several questions within a few seconds, now and then asked once more or cancelled.
    fn bursts(&mut self, device: usize) {
        for _ in 0..self.chance.below(4) {
            let begins = self.chance.below(self.until.saturating_sub(QUIET_END));
            let lasts = self.chance.between(1, 10) * SECOND;
            for _ in 0..self.chance.between(2, 8) {
                let at = begins + self.chance.below(lasts);
                self.question(device, at.min(self.until.saturating_sub(QUIET_END)));
            }
        }
    }

    fn question(&mut self, device: usize, at: Micros) {
        self.question += 1;
        let question = self.question;
        let pace_ms = if self.chance.happens(500_000) {
            self.chance.between(50, 500)
        } else {
            0
        };
        let upstream = Script {
            anthropic: self.chance.happens(500_000),
            pace_ms: u32::try_from(pace_ms).unwrap_or_default(),
            ..Script::default()
        };
        let ask = Happening::Ask {
            device,
            question,
            stream: self.chance.happens(700_000),
            context_bytes: 0,
            words: u32::try_from(self.chance.between(1, 30)).unwrap_or_default(),
            upstream,
        };
        self.happenings.push(Timed { at, what: ask });
        let soon = at + self.chance.below(5 * SECOND);
        if self.chance.happens(100_000) {
            let what = Happening::AskAgain { device, question };
            self.happenings.push(Timed { at: soon, what });
        }
        if self.chance.happens(50_000) {
            let what = Happening::Cancel { device, question };
            self.happenings.push(Timed { at: soon, what });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw;

    #[test]
    fn some_worlds_have_limits_and_bursts_of_questions_and_the_others_are_what_they_were() {
        let plans: Vec<_> = (1..200).map(|seed| draw::plan(seed, "plain")).collect();
        let limited: Vec<_> = plans.iter().filter_map(|plan| plan.rates).collect();
        assert!((30..90).contains(&limited.len()), "{}", limited.len());
        let low = |of: fn(&RatesPlan) -> u32| {
            let least = limited.iter().map(of).min();
            least.unwrap_or_default()
        };
        assert_eq!(low(|rates| rates.device_per_minute), 1);
        assert_eq!(low(|rates| rates.account_per_minute), 6);
        assert_eq!(low(|rates| rates.device_at_once), 1);
        assert_eq!(low(|rates| rates.account_at_once), 1);
        for plan in &plans {
            let mut numbers: Vec<u64> = plan.happenings.iter().filter_map(number_of).collect();
            let asked = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), asked, "a number stands for one question");
        }
    }

    #[test]
    fn a_plan_that_says_nothing_of_rates_reads() {
        let seed = (1..100).find(|&seed| draw::plan(seed, "plain").rates.is_none());
        let plan = draw::plan(seed.unwrap_or_default(), "plain");
        let json = serde_json::to_string(&plan).unwrap();
        assert!(!json.contains("rates"));
        let read: crate::plan::Plan = serde_json::from_str(&json).unwrap();
        assert_eq!(read, plan);
    }
}
