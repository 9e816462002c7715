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

mod audit;
mod books;
mod directory;
mod open;
mod rows;
mod writer;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use mesh_core::billing::account::order::Order;
use mesh_core::billing::account::{Command, Summary};
use mesh_core::billing::ledger::Stored;
use mesh_core::gateway::Admitted;
use mesh_core::identity::Fingerprint;
use mesh_core::identity::api_key::KeyHash;
use mesh_core::ids::{AccountId, DeviceId, KeyId, RequestId};
use mesh_core::time::UnixMillis;

pub(super) use self::audit::verify;
use super::books::Done;
use super::error::{OpenError, StoreError};
use super::types::{
    AccountRow, Booked, DeviceRow, KeyRow, NewAccount, NewDevice, NewKey, Ordered, Revocation,
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
        now: UnixMillis,
    ) -> Result<Done, StoreError> {
        self.0
            .as_gateway()?
            .submit(move |work| work.carry_out(account, command, now))
            .await
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
