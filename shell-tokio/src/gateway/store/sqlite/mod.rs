//! The store in one file: no server to install.
//!
//! ```text
//!   Sqlite (cloneable) ── bounded queue ──▶ writer thread ── one transaction a batch ──▶ SQLite
//!        ▲                                    │ holds, in memory
//!        └────────── answered after the commit ──────────┘
//! ```
//!
//! One thread owns the connection. It takes whatever waits in the queue, runs all of it inside one
//! transaction, commits, and only then answers: many requests share one flush of the disk.
//!
//! A gateway holds a lock beside the file, so that there is one at a time: holds live in its memory,
//! and a crash voids them. Administration may open the same file meanwhile, and takes turns with it
//! by SQLite's own locks; nothing is cached, so a revocation counts at the next use.

mod answers;
mod audit;
mod books;
mod chores;
mod directory;
mod open;
mod rows;
mod usage;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use mesh_core::billing::account::order::{Order, Reference};
use mesh_core::billing::account::{Command, Lose, Month, Summary};
use mesh_core::billing::ledger::seal::Head;
use mesh_core::billing::ledger::{Record, Stored};
use mesh_core::billing::usage::{Key, Sums};
use mesh_core::gateway::{Admitted, Keep, Recalled};
use mesh_core::identity::Fingerprint;
use mesh_core::identity::api_key::KeyHash;
use mesh_core::ids::{AccountId, DeviceId, KeyId, RequestId};
use mesh_core::time::UnixMillis;

pub(super) use self::audit::verify;
use super::books::Done;
use super::error::{OpenError, StoreError};
use super::types::{
    AccountRow, Booked, DeviceRow, KeyRow, NewAccount, NewDevice, NewKey, NewTask, Ordered,
    Revocation, Span, Task,
};
use super::{Load, Role};

/// A handle on the writer, which ends when the last of them is dropped; dropping that one waits
/// until everything that was queued is on disk.
#[derive(Clone, Debug)]
pub(super) struct Sqlite(Arc<writer::Writer>);

impl Sqlite {
    pub(super) fn open(path: &Path, role: Role) -> Result<Self, OpenError> {
        let opened = open::open(path, role)?;
        Ok(Self(Arc::new(writer::Writer::start(opened, role)?)))
    }

    pub(super) async fn lose_all(&self, now: UnixMillis) -> Result<usize, StoreError> {
        self.0
            .as_gateway()?
            .submit(move |work| work.lose_all(now))
            .await
    }

    pub(super) async fn checkpoint(
        &self,
        account: AccountId,
        lose: Lose,
    ) -> Result<(), StoreError> {
        self.0
            .as_gateway()?
            .submit(move |work| work.checkpoint(account, &lose))
            .await
    }

    pub(super) async fn usage(
        &self,
        account: AccountId,
        span: Span,
    ) -> Result<Vec<(Key, Sums)>, StoreError> {
        self.0.submit(move |work| work.usage(account, span)).await
    }

    pub(super) async fn ordered(
        &self,
        account: AccountId,
        reference: Reference,
    ) -> Result<Option<Record>, StoreError> {
        self.0
            .submit(move |work| work.ordered(account, &reference))
            .await
    }

    pub(super) async fn months_due(
        &self,
        now: UnixMillis,
    ) -> Result<Vec<(AccountId, Month)>, StoreError> {
        self.0.submit(move |work| work.months_due(now)).await
    }

    pub(super) async fn lapse_all(&self, now: UnixMillis) -> Result<(), StoreError> {
        self.0.submit(move |work| work.lapse_all(now)).await
    }

    pub(super) async fn heads(&self) -> Result<BTreeMap<AccountId, Head>, StoreError> {
        self.0.submit(|work| work.heads()).await
    }

    pub(super) async fn put_task(&self, task: NewTask, now: UnixMillis) -> Result<(), StoreError> {
        self.0.submit(move |work| work.put_task(&task, now)).await
    }

    pub(super) async fn tasks(&self, kind: &'static str) -> Result<Vec<Task>, StoreError> {
        self.0.submit(move |work| work.tasks(kind)).await
    }

    pub(super) async fn update_task(
        &self,
        kind: &'static str,
        key: String,
        body: String,
        done_at: Option<UnixMillis>,
    ) -> Result<(), StoreError> {
        self.0
            .submit(move |work| work.update_task(kind, &key, &body, done_at))
            .await
    }

    pub(super) async fn provider_key(
        &self,
        account: AccountId,
        provider: String,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.0
            .submit(move |work| work.provider_key(account, &provider))
            .await
    }

    pub(super) async fn set_provider_key(
        &self,
        account: AccountId,
        provider: String,
        sealed: Option<Vec<u8>>,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.0
            .submit(move |work| work.set_provider_key(account, &provider, sealed.as_deref(), now))
            .await
    }

    pub(super) async fn create_account(
        &self,
        account: NewAccount,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.0
            .submit(move |work| work.create_account(&account, now))
            .await
    }

    pub(super) async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError> {
        self.0.submit(|work| work.accounts()).await
    }

    pub(super) async fn account_named(&self, name: &str) -> Result<AccountRow, StoreError> {
        let name = name.to_owned();
        self.0.submit(move |work| work.account_named(&name)).await
    }

    pub(super) async fn create_key(&self, key: NewKey, now: UnixMillis) -> Result<(), StoreError> {
        self.0.submit(move |work| work.create_key(&key, now)).await
    }

    pub(super) async fn keys(&self, account: Option<AccountId>) -> Result<Vec<KeyRow>, StoreError> {
        self.0.submit(move |work| work.keys(account)).await
    }

    pub(super) async fn key(&self, hash: KeyHash) -> Result<KeyRow, StoreError> {
        self.0.submit(move |work| work.key_by_hash(&hash)).await
    }

    pub(super) async fn revoke_key(
        &self,
        key: KeyId,
        devices_too: bool,
        now: UnixMillis,
    ) -> Result<Vec<DeviceRow>, StoreError> {
        self.0
            .submit(move |work| work.revoke_key(key, devices_too, now))
            .await
    }

    pub(super) async fn enrol(
        &self,
        device: NewDevice,
        now: UnixMillis,
    ) -> Result<AccountId, StoreError> {
        self.0.submit(move |work| work.enrol(&device, now)).await
    }

    pub(super) async fn devices(
        &self,
        account: Option<AccountId>,
    ) -> Result<Vec<DeviceRow>, StoreError> {
        self.0.submit(move |work| work.devices(account)).await
    }

    pub(super) async fn revoke_device(
        &self,
        device: DeviceId,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.0
            .submit(move |work| work.revoke_device(device, now))
            .await
    }

    pub(super) async fn revocations(&self, after: u64) -> Result<Vec<Revocation>, StoreError> {
        self.0.submit(move |work| work.revocations(after)).await
    }

    pub(super) async fn last_revocation(&self) -> Result<u64, StoreError> {
        self.0.submit(|work| work.last_revocation()).await
    }

    pub(super) async fn authorities(&self) -> Result<Option<Fingerprint>, StoreError> {
        self.0.submit(|work| work.authorities()).await
    }

    pub(super) async fn claim_authorities(
        &self,
        own: Fingerprint,
    ) -> Result<Fingerprint, StoreError> {
        self.0.submit(move |work| work.claim_authorities(own)).await
    }

    pub(super) async fn adopt_authorities(&self, own: Fingerprint) -> Result<(), StoreError> {
        self.0.submit(move |work| work.adopt_authorities(own)).await
    }

    pub(super) async fn admit(
        &self,
        device: DeviceId,
        certificate: Fingerprint,
        now: UnixMillis,
    ) -> Result<Admitted, StoreError> {
        self.0
            .as_gateway()?
            .submit(move |work| work.admit(device, certificate, now))
            .await
    }

    pub(super) async fn command(
        &self,
        account: AccountId,
        command: Command,
        keep: Option<Box<Keep>>,
        now: UnixMillis,
    ) -> Result<Done, StoreError> {
        let request = command.request();
        let device = command.device();
        let keep = keep.zip(device);
        let work = move |work: &mut writer::Work<'_>| {
            let done = work.carry_out(account, command, now)?;
            if let Some((keep, device)) = keep.filter(|_| done.is_new) {
                work.keep_answer((account, device, request), &keep, now)?;
            }
            Ok(done)
        };
        self.0.as_gateway()?.submit(work).await
    }

    pub(super) async fn recall(
        &self,
        account: AccountId,
        device: DeviceId,
        request: RequestId,
        now: UnixMillis,
    ) -> Result<Recalled, StoreError> {
        self.0
            .as_gateway()?
            .submit(move |work| work.recall(account, device, request, now))
            .await
    }

    pub(super) async fn forget_answers(&self, now: UnixMillis) -> Result<usize, StoreError> {
        self.0.submit(move |work| work.forget_answers(now)).await
    }

    pub(super) async fn cut_off(
        &self,
        account: AccountId,
        lose: Lose,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let command = Command::Lose(lose);
        self.command(account, command, None, now).await.map(drop)
    }

    pub(super) async fn order(
        &self,
        account: AccountId,
        order: Order,
        now: UnixMillis,
    ) -> Result<Ordered, StoreError> {
        self.0
            .submit(move |work| work.order(account, &order, now))
            .await
    }

    pub(super) async fn summary(
        &self,
        account: AccountId,
        now: UnixMillis,
    ) -> Result<Summary, StoreError> {
        self.0.submit(move |work| work.summary(account, now)).await
    }

    pub(super) async fn booked(
        &self,
        account: AccountId,
        request: RequestId,
    ) -> Result<Option<Booked>, StoreError> {
        self.0
            .submit(move |work| work.booked(account, request))
            .await
    }

    pub(super) async fn entries(
        &self,
        account: AccountId,
        from: u64,
    ) -> Result<Vec<Stored>, StoreError> {
        self.0.submit(move |work| work.entries(account, from)).await
    }

    pub(super) fn load(&self) -> Load {
        self.0.load()
    }
}
