//! Money: looks up what the rules ask for, runs them, writes what they say.

use mesh_core::billing::account::order::{Order, Reference};
use mesh_core::billing::account::{Command, Facts, Summary};
use mesh_core::billing::ledger::{Record, Stored};
use mesh_core::ids::{AccountId, RequestId};
use mesh_core::limits::LEDGER_PAGE_MAX;
use mesh_core::time::UnixMillis;
use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{self, blob, signed};
use super::writer::Work;
use crate::gateway::store::books::{self, Done, Line, Standing};
use crate::gateway::store::error::StoreError;
use crate::gateway::store::types::{Booked, NewAccount, Ordered};

impl Work<'_> {
    /// Opens an account: its row, and the first entry of its ledger.
    pub(super) fn open_ledger(
        &mut self,
        account: &NewAccount,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let id = account.id;
        let (standing, line) = Standing::open(id, account.tier, account.ceiling, now)?;
        self.connection
            .prepare_cached(
                "INSERT INTO accounts (id, name, created_at, state, entries, head) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                blob(id.as_u128()),
                account.name,
                signed(now.0),
                standing.state()?,
                signed(standing.entries),
                standing.head.0,
            ])?;
        append(self.connection, id, &line)
    }

    /// Runs a command.
    pub(super) fn carry_out(
        &mut self,
        id: AccountId,
        command: Command,
        now: UnixMillis,
    ) -> Result<Done, StoreError> {
        let prior = self.booked(id, books::about(&command))?;
        let prior = prior.map(|booked| booked.charge);
        let facts = Facts {
            now,
            prior: prior.clone(),
        };
        let mut standing = read_standing(self.connection, id)?;
        standing.account.holds = self.holds.take(id);
        let ran = standing.carry_out(id, &facts, command);
        let touched = ran.as_ref().map_or(&[][..], |outcome| &outcome.touched);
        let holds = std::mem::take(&mut standing.account.holds);
        self.holds.put(id, holds, touched);
        let outcome = ran?;
        for line in &outcome.lines {
            append(self.connection, id, line)?;
        }
        if !outcome.lines.is_empty() {
            write_standing(self.connection, id, &standing)?;
        }
        Ok(Done::new(prior, &outcome))
    }

    /// Carries an order out, unless it was before; gives the record that stands under its reference.
    pub(super) fn order(
        &mut self,
        id: AccountId,
        order: &Order,
        now: UnixMillis,
    ) -> Result<Ordered, StoreError> {
        let mut standing = read_standing(self.connection, id)?;
        // Whatever it does, holds stay.
        standing.account.holds = self.holds.of(id);
        let prior = self.ordered(id, &order.reference)?;
        let lines = standing.order(id, now, prior.as_ref(), order)?;
        for line in &lines {
            append(self.connection, id, line)?;
        }
        if !lines.is_empty() {
            write_standing(self.connection, id, &standing)?;
        }
        let record = lines.into_iter().next_back().map(|line| line.entry.record);
        let repeated = record.is_none();
        let record = record.or(prior);
        let lost = || StoreError::Damaged("an order was written and is not there".to_owned());
        Ok(Ordered {
            record: record.ok_or_else(lost)?,
            repeated,
        })
    }

    fn ordered(&self, id: AccountId, reference: &Reference) -> Result<Option<Record>, StoreError> {
        let stored = self
            .connection
            .prepare_cached(
                "SELECT sequence, canonical, hash FROM entries \
                 WHERE account = ?1 AND reference = ?2",
            )?
            .query_row(
                params![blob(id.as_u128()), reference.as_str()],
                rows::stored,
            )
            .optional()?;
        let entry = stored.as_ref().map(books::entry).transpose()?;
        Ok(entry.map(|entry| entry.record))
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
        let stored = self
            .connection
            .prepare_cached(
                "SELECT sequence, canonical, hash FROM entries WHERE account = ?1 AND request = ?2",
            )?
            .query_row(
                params![blob(id.as_u128()), request.to_string()],
                rows::stored,
            )
            .optional()?;
        stored.as_ref().map_or(Ok(None), books::booked)
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

/// Writes down where accounts stand that have lost it, from their ledgers.
pub(super) fn restate(connection: &Connection) -> Result<(), StoreError> {
    let mut query = connection.prepare("SELECT id FROM accounts WHERE state IS NULL")?;
    let lost = query.query_map([], |row| rows::account_id(row, 0))?;
    for id in lost.collect::<Result<Vec<_>, _>>()? {
        let mut query = connection.prepare_cached(
            "SELECT sequence, canonical, hash FROM entries WHERE account = ?1 ORDER BY sequence",
        )?;
        let ledger = query.query_map([blob(id.as_u128())], rows::stored)?;
        let ledger: Vec<Stored> = ledger.collect::<Result<_, _>>()?;
        if let Some(account) = books::rebuilt(&ledger)? {
            let state = serde_json::to_string(&account)
                .map_err(|error| StoreError::Failed(error.to_string()))?;
            let sql = "UPDATE accounts SET state = ?2 WHERE id = ?1";
            connection.execute(sql, params![blob(id.as_u128()), state])?;
        }
    }
    Ok(())
}

pub(super) fn read_standing(
    connection: &Connection,
    id: AccountId,
) -> Result<Standing, StoreError> {
    let (state, entries, head) = connection
        .prepare_cached("SELECT state, entries, head FROM accounts WHERE id = ?1")?
        .query_row([blob(id.as_u128())], rows::standing)
        .optional()?
        .ok_or(StoreError::UnknownAccount)?;
    Standing::read(&state, entries, head)
}

fn write_standing(
    connection: &Connection,
    id: AccountId,
    standing: &Standing,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE accounts SET state = ?2, entries = ?3, head = ?4 WHERE id = ?1")?
        .execute(params![
            blob(id.as_u128()),
            standing.state()?,
            signed(standing.entries),
            standing.head.0,
        ])?;
    Ok(())
}

/// Adds an entry to the ledger. The standing is written by the caller, once.
fn append(connection: &Connection, id: AccountId, line: &Line) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO entries (account, sequence, canonical, hash) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            blob(id.as_u128()),
            signed(line.entry.sequence),
            line.canonical,
            line.hash.0
        ])?;
    Ok(())
}
