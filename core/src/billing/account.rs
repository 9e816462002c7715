//! The rules of an account: what may be spent, set aside and charged.
//!
//! `decide` looks and says what happens, `apply` makes it so. A store runs both inside one
//! transaction; nobody else changes an account.
//!
//! ```text
//!             Hold ok               Settle
//!   (no hold) ───────▶ held ───────────────────▶ charged (for ever)
//!                       │ │ Lose
//!                       │ └────────────────────▶ lost (for ever, costs the account nothing)
//!                       │ Release
//!                       ▼
//!                  (no hold: the id is free again)
//! ```
//!
//! # Invariants
//!
//! 1. (account, request id) is charged or lost at most once, for ever; the same id with another body
//!    is refused.
//! 2. What is held is never negative, and holds and spending stay within the month's ceiling; what
//!    a settle takes beyond its hold, or beyond what is left of the funds it was set aside from, is
//!    recorded as owed and blocks new holds.
//! 3. Replaying a command changes nothing. A release voids the hold that it names and no other.
//! 4. A charge takes from credits, then from what was paid in advance, then from the ceiling, and never
//!    more than there is.
//! 5. Months are UTC. A clock that steps into another month and back opens no second ceiling. A
//!    month that was invoiced takes nothing more.
//! 6. A request is charged in the tier that its hold was made in.

pub mod alert;
mod command;
mod denied;
pub mod funds;
pub mod guest;
mod month;
pub mod order;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::command::{Command, Entry, Facts, Hold, Lose, Prior, Release, Settle};
pub use self::denied::Denied;
use self::funds::Credit;
use self::guest::Guest;
pub use self::month::{Day, Month, NotMonth};
use super::ledger::{Charge, Loss, Record};
use super::money::{Nanos, Overflow};
use super::price;
use super::tier::Tier;
use crate::ids::{DeviceId, GuestId, RequestId};
use crate::limits::HOLDS_PER_ACCOUNT_MAX;
use crate::time::UnixMillis;

/// Names one hold among all that a gateway has ever made. A request's id does not: it is free again
/// after a release, and a release that is said again must not void the hold of a later asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HoldId(pub u64);

/// Money set aside for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Which hold it is.
    pub id: HoldId,
    /// SHA-256 of the request's body.
    #[serde(with = "super::ledger::hex32")]
    pub body: [u8; 32],
    /// When: credits that end later serve it, however late it is settled.
    pub at: UnixMillis,
    /// The month whose ceiling it is within.
    pub month: Month,
    /// The worst case, charged.
    pub charge: Nanos,
    /// The worst case, in the provider's price.
    pub base: Nanos,
    /// The tier that it is charged in.
    pub tier: Tier,
    /// The device that asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// The guest who asked, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestId>,
}

/// One account as the rules see it.
///
/// Written down, it is where the account stands after the last entry of its ledger, which replaying
/// that gives again: without its holds, which are not in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// How it is charged.
    pub tier: Tier,
    /// The most that may be spent in a month.
    pub ceiling: Nanos,
    /// The month that `spent` and `used` are of.
    pub month: Month,
    /// Charged this month.
    pub spent: Nanos,
    /// Used this month, in the provider's price.
    pub used: Nanos,
    /// Charged beyond a hold and not paid; blocks new holds.
    pub owed: Nanos,
    /// Paid in advance and not spent.
    #[serde(default)]
    pub balance: Nanos,
    /// Given for a time and not spent, the earliest to end first.
    #[serde(default)]
    pub credits: Vec<Credit>,
    /// Spent within the ceiling and not invoiced, by the month that it counts in. What is given back
    /// may make it negative.
    #[serde(default)]
    pub unbilled: BTreeMap<Month, Nanos>,
    /// The last month that was invoiced; 0 before the first.
    #[serde(default)]
    pub closed: Month,
    /// What invoices left over, less than a cent or a debt of the operator's, for the next one.
    #[serde(default)]
    pub residue: Nanos,
    /// Invoiced and not collected.
    #[serde(default)]
    pub invoiced: Nanos,
    /// Who may ask on this account's money.
    #[serde(default)]
    pub guests: BTreeMap<GuestId, Guest>,
    /// Holds under way.
    #[serde(skip)]
    pub holds: BTreeMap<RequestId, Held>,
}

impl Account {
    /// A new account.
    #[must_use]
    pub const fn new(tier: Tier, ceiling: Nanos) -> Self {
        Self {
            tier,
            ceiling,
            month: Month::from_index(0),
            spent: Nanos::ZERO,
            used: Nanos::ZERO,
            owed: Nanos::ZERO,
            balance: Nanos::ZERO,
            credits: Vec::new(),
            unbilled: BTreeMap::new(),
            closed: Month::from_index(0),
            residue: Nanos::ZERO,
            invoiced: Nanos::ZERO,
            guests: BTreeMap::new(),
            holds: BTreeMap::new(),
        }
    }

    /// What was spent and used in a month, or in the account's own if that is later.
    fn in_month(&self, month: Month) -> (Month, Nanos, Nanos) {
        if month > self.month {
            (month, Nanos::ZERO, Nanos::ZERO)
        } else {
            (self.month, self.spent, self.used)
        }
    }

    /// The month that holds are judged in at `now`, and what was spent and used in it. While anything is
    /// set aside from a later month's ceiling, of a clock that was ahead, it is that one.
    fn this_month(&self, now: UnixMillis) -> (Month, Nanos, Nanos) {
        let held = self.holds.values().map(|held| held.month);
        self.in_month(held.fold(Month::of(now), Month::max))
    }

    fn held(&self) -> Result<(Nanos, Nanos), Overflow> {
        self.holds
            .values()
            .try_fold((Nanos::ZERO, Nanos::ZERO), |(charge, base), held| {
                Ok((charge.plus(held.charge)?, base.plus(held.base)?))
            })
    }

    /// The account in figures.
    ///
    /// # Errors
    ///
    /// [`Overflow`] past the range of [`Nanos`].
    pub fn summary(&self, now: UnixMillis) -> Result<Summary, Overflow> {
        let (month, spent, used) = self.this_month(now);
        let (held, held_base) = self.held()?;
        let mut unbilled = self.unbilled.values().copied();
        let available = match self.tier {
            Tier::Free { monthly_quota } => monthly_quota.minus(used)?.minus(held_base)?,
            Tier::Managed { .. } | Tier::Byok { .. } => {
                let postpaid = self.ceiling.minus(spent)?.max(Nanos::ZERO);
                let funds = funds::valid(&self.credits, now)?.plus(self.balance)?;
                funds.plus(postpaid)?.minus(held)?
            }
        };
        Ok(Summary {
            tier: self.tier,
            month: month.to_string(),
            ceiling: self.ceiling,
            spent,
            used,
            held,
            available: available.max(Nanos::ZERO),
            owed: self.owed,
            balance: self.balance,
            credits: self
                .credits
                .iter()
                .filter(|credit| credit.expires_at > now && credit.left > Nanos::ZERO)
                .cloned()
                .collect(),
            next_invoice: unbilled.try_fold(self.residue, Nanos::plus)?,
            invoiced: self.invoiced,
            last_invoice: (self.closed.index() > 0).then(|| self.closed.to_string()),
        })
    }
}

/// An account in figures, as people are shown it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// How it is charged.
    #[serde(flatten)]
    pub tier: Tier,
    /// The month (UTC) that the figures are of, `2026-11`.
    pub month: String,
    /// The most that may be spent in it.
    pub ceiling: Nanos,
    /// Charged in it.
    pub spent: Nanos,
    /// Used in it, in the provider's price.
    pub used: Nanos,
    /// Set aside for answers under way.
    pub held: Nanos,
    /// What is left to set aside.
    pub available: Nanos,
    /// Charged beyond a hold and not paid.
    pub owed: Nanos,
    /// Paid in advance and not spent.
    #[serde(default)]
    pub balance: Nanos,
    /// Given for a time and not spent, the earliest to end first.
    #[serde(default)]
    pub credits: Vec<Credit>,
    /// What the next invoice comes to as it stands; whole cents of it are invoiced.
    #[serde(default)]
    pub next_invoice: Nanos,
    /// Invoiced and not collected.
    #[serde(default)]
    pub invoiced: Nanos,
    /// The last month that was invoiced, `2026-10`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_invoice: Option<String>,
}

/// What a command leads to; empty when it has been carried out already.
///
/// # Errors
///
/// [`Denied`]; nothing happens then.
pub fn decide(account: &Account, facts: &Facts, command: Command) -> Result<Vec<Entry>, Denied> {
    match command {
        Command::Hold(hold) => decide_hold(account, facts, &hold).map(|entry| vec![entry]),
        Command::Settle(settle) => decide_settle(account, facts, settle),
        Command::Lose(lose) => decide_lose(facts, lose),
        Command::Release(Release { request, hold }) => {
            let held = account.holds.get(&request);
            Ok(if held.is_some_and(|held| held.id == hold) {
                vec![Entry::Released(request)]
            } else {
                Vec::new()
            })
        }
    }
}

fn decide_hold(account: &Account, facts: &Facts, hold: &Hold) -> Result<Entry, Denied> {
    if let Some(prior) = &facts.prior {
        return Err(prior.denied(&hold.body));
    }
    if let Some(running) = account.holds.get(&hold.request) {
        let same = running.body == hold.body;
        return Err(if same {
            Denied::InProgress
        } else {
            Denied::Conflict
        });
    }
    if account.holds.len() >= HOLDS_PER_ACCOUNT_MAX {
        return Err(Denied::TooManyHolds);
    }
    let Hold {
        price,
        input_tokens_max: input,
        output_tokens_max: output,
        ..
    } = hold;
    let charge = price.worst_case(*input, *output, account.tier.rate_bps())?;
    let base = price.worst_case(*input, *output, price::WHOLE_BPS)?;
    let entry = Entry::Held(
        hold.request,
        Held {
            id: hold.id,
            body: hold.body,
            at: facts.now,
            month: account.this_month(facts.now).0,
            charge,
            base,
            tier: account.tier,
            device: hold.device,
            guest: hold.guest,
        },
    );
    // A base that rounds to nothing may still be charged a nano with its markup.
    if base == Nanos::ZERO && charge == Nanos::ZERO {
        return Ok(entry);
    }
    if account.owed > Nanos::ZERO {
        return Err(Denied::Owing { owed: account.owed });
    }
    let month = account.this_month(facts.now).0;
    guest::admits(account, hold.guest, month, charge)?;
    let available = account.summary(facts.now)?.available;
    match account.tier {
        Tier::Byok { .. } if !facts.provider_key => Err(Denied::NoProviderKey {
            provider: hold.provider.clone(),
        }),
        Tier::Free { .. } if base > available => Err(Denied::QuotaSpent {
            needed: base,
            available,
        }),
        Tier::Managed { .. } | Tier::Byok { .. } if charge > available => {
            Err(Denied::Insufficient {
                needed: charge,
                available,
            })
        }
        Tier::Free { .. } | Tier::Managed { .. } | Tier::Byok { .. } => Ok(entry),
    }
}

fn decide_settle(account: &Account, facts: &Facts, settle: Settle) -> Result<Vec<Entry>, Denied> {
    match &facts.prior {
        None => {}
        Some(prior) if *prior.body() != settle.body => return Err(Denied::Conflict),
        Some(Prior::Charged(_)) => return Ok(Vec::new()),
        // It was given up for lost meanwhile, and whoever asked was told so.
        Some(lost @ Prior::Lost(_)) => return Err(lost.denied(&settle.body)),
    }
    // Without a hold (a crash voided it) everything is beyond the hold: recorded, never dropped.
    let held = account.holds.get(&settle.request);
    if held.is_some_and(|held| held.body != settle.body) {
        return Err(Denied::Conflict);
    }
    let tier = held.map_or(account.tier, |held| held.tier);
    let charge = settle.price.cost(&settle.tokens, tier.rate_bps())?;
    let now = account.in_month(Month::of(facts.now)).0;
    let month = held.map(|held| held.month).filter(|&month| month > now);
    let (held_at, held_charge) =
        held.map_or((facts.now, Nanos::ZERO), |held| (held.at, held.charge));
    let within = charge.min(held_charge);
    let split = funds::split(&account.credits, account.balance, held_at, within)?;
    // Funds may have gone since the hold: a payment taken back, a ceiling lowered.
    let spent = account.in_month(month.unwrap_or(now)).1;
    let room = account.ceiling.minus(spent)?.max(Nanos::ZERO);
    let postpaid = within.minus(split.funded()?)?.min(room);
    let overage = charge.minus(split.funded()?)?.minus(postpaid)?;
    Ok(vec![Entry::Charged(Charge {
        request: settle.request,
        body: settle.body,
        model: settle.model,
        tokens: settle.tokens,
        price: settle.price,
        tier,
        base: settle.price.base(&settle.tokens)?,
        charge,
        overage,
        credits: split.credits,
        prepaid: split.prepaid,
        month,
        device: settle.device,
        project: settle.project,
        guest: held.and_then(|held| held.guest),
        estimated: settle.estimated,
    })])
}

fn decide_lose(facts: &Facts, lose: Lose) -> Result<Vec<Entry>, Denied> {
    if facts.prior.is_some() {
        return Ok(Vec::new());
    }
    let base = lose.price.base(&lose.tokens)?;
    let Lose {
        request,
        body,
        tier,
        model,
        price,
        tokens,
        device,
    } = lose;
    Ok(vec![Entry::Lost(Loss {
        request,
        body,
        model,
        tokens,
        price,
        tier,
        base,
        device,
    })])
}

/// Makes an entry so.
///
/// # Errors
///
/// [`Overflow`] past the range of [`Nanos`]; the account is unchanged then.
pub fn apply(account: &mut Account, at: UnixMillis, entry: &Entry) -> Result<(), Overflow> {
    match entry {
        Entry::Held(request, held) => {
            account.holds.insert(*request, *held);
        }
        Entry::Released(request) => {
            account.holds.remove(request);
        }
        Entry::Charged(charge) => apply_charge(account, at, charge)?,
        Entry::Lost(loss) => {
            account.holds.remove(&loss.request);
        }
    }
    Ok(())
}

fn apply_charge(account: &mut Account, at: UnixMillis, charge: &Charge) -> Result<(), Overflow> {
    let month = Month::of(at).max(charge.month.unwrap_or_default());
    let (month, spent, used) = account.in_month(month);
    let postpaid = charge.postpaid()?;
    let (spent, used) = (spent.plus(postpaid)?, used.plus(charge.base)?);
    let owed = account.owed.plus(charge.overage)?;
    let balance = account.balance.minus(charge.prepaid)?;
    let open = account.unbilled.get(&month).copied().unwrap_or_default();
    let unbilled = open.plus(postpaid)?;
    let guest = charge
        .guest
        .and_then(|id| Some((id, account.guests.get(&id)?)));
    let guest = guest.map(|(id, guest)| Ok((id, guest.charged(month, charge.charge)?)));
    let guest = guest.transpose()?;
    for drawn in &charge.credits {
        let mut credits = account.credits.iter_mut();
        if let Some(credit) = credits.find(|credit| credit.reference == drawn.credit) {
            // Never more than there is: it was decided on this account.
            credit.left = credit.left.minus(drawn.amount)?;
        }
    }
    account.guests.extend(guest);
    if !unbilled.is_zero() || account.unbilled.contains_key(&month) {
        account.unbilled.insert(month, unbilled);
    }
    (account.month, account.spent, account.used) = (month, spent, used);
    (account.owed, account.balance) = (owed, balance);
    account.holds.remove(&charge.request);
    Ok(())
}

/// Rebuilds an account from its ledger. Holds are not in it: a crash voids them.
///
/// # Errors
///
/// [`Overflow`] past the range of [`Nanos`].
pub fn replay<'a>(
    records: impl IntoIterator<Item = (UnixMillis, &'a Record)>,
) -> Result<Option<Account>, Overflow> {
    records.into_iter().try_fold(None, |account, (at, record)| {
        replay_one(account, at, record)
    })
}

/// The account after one more entry of its ledger; `None` is before the first.
///
/// # Errors
///
/// [`Overflow`] past the range of [`Nanos`].
pub fn replay_one(
    account: Option<Account>,
    at: UnixMillis,
    record: &Record,
) -> Result<Option<Account>, Overflow> {
    match (record, account) {
        (Record::Opened { tier, ceiling }, _) => Ok(Some(Account::new(*tier, *ceiling))),
        (Record::Charged(charge), Some(mut account)) => {
            apply(&mut account, at, &Entry::Charged(charge.clone()))?;
            Ok(Some(account))
        }
        (Record::Lost(_), account) => Ok(account),
        (order, Some(mut account)) => {
            order::book(&mut account, order)?;
            Ok(Some(account))
        }
        (_, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests;
