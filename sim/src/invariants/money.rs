//! What must hold of money, judged from the texts of the ledgers.
//!
//! Each entry is looked at as it is written, before it is booked (`ENTRY`); after it, the account
//! that the rules keep is compared with the one that the texts make (`STANDING`). What must hold when
//! all has come to rest is in [`at_end`].

pub mod at_end;
mod ledger;
mod line;

use std::collections::BTreeMap;

use mesh_core::ids::{AccountId, RequestId};

pub use self::ledger::{Held, Ledger};
pub use self::line::{Line, month_of};
use super::sentences;
use crate::outside::store::Books;
use crate::record::Violation;

type Verdict = Result<(), String>;
type OfEntry = fn(&Ledger, &Line) -> Verdict;
type OfStanding = fn(&Ledger, &Books) -> Verdict;

const ENTRY: &[(&str, OfEntry)] = sentences![
    OfEntry:
    debits_equal_credits_in_every_entry,
    one_request_is_charged_or_lost_once_for_ever,
    an_answer_that_a_crash_cut_off_costs_the_account_nothing,
    nothing_beyond_what_was_set_aside_is_taken_from_any_fund,
    credits_are_spent_before_what_was_paid_and_that_before_the_ceiling,
    spending_within_the_ceiling_never_grows_beyond_it,
    an_order_is_carried_out_once_however_often_it_is_said,
    refunds_never_exceed_the_charge_nor_its_parts,
    no_more_of_a_payment_is_taken_back_than_was_paid,
    an_invoice_is_whole_cents_of_what_was_spent_and_carried,
    no_month_that_was_invoiced_is_touched_again,
];

const STANDING: &[(&str, OfStanding)] = sentences![
    OfStanding:
    a_closed_month_takes_nothing_more,
    the_account_is_what_its_movements_add_up_to,
    no_figure_of_an_account_is_negative,
    invoices_and_what_is_open_and_carried_are_all_that_was_spent_and_not_given_back,
    usage_sums_equal_the_ledger,
];

/// A name, as it is told.
fn violation(name: &str, found: String) -> Violation {
    Violation {
        invariant: name.replace('_', " "),
        found,
    }
}

/// All ledgers, as their texts say they are.
#[derive(Debug, Default)]
pub struct Ledgers(BTreeMap<AccountId, Ledger>);

impl Ledgers {
    /// Reads what is new in an account's books. Gives the rare states that the account has been in.
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold.
    pub fn read(&mut self, id: AccountId, books: &Books) -> Result<Vec<&'static str>, Violation> {
        let ledger = self.0.entry(id).or_default();
        let mut rare = Vec::new();
        let from = ledger.entries;
        for stored in books.chain.get(from..).unwrap_or_default() {
            let line = Line::read(&stored.canonical)
                .map_err(|found| violation("every_entry_can_be_read", found))?;
            for (name, holds) in ENTRY {
                holds(ledger, &line)
                    .map_err(|found| violation(name, format!("{id}: {found}: {line:?}")))?;
            }
            rare.extend(rare_states(ledger, &line, books));
            ledger.read(&line);
        }
        if ledger.entries > from {
            for (name, holds) in STANDING {
                holds(ledger, books).map_err(|found| violation(name, format!("{id}: {found}")))?;
            }
        }
        Ok(rare)
    }

    /// Money was set aside for a request.
    ///
    /// # Errors
    ///
    /// If there was not as much.
    pub fn held(
        &mut self,
        books: &Books,
        id: AccountId,
        request: RequestId,
        held: Held,
    ) -> Result<(), Violation> {
        let ledger = self.0.entry(id).or_default();
        ledger.held.insert(request.to_string(), held);
        enough_is_there(ledger, books, held).map_err(|found| {
            violation(
                "what_is_set_aside_is_never_more_than_there_is",
                format!("{id}, {request}: {found}"),
            )
        })
    }

    /// One account's.
    #[must_use]
    pub fn of(&self, id: AccountId) -> Option<&Ledger> {
        self.0.get(&id)
    }
}

impl Ledger {
    /// The tokens written of a request that was lost.
    #[must_use]
    pub fn lost(&self, request: RequestId) -> Option<i128> {
        self.losses.get(&request.to_string()).copied()
    }
}

fn enough_is_there(ledger: &Ledger, books: &Books, held: Held) -> Verdict {
    if ledger.tier == "free" || held.charge == 0 {
        return Ok(());
    }
    let holds = books.account.holds.values();
    let set_aside: i128 = holds.clone().map(|held| i128::from(held.charge.0)).sum();
    let later = holds.map(|held| i128::from(held.month.index())).max();
    let month = month_of(held.at_ms).max(later.unwrap_or_default());
    let credits = ledger.usable(held.at_ms).into_iter().map(|(_, left)| left);
    let postpaid = (ledger.ceiling - ledger.spent_in(month)).max(0);
    let there = credits.sum::<i128>() - ledger.book("prepaid") + postpaid;
    if set_aside > there {
        return Err(format!("{set_aside} are set aside, {there} were there"));
    }
    if ledger.book("owed") > 0 {
        return Err(format!("{} are owed", ledger.book("owed")));
    }
    Ok(())
}

fn debits_equal_credits_in_every_entry(_: &Ledger, line: &Line) -> Verdict {
    match line.moved.values().sum::<i128>() {
        0 => Ok(()),
        sum => Err(format!("{sum} too much")),
    }
}

fn one_request_is_charged_or_lost_once_for_ever(ledger: &Ledger, line: &Line) -> Verdict {
    let Some(request) = line.ends() else {
        return Ok(());
    };
    if ledger.charges.contains_key(request) || ledger.losses.contains_key(request) {
        return Err(format!("{request} had ended before"));
    }
    Ok(())
}

fn an_answer_that_a_crash_cut_off_costs_the_account_nothing(_: &Ledger, line: &Line) -> Verdict {
    let mut books = line.moved.keys();
    let only_the_operators = books.all(|book| book == "losses" || book == "provider");
    if line.kind() == "lost" && !only_the_operators {
        return Err("the loss is the account's".to_owned());
    }
    Ok(())
}

fn nothing_beyond_what_was_set_aside_is_taken_from_any_fund(
    ledger: &Ledger,
    line: &Line,
) -> Verdict {
    if line.kind() != "charged" {
        return Ok(());
    }
    let held = ledger.held(line.text("request"));
    let (within, held) = (
        line.number("charge") - line.number("overage"),
        held.map_or(0, |held| held.charge),
    );
    if within > held {
        return Err(format!("{within} were taken, {held} had been set aside"));
    }
    Ok(())
}

fn credits_are_spent_before_what_was_paid_and_that_before_the_ceiling(
    ledger: &Ledger,
    line: &Line,
) -> Verdict {
    if line.kind() != "charged" {
        return Ok(());
    }
    let held = ledger.held(line.text("request"));
    let usable = ledger.usable(held.map_or(line.at_ms, |held| held.at_ms));
    let parts = Ledger::parts(line);
    // What is left to be paid by later funds; where it is nothing, they pay nothing.
    let mut rest = parts.all() - parts.overage;
    let mut drawn = 0;
    for (credit, left) in usable {
        let expected = left.min(rest);
        let found = parts.credits.get(credit).copied().unwrap_or_default();
        if found != expected {
            return Err(format!("{found} of {credit}, {expected} were its part"));
        }
        rest -= expected;
        drawn += expected;
    }
    if drawn != parts.credits.values().sum::<i128>() {
        return Err("a credit paid that had ended or was spent".to_owned());
    }
    let balance = -ledger.book("prepaid");
    if parts.prepaid != rest.min(balance) {
        return Err(format!("{} of {balance} paid in advance", parts.prepaid));
    }
    Ok(())
}

/// A ceiling may be lowered below what was spent; nothing is added to it then.
fn spending_within_the_ceiling_never_grows_beyond_it(ledger: &Ledger, line: &Line) -> Verdict {
    if line.kind() != "charged" {
        return Ok(());
    }
    let postpaid = Ledger::parts(line).postpaid;
    let spent = ledger.spent_in(ledger.counts_in(line)) + postpaid;
    if postpaid > 0 && spent > ledger.ceiling {
        return Err(format!("{spent} spent within {}", ledger.ceiling));
    }
    Ok(())
}

fn an_order_is_carried_out_once_however_often_it_is_said(ledger: &Ledger, line: &Line) -> Verdict {
    let reference = line.text("reference");
    if ledger.references.contains(reference) {
        return Err(format!("{reference} was carried out before"));
    }
    Ok(())
}

fn refunds_never_exceed_the_charge_nor_its_parts(ledger: &Ledger, line: &Line) -> Verdict {
    if line.kind() != "refunded" {
        return Ok(());
    }
    let charge = ledger.charges.get(line.text("undoes"));
    let charge = charge.ok_or("of a request that was never charged")?;
    let parts = ledger::Parts::of_refund(line);
    if parts.all() != line.number("amount") || parts.all() <= 0 {
        return Err("its parts are another sum".to_owned());
    }
    if !charge.returned.plus(&parts).within(&charge.parts) {
        return Err(format!("of {charge:?}"));
    }
    Ok(())
}

fn no_more_of_a_payment_is_taken_back_than_was_paid(ledger: &Ledger, line: &Line) -> Verdict {
    if line.kind() != "reversed" {
        return Ok(());
    }
    let payment = ledger.payments.get(line.text("undoes"));
    let (paid, back) = payment.ok_or("of a payment that never came")?;
    if back + line.number("amount") > *paid {
        return Err(format!("{back} of {paid} were taken back before"));
    }
    if line.number("prepaid") > -ledger.book("prepaid") {
        return Err("more than what is left of what was paid in advance".to_owned());
    }
    Ok(())
}

fn an_invoice_is_whole_cents_of_what_was_spent_and_carried(
    ledger: &Ledger,
    line: &Line,
) -> Verdict {
    if line.kind() != "invoiced" {
        return Ok(());
    }
    let month = line.number("month");
    let open = ledger.by_month.range(ledger.closed + 1..=month);
    let spent: i128 = open.map(|(_, spent)| spent).sum();
    let total = spent + ledger.residue;
    let (cents, rest) = (line.number("cents"), line.number("carried_out"));
    let expected = if total < 0 {
        (0, total)
    } else {
        (total / 10_000_000, total % 10_000_000)
    };
    let said = (line.number("spent"), line.number("carried_in"));
    if said != (spent, ledger.residue) || (cents, rest) != expected {
        return Err(format!("{spent} spent, {} carried in", ledger.residue));
    }
    Ok(())
}

fn no_month_that_was_invoiced_is_touched_again(ledger: &Ledger, line: &Line) -> Verdict {
    let month = match line.kind() {
        "charged" => ledger.counts_in(line),
        "refunded" if line.number("postpaid") > 0 => line.number("month"),
        "invoiced" if line.month() <= line.number("month") => {
            return Err("the month is not over".to_owned());
        }
        "invoiced" => line.number("month"),
        _ => return Ok(()),
    };
    if month <= ledger.closed {
        return Err(format!("{} was closed before", ledger.closed));
    }
    Ok(())
}

fn the_account_is_what_its_movements_add_up_to(ledger: &Ledger, books: &Books) -> Verdict {
    let account = &books.account;
    let credits = account.credits.iter().map(|credit| credit.left.0);
    let unbilled = account.unbilled.values().map(|open| i128::from(open.0));
    let pairs = [
        ("prepaid", -i128::from(account.balance.0)),
        ("credits", -credits.map(i128::from).sum::<i128>()),
        ("owed", account.owed.0.into()),
        ("receivable", account.invoiced.0.into()),
        (
            "postpaid",
            unbilled.sum::<i128>() + i128::from(account.residue.0),
        ),
    ];
    for (book, said) in pairs {
        if ledger.book(book) != said {
            let moved = ledger.book(book);
            return Err(format!("{moved} moved on {book}, the account says {said}"));
        }
    }
    let said = (account.ceiling.0.into(), account.spent.0.into());
    if said != (ledger.ceiling, ledger.spent) {
        let read = (ledger.ceiling, ledger.spent);
        return Err(format!("ceiling and spending are {said:?}, not {read:?}"));
    }
    Ok(())
}

fn no_figure_of_an_account_is_negative(_: &Ledger, books: &Books) -> Verdict {
    let account = &books.account;
    let credits = account.credits.iter().map(|credit| credit.left);
    let holds = account.holds.values().map(|held| held.charge);
    let figures = [
        account.balance,
        account.owed,
        account.invoiced,
        account.spent,
        account.used,
        account.ceiling,
    ];
    let mut all = figures.into_iter().chain(credits).chain(holds);
    match all.find(|figure| figure.0 < 0) {
        Some(figure) => Err(format!("{figure} is in {account:?}")),
        None => Ok(()),
    }
}

fn invoices_and_what_is_open_and_carried_are_all_that_was_spent_and_not_given_back(
    ledger: &Ledger,
    books: &Books,
) -> Verdict {
    let open = books.account.unbilled.values();
    let open: i128 = open.map(|open| i128::from(open.0)).sum();
    let carried = i128::from(books.account.residue.0);
    let (all, spent) = (ledger.invoiced + open + carried, ledger.postpaid);
    if all != spent {
        return Err(format!(
            "{} invoiced, {open} open, {carried} carried; {spent} spent",
            ledger.invoiced
        ));
    }
    Ok(())
}

/// What usage says of the months that were invoiced stays what the invoices say.
fn a_closed_month_takes_nothing_more(ledger: &Ledger, books: &Books) -> Verdict {
    let closed = |month: i32| i128::from(month) <= ledger.closed;
    let account = &books.account;
    if let Some(month) = account.unbilled.keys().find(|month| closed(month.index())) {
        return Err(format!("{month} is open again"));
    }
    if closed(account.month.index()) && ledger.closed > 0 {
        return Err(format!("the account is in {}", account.month));
    }
    let used = books.usage.iter();
    let used = used.filter(|(key, _)| closed(key.month.index()));
    let used: i128 = used.map(|(_, sums)| i128::from(sums.postpaid.0)).sum();
    if used != ledger.billed {
        return Err(format!("{used} used, {} invoiced", ledger.billed));
    }
    Ok(())
}

fn usage_sums_equal_the_ledger(ledger: &Ledger, books: &Books) -> Verdict {
    let sum = |of: fn(&mesh_core::billing::usage::Sums) -> i128| -> i128 {
        books.usage.values().map(of).sum()
    };
    let pairs = [
        (
            "requests",
            sum(|sums| sums.requests.into()),
            ledger.charges.len() as i128,
        ),
        ("charged", sum(|sums| sums.charge.0.into()), ledger.charged),
        ("base", sum(|sums| sums.base.0.into()), ledger.base),
        (
            "refunded",
            sum(|sums| sums.refunded.0.into()),
            ledger.refunded,
        ),
        (
            "within the ceiling",
            sum(|sums| sums.postpaid.0.into()),
            ledger.postpaid,
        ),
    ];
    for (what, used, read) in pairs {
        if used != read {
            return Err(format!("{what}: {used} in the sums, {read} in the ledger"));
        }
    }
    for (month, spent) in &ledger.by_month {
        let used = books.usage.iter();
        let used = used.filter(|(key, _)| i128::from(key.month.index()) == *month);
        let used: i128 = used.map(|(_, sums)| i128::from(sums.postpaid.0)).sum();
        if used != *spent {
            return Err(format!(
                "month {month}: {used} in the sums, {spent} in the ledger"
            ));
        }
    }
    Ok(())
}

/// What is rare of an entry that is about to be booked.
fn rare_states(ledger: &Ledger, line: &Line, books: &Books) -> Vec<&'static str> {
    let charge_of = |request: &str| ledger.charges.get(request);
    let ended = |(credit, _): &(String, i128)| {
        let ends = ledger.credits.get(credit).map(|(ends, _)| *ends);
        ends.is_some_and(|ends| ends <= line.at_ms)
    };
    let of_invoiced =
        || charge_of(line.text("undoes")).is_some_and(|charge| charge.month <= ledger.closed);
    let seen = [
        (
            line.kind() == "refunded" && ledger.closed > 0 && of_invoiced(),
            "a charge of an invoiced month was refunded",
        ),
        (
            line.kind() == "refunded" && line.number("ended") > 0,
            "a refund came to a credit that had left the books",
        ),
        (
            line.kind() == "reversed" && line.number("prepaid") < line.number("amount"),
            "a payment was disputed that had been spent",
        ),
        (
            line.kind() == "invoiced" && !books.account.holds.is_empty(),
            "a month turned while answers were running",
        ),
        (
            line.kind() == "lost",
            "an answer that a crash cut off was booked as a loss",
        ),
        (
            line.kind() == "charged" && line.credits().iter().any(ended),
            "a credit ended while money was set aside from it",
        ),
        (
            line.kind() == "charged" && line.month() < ledger.month,
            "a clock was behind its account's month",
        ),
        (
            line.kind() == "paid" && line.number("settled") > 0,
            "a payment paid what was owed",
        ),
        (
            line.kind() == "ceiling_set" && line.number("ceiling") < ledger.spent,
            "a ceiling was lowered below what had been spent",
        ),
    ];
    let seen = seen.into_iter().filter(|(is, _)| *is);
    seen.map(|(_, sentence)| sentence).collect()
}

#[cfg(test)]
mod tests;
