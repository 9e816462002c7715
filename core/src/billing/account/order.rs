//! What is done to an account from outside of any question: money comes in, terms change.
//!
//! Each order has a reference that its giver chose, a payment's id for instance. It is carried out once
//! for ever; said again it changes nothing, and with other contents it is refused.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Account;
use super::funds::Credit;
use crate::billing::ledger::Record;
use crate::billing::money::{Nanos, Overflow};
use crate::billing::tier::Tier;
use crate::limits::{CREDITS_PER_ACCOUNT_MAX, REFERENCE_BYTES_MAX};
use crate::time::UnixMillis;

/// How long a credit that has ended stays in the books: longer than anything set aside from it.
const LAPSES_AFTER_MS: u64 = 24 * 60 * 60 * 1000;

/// Names an order within its account: 1 to [`REFERENCE_BYTES_MAX`] of `A–Z a–z 0–9 . _ : -`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference(String);

/// Why a text is no reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a reference has 1 to {REFERENCE_BYTES_MAX} letters, digits or . _ : -")]
pub struct NotReference;

impl Reference {
    /// Checks a text.
    ///
    /// # Errors
    ///
    /// [`NotReference`].
    pub fn new(text: impl Into<String>) -> Result<Self, NotReference> {
        let text = text.into();
        let fits = (1..=REFERENCE_BYTES_MAX).contains(&text.len());
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        if fits && text.bytes().all(known) {
            Ok(Self(text))
        } else {
            Err(NotReference)
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Reference {
    type Error = NotReference;

    fn try_from(text: String) -> Result<Self, NotReference> {
        Self::new(text)
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.0
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its name, for ever.
    pub reference: Reference,
    /// What.
    pub what: What,
}

/// What an order does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Money came in: it pays what is owed first, and the rest is spent before the ceiling.
    Pay {
        /// How much.
        amount: Nanos,
    },
    /// Money is given for a time: spent first, the earliest to end before the others.
    Grant {
        /// How much.
        amount: Nanos,
        /// Nothing is set aside from it from then on.
        expires_at: UnixMillis,
    },
    /// The account is charged differently from now on.
    SetTier {
        /// How.
        tier: Tier,
    },
    /// The account may spend more or less in a month.
    SetCeiling {
        /// How much.
        ceiling: Nanos,
    },
}

/// Why an order was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The reference was used for something else.
    #[error("this reference was used for something else; use a new one")]
    Conflict,
    /// Nothing, or less.
    #[error("an amount has to be more than nothing")]
    NotPositive,
    /// A ceiling below zero.
    #[error("a ceiling cannot be below $0")]
    NegativeCeiling,
    /// It would end before it begins.
    #[error("the credit would have ended already; choose a later end")]
    EndsTooEarly,
    /// Too many credits.
    #[error(
        "the account has {CREDITS_PER_ACCOUNT_MAX} credits already; wait for one to end or to be spent"
    )]
    TooManyCredits,
    /// Larger than the ledger can hold.
    #[error("the amount is larger than the ledger can hold")]
    Overflow,
}

impl From<Overflow> for Refused {
    fn from(_: Overflow) -> Self {
        Self::Overflow
    }
}

/// What an order leads to, in this order; empty when it has been carried out already. `prior` is what
/// the ledger has under its reference.
///
/// # Errors
///
/// [`Refused`]; nothing happens then.
pub fn decide(
    account: &Account,
    now: UnixMillis,
    prior: Option<&Record>,
    order: &Order,
) -> Result<Vec<Record>, Refused> {
    if let Some(prior) = prior {
        return if is_of(prior, order) {
            Ok(Vec::new())
        } else {
            Err(Refused::Conflict)
        };
    }
    let reference = order.reference.clone();
    let record = match order.what {
        What::Pay { amount } => {
            positive(amount)?;
            Record::Paid {
                reference,
                amount,
                settled: amount.min(account.owed).max(Nanos::ZERO),
            }
        }
        What::Grant { amount, expires_at } => {
            positive(amount)?;
            if expires_at <= now {
                return Err(Refused::EndsTooEarly);
            }
            Record::Granted {
                reference,
                amount,
                expires_at,
            }
        }
        What::SetTier { tier } => Record::TierSet { reference, tier },
        What::SetCeiling { ceiling } if ceiling < Nanos::ZERO => {
            return Err(Refused::NegativeCeiling);
        }
        What::SetCeiling { ceiling } => Record::CeilingSet { reference, ceiling },
    };
    let mut records = lapsed(account, now);
    let credits = account.credits.len() - records.len();
    if matches!(record, Record::Granted { .. }) && credits >= CREDITS_PER_ACCOUNT_MAX {
        return Err(Refused::TooManyCredits);
    }
    records.push(record);
    // What cannot be booked is refused before any of it is.
    let mut tried = account.clone();
    for record in &records {
        book(&mut tried, record)?;
    }
    tried.summary(now)?;
    Ok(records)
}

fn positive(amount: Nanos) -> Result<(), Refused> {
    if amount > Nanos::ZERO {
        Ok(())
    } else {
        Err(Refused::NotPositive)
    }
}

/// Whether a record is what this order led to.
fn is_of(record: &Record, order: &Order) -> bool {
    match (record, order.what) {
        (Record::Paid { amount, .. }, What::Pay { amount: ordered }) => *amount == ordered,
        (
            Record::Granted {
                amount, expires_at, ..
            },
            What::Grant {
                amount: ordered,
                expires_at: end,
            },
        ) => (*amount, *expires_at) == (ordered, end),
        (Record::TierSet { tier, .. }, What::SetTier { tier: ordered }) => *tier == ordered,
        (Record::CeilingSet { ceiling, .. }, What::SetCeiling { ceiling: ordered }) => {
            *ceiling == ordered
        }
        (
            Record::Opened { .. }
            | Record::Charged(_)
            | Record::Paid { .. }
            | Record::Granted { .. }
            | Record::Lapsed { .. }
            | Record::TierSet { .. }
            | Record::CeilingSet { .. },
            _,
        ) => false,
    }
}

/// Credits that leave the books: spent ones, and those that ended so long ago that nothing can be set
/// aside from them any more.
fn lapsed(account: &Account, now: UnixMillis) -> Vec<Record> {
    let over = |credit: &&Credit| {
        credit.left == Nanos::ZERO || credit.expires_at.0.saturating_add(LAPSES_AFTER_MS) <= now.0
    };
    let credits = account.credits.iter().filter(over);
    credits
        .map(|credit| Record::Lapsed {
            credit: credit.reference.clone(),
            amount: credit.left,
        })
        .collect()
}

/// Makes a record of an order so.
///
/// # Errors
///
/// [`Overflow`] past the range of [`Nanos`]; the account is unchanged then.
pub(super) fn book(account: &mut Account, record: &Record) -> Result<(), Overflow> {
    match record {
        Record::Paid {
            amount, settled, ..
        } => {
            let balance = account.balance.plus(amount.minus(*settled)?)?;
            account.owed = account.owed.minus(*settled)?;
            account.balance = balance;
        }
        Record::Granted {
            reference,
            amount,
            expires_at,
        } => {
            let credit = Credit {
                reference: reference.clone(),
                left: *amount,
                expires_at: *expires_at,
            };
            let place = |credit: &Credit| (credit.expires_at, credit.reference.clone());
            let at = account
                .credits
                .partition_point(|other| place(other) < place(&credit));
            account.credits.insert(at, credit);
        }
        Record::Lapsed { credit, .. } => {
            account.credits.retain(|other| other.reference != *credit);
        }
        Record::TierSet { tier, .. } => account.tier = *tier,
        Record::CeilingSet { ceiling, .. } => account.ceiling = *ceiling,
        Record::Opened { .. } | Record::Charged(_) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;
