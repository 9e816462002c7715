//! Plans from seeds: each seed decides which faults are on and how strong, how large the fleet is
//! and what it asks.

mod drain;
mod endings;
mod money;
mod narrow;
mod rates;

use crate::chance::Chance;
use crate::net::{Bursts, Link};
use crate::plan::{DevicePlan, Happening, Plan, Script, Timed, Trouble};
use crate::queue::{MILLI, Micros, SECOND};

/// Questions are asked until this long before the faults heal.
const QUIET_END: Micros = 10 * SECOND;

/// The plan that a seed stands for.
#[must_use]
pub fn plan(seed: u64, transport: &str) -> Plan {
    let mut draw = Drawing {
        chance: Chance::of(seed, "plan", "draw"),
        until: 0,
        happenings: Vec::new(),
        questions: 0,
    };
    draw.until = draw.chance.between(60, 900) * SECOND;
    let gateways = draw.chance.between(1, 3);
    let devices = draw.chance.between(1, 12);
    let accounts = draw.chance.between(1, 3);
    let ceilings = (0..accounts).map(|_| draw.ceiling()).collect();
    let bad = draw.chance.happens(800_000);
    let mut devices: Vec<DevicePlan> = (0..devices)
        .map(|_| draw.device(bad, usize::try_from(accounts).unwrap_or(1)))
        .collect();
    let kinds = draw.kinds();
    for device in 0..devices.len() {
        draw.questions(device);
        draw.loads(device);
        for &kind in &kinds {
            draw.device_fault(device, kind);
        }
    }
    for gateway in 0..usize::try_from(gateways).unwrap_or(1) {
        draw.gateway_faults(gateway, &kinds);
    }
    draw.store_faults(&kinds);
    draw.faults_of_all(&kinds, gateways, devices.len());
    let (accounts, nodes) = (
        usize::try_from(accounts).unwrap_or(1),
        usize::try_from(gateways).unwrap_or(1),
    );
    let money = money::money(
        seed,
        draw.until,
        (accounts, nodes),
        &devices,
        &draw.happenings,
    );
    draw.happenings.extend(money.happenings);
    let endings = endings::endings(seed, &draw.happenings);
    draw.happenings.extend(endings.happenings);
    let fleet = drain::Fleet {
        gateways: nodes,
        devices: devices.len(),
        questions: draw.questions,
    };
    draw.happenings
        .extend(drain::drains(seed, draw.until, &fleet));
    let rates = rates::rates(seed, draw.until, devices.len(), &draw.happenings);
    draw.happenings.extend(rates.happenings);
    let asked = rates::last_question(&draw.happenings);
    if let Some(narrow) = narrow::narrow(seed, draw.until, devices.len(), asked) {
        draw.happenings
            .retain(|timed| !narrow::takes_a_gateway(&timed.what));
        devices.push(narrow.device);
        draw.happenings.extend(narrow.happenings);
    }
    draw.happenings.sort_by_key(|timed| timed.at);
    Plan {
        seed,
        transport: transport.to_owned(),
        unjittered: false,
        buggify: draw.chance.happens(500_000),
        faults_until: draw.until,
        wall_ms: money.wall_ms,
        kept_secs: endings.kept_secs,
        rates: rates.rates,
        gateways: u32::try_from(gateways).unwrap_or(1),
        ceilings,
        devices,
        store_us: (100, draw.chance.between(200, 50_000)),
        upstream_us: (MILLI, draw.chance.between(2, 2000) * MILLI),
        happenings: draw.happenings,
    }
}

/// The kinds of fault that a run may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Cut,
    OneWay,
    Mtu,
    Rebind,
    Move,
    CrashDevice,
    Suspend,
    Skew,
    CrashGateway,
    StopGateway,
    RollingRestart,
    EverybodyMoves,
    SlowStore,
    BrokenStore,
    Revoke,
    Expire,
    LostAnswers,
}

const KINDS: [Kind; 17] = [
    Kind::Cut,
    Kind::OneWay,
    Kind::Mtu,
    Kind::Rebind,
    Kind::Move,
    Kind::CrashDevice,
    Kind::Suspend,
    Kind::Skew,
    Kind::CrashGateway,
    Kind::StopGateway,
    Kind::RollingRestart,
    Kind::EverybodyMoves,
    Kind::SlowStore,
    Kind::BrokenStore,
    Kind::Revoke,
    Kind::Expire,
    Kind::LostAnswers,
];

struct Drawing {
    chance: Chance,
    until: Micros,
    happenings: Vec<Timed>,
    questions: u64,
}

impl Drawing {
    fn kinds(&mut self) -> Vec<Kind> {
        let likely = self.chance.between(50_000, 500_000);
        let likely = u32::try_from(likely).unwrap_or_default();
        KINDS
            .into_iter()
            .filter(|_| self.chance.happens(likely))
            .collect()
    }

    fn ceiling(&mut self) -> i64 {
        // Nano-dollars: now and then too little for more than a few answers.
        if self.chance.happens(200_000) {
            i64::try_from(self.chance.between(20_000_000, 200_000_000)).unwrap_or(i64::MAX)
        } else {
            100_000_000_000
        }
    }

    fn device(&mut self, bad: bool, accounts: usize) -> DevicePlan {
        let account = self.chance.below(accounts as u64);
        let link = self.link(bad);
        DevicePlan {
            account: usize::try_from(account).unwrap_or_default(),
            up: link,
            down: Link {
                loss_ppm: link.loss_ppm / 2,
                ..link
            },
            nat_expiry_us: if self.chance.happens(300_000) {
                self.chance.between(10, 120) * SECOND
            } else {
                0
            },
        }
    }

    fn some(&mut self, likely_ppm: u32, least: u64, most: u64) -> u32 {
        let drawn = if self.chance.happens(likely_ppm) {
            self.chance.between(least, most)
        } else {
            0
        };
        u32::try_from(drawn).unwrap_or(u32::MAX)
    }

    fn link(&mut self, bad: bool) -> Link {
        let latency_us = self.chance.between(1, 150) * MILLI;
        let mut link = Link {
            jitter_us: self.chance.below(latency_us / 4 + 1),
            ..Link::of_latency(latency_us)
        };
        if !bad {
            return link;
        }
        link.loss_ppm = self.some(400_000, 1_000, 50_000);
        if self.chance.happens(200_000) {
            link.bursts = Bursts {
                enter_ppm: 10_000,
                leave_ppm: 200_000,
                loss_ppm: 800_000,
            };
        }
        if self.chance.happens(300_000) {
            link.bytes_per_s = self.chance.between(20_000, 2_000_000);
            link.queue_bytes = self.chance.between(16_000, 256_000);
        }
        link.reorder_ppm = self.some(200_000, 1_000, 100_000);
        link.reorder_us = self.chance.between(1, 100) * MILLI;
        link.duplicate_ppm = self.some(200_000, 1_000, 100_000);
        link.corrupt_ppm = self.some(200_000, 1_000, 20_000);
        link
    }

    fn at(&mut self) -> Micros {
        self.chance.below(self.until)
    }

    fn push(&mut self, at: Micros, what: Happening) {
        self.happenings.push(Timed { at, what });
    }

    fn questions(&mut self, device: usize) {
        for _ in 0..self.chance.between(0, 12) {
            let at = self.chance.below(self.until.saturating_sub(QUIET_END));
            self.questions += 1;
            let question = self.questions;
            let context_bytes = self.some(200_000, 1_000, 400_000) as usize;
            let upstream = self.script();
            let words = if self.chance.happens(100_000) {
                self.chance.between(200, 3000)
            } else {
                self.chance.between(1, 60)
            };
            self.push(
                at,
                Happening::Ask {
                    device,
                    question,
                    stream: self.chance.clone().happens(700_000),
                    context_bytes,
                    words: u32::try_from(words).unwrap_or_default(),
                    upstream,
                },
            );
            let soon = at + self.chance.below(5 * SECOND);
            if self.chance.happens(150_000) {
                self.push(soon, Happening::Cancel { device, question });
            }
            if self.chance.happens(100_000) {
                self.push(soon, Happening::AskAgain { device, question });
            }
            if self.chance.happens(100_000) {
                let until = soon + self.chance.below(20 * SECOND);
                self.push(
                    soon,
                    Happening::Pause {
                        device,
                        question,
                        until,
                    },
                );
            }
        }
    }

    fn script(&mut self) -> Script {
        let mut troubles = Vec::new();
        while troubles.len() < 4 && self.chance.happens(250_000) {
            let after = u32::try_from(self.chance.below(20)).unwrap_or_default();
            let statuses = [401, 429, 500, 503, 529];
            troubles.push(match self.chance.below(5) {
                0 => Trouble::Status {
                    status: self.chance.one_of(&statuses).copied().unwrap_or(500),
                },
                1 => Trouble::Break { after },
                2 => Trouble::Stall { after },
                3 => Trouble::Unreachable,
                _ => Trouble::NoUsage,
            });
        }
        Script {
            troubles,
            anthropic: self.chance.happens(500_000),
            together: u32::try_from(self.chance.below(6)).unwrap_or_default(),
            pace_ms: 0,
        }
    }

    fn loads(&mut self, device: usize) {
        if !self.chance.happens(400_000) {
            return;
        }
        for _ in 0..self.chance.between(1, 40) {
            let at = self.at();
            let gpu_percent = u8::try_from(self.chance.between(0, 100)).unwrap_or_default();
            self.push(
                at,
                Happening::Load {
                    device,
                    gpu_percent,
                },
            );
        }
    }

    /// A span that fits the run: seconds mostly, minutes now and then.
    fn span(&mut self) -> Micros {
        if self.chance.happens(700_000) {
            self.chance.between(SECOND / 10, 20 * SECOND)
        } else {
            self.chance.between(20 * SECOND, 200 * SECOND)
        }
    }

    fn device_fault(&mut self, device: usize, kind: Kind) {
        for _ in 0..self.chance.below(4) {
            let at = self.at();
            let until = at + self.span();
            let what = match kind {
                Kind::Cut => Happening::Cut {
                    device,
                    up: true,
                    down: true,
                    until,
                },
                Kind::OneWay => {
                    let up = self.chance.happens(500_000);
                    Happening::Cut {
                        device,
                        up,
                        down: !up,
                        until,
                    }
                }
                Kind::Mtu => Happening::SmallMtu {
                    device,
                    bytes: self.some(1_000_000, 1_000, 1_300),
                    until,
                },
                Kind::Rebind => Happening::Rebind { device },
                Kind::Move => Happening::Move { device },
                Kind::CrashDevice => Happening::CrashDevice { device, until },
                Kind::Suspend => Happening::Suspend { device, until },
                Kind::Skew => Happening::Skew {
                    device,
                    by_ms: i64::try_from(self.chance.below(7_200_000)).unwrap_or_default()
                        - 3_600_000,
                },
                Kind::Revoke if self.chance.happens(100_000) => Happening::Revoke { device },
                Kind::Expire if self.chance.happens(100_000) => Happening::Expire { device },
                Kind::LostAnswers => {
                    self.lost_answer(device);
                    continue;
                }
                Kind::CrashGateway
                | Kind::StopGateway
                | Kind::RollingRestart
                | Kind::EverybodyMoves
                | Kind::SlowStore
                | Kind::BrokenStore
                | Kind::Revoke
                | Kind::Expire => continue,
            };
            self.push(at, what);
        }
    }

    /// A question that is answered slowly, and a dead spot in the middle that no session outlives.
    fn lost_answer(&mut self, device: usize) {
        let at = self.chance.below(self.until.saturating_sub(QUIET_END));
        self.questions += 1;
        let upstream = Script {
            anthropic: self.chance.happens(500_000),
            pace_ms: u32::try_from(self.chance.between(300, 6_000)).unwrap_or_default(),
            ..Script::default()
        };
        let words = u32::try_from(self.chance.between(10, 90)).unwrap_or_default();
        self.push(
            at,
            Happening::Ask {
                device,
                question: self.questions,
                stream: self.chance.clone().happens(800_000),
                context_bytes: 0,
                words,
                upstream,
            },
        );
        let from = at + self.chance.between(SECOND, 60 * SECOND);
        let until = from + self.chance.between(100 * SECOND, 260 * SECOND);
        if from >= self.until {
            return;
        }
        self.push(
            from,
            Happening::Cut {
                device,
                up: true,
                down: true,
                until,
            },
        );
        if until + SECOND < self.until && self.chance.happens(500_000) {
            // Found out at once instead of by the backoff.
            self.push(until + SECOND, Happening::Move { device });
        }
    }

    /// What strikes everybody within a moment: a new release rolled out over the gateways, and a network
    /// that all devices lose.
    fn faults_of_all(&mut self, kinds: &[Kind], gateways: u64, devices: usize) {
        if kinds.contains(&Kind::RollingRestart) {
            let (mut at, takes) = (self.at(), self.chance.between(1, 20) * SECOND);
            for gateway in 0..usize::try_from(gateways).unwrap_or(1) {
                let until = at + takes;
                self.push(at, Happening::StopGateway { gateway, until });
                at = until + self.chance.below(5 * SECOND);
            }
        }
        if kinds.contains(&Kind::EverybodyMoves) {
            let at = self.at();
            for device in 0..devices {
                let soon = at + self.chance.below(SECOND);
                self.push(soon, Happening::Move { device });
            }
        }
    }

    fn gateway_faults(&mut self, gateway: usize, kinds: &[Kind]) {
        for _ in 0..self.chance.below(3) {
            let at = self.at();
            let until = at + self.span();
            if kinds.contains(&Kind::CrashGateway) {
                self.push(at, Happening::CrashGateway { gateway, until });
            } else if kinds.contains(&Kind::StopGateway) {
                self.push(at, Happening::StopGateway { gateway, until });
            }
        }
    }

    fn store_faults(&mut self, kinds: &[Kind]) {
        for _ in 0..self.chance.below(4) {
            let at = self.at();
            let until = at + self.span();
            if kinds.contains(&Kind::SlowStore) {
                let by_us = self.chance.between(1, 15) * SECOND;
                self.push(at, Happening::SlowStore { by_us, until });
            }
            if kinds.contains(&Kind::BrokenStore) {
                self.push(at, Happening::BrokenStore { until });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_repeats_and_survives_being_saved() {
        let drawn = plan(7, "quic");
        assert_eq!(drawn, plan(7, "quic"));
        let text = serde_json::to_string(&drawn).unwrap();
        assert_eq!(drawn, serde_json::from_str(&text).unwrap());
        assert!(drawn.happenings.is_sorted_by_key(|timed| timed.at));
    }
}
