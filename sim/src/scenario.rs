//! Plans that are not drawn but written: an idle fleet, a reconnect storm, a year on a bad mobile
//! link.

use crate::net::{Bursts, Link};
use crate::plan::{DevicePlan, Happening, Plan, Script, Timed, WALL_MS};
use crate::queue::{MILLI, Micros, SECOND};

const RICH: i64 = 100_000_000_000;

/// A fleet that only beats, each device 5–50 ms away.
#[must_use]
pub fn fleet(transport: &str, devices: usize) -> Plan {
    let device = |n: usize| {
        let latency = 5 * MILLI + (n as u64 * 7919 % 46) * MILLI;
        DevicePlan {
            account: 0,
            up: Link::of_latency(latency),
            down: Link::of_latency(latency),
            nat_expiry_us: 0,
        }
    };
    Plan {
        seed: 1,
        transport: transport.to_owned(),
        buggify: false,
        unjittered: false,
        faults_until: Micros::MAX / 4,
        wall_ms: WALL_MS,
        kept_secs: 600,
        rates: None,
        gateways: 1,
        ceilings: vec![RICH],
        devices: (0..devices).map(device).collect(),
        store_us: (100, 1000),
        upstream_us: (MILLI, 50 * MILLI),
        happenings: Vec::new(),
    }
}

/// When the gateway of a storm dies.
pub const STORM_AT: Micros = 120 * SECOND;

/// A fleet whose gateway dies at [`STORM_AT`] and is back after `dark` µs.
#[must_use]
pub fn storm(transport: &str, devices: usize, dark: Micros) -> Plan {
    let mut plan = fleet(transport, devices);
    plan.happenings.push(Timed {
        at: STORM_AT,
        what: Happening::CrashGateway {
            gateway: 0,
            until: STORM_AT + dark,
        },
    });
    plan
}

/// One device for so many days on a bad mobile link: loss in bursts, a narrow uplink with a deep
/// queue, translators that forget after a minute, and every hour a dead spot, a handover to another
/// network and a question.
#[must_use]
pub fn commuter(transport: &str, days: u64) -> Plan {
    let mut plan = fleet(transport, 1);
    let up = Link {
        jitter_us: 20 * MILLI,
        loss_ppm: 5_000,
        bursts: Bursts {
            enter_ppm: 5_000,
            leave_ppm: 200_000,
            loss_ppm: 800_000,
        },
        bytes_per_s: 100_000,
        queue_bytes: 200_000,
        ..Link::of_latency(60 * MILLI)
    };
    plan.devices[0] = DevicePlan {
        account: 0,
        up,
        down: Link {
            bytes_per_s: 1_000_000,
            ..up
        },
        nat_expiry_us: 60 * SECOND,
    };
    let mut chance = crate::chance::Chance::of(plan.seed, "commuter", "days");
    for hour in 0..days * 24 {
        let at = hour * 3600 * SECOND + chance.below(1800 * SECOND);
        let until = at + chance.between(SECOND, 180 * SECOND);
        let happenings = [
            (
                at,
                Happening::Cut {
                    device: 0,
                    up: true,
                    down: true,
                    until,
                },
            ),
            (at + 1000 * SECOND, Happening::Move { device: 0 }),
            (
                at.saturating_sub(chance.below(20 * SECOND)) + 1,
                Happening::Ask {
                    device: 0,
                    question: hour + 1,
                    stream: true,
                    context_bytes: 2000,
                    words: 200,
                    upstream: Script::default(),
                },
            ),
        ];
        plan.happenings
            .extend(happenings.map(|(at, what)| Timed { at, what }));
    }
    plan.happenings.sort_by_key(|timed| timed.at);
    plan
}
