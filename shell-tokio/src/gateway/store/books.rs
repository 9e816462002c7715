//! The books' side of a store, without its database: where an account stands, what a command leads
//! to by the rules, and how that is written down.
//!
//! A store looks up what a command or an order is about, runs [`Standing::carry_out`] or
//! [`Standing::order`] inside one transaction and writes what it gives back. It knows no command and no record by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_core::billing::account::alert::{Alert, Mark};
use mesh_core::billing::account::order::{Known, Order};
use mesh_core::billing::account::{
    Account, Command, Denied, Entry, Facts, Held, Prior, apply, decide, order, replay_one,
};
use mesh_core::billing::ledger::{self, Charge, Hash, Loss, Record, Stored};
use mesh_core::billing::money::{Nanos, Overflow};
use mesh_core::billing::tier::Tier;
use mesh_core::billing::usage::{self, Sums};
use mesh_core::gateway::{Granted, Recalled, Settled};
use mesh_core::ids::{AccountId, DeviceId, RequestId};
use mesh_core::time::UnixMillis;

use super::error::StoreError;
use super::types::{Booked, NewTask};

/// Where an account stands after its last entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// As the rules see it.
    pub(super) account: Account,
    /// How many entries its ledger has.
    pub(super) entries: u64,
    /// The last one's hash.
    pub(super) head: Hash,
}

/// An entry of the ledger, to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) entry: ledger::Entry,
    pub(super) canonical: String,
    pub(super) hash: Hash,
}

/// What a command or an order led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// To be added to the ledger, in this order.
    pub(super) lines: Vec<Line>,
    /// To be added to what was used.
    pub(super) usage: Vec<(usage::Key, Sums)>,
    /// The holds that it made or ended, and what each was before.
    pub(super) touched: Vec<(RequestId, Option<Held>)>,
    /// What has to be done outside of the store from now on.
    pub(super) tasks: Vec<NewTask>,
    /// The tier of a hold that was made.
    tier: Option<Tier>,
    /// A limit that it came near to.
    alert: Option<Alert>,
}

/// What a caller is told about a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// The charge that stands under the command's id: this command's, or the one from before.
    charge: Option<Charge>,
    tier: Option<Tier>,
    alert: Option<Alert>,
    /// Whether the charge is this command's.
    pub(super) is_new: bool,
}

impl Done {
    pub(super) fn new(prior: Option<Prior>, outcome: &Outcome) -> Self {
        let charged = outcome.lines.iter().find_map(Line::charge);
        let prior = prior.and_then(|prior| match prior {
            Prior::Charged(charge) => Some(charge),
            Prior::Lost(_) => None,
        });
        Self {
            is_new: charged.is_some(),
            charge: charged.cloned().or(prior),
            tier: outcome.tier,
            alert: outcome.alert,
        }
    }

    /// What a hold was granted on.
    pub(super) fn granted(self) -> Result<Granted, StoreError> {
        let lost = || StoreError::Failed("a hold was made and is not there".to_owned());
        let tier = self.tier.ok_or_else(lost)?;
        Ok(Granted { tier })
    }

    /// The charge of a settle.
    pub(super) fn settled(self) -> Result<Settled, StoreError> {
        let lost = || StoreError::Damaged("a charge was written and is not there".to_owned());
        Ok(Settled {
            charge: Box::new(self.charge.ok_or_else(lost)?),
            alert: self.alert,
        })
    }
}

/// What a device is told of an answer that was lost: it is nobody else's.
pub(super) fn lost(loss: &Loss, device: DeviceId) -> Recalled {
    if loss.device.is_some_and(|asker| asker != device) {
        Recalled::NotYours
    } else {
        Recalled::Lost
    }
}

/// When something that is kept from now on is kept no longer.
pub(super) fn ends_at(now: UnixMillis, kept: Duration) -> UnixMillis {
    let kept = u64::try_from(kept.as_millis()).unwrap_or(u64::MAX);
    UnixMillis(now.0.saturating_add(kept))
}

/// The kind of the task that a month's invoice is: whoever collects money takes it from there.
pub(super) const INVOICE_TASK: &str = "invoice";

/// What has to be done outside because of an entry: invoices are collected.
fn task(account: AccountId, record: &Record) -> Result<Option<NewTask>, StoreError> {
    let Record::Invoiced(invoiced) = record else {
        return Ok(None);
    };
    Ok(Some(NewTask {
        kind: INVOICE_TASK.to_owned(),
        key: format!("{account}:{}", invoiced.month),
        account,
        body: serde_json::to_string(invoiced).map_err(unwritable)?,
    }))
}

impl Line {
    fn charge(&self) -> Option<&Charge> {
        self.entry.record.charge()
    }
}

/// What a record is filed under, one record each, for ever: its request.
pub(super) fn filed_under(record: &Record) -> Option<String> {
    let charged = record.charge().map(|charge| charge.request);
    let request = charged.or_else(|| record.loss().map(|loss| loss.request));
    request.map(|request| request.to_string())
}

impl Standing {
    /// A new account, and the first entry of its ledger.
    pub(super) fn open(
        id: AccountId,
        tier: Tier,
        ceiling: Nanos,
        now: UnixMillis,
    ) -> Result<(Self, Line), StoreError> {
        let mut standing = Self {
            account: Account::new(tier, ceiling),
            entries: 0,
            head: Hash::START,
        };
        let line = standing.line(id, now, Record::Opened { tier, ceiling })?;
        standing.advance(&line)?;
        Ok((standing, line))
    }

    /// Reads what [`Self::state`] wrote.
    pub(super) fn read(state: &str, entries: u64, head: Hash) -> Result<Self, StoreError> {
        let account = serde_json::from_str(state)
            .map_err(|error| StoreError::Damaged(format!("an account: {error}")))?;
        Ok(Self {
            account,
            entries,
            head,
        })
    }

    /// The account's state as a store keeps it: without its holds.
    pub(super) fn state(&self) -> Result<String, StoreError> {
        serde_json::to_string(&self.account).map_err(unwritable)
    }

    /// Runs a command. Changes nothing when it fails.
    pub(super) fn carry_out(
        &mut self,
        id: AccountId,
        facts: &Facts,
        command: Command,
    ) -> Result<Outcome, StoreError> {
        let entries = decide(&self.account, facts, command)?;
        let mut next = Self {
            account: Account::new(self.account.tier, self.account.ceiling),
            ..*self
        };
        let mut outcome = Outcome::default();
        for entry in &entries {
            let request = entry.request();
            let before = self.account.holds.get(&request).copied();
            outcome.touched.push((request, before));
            if let Some(record) = entry.record() {
                let line = next.line(id, facts.now, record)?;
                next.advance(&line)?;
                outcome.lines.push(line);
            }
            if let Entry::Held(_, held) = entry {
                outcome.tier = Some(held.tier);
            }
        }
        let mark = Mark::of(&self.account);
        // One entry is applied wholly or not at all; more are tried on a copy.
        if let [entry] = entries.as_slice() {
            apply(&mut self.account, facts.now, entry)?;
        } else if !entries.is_empty() {
            let mut account = self.account.clone();
            for entry in &entries {
                apply(&mut account, facts.now, entry)?;
            }
            self.account = account;
        }
        (self.entries, self.head) = (next.entries, next.head);
        outcome.alert = Alert::passed(mark, &self.account);
        let month = self.account.month;
        for line in &outcome.lines {
            outcome
                .usage
                .extend(usage::added(&line.entry.record, facts.now, month)?);
        }
        Ok(outcome)
    }

    /// Carries an order out; gives nothing when it was before. Changes nothing when it fails.
    pub(super) fn order(
        &mut self,
        id: AccountId,
        known: &Known,
        order: &Order,
    ) -> Result<Outcome, StoreError> {
        let records = order::decide(&self.account, known, order)?;
        self.book(id, known.now, records)
    }

    /// Books the credits that have ended.
    pub(super) fn lapse(&mut self, id: AccountId, now: UnixMillis) -> Result<Outcome, StoreError> {
        let records = order::lapsed(&self.account, now);
        self.book(id, now, records)
    }

    fn book(
        &mut self,
        id: AccountId,
        now: UnixMillis,
        records: Vec<Record>,
    ) -> Result<Outcome, StoreError> {
        let mut next = self.clone();
        let mut outcome = Outcome::default();
        for record in records {
            let holds = std::mem::take(&mut next.account.holds);
            next.account = replay_one(Some(next.account), now, &record)?
                .ok_or_else(|| StoreError::Failed("an account was lost".to_owned()))?;
            next.account.holds = holds;
            outcome
                .usage
                .extend(usage::added(&record, now, next.account.month)?);
            outcome.tasks.extend(task(id, &record)?);
            let line = next.line(id, now, record)?;
            next.advance(&line)?;
            outcome.lines.push(line);
        }
        *self = next;
        Ok(outcome)
    }

    fn line(&self, id: AccountId, at: UnixMillis, record: Record) -> Result<Line, StoreError> {
        let entry = ledger::Entry::new(self.entries, at, record)?;
        let canonical = entry.canonical().map_err(unwritable)?;
        let hash = ledger::link(id, self.head, &canonical);
        Ok(Line {
            entry,
            canonical,
            hash,
        })
    }

    fn advance(&mut self, line: &Line) -> Result<(), StoreError> {
        self.entries = self.entries.checked_add(1).ok_or(Denied::Overflow)?;
        self.head = line.hash;
        Ok(())
    }
}

/// What an account's ledger makes of it, without holds: the account, and what was used.
#[derive(Debug, Default)]
pub(super) struct Rebuilt {
    /// `None` without an entry that opens it.
    pub(super) account: Option<Account>,
    pub(super) usage: BTreeMap<usage::Key, Sums>,
}

impl Rebuilt {
    /// Reads the next entry.
    pub(super) fn read(&mut self, at: UnixMillis, record: &Record) -> Result<(), Overflow> {
        self.account = replay_one(self.account.take(), at, record)?;
        let month = self.account.as_ref().map(|account| account.month);
        if let Some((key, sums)) = usage::added(record, at, month.unwrap_or_default())? {
            let sum = self.usage.entry(key).or_default();
            *sum = sum.plus(&sums)?;
        }
        Ok(())
    }
}

/// Reads an entry back.
pub(super) fn entry(stored: &Stored) -> Result<ledger::Entry, StoreError> {
    serde_json::from_str(&stored.canonical)
        .map_err(|error| StoreError::Damaged(format!("entry {}: {error}", stored.sequence)))
}

/// Reads a charge back, with its place.
pub(super) fn booked(stored: &Stored) -> Result<Option<Booked>, StoreError> {
    let entry = entry(stored)?;
    Ok(entry.record.charge().map(|charge| Booked {
        sequence: stored.sequence,
        at: entry.at,
        charge: charge.clone(),
        hash: stored.hash,
    }))
}

fn unwritable(error: serde_json::Error) -> StoreError {
    StoreError::Failed(format!("an entry cannot be written: {error}"))
}
