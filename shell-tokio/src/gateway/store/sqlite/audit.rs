//! Reading the ledger for its check, on a connection of its own.

use std::path::Path;

use mesh_core::billing::ledger::seal::{Head, Seal};
use mesh_core::billing::ledger::{Fault, Verified};
use mesh_core::ids::AccountId;
use rusqlite::Connection;

use super::rows::{self, blob};
use crate::gateway::store::audit::{AccountReport, AuditError, Chain, Report};

impl From<rusqlite::Error> for AuditError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Read(error.into())
    }
}

/// Checks every account's ledger; blocks.
pub(in crate::gateway::store) fn verify(
    path: &Path,
    seal: Option<&Seal>,
) -> Result<Report, AuditError> {
    let connection = super::open::open_to_look(path)?;
    // One snapshot for all of it.
    connection.execute_batch("BEGIN")?;
    let mut accounts = Vec::new();
    for (account, name) in named_accounts(&connection)? {
        let sealed = seal.and_then(|seal| seal.heads.get(&account).copied());
        let verified = verify_account(&connection, account, sealed)?;
        accounts.push(AccountReport {
            account,
            name,
            verified,
        });
    }
    let entries = nameless_accounts(&connection)?;
    Ok(Report {
        file: file_fault(&connection)?,
        ..Report::of(accounts, entries, seal)
    })
}

fn named_accounts(connection: &Connection) -> Result<Vec<(AccountId, String)>, AuditError> {
    let mut query = connection.prepare("SELECT id, name FROM accounts ORDER BY name")?;
    let accounts = query.query_map([], |row| Ok((rows::account_id(row, 0)?, row.get(1)?)))?;
    Ok(accounts.collect::<Result<_, _>>()?)
}

fn nameless_accounts(connection: &Connection) -> Result<Vec<AccountId>, AuditError> {
    let sql = "SELECT DISTINCT account FROM entries WHERE account NOT IN (SELECT id FROM accounts)";
    let mut query = connection.prepare(sql)?;
    let accounts = query.query_map([], |row| rows::account_id(row, 0))?;
    Ok(accounts.collect::<Result<_, _>>()?)
}

fn verify_account(
    connection: &Connection,
    id: AccountId,
    sealed: Option<Head>,
) -> Result<Result<Verified, Fault>, AuditError> {
    let mut query = connection.prepare_cached(
        "SELECT sequence, canonical, hash FROM entries WHERE account = ?1 ORDER BY sequence",
    )?;
    let mut entries = query.query_map([blob(id.as_u128())], rows::stored)?;
    let mut chain = Chain::new(id, sealed);
    let outcome = entries.try_for_each(|stored| {
        let stored = stored.map_err(|_| chain.fault("the file is damaged here"))?;
        chain.check(&stored, None)
    });
    let standing = super::books::read_standing(connection, id);
    let used = super::usage::all(connection, id)?;
    Ok(outcome.and_then(|()| chain.finish(standing, &used)))
}

fn file_fault(connection: &Connection) -> Result<Option<String>, AuditError> {
    let said: Result<String, _> =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0));
    Ok(match said {
        Ok(said) if said == "ok" => None,
        Ok(said) => Some(said),
        Err(error) => Some(error.to_string()),
    })
}
