//! What must hold of money when everything has healed and come to rest.

use std::collections::{BTreeMap, BTreeSet};

use mesh_core::billing::ledger::Hash;
use mesh_core::billing::ledger::seal::{Head, Seal};
use mesh_core::ids::AccountId;

use super::{Ledgers, month_of, sentences};
use crate::outside::store::Store;
use crate::record::Violation;

/// What was said of payments: under each name, the amounts.
pub type Said = BTreeMap<(AccountId, String), BTreeSet<i64>>;

/// The money of a run at its end.
#[derive(Debug)]
pub struct End<'a> {
    /// The store.
    pub store: &'a Store,
    /// The ledgers, as their texts say they are.
    pub ledgers: &'a Ledgers,
    /// Payments that were said.
    pub said: &'a Said,
    /// Every seal that was made.
    pub seals: &'a [Seal],
    /// The key that they were made with.
    pub key: [u8; 32],
    /// The wall clock, ms since 1970.
    pub wall_ms: u64,
}

type Verdict = Result<(), String>;
type Check = fn(&End<'_>) -> Verdict;

const AT_END: &[(&str, Check)] = sentences![
    Check:
    the_ledger_verifies_and_rebuilds_the_account,
    every_seal_holds_and_covers_the_ledger_as_it_was,
    a_payment_is_credited_once_however_often_it_is_said,
    every_month_that_is_over_is_invoiced,
    a_spent_credit_leaves_the_books_at_its_end,
];

/// Asks every invariant.
///
/// # Errors
///
/// The first that does not hold.
pub fn check(end: &End<'_>) -> Result<(), Violation> {
    for (name, holds) in AT_END {
        holds(end).map_err(|found| super::violation(name, found))?;
    }
    Ok(())
}

fn the_ledger_verifies_and_rebuilds_the_account(end: &End<'_>) -> Verdict {
    end.store.books().try_for_each(|(_, books)| books.audit())
}

fn every_seal_holds_and_covers_the_ledger_as_it_was(end: &End<'_>) -> Verdict {
    let head_at = |id: AccountId, entries: u64| {
        let (_, books) = end.store.books().find(|(other, _)| *other == id)?;
        let at = usize::try_from(entries).ok()?.checked_sub(1)?;
        books.chain.get(at).map(|last| last.hash)
    };
    let covers = |id: AccountId, head: &Head| -> bool {
        let found: Option<Hash> = head_at(id, head.entries);
        found == Some(head.hash)
    };
    for seal in end.seals {
        seal.check(Some(&end.key))
            .map_err(|bad| format!("the seal of {}: {bad}", seal.at.0))?;
        if let Some((id, head)) = seal.heads.iter().find(|(id, head)| !covers(**id, head)) {
            return Err(format!("{id} has another entry {}", head.entries));
        }
        let mut later = seal.clone();
        later.at.0 += 1;
        if later.check(Some(&end.key)).is_ok() {
            return Err("a seal that was altered holds".to_owned());
        }
    }
    Ok(())
}

fn a_payment_is_credited_once_however_often_it_is_said(end: &End<'_>) -> Verdict {
    for ((id, reference), amounts) in end.said {
        let ledger = end.ledgers.of(*id);
        let paid = ledger.and_then(|ledger| ledger.payments.get(reference));
        let known = |paid: &i128| amounts.iter().any(|said| i128::from(*said) == *paid);
        if !paid.is_some_and(|(paid, _)| known(paid)) {
            return Err(format!("{reference} of {id}: {amounts:?} said, {paid:?}"));
        }
    }
    for (id, books) in end.store.books() {
        let ledger = end.ledgers.of(id).ok_or("an account without a ledger")?;
        let (paid, back) = ledger
            .payments
            .values()
            .fold((0, 0), |(paid, back), one| (paid + one.0, back + one.1));
        let names = end.said.keys().filter(|(other, _)| *other == id).count();
        if names != ledger.payments.len() || ledger.book("cash") != paid - back {
            return Err(format!("{id}: {names} payments were said, {paid} credited"));
        }
        debug_assert!(!books.chain.is_empty());
    }
    Ok(())
}

fn every_month_that_is_over_is_invoiced(end: &End<'_>) -> Verdict {
    for (id, books) in end.store.books() {
        let over = |month: i32| i128::from(month) < month_of(end.wall_ms);
        let mut open = books.account.unbilled.keys();
        if let Some(month) = open.find(|month| over(month.index())) {
            return Err(format!("{month} of {id} is open"));
        }
    }
    Ok(())
}

fn a_spent_credit_leaves_the_books_at_its_end(end: &End<'_>) -> Verdict {
    for (id, books) in end.store.books() {
        let mut credits = books.account.credits.iter();
        if let Some(spent) =
            credits.find(|credit| credit.left.0 == 0 && credit.expires_at.0 + 60_000 <= end.wall_ms)
        {
            return Err(format!("{} of {id} is spent", spent.reference));
        }
    }
    Ok(())
}
