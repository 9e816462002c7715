//! An account as its ledger's texts say it is: a bookkeeping of its own, in wide numbers, that shares
//! nothing with the rules it judges.

use std::collections::{BTreeMap, BTreeSet};

use super::line::Line;

/// A charge, and what was given back of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Charged {
    /// The month that it counts in.
    pub(super) month: i128,
    pub(super) parts: Parts,
    pub(super) returned: Parts,
}

/// Where the money of a charge came from.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    pub(super) overage: i128,
    pub(super) postpaid: i128,
    pub(super) prepaid: i128,
    pub(super) credits: BTreeMap<String, i128>,
}

impl Parts {
    pub(super) fn all(&self) -> i128 {
        self.overage + self.postpaid + self.prepaid + self.credits.values().sum::<i128>()
    }

    fn of_charge(line: &Line) -> Self {
        let credits: BTreeMap<_, _> = line.credits().into_iter().collect();
        let (overage, prepaid) = (line.number("overage"), line.number("prepaid"));
        let credited: i128 = credits.values().sum();
        Self {
            overage,
            prepaid,
            postpaid: line.number("charge") - overage - prepaid - credited,
            credits,
        }
    }

    pub(super) fn of_refund(line: &Line) -> Self {
        Self {
            overage: line.number("overage"),
            postpaid: line.number("postpaid"),
            prepaid: line.number("prepaid"),
            credits: line.credits().into_iter().collect(),
        }
    }

    pub(super) fn plus(&self, other: &Self) -> Self {
        let mut sum = self.clone();
        sum.add(other);
        sum
    }

    fn add(&mut self, other: &Self) {
        self.overage += other.overage;
        self.postpaid += other.postpaid;
        self.prepaid += other.prepaid;
        for (credit, amount) in &other.credits {
            *self.credits.entry(credit.clone()).or_default() += amount;
        }
    }

    /// Whether no part is more than the other's.
    pub(super) fn within(&self, other: &Self) -> bool {
        let credit = |name: &String| other.credits.get(name).copied().unwrap_or_default();
        self.overage <= other.overage
            && self.postpaid <= other.postpaid
            && self.prepaid <= other.prepaid
            && self
                .credits
                .iter()
                .all(|(name, part)| *part <= credit(name))
    }
}

/// Money set aside, as the store said it.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// The wall clock then, ms since 1970.
    pub at_ms: u64,
    /// How much.
    pub charge: i128,
}

/// See the module documentation.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pub(super) entries: usize,
    pub(super) tier: String,
    pub(super) ceiling: i128,
    /// The latest month that anything counted in, and what was spent in it within the ceiling.
    pub(super) month: i128,
    pub(super) spent: i128,
    /// The last month that was invoiced.
    pub(super) closed: i128,
    pub(super) residue: i128,
    /// Sums of movements.
    pub(super) books: BTreeMap<String, i128>,
    pub(super) charges: BTreeMap<String, Charged>,
    /// Requests lost, with the tokens written.
    pub(super) losses: BTreeMap<String, i128>,
    pub(super) references: BTreeSet<String>,
    /// What was paid under a reference, and taken back.
    pub(super) payments: BTreeMap<String, (i128, i128)>,
    /// When a credit ends, and what is left of it.
    pub(super) credits: BTreeMap<String, (u64, i128)>,
    pub(super) held: BTreeMap<String, Held>,
    /// Spent within the ceiling and not given back, by the month that it counts in.
    pub(super) by_month: BTreeMap<i128, i128>,
    /// The sum of all invoices, and of what they say was spent.
    pub(super) invoiced: i128,
    pub(super) billed: i128,
    /// All charged, in the account's price and in the provider's.
    pub(super) charged: i128,
    pub(super) base: i128,
    /// All spent within the ceiling and not given back.
    pub(super) postpaid: i128,
    pub(super) refunded: i128,
}

impl Ledger {
    /// What the books of this name add up to.
    pub(super) fn book(&self, name: &str) -> i128 {
        self.books.get(name).copied().unwrap_or_default()
    }

    /// The month that a charge counts in.
    pub(super) fn counts_in(&self, line: &Line) -> i128 {
        line.month().max(line.number("month")).max(self.month)
    }

    /// What was spent within the ceiling in a month, or in a later one that is known.
    pub(super) const fn spent_in(&self, month: i128) -> i128 {
        if month > self.month { 0 } else { self.spent }
    }

    /// What of a charge came from where.
    pub(super) fn parts(line: &Line) -> Parts {
        Parts::of_charge(line)
    }

    /// What a request had set aside.
    pub(super) fn held(&self, request: &str) -> Option<Held> {
        self.held.get(request).copied()
    }

    /// Credits of which something is left and which end after `at_ms`, the earliest first.
    pub(super) fn usable(&self, at_ms: u64) -> Vec<(&String, i128)> {
        let mut usable: Vec<_> = self
            .credits
            .iter()
            .filter(|(_, (ends, left))| *ends > at_ms && *left > 0)
            .map(|(name, (ends, left))| (*ends, name, *left))
            .collect();
        usable.sort_unstable();
        usable
            .into_iter()
            .map(|(_, name, left)| (name, left))
            .collect()
    }

    /// Books an entry.
    pub(super) fn read(&mut self, line: &Line) {
        self.entries += 1;
        for (book, amount) in &line.moved {
            *self.books.entry(book.clone()).or_default() += amount;
        }
        let reference = line.text("reference");
        if !reference.is_empty() {
            self.references.insert(reference.to_owned());
        }
        let amount = line.number("amount");
        match line.kind() {
            "opened" => {
                self.ceiling = line.number("ceiling");
                line.tier().clone_into(&mut self.tier);
            }
            "charged" => self.charged(line),
            "lost" => {
                let written = line.tokens("completion");
                self.losses.insert(line.text("request").to_owned(), written);
            }
            "paid" => {
                self.payments.insert(reference.to_owned(), (amount, 0));
            }
            "granted" => {
                let ends = u64::try_from(line.number("expires_at")).unwrap_or_default();
                self.credits.insert(reference.to_owned(), (ends, amount));
            }
            "lapsed" => {
                self.credits.remove(line.text("credit"));
            }
            "tier_set" => line.tier().clone_into(&mut self.tier),
            "ceiling_set" => self.ceiling = line.number("ceiling"),
            "refunded" => self.refunded(line),
            "reversed" => {
                if let Some((_, back)) = self.payments.get_mut(line.text("undoes")) {
                    *back += amount;
                }
            }
            "invoiced" => self.invoiced(line),
            _ => {}
        }
    }

    fn charged(&mut self, line: &Line) {
        let (month, parts) = (self.counts_in(line), Self::parts(line));
        self.spent = self.spent_in(month) + parts.postpaid;
        self.month = month;
        *self.by_month.entry(month).or_default() += parts.postpaid;
        self.base += line.number("base");
        self.charged += parts.all();
        self.postpaid += parts.postpaid;
        for (credit, amount) in &parts.credits {
            if let Some((_, left)) = self.credits.get_mut(credit) {
                *left -= amount;
            }
        }
        let charged = Charged {
            month,
            parts,
            returned: Parts::default(),
        };
        self.charges
            .insert(line.text("request").to_owned(), charged);
    }

    fn refunded(&mut self, line: &Line) {
        let (parts, month) = (Parts::of_refund(line), line.number("month"));
        self.refunded += line.number("amount");
        self.postpaid -= parts.postpaid;
        if parts.postpaid > 0 {
            *self.by_month.entry(month).or_default() -= parts.postpaid;
            if month == self.month {
                self.spent = (self.spent - parts.postpaid).max(0);
            }
        }
        for (credit, amount) in &parts.credits {
            if let Some((_, left)) = self.credits.get_mut(credit) {
                *left += amount;
            }
        }
        if let Some(charge) = self.charges.get_mut(line.text("undoes")) {
            charge.returned.add(&parts);
        }
    }

    fn invoiced(&mut self, line: &Line) {
        let month = line.number("month");
        self.invoiced += line.number("cents") * 10_000_000;
        self.billed += line.number("spent");
        self.residue = line.number("carried_out");
        self.closed = month;
        if self.month <= month {
            (self.month, self.spent) = (month + 1, 0);
        }
    }
}
