//! Money: looks up what the rules ask for, runs them, writes what they say.

use mesh_core::billing::account::order::{Known, Order, Reference, Subject};
use mesh_core::billing::account::{Command, Facts, Prior, Summary};
use mesh_core::billing::ledger::{self, Record, Stored};
use mesh_core::ids::{AccountId, RequestId};
use mesh_core::limits::LEDGER_PAGE_MAX;
use mesh_core::time::UnixMillis;
use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{self, blob, signed};
use super::writer::Work;
use crate::gateway::store::books::{self, Done, Line, Outcome, Rebuilt, Standing};
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
        let request = command.request();
        let recorded = self.recorded_under(id, "request", &request.to_string())?;
        let prior = recorded.and_then(|entry| Prior::of(&entry.record));
        let provider_key = match &command {
            Command::Hold(hold) => self.has_provider_key(id, &hold.provider)?,
            Command::Settle(_) | Command::Release(_) | Command::Lose(_) => false,
        };
        let facts = Facts {
            now,
            prior: prior.clone(),
            provider_key,
        };
        let ends = !matches!(command, Command::Hold(_));
        let mut standing = read_standing(self.connection, id)?;
        standing.account.holds = self.holds.take(id);
        let ran = standing.carry_out(id, &facts, command);
        let touched = ran.as_ref().map_or(&[][..], |outcome| &outcome.touched);
        let holds = std::mem::take(&mut standing.account.holds);
        self.holds.put(id, holds, touched);
        let outcome = ran?;
        self.write_down(id, &standing, &outcome, now)?;
        if ends {
            self.forget_running(id, request)?;
        }
        Ok(Done::new(prior, &outcome))
    }

    /// Writes what a command or an order led to.
    fn write_down(
        &self,
        id: AccountId,
        standing: &Standing,
        outcome: &Outcome,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        for line in &outcome.lines {
            append(self.connection, id, line)?;
        }
        for (key, sums) in &outcome.usage {
            super::usage::add(self.connection, id, key, sums)?;
        }
        for task in &outcome.tasks {
            self.put_task(task, now)?;
        }
        if !outcome.lines.is_empty() {
            write_standing(self.connection, id, standing)?;
        }
        Ok(())
    }

    /// Carries an order out, unless it was before; gives the record that stands under its reference.
    pub(super) fn order(
        &mut self,
        id: AccountId,
        order: &Order,
        now: UnixMillis,
    ) -> Result<Ordered, StoreError> {
        let mut standing = self.standing_with_holds(id)?;
        let known = self.known(id, order, now)?;
        let outcome = standing.order(id, &known, order)?;
        self.write_down(id, &standing, &outcome, now)?;
        let record = outcome.lines.into_iter().next_back();
        let record = record.map(|line| line.entry.record);
        let repeated = record.is_none();
        let record = record.or(known.prior);
        let lost = || StoreError::Damaged("an order was written and is not there".to_owned());
        Ok(Ordered {
            record: record.ok_or_else(lost)?,
            repeated,
        })
    }

    /// Books the credits of an account that have ended.
    pub(super) fn lapse(&mut self, id: AccountId, now: UnixMillis) -> Result<(), StoreError> {
        let mut standing = self.standing_with_holds(id)?;
        let outcome = standing.lapse(id, now)?;
        self.write_down(id, &standing, &outcome, now)
    }

    /// What holds is not changed by what is ordered.
    fn standing_with_holds(&self, id: AccountId) -> Result<Standing, StoreError> {
        let mut standing = read_standing(self.connection, id)?;
        standing.account.holds = self.holds.of(id);
        Ok(standing)
    }

    fn known(&self, id: AccountId, order: &Order, now: UnixMillis) -> Result<Known, StoreError> {
        let prior = self.ordered(id, &order.reference)?;
        let Some(subject) = order.subject() else {
            let nothing = Known::at(now);
            return Ok(Known { prior, ..nothing });
        };
        let name = subject.to_string();
        let found = match &subject {
            Subject::Charge(_) => self.recorded_under(id, "request", &name)?,
            Subject::Payment(_) => self.recorded_under(id, "reference", &name)?,
        };
        let undone = self.entries_under(id, "undoes", &name)?;
        Ok(Known {
            now,
            prior,
            subject: found.map(|entry| (entry.at, entry.record)),
            undone: undone.into_iter().map(|entry| entry.record).collect(),
        })
    }

    pub(in crate::gateway::store) fn ordered(
        &self,
        id: AccountId,
        reference: &Reference,
    ) -> Result<Option<Record>, StoreError> {
        let entry = self.recorded_under(id, "reference", reference.as_str())?;
        Ok(entry.map(|entry| entry.record))
    }

    pub(super) fn recorded_under(
        &self,
        id: AccountId,
        column: &'static str,
        name: &str,
    ) -> Result<Option<ledger::Entry>, StoreError> {
        Ok(self.entries_under(id, column, name)?.into_iter().next())
    }

    /// The entries that one of the computed columns files under a name.
    fn entries_under(
        &self,
        id: AccountId,
        column: &'static str,
        name: &str,
    ) -> Result<Vec<ledger::Entry>, StoreError> {
        let sql = format!(
            "SELECT sequence, canonical, hash FROM entries \
             WHERE account = ?1 AND {column} = ?2 ORDER BY sequence"
        );
        let mut query = self.connection.prepare_cached(&sql)?;
        let rows = query.query_map(params![blob(id.as_u128()), name], rows::stored)?;
        let stored: Vec<Stored> = rows.collect::<Result<_, _>>()?;
        stored.iter().map(books::entry).collect()
    }

    pub(in crate::gateway::store) fn summary(
        &self,
        id: AccountId,
        now: UnixMillis,
    ) -> Result<Summary, StoreError> {
        Ok(self.standing_with_holds(id)?.account.summary(now)?)
    }

    pub(in crate::gateway::store) fn booked(
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

    pub(in crate::gateway::store) fn entries(
        &self,
        id: AccountId,
        from: u64,
    ) -> Result<Vec<Stored>, StoreError> {
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

/// Writes down where accounts stand that have lost it, and what they used, from their ledgers.
/// `usage` says whether this schema has the sums of usage.
pub(super) fn restate(connection: &Connection, usage: bool) -> Result<(), StoreError> {
    let mut query = connection.prepare("SELECT id FROM accounts WHERE state IS NULL")?;
    let lost = query.query_map([], |row| rows::account_id(row, 0))?;
    for id in lost.collect::<Result<Vec<_>, _>>()? {
        let mut query = connection.prepare_cached(
            "SELECT sequence, canonical, hash FROM entries WHERE account = ?1 ORDER BY sequence",
        )?;
        let mut rebuilt = Rebuilt::default();
        for stored in query.query_map([blob(id.as_u128())], rows::stored)? {
            let entry = books::entry(&stored?)?;
            rebuilt.read(entry.at, &entry.record)?;
        }
        if usage {
            for (key, sums) in &rebuilt.usage {
                super::usage::add(connection, id, key, sums)?;
            }
        }
        if let Some(account) = rebuilt.account {
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
