//! The end of a month: what it came to is invoiced, in whole cents.

use super::{Reference, Refused};
use crate::billing::account::{Account, Month};
use crate::billing::ledger::{Invoiced, Record};
use crate::billing::money::{Cents, Nanos, Overflow};
use crate::time::UnixMillis;

/// The months that are over and not invoiced, the earliest first. Somebody closes them, in this order.
#[must_use]
pub fn due(account: &Account, now: UnixMillis) -> Vec<Month> {
    let over = |month: &&Month| **month < Month::of(now);
    account.unbilled.keys().filter(over).copied().collect()
}

pub(super) fn month(
    account: &Account,
    now: UnixMillis,
    reference: Reference,
    month: Month,
) -> Result<Record, Refused> {
    if month >= Month::of(now) {
        return Err(Refused::MonthNotOver { month });
    }
    if month <= account.closed {
        return Err(Refused::MonthClosed { month });
    }
    let mut open = account.unbilled.range(..=month);
    let spent = open.try_fold(Nanos::ZERO, |sum, (_, spent)| sum.plus(*spent))?;
    let carried_in = account.residue;
    let total = spent.plus(carried_in)?;
    // What was given back may be more than was spent: nothing is invoiced then, and the rest is
    // carried on as a debt of the operator's.
    let (cents, carried_out) = if total < Nanos::ZERO {
        (Cents(0), total)
    } else {
        total.split_cents()
    };
    Ok(Record::Invoiced(Invoiced {
        reference,
        month,
        after: account.closed,
        spent,
        carried_in,
        cents,
        carried_out,
    }))
}

pub(super) fn book(account: &mut Account, invoiced: &Invoiced) -> Result<(), Overflow> {
    account.invoiced = account.invoiced.plus(invoiced.cents.to_nanos()?)?;
    account.unbilled = account.unbilled.split_off(&invoiced.month.next());
    account.residue = invoiced.carried_out;
    account.closed = invoiced.month;
    // Whatever comes later counts in a later month, also when the clock steps back.
    if account.month <= invoiced.month {
        account.month = invoiced.month.next();
        (account.spent, account.used) = (Nanos::ZERO, Nanos::ZERO);
    }
    Ok(())
}
