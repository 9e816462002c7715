//! Money that goes back: a charge to the account, a payment to whoever made it.

use super::{Known, Reference, Refused, positive};
use crate::billing::account::funds::Drawn;
use crate::billing::account::{Account, Month};
use crate::billing::ledger::{Charge, Record, Refunded};
use crate::billing::money::{Nanos, Overflow};
use crate::time::UnixMillis;

/// What has been given back of a charge, by where it had come from.
#[derive(Debug, Default)]
struct Before {
    all: Nanos,
    overage: Nanos,
    postpaid: Nanos,
    prepaid: Nanos,
    credits: Vec<Drawn>,
}

impl Before {
    fn of(undone: &[Record]) -> Result<Self, Overflow> {
        undone.iter().try_fold(Self::default(), |mut sum, record| {
            if let Record::Refunded(refunded) = record {
                sum.all = sum.all.plus(refunded.amount)?;
                sum.overage = sum.overage.plus(refunded.overage)?;
                sum.postpaid = sum.postpaid.plus(refunded.postpaid)?;
                sum.prepaid = sum.prepaid.plus(refunded.prepaid)?;
                sum.credits.extend(refunded.credits.iter().cloned());
            }
            Ok(sum)
        })
    }

    fn of_credit(&self, credit: &Reference) -> Result<Nanos, Overflow> {
        let same = self.credits.iter().filter(|drawn| drawn.credit == *credit);
        same.map(|drawn| drawn.amount)
            .try_fold(Nanos::ZERO, Nanos::plus)
    }
}

/// Takes up to `there` off `rest`.
fn part(rest: &mut Nanos, there: Nanos) -> Result<Nanos, Overflow> {
    let part = there.max(Nanos::ZERO).min(*rest);
    *rest = rest.minus(part)?;
    Ok(part)
}

/// A charge goes back the way it came, the last first: what is owed beyond the hold, what is within
/// the ceiling, what was paid in advance, the credits, the last to end before the others.
pub(super) fn charge(
    account: &Account,
    known: &Known,
    reference: Reference,
    amount: Nanos,
) -> Result<Record, Refused> {
    positive(amount)?;
    let Some((at, Record::Charged(charge))) = &known.subject else {
        return Err(Refused::UnknownCharge);
    };
    let before = Before::of(&known.undone)?;
    let left = charge.charge.minus(before.all)?;
    if amount > left {
        return Err(Refused::MoreThanThere { left });
    }
    let mut rest = amount;
    let overage = part(&mut rest, charge.overage.minus(before.overage)?)?;
    let postpaid = part(&mut rest, charge.postpaid()?.minus(before.postpaid)?)?;
    let prepaid = part(&mut rest, charge.prepaid.minus(before.prepaid)?)?;
    let (mut credits, mut ended) = (Vec::new(), Nanos::ZERO);
    for drawn in charge.credits.iter().rev() {
        let there = drawn.amount.minus(before.of_credit(&drawn.credit)?)?;
        let amount = part(&mut rest, there)?;
        if amount.is_zero() {
            continue;
        }
        let mut kept = account.credits.iter();
        if !kept.any(|credit| credit.reference == drawn.credit) {
            ended = ended.plus(amount)?;
        }
        let credit = drawn.credit.clone();
        credits.push(Drawn { credit, amount });
    }
    Ok(Record::Refunded(Refunded {
        reference,
        undoes: charge.request,
        model: charge.model.clone(),
        amount,
        overage,
        postpaid,
        prepaid,
        credits,
        ended,
        settled: overage.minus(overage.min(account.owed))?,
        month: invoice_month(account, known.now, *at, charge),
    }))
}

/// The month whose invoice a refund lowers: the charge's own while that is open, else the present.
fn invoice_month(account: &Account, now: UnixMillis, at: UnixMillis, charge: &Charge) -> Month {
    let own = Month::of(at).max(charge.month.unwrap_or_default());
    if account.unbilled.contains_key(&own) {
        own
    } else {
        account.in_month(Month::of(now)).0
    }
}

pub(super) fn book_charge(account: &mut Account, refunded: &Refunded) -> Result<(), Overflow> {
    let owed = account
        .owed
        .minus(refunded.overage.minus(refunded.settled)?)?;
    let back = refunded.prepaid.plus(refunded.settled)?;
    let balance = account.balance.plus(back)?;
    let open = account.unbilled.get(&refunded.month).copied();
    let unbilled = open.unwrap_or_default().minus(refunded.postpaid)?;
    let spent = account.spent.minus(refunded.postpaid)?.max(Nanos::ZERO);
    for drawn in &refunded.credits {
        let mut credits = account.credits.iter_mut();
        if let Some(credit) = credits.find(|credit| credit.reference == drawn.credit) {
            credit.left = credit.left.plus(drawn.amount)?;
        }
    }
    if !refunded.postpaid.is_zero() {
        account.unbilled.insert(refunded.month, unbilled);
        // The invoice is lower by as much, so that there is room for as much more within the ceiling.
        if refunded.month == account.month {
            account.spent = spent;
        }
    }
    (account.owed, account.balance) = (owed, balance);
    Ok(())
}

/// A payment goes back to whoever made it.
pub(super) fn payment(
    account: &Account,
    known: &Known,
    reference: Reference,
    payment: &Reference,
    amount: Nanos,
) -> Result<Record, Refused> {
    positive(amount)?;
    let Some((_, Record::Paid { amount: paid, .. })) = &known.subject else {
        return Err(Refused::UnknownPayment);
    };
    let mut undone = known.undone.iter();
    let undone = undone.try_fold(Nanos::ZERO, |sum, record| {
        if let Record::Reversed { amount, .. } = record {
            sum.plus(*amount)
        } else {
            Ok(sum)
        }
    })?;
    let left = paid.minus(undone)?;
    if amount > left {
        return Err(Refused::MoreThanThere { left });
    }
    Ok(Record::Reversed {
        reference,
        undoes: payment.clone(),
        amount,
        prepaid: amount.min(account.balance).max(Nanos::ZERO),
    })
}
