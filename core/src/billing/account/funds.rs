//! Where the money of a charge comes from: knowledge credits, the earliest to end first, then what was
//! paid in advance, then the month's ceiling.

use serde::{Deserialize, Serialize};

use super::order::Reference;
use crate::billing::money::{Nanos, Overflow};
use crate::time::UnixMillis;

/// Money given for a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    /// What it was given under.
    pub reference: Reference,
    /// What is left of it.
    pub left: Nanos,
    /// Nothing may be set aside from it from then on.
    pub expires_at: UnixMillis,
}

/// A part of a charge that a credit paid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drawn {
    /// Which credit.
    pub credit: Reference,
    /// How much.
    pub amount: Nanos,
}

/// What of a charge came from where; the rest is within the ceiling.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) credits: Vec<Drawn>,
    pub(super) prepaid: Nanos,
}

impl Split {
    /// What credits and the balance pay together.
    pub(super) fn funded(&self) -> Result<Nanos, Overflow> {
        let mut parts = self.credits.iter();
        parts.try_fold(self.prepaid, |sum, drawn| sum.plus(drawn.amount))
    }
}

/// What may be set aside from credits at `at`.
pub(super) fn valid(credits: &[Credit], at: UnixMillis) -> Result<Nanos, Overflow> {
    let mut usable = credits.iter().filter(|credit| credit.expires_at > at);
    usable.try_fold(Nanos::ZERO, |sum, credit| sum.plus(credit.left))
}

/// Takes `amount` from the funds. What was set aside while a credit lasted is still served by it:
/// `held_at` is that moment.
pub(super) fn split(
    credits: &[Credit],
    balance: Nanos,
    held_at: UnixMillis,
    amount: Nanos,
) -> Result<Split, Overflow> {
    let (mut split, mut rest) = (Split::default(), amount);
    // They are kept in the order of their ends.
    for credit in credits.iter().filter(|credit| credit.expires_at > held_at) {
        let part = credit.left.min(rest);
        if part > Nanos::ZERO {
            rest = rest.minus(part)?;
            split.credits.push(Drawn {
                credit: credit.reference.clone(),
                amount: part,
            });
        }
    }
    split.prepaid = balance.min(rest).max(Nanos::ZERO);
    Ok(split)
}
