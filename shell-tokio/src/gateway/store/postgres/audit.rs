//! Reading the ledger for its check, on a connection of its own.

use mesh_core::billing::ledger::seal::{Head, Seal};
use mesh_core::billing::ledger::{Fault, Verified};
use mesh_core::ids::AccountId;
use mesh_core::limits::LEDGER_PAGE_MAX;

use super::connection::Link;
use super::desk::Values;
use super::rows::{self, uuid};
use super::{schema, usage};
use crate::gateway::store::audit::{AccountReport, AuditError, Chain, Report};
use crate::gateway::store::books::Standing;
use crate::gateway::store::error::StoreError;
use crate::gateway::store::place::Database;
use crate::gateway::store::types::Span;

impl From<tokio_postgres::Error> for AuditError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Read(error.into())
    }
}

/// Checks every account's ledger.
pub(in crate::gateway::store) async fn verify(
    database: &Database,
    seal: Option<&Seal>,
) -> Result<Report, AuditError> {
    let mut link = schema::open_to_look(database).await?;
    // One snapshot for all of it.
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0";
    link.client.batch_execute(begin).await?;
    let mut accounts = Vec::new();
    let sql = "SELECT id, name, state, entries, head FROM accounts ORDER BY name COLLATE \"C\"";
    for row in link.client.query(sql, &[]).await? {
        let account = rows::account_id(&row, 0)?;
        let sealed = seal.and_then(|seal| seal.heads.get(&account).copied());
        let said = rows::standing(&row, 2);
        let said = said.and_then(|(state, entries, head)| Standing::read(state, entries, head));
        accounts.push(AccountReport {
            account,
            name: row.try_get(1)?,
            verified: verify_account(&mut link, account, sealed, said).await?,
        });
    }
    let entries = nameless_accounts(&link).await?;
    Ok(Report::of(accounts, entries, seal))
}

async fn nameless_accounts(link: &Link) -> Result<Vec<AccountId>, AuditError> {
    // From one account's entries to the next account's, by the index.
    let sql = "WITH RECURSIVE a (id) AS ( \
                 (SELECT account FROM entries ORDER BY account LIMIT 1) UNION ALL \
                 SELECT (SELECT e.account FROM entries e WHERE e.account > a.id \
                         ORDER BY e.account LIMIT 1) FROM a WHERE a.id IS NOT NULL) \
               SELECT id FROM a WHERE id IS NOT NULL \
               AND NOT EXISTS (SELECT FROM accounts WHERE accounts.id = a.id)";
    let rows = link.client.query(sql, &[]).await?;
    let accounts: Result<Vec<_>, StoreError> =
        rows.iter().map(|row| rows::account_id(row, 0)).collect();
    Ok(accounts?)
}

async fn verify_account(
    link: &mut Link,
    id: AccountId,
    sealed: Option<Head>,
    said: Result<Standing, StoreError>,
) -> Result<Result<Verified, Fault>, AuditError> {
    let sql = "SELECT sequence, canonical, hash FROM entries \
               WHERE account = $1 AND sequence > $2 ORDER BY sequence LIMIT $3";
    let statement = link.statement(sql).await?;
    let page = i64::try_from(LEDGER_PAGE_MAX).unwrap_or(i64::MAX);
    let account = uuid(id.as_u128());
    let mut chain = Chain::new(id, sealed);
    let mut last = i64::MIN;
    loop {
        let rows = link
            .client
            .query(&statement, &[&account, &last, &page])
            .await?;
        let Some(row) = rows.last() else {
            break;
        };
        last = row.try_get(0)?;
        for row in &rows {
            if let Err(fault) = chain.check(&rows::stored(row, 0)?, None) {
                return Ok(Err(fault));
            }
        }
    }
    let statement = link.statement(usage::READ).await?;
    let (since, after, through) = usage::bounds(Span::All);
    let values: Values<'_> = &[&account, &since, &after, &through];
    let used = usage::all(&link.client.query(&statement, values).await?)?;
    Ok(chain.finish(said, &used))
}
