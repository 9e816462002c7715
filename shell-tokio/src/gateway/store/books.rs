//! Money: looks up what the rules ask for, runs them, writes what they say.

use mesh_core::billing::account::{Command, Denied, Entry, Facts, Settle, Summary, apply, decide};
use mesh_core::billing::ledger::{self, Charge, Hash, Record, Stored};
use mesh_core::billing::money::Nanos;
use mesh_core::ids::{AccountId, RequestId};
use mesh_core::limits::LEDGER_PAGE_MAX;
use mesh_core::time::UnixMillis;
use rusqlite::{Connection, OptionalExtension, params};

use super::error::StoreError;
use super::rows::{self, Standing, blob, signed};
use super::writer::Work;
use super::{Booked, NewAccount};

impl Work<'_> {
    /// Opens an account: its row, and the first entry of its ledger.
    pub(super) fn open_ledger(
        &mut self,
        account: &NewAccount,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let NewAccount {
            id,
            name,
            tier,
            ceiling,
        } = account;
        self.connection
            .prepare_cached(
                "INSERT INTO accounts \
                 (id, name, created_at, tier, ceiling, month, spent, used, owed, entries, head) \
                 VALUES (?1, ?2, ?3, ?4, ?5, 0, 0, 0, 0, 0, ?6)",
            )?
            .execute(params![
                blob(id.as_u128()),
                name,
                signed(now.0),
                serde_json::to_string(tier).map_err(unwritable)?,
                ceiling.0,
                Hash::START.0,
            ])?;
        let mut standing = read_standing(self.connection, *id)?;
        let record = Record::Opened {
            tier: *tier,
            ceiling: *ceiling,
        };
        append(self.connection, *id, &mut standing, now, record)?;
        write_standing(self.connection, *id, &standing)
    }

    /// Runs a command that is about one request.
    pub(super) fn carry_out(
        &mut self,
        id: AccountId,
        request: RequestId,
        command: Command,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let connection = self.connection;
        let prior = booked(connection, id, request)?.map(|booked| booked.charge);
        let mut standing = read_standing(connection, id)?;
        standing.account.holds = self.holds.take(id);
        let before = standing.account.holds.get(&request).copied();
        let outcome = run_rules(
            connection,
            id,
            &mut standing,
            &Facts { now, prior },
            command,
        );
        self.holds.put(id, standing.account.holds, request, before);
        outcome
    }

    pub(super) fn settle(
        &mut self,
        id: AccountId,
        settle: Settle,
        now: UnixMillis,
    ) -> Result<Charge, StoreError> {
        let request = settle.request;
        self.carry_out(id, request, Command::Settle(settle), now)?;
        let booked = booked(self.connection, id, request)?;
        booked
            .map(|booked| booked.charge)
            .ok_or_else(|| StoreError::Damaged("a charge was written and is not there".to_owned()))
    }

    pub(super) fn summary(&self, id: AccountId, now: UnixMillis) -> Result<Summary, StoreError> {
        let mut standing = read_standing(self.connection, id)?;
        standing.account.holds = self.holds.of(id);
        Ok(standing.account.summary(now)?)
    }

    pub(super) fn booked(
        &self,
        id: AccountId,
        request: RequestId,
    ) -> Result<Option<Booked>, StoreError> {
        booked(self.connection, id, request)
    }

    pub(super) fn entries(&self, id: AccountId, from: u64) -> Result<Vec<Stored>, StoreError> {
        let mut query = self.connection.prepare_cached(
            "SELECT sequence, canonical, hash FROM entries \
             WHERE account = ?1 AND sequence >= ?2 ORDER BY sequence LIMIT ?3",
        )?;
        let page = i64::try_from(LEDGER_PAGE_MAX).unwrap_or(i64::MAX);
        let entries = query.query_map(
            params![blob(id.as_u128()), signed(from), page],
            rows::stored,
        )?;
        Ok(entries.collect::<Result<_, _>>()?)
    }
}

fn run_rules(
    connection: &Connection,
    id: AccountId,
    standing: &mut Standing,
    facts: &Facts,
    command: Command,
) -> Result<(), StoreError> {
    let mut written = false;
    for entry in decide(&standing.account, facts, command)? {
        apply(&mut standing.account, facts.now, &entry)?;
        if let Entry::Charged(charge) = entry {
            append(connection, id, standing, facts.now, Record::Charged(charge))?;
            written = true;
        }
    }
    if written {
        write_standing(connection, id, standing)
    } else {
        Ok(())
    }
}

fn booked(
    connection: &Connection,
    id: AccountId,
    request: RequestId,
) -> Result<Option<Booked>, StoreError> {
    let stored = connection
        .prepare_cached(
            "SELECT sequence, canonical, hash FROM entries WHERE account = ?1 AND request = ?2",
        )?
        .query_row(
            params![blob(id.as_u128()), request.to_string()],
            rows::stored,
        )
        .optional()?;
    let Some(stored) = stored else {
        return Ok(None);
    };
    let entry: ledger::Entry = serde_json::from_str(&stored.canonical)
        .map_err(|error| StoreError::Damaged(format!("entry {}: {error}", stored.sequence)))?;
    match entry.record {
        Record::Charged(charge) => {
            let (sequence, at, hash) = (stored.sequence, entry.at, stored.hash);
            Ok(Some(Booked {
                sequence,
                at,
                charge,
                hash,
            }))
        }
        Record::Opened { .. } => Ok(None),
    }
}

pub(super) fn read_standing(
    connection: &Connection,
    id: AccountId,
) -> Result<Standing, StoreError> {
    connection
        .prepare_cached(&format!(
            "SELECT {} FROM accounts WHERE id = ?1",
            rows::STANDING
        ))?
        .query_row([blob(id.as_u128())], rows::standing)
        .optional()?
        .ok_or(StoreError::UnknownAccount)
}

fn write_standing(
    connection: &Connection,
    id: AccountId,
    standing: &Standing,
) -> Result<(), StoreError> {
    let Standing {
        account,
        entries,
        head,
    } = standing;
    let [spent, used, owed] = [account.spent, account.used, account.owed].map(|Nanos(n)| n);
    connection
        .prepare_cached(
            "UPDATE accounts SET month = ?2, spent = ?3, used = ?4, owed = ?5, entries = ?6, \
             head = ?7 WHERE id = ?1",
        )?
        .execute(params![
            blob(id.as_u128()),
            account.month.index(),
            spent,
            used,
            owed,
            signed(*entries),
            head.0,
        ])?;
    Ok(())
}

/// Adds an entry to the ledger. The standing is written by the caller, once.
fn append(
    connection: &Connection,
    id: AccountId,
    standing: &mut Standing,
    at: UnixMillis,
    record: Record,
) -> Result<(), StoreError> {
    let sequence = standing.entries;
    let entry = ledger::Entry::new(sequence, at, record)?;
    let canonical = entry.canonical().map_err(unwritable)?;
    let hash = ledger::link(id, standing.head, &canonical);
    connection
        .prepare_cached(
            "INSERT INTO entries (account, sequence, canonical, hash) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            blob(id.as_u128()),
            signed(sequence),
            canonical,
            hash.0
        ])?;
    standing.entries = sequence.checked_add(1).ok_or(Denied::Overflow)?;
    standing.head = hash;
    Ok(())
}

fn unwritable(error: serde_json::Error) -> StoreError {
    StoreError::Failed(format!("an entry cannot be written: {error}"))
}
