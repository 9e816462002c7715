//! What the gateway remembers: accounts and their ledgers, API keys, devices.
//!
//! ```text
//!   Store (cloneable) ── bounded queue ──▶ writer thread ── one transaction a batch ──▶ SQLite
//!        ▲                                   │ holds, in memory
//!        └────────── answered after the commit ──────────┘
//! ```
//!
//! One thread owns the connection. It takes whatever waits in the queue, runs all of it inside one
//! transaction, commits, and only then answers: many requests share one flush of the disk. The rules
//! of money are [`mesh_core::billing::account`]'s; this module looks up what they ask for and writes
//! what they say.
//!
//! A gateway holds a lock beside the file, so that there is one at a time: holds live in its memory.
//! Administration may open the same file meanwhile, and takes turns with it by SQLite's own locks;
//! nothing is cached, so a revocation counts at the next use.
//!
//! # Invariants
//!
//! 1. What was answered as written is on disk.
//! 2. Work that fails changes nothing, on disk or in memory, and takes none of its batch along.
//! 3. A hold is answered after everything it was decided on is on disk. A crash voids holds.
//! 4. Entries of the ledger are only ever added.

mod audit;
mod books;
mod directory;
mod error;
mod open;
mod rows;
mod writer;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use mesh_core::billing::account::{Command, Hold, Settle, Summary};
use mesh_core::billing::ledger::{Charge, Hash, Stored};
use mesh_core::billing::money::Nanos;
use mesh_core::billing::tier::Tier;
use mesh_core::gateway::Admitted;
use mesh_core::identity::Fingerprint;
use mesh_core::identity::api_key::{KeyHash, Scopes};
use mesh_core::ids::{AccountId, DeviceId, KeyId, RequestId};
use mesh_core::time::UnixMillis;

pub use audit::{AccountReport, AuditError, Report, verify};
pub use error::{OpenError, StoreError};
pub use open::Role;
pub use writer::Load;

/// The ceiling of a new account, a month: $100.00.
pub const CEILING_DEFAULT: Nanos = Nanos(100_000_000_000);

/// A handle on the store. Clones share one writer, which ends when the last of them is dropped;
/// dropping that one waits until everything that was queued is on disk.
///
/// A call whose future is dropped may still be carried out.
#[derive(Clone, Debug)]
pub struct Store(Arc<writer::Writer>);

/// An account to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAccount {
    /// Its id, fresh.
    pub id: AccountId,
    /// What its operator calls it; no two have the same.
    pub name: String,
    /// How it is charged.
    pub tier: Tier,
    /// The most that may be spent in a month.
    pub ceiling: Nanos,
}

impl NewAccount {
    /// On the terms of a new account: managed, with [`CEILING_DEFAULT`].
    #[must_use]
    pub fn managed(id: AccountId, name: impl Into<String>) -> Self {
        let name = name.into();
        let (tier, ceiling) = (Tier::MANAGED, CEILING_DEFAULT);
        Self {
            id,
            name,
            tier,
            ceiling,
        }
    }
}

/// An account that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRow {
    /// Its id.
    pub id: AccountId,
    /// What its operator calls it.
    pub name: String,
    /// How it is charged.
    pub tier: Tier,
    /// The most that may be spent in a month.
    pub ceiling: Nanos,
    /// When it was opened.
    pub created_at: UnixMillis,
}

/// A key to be stored: its hash, never itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// Its id, fresh.
    pub id: KeyId,
    /// Whose.
    pub account: AccountId,
    /// What its operator calls it.
    pub label: String,
    /// SHA-256 of the key.
    pub hash: KeyHash,
    /// What it may do.
    pub scopes: Scopes,
}

/// A key that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// Its id.
    pub id: KeyId,
    /// Whose.
    pub account: AccountId,
    /// What its operator calls it.
    pub label: String,
    /// What it may do.
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When it was revoked, if it was.
    pub revoked_at: Option<UnixMillis>,
}

/// A device to be enrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDevice {
    /// Its id, fresh.
    pub id: DeviceId,
    /// The key that enrols it. The device joins that key's account.
    pub key: KeyId,
    /// SHA-256 of its certificate.
    pub certificate: Fingerprint,
    /// When the certificate ends.
    pub not_after: UnixMillis,
}

/// A device that was enrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRow {
    /// Its id.
    pub id: DeviceId,
    /// Whose.
    pub account: AccountId,
    /// The key that enrolled it.
    pub key: KeyId,
    /// SHA-256 of its certificate.
    pub certificate: Fingerprint,
    /// When the certificate ends.
    pub not_after: UnixMillis,
    /// When it was enrolled.
    pub enrolled_at: UnixMillis,
    /// When it was revoked, if it was.
    pub revoked_at: Option<UnixMillis>,
    /// When it last began a session, if it ever did.
    pub seen_at: Option<UnixMillis>,
}

/// A device was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// 1, 2, 3 … over all devices.
    pub sequence: u64,
    /// Which.
    pub device: DeviceId,
}

/// A charge and its place in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booked {
    /// The entry's number within the account.
    pub sequence: u64,
    /// When.
    pub at: UnixMillis,
    /// What was charged.
    pub charge: Charge,
    /// The entry's link in the account's chain.
    pub hash: Hash,
}

impl Store {
    /// Opens the file, or makes it; blocks.
    ///
    /// # Errors
    ///
    /// [`OpenError`] when another gateway has it, when it is no store, is damaged or is newer than
    /// this program, and when the operating system refuses.
    pub fn open(path: &Path, role: Role) -> Result<Self, OpenError> {
        let opened = open::open(path, role)?;
        Ok(Self(Arc::new(writer::Writer::start(opened, role)?)))
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
        self.0
            .submit(move |work| work.create_account(&account, now))
            .await
    }

    /// Every account by name, at most [`STORE_LIST_MAX`](mesh_core::limits::STORE_LIST_MAX).
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError> {
        self.0.submit(|work| work.accounts()).await
    }

    /// The account of that name.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownAccount`], or the store is unavailable.
    pub async fn account_named(&self, name: &str) -> Result<AccountRow, StoreError> {
        let name = name.to_owned();
        self.0.submit(move |work| work.account_named(&name)).await
    }

    /// Stores a key.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownAccount`], [`StoreError::BadName`], or the store is unavailable.
    pub async fn create_key(&self, key: NewKey, now: UnixMillis) -> Result<(), StoreError> {
        self.0.submit(move |work| work.create_key(&key, now)).await
    }

    /// The keys of one account, or of all, the oldest first.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn keys(&self, account: Option<AccountId>) -> Result<Vec<KeyRow>, StoreError> {
        self.0.submit(move |work| work.keys(account)).await
    }

    /// The key with this hash, unless it was revoked.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownKey`], [`StoreError::KeyRevoked`], or the store is unavailable.
    pub async fn key(&self, hash: KeyHash) -> Result<KeyRow, StoreError> {
        self.0.submit(move |work| work.key_by_hash(&hash)).await
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
        self.0
            .submit(move |work| work.revoke_key(key, devices_too, now))
            .await
    }

    /// Enrols a device into the account of the key, and says which that is.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownKey`], [`StoreError::KeyRevoked`], [`StoreError::DeviceTaken`],
    /// [`StoreError::TooManyDevices`], or the store is unavailable.
    pub async fn enrol(&self, device: NewDevice, now: UnixMillis) -> Result<AccountId, StoreError> {
        self.0.submit(move |work| work.enrol(&device, now)).await
    }

    /// The devices of one account, or of all, the oldest first.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn devices(&self, account: Option<AccountId>) -> Result<Vec<DeviceRow>, StoreError> {
        self.0.submit(move |work| work.devices(account)).await
    }

    /// Revokes a device. Again is no error.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownDevice`], or the store is unavailable.
    pub async fn revoke_device(&self, device: DeviceId, now: UnixMillis) -> Result<(), StoreError> {
        self.0
            .submit(move |work| work.revoke_device(device, now))
            .await
    }

    /// The revocations after one that was seen (0: from the beginning), the oldest first, also those
    /// that another process made. A gateway asks from time to time, and ends the devices' sessions.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn revocations(&self, after: u64) -> Result<Vec<Revocation>, StoreError> {
        self.0.submit(move |work| work.revocations(after)).await
    }

    /// The number of the last revocation; 0 if there was none.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn last_revocation(&self) -> Result<u64, StoreError> {
        self.0.submit(|work| work.last_revocation()).await
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
        self.0
            .as_gateway()?
            .submit(move |work| work.admit(device, certificate, now))
            .await
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
        let carry_out = move |work: &mut writer::Work<'_>| {
            work.carry_out(account, hold.request, Command::Hold(hold), now)
        };
        self.0.as_gateway()?.submit(carry_out).await
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
        let carry_out = move |work: &mut writer::Work<'_>| work.settle(account, settle, now);
        self.0.as_gateway()?.submit(carry_out).await
    }

    /// Voids the hold; the request's id is free again. Again is no error.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn release(
        &self,
        account: AccountId,
        request: RequestId,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let carry_out = move |work: &mut writer::Work<'_>| {
            work.carry_out(account, request, Command::Release(request), now)
        };
        self.0.as_gateway()?.submit(carry_out).await
    }

    /// The account in figures. What is held is known to the gateway's own store only.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownAccount`], or the store is unavailable.
    pub async fn summary(
        &self,
        account: AccountId,
        now: UnixMillis,
    ) -> Result<Summary, StoreError> {
        self.0.submit(move |work| work.summary(account, now)).await
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
        self.0
            .submit(move |work| work.booked(account, request))
            .await
    }

    /// An account's ledger from an entry on, at most
    /// [`LEDGER_PAGE_MAX`](mesh_core::limits::LEDGER_PAGE_MAX) entries.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn entries(&self, account: AccountId, from: u64) -> Result<Vec<Stored>, StoreError> {
        self.0.submit(move |work| work.entries(account, from)).await
    }

    /// How much the writer has done.
    #[must_use]
    pub fn load(&self) -> Load {
        self.0.load()
    }
}
