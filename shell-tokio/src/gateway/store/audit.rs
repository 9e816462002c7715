//! Checking the ledger: every entry of every account, and what the accounts say of themselves.
//!
//! On a connection of its own, over one snapshot: a running gateway is not held up.

use std::path::Path;

use mesh_core::billing::account::{Account, replay_one};
use mesh_core::billing::ledger::{Fault, Verified, Verifier};
use mesh_core::ids::AccountId;
use rusqlite::Connection;

use super::error::{OpenError, StoreError};
use super::rows::{self, Standing, blob};

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Every account, by name, and last those that have entries but no name.
    pub accounts: Vec<AccountReport>,
    /// What SQLite itself says is wrong with the file, if anything.
    pub file: Option<String>,
}

/// What a check found in one account's ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountReport {
    /// Which.
    pub account: AccountId,
    /// What its operator calls it.
    pub name: String,
    /// What holds, or the first entry that does not.
    pub verified: Result<Verified, Fault>,
}

/// Why a ledger could not be checked at all.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It could not be read.
    #[error("the ledger cannot be read: {0}")]
    Read(#[from] StoreError),
}

impl From<rusqlite::Error> for AuditError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Read(error.into())
    }
}

impl Report {
    /// Whether nothing at all is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.file.is_none() && self.faults().next().is_none()
    }

    /// The first entry of each account that does not hold.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.accounts
            .iter()
            .filter_map(|account| account.verified.as_ref().err())
    }

    /// How many entries hold.
    #[must_use]
    pub fn entries(&self) -> u64 {
        let verified = self
            .accounts
            .iter()
            .filter_map(|account| account.verified.as_ref().ok());
        verified.map(|verified| verified.entries).sum()
    }
}

/// Checks every account's ledger; blocks. May run beside the gateway.
///
/// # Errors
///
/// [`AuditError`] when there is nothing that could be checked. What is wrong with a ledger is in the
/// [`Report`].
pub fn verify(path: &Path) -> Result<Report, AuditError> {
    let connection = super::open::open_to_look(path)?;
    // One snapshot for all of it.
    connection.execute_batch("BEGIN")?;
    let mut accounts = Vec::new();
    for (account, name) in named_accounts(&connection)? {
        let verified = verify_account(&connection, account)?;
        accounts.push(AccountReport {
            account,
            name,
            verified,
        });
    }
    for account in nameless_accounts(&connection)? {
        let verified =
            Err(Verifier::new(account).fault("the account that it belongs to is missing"));
        accounts.push(AccountReport {
            account,
            name: String::new(),
            verified,
        });
    }
    let file = file_fault(&connection)?;
    Ok(Report { accounts, file })
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
) -> Result<Result<Verified, Fault>, AuditError> {
    let mut query = connection.prepare_cached(
        "SELECT sequence, canonical, hash FROM entries WHERE account = ?1 ORDER BY sequence",
    )?;
    let mut entries = query.query_map([blob(id.as_u128())], rows::stored)?;
    let mut verifier = Verifier::new(id);
    let mut account: Option<Account> = None;
    let outcome = entries.try_for_each(|stored| {
        let stored = stored.map_err(|_| verifier.fault("the file is damaged here"))?;
        let too_large = verifier.fault("larger than the ledger can hold");
        let entry = verifier.check(&stored)?;
        account = replay_one(account.take(), entry.at, &entry.record).map_err(|_| too_large)?;
        Ok(())
    });
    if let Err(fault) = outcome {
        return Ok(Err(fault));
    }
    let verified = verifier.verified();
    let standing = super::books::read_standing(connection, id);
    Ok(match (standing, account) {
        (Ok(standing), _)
            if (standing.entries, standing.head) != (verified.entries, verified.head) =>
        {
            Err(verifier.fault("missing: the account knows of more entries, or of others"))
        }
        (
            Ok(Standing {
                account: standing, ..
            }),
            Some(replayed),
        ) if standing == replayed => Ok(verified),
        _ => {
            Err(verifier.fault("what the account says it spent is not what its entries add up to"))
        }
    })
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
