//! The rules of an account: what may be spent, set aside and charged.
//!
//! `decide` looks and says what happens, `apply` makes it so. A store runs both inside one
//! transaction; nobody else changes an account.
//!
//! ```text
//!             Hold ok               Settle
//!   (no hold) ───────▶ held ───────────────────▶ charged (for ever)
//!                       │ Release
//!                       ▼
//!                  (no hold: the id is free again)
//! ```
//!
//! # Invariants
//!
//! 1. (account, request id) is charged at most once, for ever; the same id with another body is
//!    refused.
//! 2. What is held is never negative, and holds and spending stay within the month's ceiling; what
//!    a settle takes beyond its hold is recorded as owed and blocks new holds.
//! 3. Replaying a command changes nothing. A release voids the hold that it names and no other.
//! 4. A charge takes from credits, then from what was paid in advance, then from the ceiling, and never
//!    more than there is.
//! 5. Months are UTC. A clock that steps into another month and back opens no second ceiling.

pub mod funds;
pub mod order;

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Datelike};
use serde::{Deserialize, Serialize};

use self::funds::Credit;
use super::ledger::{Charge, Record};
use super::money::{Nanos, Overflow};
use super::price::Price;
use super::tier::Tier;
use crate::ids::RequestId;
use crate::limits::HOLDS_PER_ACCOUNT_MAX;
use crate::time::UnixMillis;
use crate::wire::message::TokensUsed;

/// A calendar month (UTC): `2026-11`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Month(i32);

impl Month {
    /// The month of a moment.
    #[must_use]
    pub fn of(at: UnixMillis) -> Self {
        let millis = i64::try_from(at.0).unwrap_or(i64::MAX);
        let date = DateTime::from_timestamp_millis(millis).unwrap_or(DateTime::UNIX_EPOCH);
        Self(date.year() * 12 + i32::try_from(date.month0()).unwrap_or_default())
    }

    /// The month as one number, as a store keeps it: months since January of the year 0.
    #[must_use]
    pub const fn index(self) -> i32 {
        self.0
    }

    /// The month of such a number.
    #[must_use]
    pub const fn from_index(index: i32) -> Self {
        Self(index)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04}-{:02}",
            self.0.div_euclid(12),
            self.0.rem_euclid(12) + 1
        )
    }
}

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
            month: Month(0),
            spent: Nanos::ZERO,
            used: Nanos::ZERO,
            owed: Nanos::ZERO,
            balance: Nanos::ZERO,
            credits: Vec::new(),
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
}

/// Set the worst case aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Its name, fresh.
    pub id: HoldId,
    /// For which request.
    pub request: RequestId,
    /// SHA-256 of its body.
    pub body: [u8; 32],
    /// The model's price.
    pub price: Price,
    /// The most tokens that can be read.
    pub input_tokens_max: u64,
    /// The most tokens that can be written.
    pub output_tokens_max: u64,
}

/// Charge what was used and void the rest of the hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle {
    /// For which request.
    pub request: RequestId,
    /// SHA-256 of its body.
    pub body: [u8; 32],
    /// The model, as it was asked for.
    pub model: String,
    /// Its price, the one that the hold was made with.
    pub price: Price,
    /// What was used.
    pub tokens: TokensUsed,
    /// Whether the provider did not count it.
    pub estimated: bool,
}

/// Void a hold; the request's id is free again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// Of which request.
    pub request: RequestId,
    /// Which hold. Another one of the same request stays.
    pub hold: HoldId,
}

/// What an account is told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// See [`Hold`].
    Hold(Hold),
    /// See [`Settle`].
    Settle(Settle),
    /// See [`Release`].
    Release(Release),
}

/// What happens to an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Money was set aside. Not part of the ledger: a crash voids it.
    Held(RequestId, Held),
    /// It is void.
    Released(RequestId),
    /// Charged, for ever; goes into the ledger.
    Charged(Charge),
}

/// What the store knows besides the account.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The wall clock.
    pub now: UnixMillis,
    /// What is recorded in the ledger under the command's request id.
    pub prior: Option<Charge>,
}

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The id was used with another body.
    #[error("this request id was used for another question; use a new one")]
    Conflict,
    /// The request runs already.
    #[error("this request is being answered already")]
    InProgress,
    /// The request was answered and charged; its text is no longer kept.
    #[error("this request was answered and charged {} already; its text is no longer kept", .charge.charge)]
    Expired {
        /// The charge.
        charge: Box<Charge>,
    },
    /// The free quota does not cover the worst case.
    #[error(
        "the month's free quota does not cover this request: it may take {needed}, {available} is left; ask for fewer tokens or change the tier"
    )]
    QuotaSpent {
        /// The worst case, in the provider's price.
        needed: Nanos,
        /// What is left.
        available: Nanos,
    },
    /// The ceiling does not cover the worst case.
    #[error(
        "the account does not cover this request: it may cost {needed}, {available} is left; ask for fewer tokens, or have its operator add money or raise the ceiling"
    )]
    Insufficient {
        /// The worst case, charged.
        needed: Nanos,
        /// What is left.
        available: Nanos,
    },
    /// Something is owed.
    #[error(
        "{owed} is owed from before; nothing that costs can be asked until the operator has booked a payment of it"
    )]
    Owing {
        /// How much.
        owed: Nanos,
    },
    /// Too many requests of the account are under way.
    #[error("{HOLDS_PER_ACCOUNT_MAX} requests of this account are under way; wait for one to end")]
    TooManyHolds,
    /// There is no such account.
    #[error("this account does not exist")]
    UnknownAccount,
    /// Larger than the ledger can hold.
    #[error("the amount is larger than the ledger can hold")]
    Overflow,
}

impl From<Overflow> for Denied {
    fn from(_: Overflow) -> Self {
        Self::Overflow
    }
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
    if let Some(charge) = &facts.prior {
        let same = charge.body == hold.body;
        return Err(if same {
            Denied::Expired {
                charge: Box::new(charge.clone()),
            }
        } else {
            Denied::Conflict
        });
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
    let base = price.worst_case(*input, *output, super::price::WHOLE_BPS)?;
    let entry = Entry::Held(
        hold.request,
        Held {
            id: hold.id,
            body: hold.body,
            at: facts.now,
            month: account.this_month(facts.now).0,
            charge,
            base,
        },
    );
    // A base that rounds to nothing may still be charged a nano with its markup.
    if base == Nanos::ZERO && charge == Nanos::ZERO {
        return Ok(entry);
    }
    if account.owed > Nanos::ZERO {
        return Err(Denied::Owing { owed: account.owed });
    }
    let available = account.summary(facts.now)?.available;
    match account.tier {
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
    if let Some(prior) = &facts.prior {
        return if prior.body == settle.body {
            Ok(Vec::new())
        } else {
            Err(Denied::Conflict)
        };
    }
    // Without a hold (a crash voided it) everything is beyond the hold: recorded, never dropped.
    let held = account.holds.get(&settle.request);
    let now = account.in_month(Month::of(facts.now)).0;
    let month = held.map(|held| held.month).filter(|&month| month > now);
    let (held, held_at) = held.map_or((Nanos::ZERO, facts.now), |held| (held.charge, held.at));
    let charge = settle.price.cost(&settle.tokens, account.tier.rate_bps())?;
    let overage = charge.minus(held)?.max(Nanos::ZERO);
    let within = charge.minus(overage)?;
    let split = funds::split(&account.credits, account.balance, held_at, within)?;
    Ok(vec![Entry::Charged(Charge {
        request: settle.request,
        body: settle.body,
        model: settle.model,
        tokens: settle.tokens,
        price: settle.price,
        tier: account.tier,
        base: settle.price.base(&settle.tokens)?,
        charge,
        overage,
        credits: split.credits,
        prepaid: split.prepaid,
        month,
        estimated: settle.estimated,
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
        Entry::Charged(charge) => {
            let month = Month::of(at).max(charge.month.unwrap_or_default());
            let (month, spent, used) = account.in_month(month);
            let (spent, used) = (spent.plus(charge.postpaid()?)?, used.plus(charge.base)?);
            let owed = account.owed.plus(charge.overage)?;
            let balance = account.balance.minus(charge.prepaid)?;
            for drawn in &charge.credits {
                let mut credits = account.credits.iter_mut();
                if let Some(credit) = credits.find(|credit| credit.reference == drawn.credit) {
                    // Never more than there is: it was decided on this account.
                    credit.left = credit.left.minus(drawn.amount)?;
                }
            }
            (account.month, account.spent, account.used) = (month, spent, used);
            (account.owed, account.balance) = (owed, balance);
            account.holds.remove(&charge.request);
        }
    }
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
        (order, Some(mut account)) => {
            order::book(&mut account, order)?;
            Ok(Some(account))
        }
        (_, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests;
