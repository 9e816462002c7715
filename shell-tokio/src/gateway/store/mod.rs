//! What the gateway remembers: accounts and their ledgers, API keys, devices.
//!
//! ```text
//!   Store (cloneable) ── bounded queue ──▶ writer ── one transaction a batch ──▶ database
//!        ▲                                   │ rules of money
//!        └────────── answered after the commit ──────────┘
//! ```
//!
//! A writer takes whatever waits in its queue, runs all of it inside one transaction, commits, and
//! only then answers: many requests share one flush of the disk. The rules of money are
//! [`mesh_core::billing::account`]'s; a store looks up what they ask for and writes what they say.
//!
//! # Invariants
//!
//! 1. What was answered as written is on disk.
//! 2. Work that fails changes nothing, on disk or in memory, and takes none of its batch along.
//! 3. A hold is answered after everything it was decided on is on disk. It ends with its gateway.
//! 4. Entries of the ledger are only ever added.

mod audit;
mod books;
mod error;
mod sqlite;
mod types;

#[cfg(test)]
mod conformance;

use std::path::Path;

use mesh_core::billing::account::order::Order;
use mesh_core::billing::account::{Command, Hold, Release, Settle, Summary};
use mesh_core::billing::ledger::{Charge, Stored};
use mesh_core::gateway::{Admitted, Recalled};
use mesh_core::identity::Fingerprint;
use mesh_core::identity::api_key::KeyHash;
use mesh_core::ids::{AccountId, DeviceId, KeyId, RequestId};
use mesh_core::time::UnixMillis;

pub use audit::{AccountReport, AuditError, Report};
use books::Done;
pub use error::{OpenError, StoreError};
pub use types::{
    AccountRow, Booked, CEILING_DEFAULT, DeviceRow, KeyRow, NewAccount, NewDevice, NewKey, Ordered,
    Revocation,
};

/// What a store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// To be the gateway's: everything. One at a time on a file.
    Gateway,
    /// To look, and to change accounts, keys and devices; also while a gateway runs.
    Administration,
}

/// How much a writer has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Transactions committed, or tried to.
    pub batches: u64,
    /// Calls carried out in them.
    pub calls: u64,
}

/// A handle on the store; clones share it. A call whose future is dropped may still be carried out.
#[derive(Clone, Debug)]
pub struct Store(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Sqlite(sqlite::Sqlite),
}

/// The same of whichever store it is.
macro_rules! each {
    ($self:ident, $store:ident => $call:expr) => {
        match &$self.0 {
            Kind::Sqlite($store) => $call,
        }
    };
}

/// Checks every account's ledger in a file; blocks. May run beside the gateway.
///
/// # Errors
///
/// [`AuditError`] when there is nothing that could be checked. What is wrong with a ledger is in the
/// [`Report`].
pub fn verify(path: &Path) -> Result<Report, AuditError> {
    sqlite::verify(path)
}

impl Store {
    /// Opens the file, or makes it; blocks.
    ///
    /// # Errors
    ///
    /// [`OpenError`] when another gateway has it, when it is no store, is damaged or is newer than
    /// this program, and when the operating system refuses.
    pub fn open(path: &Path, role: Role) -> Result<Self, OpenError> {
        sqlite::Sqlite::open(path, role).map(|store| Self(Kind::Sqlite(store)))
    }

    /// Opens an account.
    ///
    /// # Errors
    ///
    /// [`StoreError::NameTaken`], [`StoreError::BadName`], or the store is unavailable.
    pub async fn create_account(
        &self,
        account: NewAccount,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        each!(self, store => store.create_account(account, now).await)
    }

    /// Every account by name, at most [`STORE_LIST_MAX`](mesh_core::limits::STORE_LIST_MAX).
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError> {
        each!(self, store => store.accounts().await)
    }

    /// The account of that name.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownAccount`], or the store is unavailable.
    pub async fn account_named(&self, name: &str) -> Result<AccountRow, StoreError> {
        each!(self, store => store.account_named(name).await)
    }

    /// Stores a key.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownAccount`], [`StoreError::BadName`], or the store is unavailable.
    pub async fn create_key(&self, key: NewKey, now: UnixMillis) -> Result<(), StoreError> {
        each!(self, store => store.create_key(key, now).await)
    }

    /// The keys of one account, or of all, the oldest first.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn keys(&self, account: Option<AccountId>) -> Result<Vec<KeyRow>, StoreError> {
        each!(self, store => store.keys(account).await)
    }

    /// The key with this hash, unless it was revoked.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownKey`], [`StoreError::KeyRevoked`], or the store is unavailable.
    pub async fn key(&self, hash: KeyHash) -> Result<KeyRow, StoreError> {
        each!(self, store => store.key(hash).await)
    }

    /// Revokes a key and says which devices it had enrolled that are not revoked yet; with
    /// `devices_too` those are revoked along with it. Again is no error.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownKey`], or the store is unavailable.
    pub async fn revoke_key(
        &self,
        key: KeyId,
        devices_too: bool,
        now: UnixMillis,
    ) -> Result<Vec<DeviceRow>, StoreError> {
        each!(self, store => store.revoke_key(key, devices_too, now).await)
    }

    /// Enrols a device into the account of the key, and says which that is.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownKey`], [`StoreError::KeyRevoked`], [`StoreError::DeviceTaken`],
    /// [`StoreError::TooManyDevices`], or the store is unavailable.
    pub async fn enrol(&self, device: NewDevice, now: UnixMillis) -> Result<AccountId, StoreError> {
        each!(self, store => store.enrol(device, now).await)
    }

    /// The devices of one account, or of all, the oldest first.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn devices(&self, account: Option<AccountId>) -> Result<Vec<DeviceRow>, StoreError> {
        each!(self, store => store.devices(account).await)
    }

    /// Revokes a device. Again is no error.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownDevice`], or the store is unavailable.
    pub async fn revoke_device(&self, device: DeviceId, now: UnixMillis) -> Result<(), StoreError> {
        each!(self, store => store.revoke_device(device, now).await)
    }

    /// The revocations after one that was seen (0: from the beginning), the oldest first, also those
    /// that another process made. A gateway asks from time to time, and ends the devices' sessions.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn revocations(&self, after: u64) -> Result<Vec<Revocation>, StoreError> {
        each!(self, store => store.revocations(after).await)
    }

    /// The number of the last revocation; 0 if there was none.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn last_revocation(&self) -> Result<u64, StoreError> {
        each!(self, store => store.last_revocation().await)
    }

    /// What is known of an answer that this gateway does not have.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn recall(
        &self,
        account: AccountId,
        request: RequestId,
    ) -> Result<Recalled, StoreError> {
        let booked = self.booked(account, request).await?;
        Ok(booked.map_or(Recalled::Nothing, |booked| {
            Recalled::Charged(Box::new(booked.charge))
        }))
    }

    /// Lets a device in and numbers its session.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotAdmitted`] with the reason, or the store is unavailable.
    pub async fn admit(
        &self,
        device: DeviceId,
        certificate: Fingerprint,
        now: UnixMillis,
    ) -> Result<Admitted, StoreError> {
        each!(self, store => store.admit(device, certificate, now).await)
    }

    /// Sets the worst case aside.
    ///
    /// # Errors
    ///
    /// [`StoreError::Denied`] by the account's rules, or the store is unavailable.
    pub async fn hold(
        &self,
        account: AccountId,
        hold: Hold,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.command(account, Command::Hold(hold), now)
            .await
            .map(drop)
    }

    /// Charges what was used and voids the rest of the hold; on disk before it is answered. A
    /// repeated settle gives the charge that is recorded.
    ///
    /// # Errors
    ///
    /// [`StoreError::Denied`] by the account's rules, or the store is unavailable.
    pub async fn settle(
        &self,
        account: AccountId,
        settle: Settle,
        now: UnixMillis,
    ) -> Result<Charge, StoreError> {
        self.command(account, Command::Settle(settle), now)
            .await?
            .settled()
    }

    /// Voids the hold; the request's id is free again. Again is no error.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn release(
        &self,
        account: AccountId,
        release: Release,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.command(account, Command::Release(release), now)
            .await
            .map(drop)
    }

    async fn command(
        &self,
        account: AccountId,
        command: Command,
        now: UnixMillis,
    ) -> Result<Done, StoreError> {
        each!(self, store => store.command(account, command, now).await)
    }

    /// Carries an order out: money that came in, a credit, other terms. Once for each reference, for
    /// ever; said again it gives what stands in the ledger. On disk before it is answered.
    ///
    /// # Errors
    ///
    /// [`StoreError::Refused`] by the account's rules, [`StoreError::UnknownAccount`], or the store is
    /// unavailable.
    pub async fn order(
        &self,
        account: AccountId,
        order: Order,
        now: UnixMillis,
    ) -> Result<Ordered, StoreError> {
        each!(self, store => store.order(account, order, now).await)
    }

    /// The account in figures. In SQLite, what is held is known to the gateway's own store only.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownAccount`], or the store is unavailable.
    pub async fn summary(
        &self,
        account: AccountId,
        now: UnixMillis,
    ) -> Result<Summary, StoreError> {
        each!(self, store => store.summary(account, now).await)
    }

    /// What was charged for a request, and where it stands in the ledger.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn booked(
        &self,
        account: AccountId,
        request: RequestId,
    ) -> Result<Option<Booked>, StoreError> {
        each!(self, store => store.booked(account, request).await)
    }

    /// An account's ledger from an entry on, at most
    /// [`LEDGER_PAGE_MAX`](mesh_core::limits::LEDGER_PAGE_MAX) entries.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn entries(&self, account: AccountId, from: u64) -> Result<Vec<Stored>, StoreError> {
        each!(self, store => store.entries(account, from).await)
    }

    /// How much the writer has done.
    #[must_use]
    pub fn load(&self) -> Load {
        each!(self, store => store.load())
    }
}
