//! How long answers are kept, and gateways that die at an answer's end. Drawn from a stream of chance of its
//! own.

use crate::chance::Chance;
use crate::plan::{Happening, Timed};
use crate::queue::SECOND;

/// What [`endings`] draws.
pub(super) struct Endings {
    pub(super) kept_secs: u32,
    pub(super) happenings: Vec<Timed>,
}

pub(super) fn endings(seed: u64, asked: &[Timed]) -> Endings {
    let mut chance = Chance::of(seed, "plan", "endings");
    let kept = [600, 600, 90, 30, 0];
    let kept_secs = chance.one_of(&kept).copied().unwrap_or(600);
    let mut happenings = Vec::new();
    let deadly = chance.happens(400_000);
    for timed in asked {
        let Happening::Ask {
            question,
            ref upstream,
            ..
        } = timed.what
        else {
            continue;
        };
        // An answer that takes its time is mostly one whose device is cut off meanwhile.
        let likely = if upstream.pace_ms > 0 {
            500_000
        } else {
            60_000
        };
        if chance.happens(likely) && deadly {
            let for_us = chance.between(1, 60) * SECOND;
            let what = Happening::CrashAtEnd { question, for_us };
            let at = timed.at;
            happenings.push(Timed { at, what });
        }
    }
    Endings {
        kept_secs,
        happenings,
    }
}
