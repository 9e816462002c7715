//! The account once more: one list of movements in wide integers, summed up anew for every question.

use std::collections::BTreeMap;

use mesh_core::billing::account::funds::Drawn;
use mesh_core::billing::account::order::Reference;
use mesh_core::billing::account::{Denied, Hold, HoldId, Lose, Month, Settle};
use mesh_core::billing::ledger::{Charge, Loss};
use mesh_core::billing::money::Nanos;
use mesh_core::billing::price::{Price, Rates};
use mesh_core::billing::tier::Tier;
use mesh_core::ids::RequestId;
use mesh_core::wire::message::TokensUsed;

use super::orders::Done;

/// Half to even, from picos times basis points to nanos, in unsigned arithmetic; `None` when no
/// ledger could hold it.
fn nanos(counts: [(u64, u64); 4], bps: u32) -> Option<i64> {
    let mut sum = 0u128;
    for (count, price) in counts {
        sum = sum.checked_add(u128::from(count).checked_mul(u128::from(price))?)?;
    }
    let scaled = sum.checked_mul(u128::from(bps))?;
    let (whole, rest) = (scaled / 10_000_000, scaled % 10_000_000);
    let up = rest > 5_000_000 || rest == 5_000_000 && whole % 2 == 1;
    i64::try_from(whole + u128::from(up)).ok()
}

fn rates_of(price: &Price, prompt: u64) -> Rates {
    match price.long {
        Some(long) if long.over < prompt => long.rates,
        _ => price.rates,
    }
}

fn used(price: Price, tokens: &TokensUsed, bps: u32) -> Option<i64> {
    let cached = tokens.cache_read.saturating_add(tokens.cache_write);
    let price = rates_of(&price, tokens.prompt.max(cached));
    let counts = [
        (tokens.prompt.saturating_sub(cached), price.input),
        (tokens.cache_read, price.cache_read),
        (tokens.cache_write, price.cache_write),
        (tokens.completion, price.output),
    ];
    nanos(counts, bps)
}

fn worst(price: Price, input: u64, output: u64, bps: u32) -> Option<i64> {
    let price = rates_of(&price, input);
    let dearest = [price.input, price.cache_read, price.cache_write]
        .into_iter()
        .max();
    nanos(
        [(input, dearest?), (output, price.output), (0, 0), (0, 0)],
        bps,
    )
}

/// Months since year 0 of a moment in ms since 1970 (H. Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `civil_from_days`).
pub(super) fn month(at_ms: u64) -> i32 {
    let z = i64::try_from(at_ms / 86_400_000).unwrap_or_default() + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    i32::try_from(year * 12 + month - 1).unwrap_or_default()
}

fn rate_of(tier: Tier) -> u32 {
    match tier {
        Tier::Free { .. } => 0,
        Tier::Managed { markup_bps } => 10_000 + markup_bps,
        Tier::Byok { fee_bps } => fee_bps,
    }
}

#[derive(Clone, Copy)]
pub(super) struct ModelHold {
    pub(super) id: HoldId,
    pub(super) body: [u8; 32],
    pub(super) at_ms: u64,
    pub(super) charge: i64,
    pub(super) base: i64,
    pub(super) month: i32,
    pub(super) tier: Tier,
}

/// Where money is, as the model has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Prepaid,
    /// By the number of its grant.
    Credit(usize),
    Owed,
    /// Within the ceiling, in a month.
    Spent(i32),
    /// In the provider's price, in a month.
    Used(i32),
    /// Not invoiced, of a month.
    Open(i32),
    Residue,
    Invoiced,
}

/// A credit that is in the books.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) ends_ms: u64,
    pub(super) reference: Reference,
    pub(super) number: usize,
}

#[derive(Clone)]
pub(super) struct Model {
    pub(super) tier: Tier,
    pub(super) ceiling: i64,
    pub(super) month: i32,
    pub(super) closed: i32,
    pub(super) moves: Vec<(Place, i128)>,
    /// The earliest to end first.
    pub(super) credits: Vec<Given>,
    pub(super) grants: usize,
    pub(super) holds: BTreeMap<RequestId, ModelHold>,
    /// What was charged, and when.
    pub(super) charged: BTreeMap<RequestId, (u64, Charge)>,
    pub(super) lost: BTreeMap<RequestId, Loss>,
    pub(super) orders: BTreeMap<Reference, Done>,
}

/// A sum that the ledger can hold.
pub(super) fn fits(amount: i128) -> Result<i64, Denied> {
    i64::try_from(amount).map_err(|_| Denied::Overflow)
}

impl Model {
    pub(super) fn new(tier: Tier, ceiling: i64) -> Self {
        Self {
            tier,
            ceiling,
            month: 0,
            closed: 0,
            moves: Vec::new(),
            credits: Vec::new(),
            grants: 0,
            holds: BTreeMap::new(),
            charged: BTreeMap::new(),
            lost: BTreeMap::new(),
            orders: BTreeMap::new(),
        }
    }

    pub(super) fn sum(&self, place: Place) -> i128 {
        let there = self.moves.iter().filter(|(other, _)| *other == place);
        there.map(|(_, amount)| amount).sum()
    }

    pub(super) fn put(&mut self, place: Place, amount: i128) {
        self.moves.push((place, amount));
    }

    /// What is open, by month: months that were invoiced are not.
    pub(super) fn open(&self) -> BTreeMap<i32, i128> {
        let mut open = BTreeMap::new();
        for (place, amount) in &self.moves {
            if let Place::Open(month) = place
                && *month > self.closed
            {
                *open.entry(*month).or_default() += amount;
            }
        }
        open
    }

    /// A clock that was ahead, and what it set aside, are not forgotten.
    pub(super) fn judged(&self, month: i32) -> i32 {
        let held = self.holds.values().map(|held| held.month).max();
        held.map_or(month, |held| held.max(month)).max(self.month)
    }

    pub(super) fn usable(&self, at_ms: u64) -> i128 {
        let usable = self.credits.iter().filter(|credit| credit.ends_ms > at_ms);
        usable
            .map(|credit| self.sum(Place::Credit(credit.number)))
            .sum()
    }

    pub(super) fn available(&self, now_ms: u64) -> Result<i64, Denied> {
        let judged = self.judged(month(now_ms));
        let sum = |of: fn(&ModelHold) -> i64| self.holds.values().map(|h| i128::from(of(h))).sum();
        let (held, held_base): (i128, i128) = (sum(|h| h.charge), sum(|h| h.base));
        fits(held)?;
        fits(held_base)?;
        let left = match self.tier {
            Tier::Free { monthly_quota } => {
                i128::from(monthly_quota.0) - self.sum(Place::Used(judged)) - held_base
            }
            Tier::Managed { .. } | Tier::Byok { .. } => {
                let within = i128::from(self.ceiling) - self.sum(Place::Spent(judged));
                let funds = self.usable(now_ms) + self.sum(Place::Prepaid);
                i128::from(fits(funds + within.max(0))?) - held
            }
        };
        let mut next = self.sum(Place::Residue);
        for open in self.open().into_values() {
            next = fits(next + open)?.into();
        }
        Ok(fits(left)?.max(0))
    }

    fn prior(&self, request: RequestId, body: [u8; 32]) -> Option<Denied> {
        if let Some((_, charge)) = self.charged.get(&request) {
            let charge = Box::new(charge.clone());
            let same = charge.body == body;
            return Some(if same {
                Denied::Expired { charge }
            } else {
                Denied::Conflict
            });
        }
        let loss = Box::new(self.lost.get(&request)?.clone());
        let same = loss.body == body;
        Some(if same {
            Denied::Interrupted { loss }
        } else {
            Denied::Conflict
        })
    }

    pub(super) fn hold(&self, hold: &Hold, now_ms: u64) -> Result<ModelHold, Denied> {
        if let Some(denied) = self.prior(hold.request, hold.body) {
            return Err(denied);
        }
        if let Some(running) = self.holds.get(&hold.request) {
            let same = running.body == hold.body;
            return Err(if same {
                Denied::InProgress
            } else {
                Denied::Conflict
            });
        }
        let at = |bps| {
            let (input, output) = (hold.input_tokens_max, hold.output_tokens_max);
            worst(hold.price, input, output, bps)
        };
        let (Some(charge), Some(base)) = (at(rate_of(self.tier)), at(10_000)) else {
            return Err(Denied::Overflow);
        };
        let held = ModelHold {
            id: hold.id,
            body: hold.body,
            at_ms: now_ms,
            charge,
            base,
            month: self.judged(month(now_ms)),
            tier: self.tier,
        };
        if base == 0 && charge == 0 {
            return Ok(held);
        }
        let owed = self.sum(Place::Owed);
        if owed > 0 {
            let owed = Nanos(fits(owed)?);
            return Err(Denied::Owing { owed });
        }
        let available = self.available(now_ms)?;
        let left = Nanos(available);
        match self.tier {
            Tier::Free { .. } if base > available => Err(Denied::QuotaSpent {
                needed: Nanos(base),
                available: left,
            }),
            Tier::Managed { .. } | Tier::Byok { .. } if charge > available => {
                Err(Denied::Insufficient {
                    needed: Nanos(charge),
                    available: left,
                })
            }
            Tier::Free { .. } | Tier::Managed { .. } | Tier::Byok { .. } => Ok(held),
        }
    }

    /// What is charged; `None` when it was before.
    pub(super) fn settle(&self, settle: &Settle, now_ms: u64) -> Result<Option<Charge>, Denied> {
        match self.prior(settle.request, settle.body) {
            None => {}
            Some(Denied::Expired { .. }) => return Ok(None),
            Some(denied) => return Err(denied),
        }
        let hold = self.holds.get(&settle.request);
        if hold.is_some_and(|hold| hold.body != settle.body) {
            return Err(Denied::Conflict);
        }
        let tier = hold.map_or(self.tier, |hold| hold.tier);
        let charge = used(settle.price, &settle.tokens, rate_of(tier)).ok_or(Denied::Overflow)?;
        let base = used(settle.price, &settle.tokens, 10_000).ok_or(Denied::Overflow)?;
        let present = month(now_ms).max(self.month);
        let later = hold.map(|hold| hold.month).filter(|&later| later > present);
        let counts_in = later.unwrap_or(present);
        let (since, set_aside) = hold.map_or((now_ms, 0), |hold| (hold.at_ms, hold.charge));
        // Fund by fund, whatever is there, until what was set aside is used up.
        let mut rest = i128::from(charge.min(set_aside));
        let mut take = |there: i128| {
            let part = there.clamp(0, rest.max(0));
            rest -= part;
            part
        };
        let mut credits = Vec::new();
        for credit in self.credits.iter().filter(|credit| credit.ends_ms > since) {
            let amount = take(self.sum(Place::Credit(credit.number)));
            if amount > 0 {
                credits.push(Drawn {
                    credit: credit.reference.clone(),
                    amount: Nanos(fits(amount)?),
                });
            }
        }
        let prepaid = take(self.sum(Place::Prepaid));
        let postpaid = take(i128::from(self.ceiling) - self.sum(Place::Spent(counts_in)));
        let credited: i128 = credits.iter().map(|drawn| i128::from(drawn.amount.0)).sum();
        let overage = i128::from(charge) - credited - prepaid - postpaid;
        Ok(Some(Charge {
            request: settle.request,
            body: settle.body,
            model: settle.model.clone(),
            tokens: settle.tokens,
            price: settle.price,
            tier,
            base: Nanos(base),
            charge: Nanos(charge),
            overage: Nanos(fits(overage)?),
            credits,
            prepaid: Nanos(fits(prepaid)?),
            device: None,
            project: None,
            guest: None,
            month: later.map(Month::from_index),
            estimated: settle.estimated,
        }))
    }

    /// What is lost; `None` when it had ended before.
    pub(super) fn lose(&self, lose: &Lose) -> Result<Option<Loss>, Denied> {
        if self.prior(lose.request, lose.body).is_some() {
            return Ok(None);
        }
        let base = used(lose.price, &lose.tokens, 10_000).ok_or(Denied::Overflow)?;
        Ok(Some(Loss {
            request: lose.request,
            body: lose.body,
            model: lose.model.clone(),
            tokens: lose.tokens,
            price: lose.price,
            tier: lose.tier,
            base: Nanos(base),
            device: lose.device,
        }))
    }

    /// The number of a credit that is in the books.
    pub(super) fn credit(&self, reference: &Reference) -> Option<usize> {
        let mut credits = self.credits.iter();
        let found = credits.find(|credit| credit.reference == *reference);
        found.map(|credit| credit.number)
    }

    /// Books a charge, or says that the books cannot hold it.
    pub(super) fn book(&mut self, charge: &Charge, now_ms: u64) -> bool {
        let later = charge.month.map_or(0, Month::index);
        let counts_in = month(now_ms).max(later).max(self.month);
        let wide = |nanos: Nanos| i128::from(nanos.0);
        let credited: i128 = charge.credits.iter().map(|drawn| wide(drawn.amount)).sum();
        let postpaid = wide(charge.charge) - wide(charge.overage) - wide(charge.prepaid) - credited;
        let mut next = self.clone();
        next.put(Place::Spent(counts_in), postpaid);
        next.put(Place::Used(counts_in), wide(charge.base));
        next.put(Place::Owed, wide(charge.overage));
        next.put(Place::Prepaid, -wide(charge.prepaid));
        if postpaid != 0 {
            next.put(Place::Open(counts_in), postpaid);
        }
        for drawn in &charge.credits {
            if let Some(number) = self.credit(&drawn.credit) {
                next.put(Place::Credit(number), -wide(drawn.amount));
            }
        }
        let sums = [
            Place::Spent(counts_in),
            Place::Used(counts_in),
            Place::Owed,
            Place::Open(counts_in),
        ];
        if sums.iter().any(|place| fits(next.sum(*place)).is_err()) {
            return false;
        }
        next.month = counts_in;
        next.holds.remove(&charge.request);
        next.charged
            .insert(charge.request, (now_ms, charge.clone()));
        *self = next;
        true
    }
}
