//! What a gateway does beside answering: months to be closed, heads to be sealed, tasks outside,
//! answers that were cut off, and the keys that accounts pay their providers with.

use std::collections::BTreeMap;

use mesh_core::billing::account::order::{Reference, due, lapsed};
use mesh_core::billing::account::{Account, Lose, Month};
use mesh_core::billing::ledger::Record;
use mesh_core::billing::ledger::seal::Head;
use mesh_core::billing::usage::{Key, Sums};
use mesh_core::ids::AccountId;
use mesh_core::limits::STORE_LIST_MAX;
use mesh_core::time::UnixMillis;

use super::desk::Desk;
use super::rows::{self, signed, uuid};
use super::{statements, usage};
use crate::gateway::store::books;
use crate::gateway::store::error::StoreError;
use crate::gateway::store::types::{NewTask, Span, Task};

impl Desk {
    /// All accounts as they stand, without holds.
    async fn standings(&mut self) -> Result<Vec<(AccountId, Account)>, StoreError> {
        self.list("SELECT id, state FROM accounts", &[], |row| {
            Ok((rows::account_id(row, 0)?, rows::json("an account", row, 1)?))
        })
        .await
    }

    /// The months of all accounts that are over and not invoiced, the earliest of each first.
    pub(in crate::gateway::store) async fn months_due(
        &mut self,
        now: UnixMillis,
    ) -> Result<Vec<(AccountId, Month)>, StoreError> {
        let mut months = Vec::new();
        for (id, account) in self.standings().await? {
            months.extend(due(&account, now).into_iter().map(|month| (id, month)));
        }
        Ok(months)
    }

    /// The accounts that have credits which have ended.
    pub(super) async fn lapsed(&mut self, now: UnixMillis) -> Result<Vec<AccountId>, StoreError> {
        let standings = self.standings().await?.into_iter();
        let over = standings.filter(|(_, account)| !lapsed(account, now).is_empty());
        Ok(over.map(|(id, _)| id).collect())
    }

    pub(in crate::gateway::store) async fn heads(
        &mut self,
    ) -> Result<BTreeMap<AccountId, Head>, StoreError> {
        let heads = self.list(
            "SELECT id, state, entries, head FROM accounts",
            &[],
            |row| {
                let (_, entries, hash) = rows::standing(row, 1)?;
                Ok((rows::account_id(row, 0)?, Head { entries, hash }))
            },
        );
        Ok(heads.await?.into_iter().collect())
    }

    pub(in crate::gateway::store) async fn usage(
        &mut self,
        account: AccountId,
        span: Span,
    ) -> Result<Vec<(Key, Sums)>, StoreError> {
        let (since, after, through) = usage::bounds(span);
        let account = uuid(account.as_u128());
        self.list(
            usage::READ,
            &[&account, &since, &after, &through],
            usage::row,
        )
        .await
    }

    pub(in crate::gateway::store) async fn ordered(
        &mut self,
        account: AccountId,
        reference: &Reference,
    ) -> Result<Option<Record>, StoreError> {
        let (account, reference) = (vec![uuid(account.as_u128())], vec![reference.as_str()]);
        let stored = self
            .find(statements::ORDERED, &[&account, &reference], |row| {
                rows::stored(row, 2)
            })
            .await?;
        let entry = stored.as_ref().map(books::entry).transpose()?;
        Ok(entry.map(|entry| entry.record))
    }

    pub(in crate::gateway::store) async fn put_task(
        &mut self,
        task: &NewTask,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let account = uuid(task.account.as_u128());
        self.write(
            statements::PUT_TASK,
            &[&task.kind, &task.key, &account, &task.body, &signed(now.0)],
        )
        .await?;
        Ok(())
    }

    pub(in crate::gateway::store) async fn tasks(
        &mut self,
        kind: &str,
    ) -> Result<Vec<Task>, StoreError> {
        let sql = "SELECT kind, key, account, body, created_at FROM tasks \
                   WHERE kind = $1 AND done_at IS NULL ORDER BY created_at, key LIMIT $2";
        let most = i64::try_from(STORE_LIST_MAX).unwrap_or(i64::MAX);
        self.list(sql, &[&kind, &most], |row| {
            Ok(Task {
                kind: row.try_get(0)?,
                key: row.try_get(1)?,
                account: rows::account_id(row, 2)?,
                body: row.try_get(3)?,
                created_at: rows::time(row, 4)?,
            })
        })
        .await
    }

    /// Writes down how far a task is; done, it is on no list any more.
    pub(in crate::gateway::store) async fn update_task(
        &mut self,
        kind: &str,
        key: &str,
        body: &str,
        done_at: Option<UnixMillis>,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE tasks SET body = $3, done_at = $4 \
                   WHERE kind = $1 AND key = $2 AND done_at IS NULL";
        let done_at = done_at.map(|at| signed(at.0));
        self.write(sql, &[&kind, &key, &body, &done_at]).await?;
        Ok(())
    }

    /// Remembers what would be lost of a request that this gateway holds. It need not be on disk: what a
    /// crash of the server takes of it is said again, a little later.
    pub(in crate::gateway::store) async fn checkpoint(
        &mut self,
        id: AccountId,
        lose: &Lose,
    ) -> Result<(), StoreError> {
        let text =
            serde_json::to_string(lose).map_err(|error| StoreError::Failed(error.to_string()))?;
        let (account, request) = (uuid(id.as_u128()), uuid(lose.request.as_u128()));
        let me = uuid(self.me().as_u128());
        self.begin().await?;
        self.write("SET LOCAL synchronous_commit = off", &[])
            .await?;
        let sql = "INSERT INTO running (account, request, gateway, lose) \
                   SELECT account, request, gateway, $4 FROM holds \
                   WHERE account = $1 AND request = $2 AND gateway = $3 \
                   ON CONFLICT (account, request) DO UPDATE \
                   SET gateway = excluded.gateway, lose = excluded.lose";
        self.write(sql, &[&account, &request, &me, &text]).await?;
        Ok(())
    }

    pub(in crate::gateway::store) async fn provider_key(
        &mut self,
        id: AccountId,
        provider: &str,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT sealed FROM provider_keys WHERE account = $1 AND provider = $2";
        self.find(sql, &[&uuid(id.as_u128()), &provider], |row| {
            Ok(row.try_get(0)?)
        })
        .await
    }

    /// Keeps an account's key, or forgets it.
    pub(in crate::gateway::store) async fn set_provider_key(
        &mut self,
        id: AccountId,
        provider: &str,
        sealed: Option<&[u8]>,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let account = uuid(id.as_u128());
        self.begin().await?;
        // Before any hold that is decided on it, or after.
        let lock = "SELECT 1 FROM accounts WHERE id = $1 FOR NO KEY UPDATE";
        let known = self.find(lock, &[&account], |_| Ok(())).await?;
        known.ok_or(StoreError::UnknownAccount)?;
        match sealed {
            Some(sealed) => {
                let sql = "INSERT INTO provider_keys (account, provider, sealed, set_at) \
                           VALUES ($1, $2, $3, $4) ON CONFLICT (account, provider) DO UPDATE \
                           SET sealed = excluded.sealed, set_at = excluded.set_at";
                self.write(sql, &[&account, &provider, &sealed, &signed(now.0)])
                    .await?
            }
            None => {
                let sql = "DELETE FROM provider_keys WHERE account = $1 AND provider = $2";
                self.write(sql, &[&account, &provider]).await?
            }
        };
        Ok(())
    }
}
