//! Gateways that go away in good order, one now and then or all of them in turn, with slow answers
//! under way. From a stream of chance of its own: what else a seed stands for stays as it was.

use super::QUIET_END;
use crate::chance::Chance;
use crate::plan::{Happening, Script, Timed};
use crate::queue::{Micros, SECOND};

/// Who is there.
pub(super) struct Fleet {
    pub(super) gateways: usize,
    pub(super) devices: usize,
    /// The number of the last question.
    pub(super) questions: u64,
}

pub(super) fn drains(seed: u64, until: Micros, fleet: &Fleet) -> Vec<Timed> {
    let mut chance = Chance::of(seed, "plan", "drain");
    let mut drawn = Vec::new();
    if !chance.happens(300_000) {
        return drawn;
    }
    let mut questions = fleet.questions;
    let mut at = chance.below(until);
    let rolling = chance.happens(500_000);
    for gateway in 0..fleet.gateways {
        let limit_us = chance.between(1, 60) * SECOND;
        // Mostly it has the time that it was promised.
        let takes = if chance.happens(800_000) {
            limit_us + chance.between(4, 20) * SECOND
        } else {
            chance.between(1, 20) * SECOND
        };
        slow_questions(
            &mut chance,
            (at, until),
            fleet.devices,
            &mut questions,
            &mut drawn,
        );
        let what = Happening::DrainGateway {
            gateway,
            limit_us,
            spread_us: chance.below(20) * SECOND,
            elsewhere: chance.happens(700_000),
            until: at + takes,
        };
        drawn.push(Timed { at, what });
        at = if rolling {
            at + takes + chance.below(5 * SECOND)
        } else {
            chance.below(until)
        };
    }
    drawn.retain(|timed| timed.at < until);
    drawn
}

/// Answers that may be under way then.
fn slow_questions(
    chance: &mut Chance,
    (at, until): (Micros, Micros),
    devices: usize,
    questions: &mut u64,
    drawn: &mut Vec<Timed>,
) {
    for _ in 0..chance.between(0, 6) {
        let asked_at = (at + 5 * SECOND).saturating_sub(chance.below(25 * SECOND));
        let device = usize::try_from(chance.below(devices as u64)).unwrap_or_default();
        let upstream = Script {
            anthropic: chance.happens(500_000),
            pace_ms: u32::try_from(chance.between(100, 2_000)).unwrap_or_default(),
            ..Script::default()
        };
        let (stream, words) = (chance.happens(800_000), chance.between(5, 60));
        if asked_at >= until.saturating_sub(QUIET_END) {
            continue;
        }
        *questions += 1;
        let what = Happening::Ask {
            device,
            question: *questions,
            stream,
            context_bytes: 0,
            words: u32::try_from(words).unwrap_or_default(),
            upstream,
        };
        drawn.push(Timed { at: asked_at, what });
    }
}
