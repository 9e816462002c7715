//! Now and then a world whose gateways stay, with one more device, which has a narrow link that nothing else
//! troubles and sends much: what must not wait for that, such as a heartbeat, can be judged there. From a
//! stream of chance of its own, and after everything else: the other worlds are what they were.

use super::QUIET_END;
use crate::chance::Chance;
use crate::net::Link;
use crate::plan::{DevicePlan, Happening, Script, Timed};
use crate::queue::{MILLI, Micros};

/// What [`narrow`] draws.
pub(super) struct Narrow {
    pub(super) device: DevicePlan,
    pub(super) happenings: Vec<Timed>,
}

/// The device that comes after `devices` others; its questions are numbered after `asked`.
pub(super) fn narrow(seed: u64, until: Micros, devices: usize, mut asked: u64) -> Option<Narrow> {
    let mut chance = Chance::of(seed, "plan", "narrow");
    if !chance.happens(80_000) {
        return None;
    }
    let link = Link {
        // A question takes longer than a heartbeat may, and the queue of the link much less.
        bytes_per_s: chance.between(10_000, 30_000),
        queue_bytes: chance.between(12_000, 32_000),
        ..Link::of_latency(chance.between(5, 60) * MILLI)
    };
    let mut happenings = Vec::new();
    for _ in 0..chance.between(3, 12) {
        asked += 1;
        let what = Happening::Ask {
            device: devices,
            question: asked,
            stream: chance.happens(700_000),
            context_bytes: usize::try_from(chance.between(200_000, 400_000)).unwrap_or_default(),
            words: u32::try_from(chance.between(1, 30)).unwrap_or_default(),
            upstream: Script::default(),
        };
        let at = chance.below(until.saturating_sub(QUIET_END));
        happenings.push(Timed { at, what });
    }
    let device = DevicePlan {
        account: 0,
        up: link,
        down: link,
        nat_expiry_us: 0,
    };
    Some(Narrow { device, happenings })
}

/// What would leave every device of a world without its gateway.
pub(super) const fn takes_a_gateway(what: &Happening) -> bool {
    matches!(
        what,
        Happening::CrashGateway { .. }
            | Happening::CrashAtEnd { .. }
            | Happening::StopGateway { .. }
            | Happening::DrainGateway { .. }
    )
}
