//! The books' side of a store, without its database: where an account stands, what a command leads
//! to by the rules, and how that is written down.
//!
//! A store looks up what [`about`] says, runs [`Standing::carry_out`] inside one transaction and
//! writes what it gives back. It knows no command and no record by itself.

use mesh_core::billing::account::order::Order;
use mesh_core::billing::account::{
    Account, Command, Denied, Entry, Facts, Held, apply, decide, order, replay, replay_one,
};
use mesh_core::billing::ledger::{self, Charge, Hash, Record, Stored};
use mesh_core::billing::money::Nanos;
use mesh_core::billing::tier::Tier;
use mesh_core::ids::{AccountId, RequestId};
use mesh_core::time::UnixMillis;

use super::error::StoreError;
use super::types::Booked;

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

/// What a command led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// To be added to the ledger, in this order.
    pub(super) lines: Vec<Line>,
    /// The holds that it made or ended, and what each was before.
    pub(super) touched: Vec<(RequestId, Option<Held>)>,
}

/// What a caller is told about a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// The charge that stands under the command's id: this command's, or the one from before.
    pub(super) charge: Option<Charge>,
}

impl Done {
    pub(super) fn new(prior: Option<Charge>, outcome: &Outcome) -> Self {
        let charged = outcome.lines.iter().find_map(Line::charge);
        Self {
            charge: charged.cloned().or(prior),
        }
    }

    /// The charge of a settle.
    pub(super) fn settled(self) -> Result<Charge, StoreError> {
        let lost = || StoreError::Damaged("a charge was written and is not there".to_owned());
        self.charge.ok_or_else(lost)
    }
}

/// The request whose earlier charge decides about a command.
pub(super) fn about(command: &Command) -> RequestId {
    match command {
        Command::Hold(hold) => hold.request,
        Command::Settle(settle) => settle.request,
        Command::Release(release) => release.request,
    }
}

/// What an entry is for the ledger, if it is anything there.
fn record(entry: &Entry) -> Option<Record> {
    match entry {
        Entry::Held(..) | Entry::Released(_) => None,
        Entry::Charged(charge) => Some(Record::Charged(charge.clone())),
    }
}

/// The hold that an entry makes or ends.
fn touched(entry: &Entry) -> RequestId {
    match entry {
        Entry::Held(request, _) | Entry::Released(request) => *request,
        Entry::Charged(charge) => charge.request,
    }
}

impl Line {
    fn charge(&self) -> Option<&Charge> {
        self.entry.record.charge()
    }
}

/// The request that a record is filed under: one record each, for ever.
pub(super) fn filed_under(record: &Record) -> Option<String> {
    record.charge().map(|charge| charge.request.to_string())
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
            let request = touched(entry);
            let before = self.account.holds.get(&request).copied();
            outcome.touched.push((request, before));
            if let Some(record) = record(entry) {
                let line = next.line(id, facts.now, record)?;
                next.advance(&line)?;
                outcome.lines.push(line);
            }
        }
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
        Ok(outcome)
    }

    /// Carries an order out; gives nothing when it was before. Changes nothing when it fails.
    pub(super) fn order(
        &mut self,
        id: AccountId,
        now: UnixMillis,
        prior: Option<&Record>,
        order: &Order,
    ) -> Result<Vec<Line>, StoreError> {
        let mut next = self.clone();
        let mut lines = Vec::new();
        for record in order::decide(&self.account, now, prior, order)? {
            next.account = replay_one(Some(next.account), now, &record)?
                .ok_or_else(|| StoreError::Failed("an account was lost".to_owned()))?;
            let line = next.line(id, now, record)?;
            next.advance(&line)?;
            lines.push(line);
        }
        *self = next;
        Ok(lines)
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

/// The account that its ledger makes, without holds; `None` without an entry that opens it.
pub(super) fn rebuilt(ledger: &[Stored]) -> Result<Option<Account>, StoreError> {
    let entries: Vec<ledger::Entry> = ledger.iter().map(entry).collect::<Result<_, _>>()?;
    let records = entries.iter().map(|entry| (entry.at, &entry.record));
    Ok(replay(records)?)
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
