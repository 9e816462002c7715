//! What a gateway does beside answering: months to be closed, heads to be sealed, tasks outside,
//! answers that a crash cut off, and the keys that accounts pay their providers with.

use std::collections::BTreeMap;

use mesh_core::billing::account::order::due;
use mesh_core::billing::account::{Command, Lose, Month};
use mesh_core::billing::ledger::Hash;
use mesh_core::billing::ledger::seal::Head;
use mesh_core::ids::{AccountId, RequestId};
use mesh_core::limits::STORE_LIST_MAX;
use mesh_core::time::UnixMillis;
use rusqlite::{OptionalExtension, params};

use super::books::read_standing;
use super::rows::{self, blob, signed};
use super::writer::Work;
use crate::gateway::store::error::StoreError;
use crate::gateway::store::types::{NewTask, Task};

impl Work<'_> {
    fn account_ids(&self) -> Result<Vec<AccountId>, StoreError> {
        let mut query = self.connection.prepare_cached("SELECT id FROM accounts")?;
        let ids = query.query_map([], |row| rows::account_id(row, 0))?;
        Ok(ids.collect::<Result<_, _>>()?)
    }

    /// The months of all accounts that are over and not invoiced, the earliest of each first.
    pub(in crate::gateway::store) fn months_due(
        &self,
        now: UnixMillis,
    ) -> Result<Vec<(AccountId, Month)>, StoreError> {
        let mut months = Vec::new();
        for id in self.account_ids()? {
            let account = read_standing(self.connection, id)?.account;
            months.extend(due(&account, now).into_iter().map(|month| (id, month)));
        }
        Ok(months)
    }

    /// Books what has ended of all accounts' credits.
    pub(super) fn lapse_all(&mut self, now: UnixMillis) -> Result<(), StoreError> {
        for id in self.account_ids()? {
            self.lapse(id, now)?;
        }
        Ok(())
    }

    pub(in crate::gateway::store) fn heads(&self) -> Result<BTreeMap<AccountId, Head>, StoreError> {
        let mut query = self
            .connection
            .prepare_cached("SELECT id, entries, head FROM accounts")?;
        let heads = query.query_map([], |row| {
            let hash = Hash(row.get(2)?);
            let entries = rows::sequence(row, 1)?;
            Ok((rows::account_id(row, 0)?, Head { entries, hash }))
        })?;
        Ok(heads.collect::<Result<_, _>>()?)
    }

    pub(in crate::gateway::store) fn put_task(
        &self,
        task: &NewTask,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.connection
            .prepare_cached(
                "INSERT INTO tasks (kind, key, account, body, created_at) \
                 VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
            )?
            .execute(params![
                task.kind,
                task.key,
                blob(task.account.as_u128()),
                task.body,
                signed(now.0),
            ])?;
        Ok(())
    }

    pub(in crate::gateway::store) fn tasks(&self, kind: &str) -> Result<Vec<Task>, StoreError> {
        let mut query = self.connection.prepare_cached(
            "SELECT kind, key, account, body, created_at FROM tasks \
             WHERE kind = ?1 AND done_at IS NULL ORDER BY created_at, key LIMIT ?2",
        )?;
        let most = i64::try_from(STORE_LIST_MAX).unwrap_or(i64::MAX);
        let tasks = query.query_map(params![kind, most], |row| {
            Ok(Task {
                kind: row.get(0)?,
                key: row.get(1)?,
                account: rows::account_id(row, 2)?,
                body: row.get(3)?,
                created_at: UnixMillis(rows::sequence(row, 4)?),
            })
        })?;
        Ok(tasks.collect::<Result<_, _>>()?)
    }

    /// Writes down how far a task is; done, it is on no list any more.
    pub(in crate::gateway::store) fn update_task(
        &self,
        kind: &str,
        key: &str,
        body: &str,
        done_at: Option<UnixMillis>,
    ) -> Result<(), StoreError> {
        self.connection
            .prepare_cached(
                "UPDATE tasks SET body = ?3, done_at = ?4 \
                 WHERE kind = ?1 AND key = ?2 AND done_at IS NULL",
            )?
            .execute(params![kind, key, body, done_at.map(|at| signed(at.0))])?;
        Ok(())
    }

    /// Remembers what would be lost of a request that is held.
    pub(in crate::gateway::store) fn checkpoint(
        &mut self,
        id: AccountId,
        lose: &Lose,
    ) -> Result<(), StoreError> {
        if !self.holds.has(id, lose.request) {
            return Ok(());
        }
        let text =
            serde_json::to_string(lose).map_err(|error| StoreError::Failed(error.to_string()))?;
        self.connection
            .prepare_cached(
                "INSERT INTO running (account, request, lose) VALUES (?1, ?2, ?3) \
                 ON CONFLICT DO UPDATE SET lose = excluded.lose",
            )?
            .execute(params![blob(id.as_u128()), lose.request.to_string(), text])?;
        Ok(())
    }

    pub(super) fn forget_running(
        &self,
        id: AccountId,
        request: RequestId,
    ) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("DELETE FROM running WHERE account = ?1 AND request = ?2")?
            .execute(params![blob(id.as_u128()), request.to_string()])?;
        Ok(())
    }

    /// Books what the last gateway was in the middle of when it went down, and says how much that was.
    pub(in crate::gateway::store) fn lose_all(
        &mut self,
        now: UnixMillis,
    ) -> Result<usize, StoreError> {
        let lost: Vec<(AccountId, String)> = {
            let mut query = self
                .connection
                .prepare("SELECT account, lose FROM running")?;
            let rows = query.query_map([], |row| Ok((rows::account_id(row, 0)?, row.get(1)?)))?;
            rows.collect::<Result<_, _>>()?
        };
        for (id, text) in &lost {
            let lose: Lose = serde_json::from_str(text)
                .map_err(|error| StoreError::Damaged(format!("a running answer: {error}")))?;
            self.carry_out(*id, Command::Lose(lose), now)?;
        }
        Ok(lost.len())
    }

    pub(super) fn has_provider_key(
        &self,
        id: AccountId,
        provider: &str,
    ) -> Result<bool, StoreError> {
        Ok(self.provider_key(id, provider)?.is_some())
    }

    pub(in crate::gateway::store) fn provider_key(
        &self,
        id: AccountId,
        provider: &str,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self
            .connection
            .prepare_cached(
                "SELECT sealed FROM provider_keys WHERE account = ?1 AND provider = ?2",
            )?
            .query_row(params![blob(id.as_u128()), provider], |row| row.get(0))
            .optional()?)
    }

    /// Keeps an account's key, or forgets it.
    pub(in crate::gateway::store) fn set_provider_key(
        &self,
        id: AccountId,
        provider: &str,
        sealed: Option<&[u8]>,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        read_standing(self.connection, id)?;
        let account = blob(id.as_u128());
        match sealed {
            Some(sealed) => self
                .connection
                .prepare_cached(
                    "INSERT INTO provider_keys (account, provider, sealed, set_at) \
                     VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE \
                     SET sealed = excluded.sealed, set_at = excluded.set_at",
                )?
                .execute(params![account, provider, sealed, signed(now.0)])?,
            None => self
                .connection
                .prepare_cached("DELETE FROM provider_keys WHERE account = ?1 AND provider = ?2")?
                .execute(params![account, provider])?,
        };
        Ok(())
    }
}
