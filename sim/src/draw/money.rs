//! What is done to accounts, and the calendar of a world: drawn from a stream of its own, so that the
//! rest of a plan is the same with and without.

use crate::chance::Chance;
use crate::plan::{Deed, DevicePlan, Happening, TierPlan, Timed, WALL_MS};
use crate::queue::{Micros, SECOND};

/// The first moment of December 2026 (UTC), ms since 1970.
const DECEMBER_MS: u64 = 1_796_083_200_000;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const CENT: u64 = 10_000_000;
/// An order that is said twice is said again within so long.
const AGAIN_WITHIN: Micros = 60 * SECOND;

/// What is drawn.
pub(super) struct Drawn {
    /// The wall clock when the world begins.
    pub(super) wall_ms: u64,
    /// In no order.
    pub(super) happenings: Vec<Timed>,
}

/// Draws the money of a world whose questions are already there.
pub(super) fn money(
    seed: u64,
    until: Micros,
    (accounts, gateways): (usize, usize),
    devices: &[DevicePlan],
    others: &[Timed],
) -> Drawn {
    let mut chance = Chance::of(seed, "plan", "money");
    let turns = chance.happens(500_000);
    let wall_ms = if turns {
        DECEMBER_MS - chance.below(until / 1000)
    } else {
        WALL_MS
    };
    let mut drawing = Drawing {
        chance,
        until,
        wall_ms,
        happenings: Vec::new(),
        number: 0,
    };
    if drawing
        .chance
        .happens(if turns { 500_000 } else { 150_000 })
    {
        for gateway in 0..gateways {
            drawing.skews(gateway);
        }
    }
    if drawing.chance.happens(700_000) {
        for account in 0..accounts {
            let asked: Vec<(Micros, u64)> = others
                .iter()
                .filter_map(|timed| asked_of(account, devices, timed))
                .collect();
            drawing.account(account, &asked);
        }
    }
    Drawn {
        wall_ms,
        happenings: drawing.happenings,
    }
}

fn asked_of(account: usize, devices: &[DevicePlan], timed: &Timed) -> Option<(Micros, u64)> {
    let Happening::Ask {
        device, question, ..
    } = timed.what
    else {
        return None;
    };
    let whose = devices.get(device)?.account;
    (whose == account).then_some((timed.at, question))
}

struct Drawing {
    chance: Chance,
    until: Micros,
    wall_ms: u64,
    happenings: Vec<Timed>,
    number: u32,
}

impl Drawing {
    fn push(&mut self, at: Micros, what: Happening) {
        let at = at.min(self.until.saturating_sub(1));
        self.happenings.push(Timed { at, what });
    }

    /// Says an order, now and then twice.
    fn say(&mut self, at: Micros, account: usize, order: Deed) {
        if self.chance.happens(250_000) {
            let again = at + self.chance.below(AGAIN_WITHIN);
            let order = order.clone();
            self.push(again, Happening::Order { account, order });
        }
        self.push(at, Happening::Order { account, order });
    }

    fn number(&mut self) -> u32 {
        self.number += 1;
        self.number
    }

    /// Nano-dollars, from a cent to so many.
    fn cents(&mut self, most: u64) -> i64 {
        let nanos = self.chance.between(CENT, most * CENT);
        i64::try_from(nanos).unwrap_or(i64::MAX)
    }

    /// A clock that steps ahead, mostly by minutes, and mostly back again.
    fn skews(&mut self, gateway: usize) {
        for _ in 0..self.chance.below(3) {
            let at = self.chance.below(self.until);
            let by_ms = if self.chance.happens(250_000) {
                DAY_MS + self.chance.below(DAY_MS)
            } else {
                self.chance.between(1_000, 900_000)
            };
            let by_ms = i64::try_from(by_ms).unwrap_or_default();
            let by_ms = if self.chance.happens(250_000) {
                -by_ms
            } else {
                by_ms
            };
            self.push(at, Happening::SkewGateway { gateway, by_ms });
            if self.chance.happens(700_000) {
                let back = at + self.chance.below(120 * SECOND);
                let by_ms = -by_ms;
                self.push(back, Happening::SkewGateway { gateway, by_ms });
            }
        }
    }

    fn account(&mut self, account: usize, asked: &[(Micros, u64)]) {
        for _ in 0..self.chance.below(4) {
            let at = self.chance.below(self.until);
            self.payment(at, account);
        }
        for _ in 0..self.chance.below(3) {
            let at = self.chance.below(self.until);
            self.credit(at, account);
        }
        for &(at, question) in asked {
            if self.chance.happens(300_000) {
                self.refunds(at, account, question);
            }
            // Some end while an answer runs on them.
            if self.chance.happens(80_000) {
                let before = at.saturating_sub(self.chance.below(2 * SECOND));
                let lasts_ms = before / 1000 + 2_000 + self.chance.below(4_000);
                self.grant(before, account, self.wall_ms + lasts_ms);
            }
        }
        if self.chance.happens(250_000) {
            for _ in 0..self.chance.between(1, 3) {
                self.terms(account);
            }
        }
    }

    fn payment(&mut self, at: Micros, account: usize) {
        let (payment, nanos) = (self.number(), self.cents(300));
        self.say(at, account, Deed::Pay { payment, nanos });
        if self.chance.happens(100_000) {
            // Somebody else's notice under the same name.
            let nanos = nanos + 1;
            let at = at + self.chance.below(AGAIN_WITHIN);
            self.push(
                at,
                Happening::Order {
                    account,
                    order: Deed::Pay { payment, nanos },
                },
            );
        }
        if self.chance.happens(300_000) {
            let dispute = self.number();
            let part = if self.chance.happens(600_000) {
                nanos
            } else {
                // Now and then more than was paid.
                self.cents(400)
            };
            let at = at + self.chance.below(self.until.saturating_sub(at) + 1);
            let order = Deed::Dispute {
                dispute,
                payment,
                nanos: part,
            };
            self.say(at, account, order);
        }
    }

    fn credit(&mut self, at: Micros, account: usize) {
        let lasts_ms = self.chance.between(500, 600_000);
        self.grant(at, account, self.wall_ms + at / 1000 + lasts_ms);
    }

    fn grant(&mut self, at: Micros, account: usize, ends_ms: u64) {
        let (credit, nanos) = (self.number(), self.cents(50));
        let order = Deed::Grant {
            credit,
            nanos,
            ends_ms,
        };
        self.say(at, account, order);
    }

    fn refunds(&mut self, asked: Micros, account: usize, question: u64) {
        for _ in 0..self.chance.between(1, 3) {
            let left = self.until.saturating_sub(asked);
            let at = asked + self.chance.below(left.min(200 * SECOND) + 1);
            let share_ppm = match self.chance.below(4) {
                0 => 1_000_000,
                1 => 1_500_000,
                _ => u32::try_from(self.chance.between(1, 999_999)).unwrap_or(1),
            };
            let refund = self.number();
            let order = Deed::Refund {
                refund,
                question,
                share_ppm,
            };
            self.say(at, account, order);
        }
    }

    fn terms(&mut self, account: usize) {
        let at = self.chance.below(self.until);
        let change = self.number();
        let tiers = [TierPlan::Free, TierPlan::Managed, TierPlan::Byok];
        let order = if self.chance.happens(500_000) {
            let tier = *self.chance.one_of(&tiers).unwrap_or(&TierPlan::Managed);
            Deed::SetTier { change, tier }
        } else {
            // Often less than was spent already.
            let nanos = self.cents(100) / if self.chance.happens(500_000) { 50 } else { 1 };
            Deed::SetCeiling { change, nanos }
        };
        self.say(at, account, order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw;

    #[test]
    fn months_turn_clocks_step_and_every_order_is_said_in_some_worlds() {
        let plans: Vec<_> = (1..100).map(|seed| draw::plan(seed, "plain")).collect();
        let turning = plans.iter().filter(|plan| plan.wall_ms != WALL_MS);
        for plan in turning.clone() {
            let end = plan.wall_ms + plan.faults_until / 1000;
            assert!((plan.wall_ms..=end).contains(&DECEMBER_MS));
        }
        assert!((20..80).contains(&turning.count()));
        let happenings = plans.iter().flat_map(|plan| &plan.happenings);
        let said = |of: fn(&Deed) -> bool| {
            happenings
                .clone()
                .any(|timed| matches!(&timed.what, Happening::Order { order, .. } if of(order)))
        };
        assert!(said(|deed| matches!(deed, Deed::Pay { .. })));
        assert!(said(|deed| matches!(deed, Deed::Grant { .. })));
        assert!(said(|deed| matches!(deed, Deed::Refund { .. })));
        assert!(said(|deed| matches!(deed, Deed::Dispute { .. })));
        assert!(said(|deed| matches!(deed, Deed::SetTier { .. })));
        assert!(said(|deed| matches!(deed, Deed::SetCeiling { .. })));
        let skews = |timed: &Timed| matches!(timed.what, Happening::SkewGateway { .. });
        assert!(happenings.clone().any(skews));
    }
}
