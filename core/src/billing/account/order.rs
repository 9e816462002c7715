//! What is done to an account from outside of any question: money comes in, terms change.
//!
//! Each order has a reference that its giver chose, a payment's id for instance. It is carried out once
//! for ever; said again it changes nothing, and with other contents it is refused.

mod close;
mod reference;
mod refund;

pub use self::close::due;
pub use self::reference::{NotReference, Reference};
use super::funds::Credit;
use super::guest::Guest;
use super::{Account, Month};
use crate::billing::ledger::Record;
use crate::billing::money::{Nanos, Overflow};
use crate::billing::tier::Tier;
use crate::ids::{GuestId, RequestId};
use crate::limits::{CREDITS_PER_ACCOUNT_MAX, GUESTS_PER_ACCOUNT_MAX};
use crate::time::UnixMillis;

/// How long a credit that has ended stays in the books: longer than anything set aside from it.
const LAPSES_AFTER_MS: u64 = 24 * 60 * 60 * 1000;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its name, for ever.
    pub reference: Reference,
    /// What.
    pub what: What,
}

impl Order {
    /// The invoice of a month. Its reference is the month's, so that whoever closes it does it once.
    #[must_use]
    pub fn close(month: Month) -> Self {
        Self {
            reference: Reference::of_invoice(month),
            what: What::Close { month },
        }
    }

    /// What has to be looked up in the account's ledger before it can be decided.
    #[must_use]
    pub fn subject(&self) -> Option<Subject> {
        match &self.what {
            What::Refund { charge, .. } => Some(Subject::Charge(*charge)),
            What::Reverse { payment, .. } => Some(Subject::Payment(payment.clone())),
            What::Pay { .. }
            | What::Grant { .. }
            | What::SetTier { .. }
            | What::SetCeiling { .. }
            | What::Close { .. }
            | What::Collect { .. }
            | What::ResetQuota
            | What::SetGuest { .. } => None,
        }
    }
}

/// What an order undoes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The charge of a request.
    Charge(RequestId),
    /// The payment under a reference.
    Payment(Reference),
}

impl std::fmt::Display for Subject {
    /// As the records that undo it name it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Charge(request) => request.fmt(f),
            Self::Payment(reference) => reference.fmt(f),
        }
    }
}

/// What the store knows besides the account.
#[derive(Clone, Debug)]
pub struct Known {
    /// The wall clock.
    pub now: UnixMillis,
    /// What is recorded under the order's reference.
    pub prior: Option<Record>,
    /// When the order's [`Subject`] was recorded, and as what.
    pub subject: Option<(UnixMillis, Record)>,
    /// What has been undone of the subject before.
    pub undone: Vec<Record>,
}

impl Known {
    /// Of an order that nothing else is known of.
    #[must_use]
    pub const fn at(now: UnixMillis) -> Self {
        Self {
            now,
            prior: None,
            subject: None,
            undone: Vec::new(),
        }
    }
}

/// What an order does.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// A charge is given back, wholly or in part, to where it was taken from.
    Refund {
        /// Which request's.
        charge: RequestId,
        /// How much.
        amount: Nanos,
    },
    /// Whoever paid took the money back: a payment returned, or disputed at the bank. It is taken from
    /// what is left of what was paid in advance; the rest is owed.
    Reverse {
        /// Which payment.
        payment: Reference,
        /// How much.
        amount: Nanos,
    },
    /// A month is over: what was spent within the ceiling is invoiced, in whole cents.
    Close {
        /// Which.
        month: Month,
    },
    /// An invoice was paid.
    Collect {
        /// How much.
        amount: Nanos,
    },
    /// The month's free quota begins anew.
    ResetQuota,
    /// Somebody may ask on the account's money, or may no longer.
    SetGuest {
        /// Who.
        guest: GuestId,
        /// The most in a month; nobody's guest any more without.
        cap: Option<Nanos>,
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
    /// No such charge.
    #[error("this account was never charged for that request")]
    UnknownCharge,
    /// No such payment.
    #[error("this account has no payment under that reference")]
    UnknownPayment,
    /// More than there is to be undone.
    #[error("only {left} of it is left to be given back")]
    MoreThanThere {
        /// What is left.
        left: Nanos,
    },
    /// The month is not over.
    #[error("{month} is not over yet; it can be invoiced when the next month has begun")]
    MonthNotOver {
        /// Which.
        month: Month,
    },
    /// The month was invoiced.
    #[error("{month} was invoiced already")]
    MonthClosed {
        /// Which.
        month: Month,
    },
    /// Too many guests.
    #[error("the account has {GUESTS_PER_ACCOUNT_MAX} guests already; remove one first")]
    TooManyGuests,
    /// Larger than the ledger can hold.
    #[error("the amount is larger than the ledger can hold")]
    Overflow,
}

impl From<Overflow> for Refused {
    fn from(_: Overflow) -> Self {
        Self::Overflow
    }
}

/// What an order leads to, in this order; empty when it has been carried out already.
///
/// # Errors
///
/// [`Refused`]; nothing happens then.
pub fn decide(account: &Account, known: &Known, order: &Order) -> Result<Vec<Record>, Refused> {
    if let Some(prior) = &known.prior {
        return if is_of(prior, order) {
            Ok(Vec::new())
        } else {
            Err(Refused::Conflict)
        };
    }
    let record = record(account, known, order)?;
    let mut records = lapsed(account, known.now);
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
    tried.summary(known.now)?;
    Ok(records)
}

fn record(account: &Account, known: &Known, order: &Order) -> Result<Record, Refused> {
    let reference = order.reference.clone();
    Ok(match &order.what {
        What::Pay { amount } => {
            positive(*amount)?;
            Record::Paid {
                reference,
                amount: *amount,
                settled: (*amount).min(account.owed).max(Nanos::ZERO),
            }
        }
        What::Grant { amount, expires_at } => {
            positive(*amount)?;
            if *expires_at <= known.now {
                return Err(Refused::EndsTooEarly);
            }
            Record::Granted {
                reference,
                amount: *amount,
                expires_at: *expires_at,
            }
        }
        What::SetTier { tier } => Record::TierSet {
            reference,
            tier: *tier,
        },
        What::SetCeiling { ceiling } if *ceiling < Nanos::ZERO => {
            return Err(Refused::NegativeCeiling);
        }
        What::SetCeiling { ceiling } => Record::CeilingSet {
            reference,
            ceiling: *ceiling,
        },
        What::Refund { amount, .. } => refund::charge(account, known, reference, *amount)?,
        What::Reverse { payment, amount } => {
            refund::payment(account, known, reference, payment, *amount)?
        }
        What::Close { month } => close::month(account, known.now, reference, *month)?,
        What::Collect { amount } => {
            positive(*amount)?;
            if *amount > account.invoiced {
                let left = account.invoiced;
                return Err(Refused::MoreThanThere { left });
            }
            Record::Collected {
                reference,
                amount: *amount,
            }
        }
        What::ResetQuota => Record::QuotaReset { reference },
        What::SetGuest { guest, cap } => {
            let full = account.guests.len() >= GUESTS_PER_ACCOUNT_MAX;
            match cap {
                Some(cap) if *cap < Nanos::ZERO => return Err(Refused::NegativeCeiling),
                Some(_) if full && !account.guests.contains_key(guest) => {
                    return Err(Refused::TooManyGuests);
                }
                Some(_) | None => {}
            }
            Record::GuestSet {
                reference,
                guest: *guest,
                cap: *cap,
            }
        }
    })
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
    match (record, &order.what) {
        (Record::Paid { amount, .. }, What::Pay { amount: ordered })
        | (Record::Collected { amount, .. }, What::Collect { amount: ordered }) => {
            amount == ordered
        }
        (
            Record::Granted {
                amount, expires_at, ..
            },
            What::Grant {
                amount: ordered,
                expires_at: end,
            },
        ) => (amount, expires_at) == (ordered, end),
        (Record::TierSet { tier, .. }, What::SetTier { tier: ordered }) => tier == ordered,
        (Record::CeilingSet { ceiling, .. }, What::SetCeiling { ceiling: ordered }) => {
            ceiling == ordered
        }
        (Record::Refunded(refunded), What::Refund { charge, amount }) => {
            (&refunded.undoes, &refunded.amount) == (charge, amount)
        }
        (
            Record::Reversed { undoes, amount, .. },
            What::Reverse {
                payment,
                amount: ordered,
            },
        ) => (undoes, amount) == (payment, ordered),
        (Record::Invoiced(invoiced), What::Close { month }) => invoiced.month == *month,
        (Record::QuotaReset { .. }, What::ResetQuota) => true,
        (
            Record::GuestSet { guest, cap, .. },
            What::SetGuest {
                guest: ordered,
                cap: asked,
            },
        ) => (guest, cap) == (ordered, asked),
        _ => false,
    }
}

/// Credits that leave the books: spent ones, and those that ended so long ago that nothing can be set
/// aside from them any more.
///
/// Any order books them; somebody should do it from time to time where none comes.
#[must_use]
pub fn lapsed(account: &Account, now: UnixMillis) -> Vec<Record> {
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
        Record::Refunded(refunded) => refund::book_charge(account, refunded)?,
        Record::Reversed {
            amount, prepaid, ..
        } => {
            let owed = account.owed.plus(amount.minus(*prepaid)?)?;
            account.balance = account.balance.minus(*prepaid)?;
            account.owed = owed;
        }
        Record::Invoiced(invoiced) => close::book(account, invoiced)?,
        Record::Collected { amount, .. } => account.invoiced = account.invoiced.minus(*amount)?,
        Record::QuotaReset { .. } => account.used = Nanos::ZERO,
        Record::GuestSet { guest, cap, .. } => match cap {
            Some(cap) => account.guests.entry(*guest).or_insert(Guest::new(*cap)).cap = *cap,
            None => {
                account.guests.remove(guest);
            }
        },
        Record::Opened { .. } | Record::Charged(_) | Record::Lost(_) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;
