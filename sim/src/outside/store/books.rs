//! One account's books: commands and orders by the real rules, the chain, and what is kept beside it
//! to be looked up.
//!
//! What is kept beside follows from the ledger; [`Books::audit`] makes it anew from there.

use std::collections::BTreeMap;

use mesh_core::billing::account::alert::{Alert, Mark};
use mesh_core::billing::account::order::{self, Known, Order, Reference, Refused, Subject};
use mesh_core::billing::account::{
    self, Account, Command, Denied, Entry, Facts, Lose, Prior, replay, replay_one,
};
use mesh_core::billing::ledger::{self, Charge, Hash, Record, Stored};
use mesh_core::billing::money::Nanos;
use mesh_core::billing::tier::Tier;
use mesh_core::billing::usage::{self, Key, Sums};
use mesh_core::ids::{AccountId, RequestId};
use mesh_core::time::UnixMillis;

use super::Broken;

/// One account with its ledger.
#[derive(Clone, Debug)]
pub struct Books {
    id: AccountId,
    /// As the rules see it.
    pub account: Account,
    /// Its ledger.
    pub chain: Vec<Stored>,
    /// What was used, added up as entries come.
    pub usage: BTreeMap<Key, Sums>,
    records: Vec<(UnixMillis, Record)>,
    /// How each request ended that did, for ever.
    pub(super) ended: BTreeMap<RequestId, Prior>,
    /// What is known of answers under way, and at which gateway.
    pub(super) checkpoints: BTreeMap<RequestId, (usize, Lose)>,
    /// Which gateway made a hold.
    pub(super) holders: BTreeMap<RequestId, usize>,
}

/// What became of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordered {
    /// It is done.
    Now,
    /// It was done before.
    Before,
}

fn broken(error: impl std::fmt::Display) -> Broken {
    error.to_string()
}

impl Books {
    pub(super) fn open(
        id: AccountId,
        tier: Tier,
        ceiling: Nanos,
        now: UnixMillis,
    ) -> Result<Self, Broken> {
        let mut books = Self {
            id,
            account: Account::new(tier, ceiling),
            chain: Vec::new(),
            usage: BTreeMap::new(),
            records: Vec::new(),
            ended: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            holders: BTreeMap::new(),
        };
        books.append(now, Record::Opened { tier, ceiling })?;
        Ok(books)
    }

    pub(super) fn charges(&self) -> impl Iterator<Item = &Charge> {
        self.ended.values().filter_map(|prior| match prior {
            Prior::Charged(charge) => Some(charge),
            Prior::Lost(_) => None,
        })
    }

    /// The last entry's hash.
    #[must_use]
    pub fn head(&self) -> Hash {
        self.chain.last().map_or(Hash::START, |last| last.hash)
    }

    pub(super) fn command(
        &mut self,
        now: UnixMillis,
        gateway: usize,
        command: Command,
    ) -> Result<Result<Option<Alert>, Denied>, Broken> {
        let facts = Facts {
            now,
            prior: self.ended.get(&command.request()).cloned(),
            provider_key: true,
        };
        let entries = match account::decide(&self.account, &facts, command) {
            Ok(entries) => entries,
            Err(denied) => return Ok(Err(denied)),
        };
        let before = Mark::of(&self.account);
        for entry in entries {
            account::apply(&mut self.account, now, &entry).map_err(broken)?;
            let request = entry.request();
            if matches!(entry, Entry::Held(..)) {
                self.holders.insert(request, gateway);
            } else {
                self.holders.remove(&request);
                self.checkpoints.remove(&request);
            }
            if let Some(record) = entry.record() {
                if let Some(prior) = Prior::of(&record) {
                    self.ended.insert(request, prior);
                }
                self.append(now, record)?;
            }
        }
        Ok(Ok(Alert::passed(before, &self.account)))
    }

    /// Carries an order out, unless it was before.
    pub(super) fn order(
        &mut self,
        now: UnixMillis,
        order: &Order,
    ) -> Result<Result<Ordered, Refused>, Broken> {
        let known = self.known(now, order);
        let records = match order::decide(&self.account, &known, order) {
            Ok(records) => records,
            Err(refused) => return Ok(Err(refused)),
        };
        let ordered = if records.is_empty() {
            Ordered::Before
        } else {
            Ordered::Now
        };
        self.book(now, records)?;
        Ok(Ok(ordered))
    }

    /// Books the credits that have ended.
    pub(super) fn lapse(&mut self, now: UnixMillis) -> Result<(), Broken> {
        self.book(now, order::lapsed(&self.account, now))
    }

    fn book(&mut self, now: UnixMillis, records: Vec<Record>) -> Result<(), Broken> {
        for record in records {
            let holds = std::mem::take(&mut self.account.holds);
            let account = replay_one(Some(self.account.clone()), now, &record).map_err(broken)?;
            self.account = account.ok_or("an account was lost")?;
            self.account.holds = holds;
            self.append(now, record)?;
        }
        Ok(())
    }

    fn known(&self, now: UnixMillis, order: &Order) -> Known {
        let named = |reference: &Reference| {
            let mut records = self.records.iter();
            let found = records.find(|(_, record)| reference_of(record) == Some(reference));
            found.cloned()
        };
        let subject = order.subject();
        let found = match &subject {
            Some(Subject::Charge(request)) => {
                let mut records = self.records.iter();
                let of = |record: &Record| record.charge().map(|charge| charge.request);
                let charged = records.find(|(_, record)| of(record) == Some(*request));
                charged.cloned()
            }
            Some(Subject::Payment(reference)) => named(reference),
            None => None,
        };
        let undone = self
            .records
            .iter()
            .filter(|(_, record)| subject.is_some() && undoes(record) == subject);
        Known {
            now,
            prior: named(&order.reference).map(|(_, record)| record),
            subject: found,
            undone: undone.map(|(_, record)| record.clone()).collect(),
        }
    }

    fn append(&mut self, now: UnixMillis, record: Record) -> Result<(), Broken> {
        let sequence = self.chain.len() as u64;
        if let Some((key, sums)) = usage::added(&record, now, self.account.month).map_err(broken)? {
            let sum = self.usage.entry(key).or_default();
            *sum = sum.plus(&sums).map_err(broken)?;
        }
        let entry = ledger::Entry::new(sequence, now, record.clone()).map_err(broken)?;
        let canonical = entry.canonical().map_err(broken)?;
        let hash = ledger::link(self.id, self.head(), &canonical);
        self.chain.push(Stored {
            sequence,
            canonical,
            hash,
        });
        self.records.push((now, record));
        Ok(())
    }

    /// Checks the chain, and that the account, its charges and what was used follow from it.
    ///
    /// # Errors
    ///
    /// What does not agree.
    pub fn audit(&self) -> Result<(), Broken> {
        let verified = ledger::verify(self.id, self.chain.iter().cloned()).map_err(broken)?;
        let charged = self.charges().map(|charge| i128::from(charge.charge.0));
        if i128::from(verified.charged.0) != charged.sum::<i128>() {
            return Err(format!(
                "the ledger of {} does not add up to its charges",
                self.id
            ));
        }
        let records = self.records.iter().map(|(at, record)| (*at, record));
        let mut account = self.account.clone();
        account.holds.clear();
        if replay(records).map_err(broken)? != Some(account) {
            return Err(format!("the ledger of {} is another account's", self.id));
        }
        Ok(())
    }
}

/// What a record undoes.
fn undoes(record: &Record) -> Option<Subject> {
    if let Record::Refunded(refunded) = record {
        Some(Subject::Charge(refunded.undoes))
    } else if let Record::Reversed { undoes, .. } = record {
        Some(Subject::Payment(undoes.clone()))
    } else {
        None
    }
}

/// The name that an order's record has.
fn reference_of(record: &Record) -> Option<&Reference> {
    match record {
        Record::Paid { reference, .. }
        | Record::Granted { reference, .. }
        | Record::TierSet { reference, .. }
        | Record::CeilingSet { reference, .. }
        | Record::Reversed { reference, .. }
        | Record::Collected { reference, .. }
        | Record::QuotaReset { reference }
        | Record::GuestSet { reference, .. } => Some(reference),
        Record::Refunded(refunded) => Some(&refunded.reference),
        Record::Invoiced(invoiced) => Some(&invoiced.reference),
        Record::Opened { .. } | Record::Charged(_) | Record::Lost(_) | Record::Lapsed { .. } => {
            None
        }
    }
}
