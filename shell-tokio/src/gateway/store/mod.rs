//! What the gateway remembers: accounts and their ledgers, API keys, devices. In one file, or on a
//! PostgreSQL server that several gateways share.
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
mod place;
mod postgres;
mod sqlite;
mod types;

#[cfg(test)]
mod conformance;

use std::collections::BTreeMap;
use std::path::Path;

use mesh_core::billing::account::order::{Order, Reference};
use mesh_core::billing::account::{Command, Hold, Lose, Month, Release, Settle, Summary};
use mesh_core::billing::ledger::seal::{Head, Seal};
use mesh_core::billing::ledger::{Record, Stored};
use mesh_core::billing::usage::{Key, Sums};
use mesh_core::gateway::{Admitted, Granted, Keep, Recalled, Settled};
use mesh_core::identity::Fingerprint;
use mesh_core::identity::api_key::KeyHash;
use mesh_core::ids::{AccountId, DeviceId, KeyId, RequestId};
use mesh_core::time::UnixMillis;

pub use audit::{AccountReport, AuditError, Report};
use books::Done;
pub use error::{OpenError, StoreError};
pub use place::{Database, Place};
pub use types::{
    AccountRow, Booked, CEILING_DEFAULT, DeviceRow, KeyRow, NewAccount, NewDevice, NewKey, NewTask,
    Ordered, Revocation, Span, Task,
};

/// What a store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// To be the gateway's: everything. One at a time on a file, any number on a server.
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
    Postgres(postgres::Postgres),
}

/// The same of whichever store it is.
macro_rules! each {
    ($self:expr, $store:ident => $call:expr) => {
        match &$self.0 {
            Kind::Sqlite($store) => $call,
            Kind::Postgres($store) => $call,
        }
    };
}

/// Has the same work done by whichever store it is: both have the same words for it, but SQLite's work
/// is done at once, on its own thread, and PostgreSQL's waits for its server.
macro_rules! work {
    ($self:expr, $desk:ident => $work:expr) => {
        match &$self.0 {
            Kind::Sqlite(store) => store.work(move |$desk| $work).await,
            Kind::Postgres(store) => {
                let work = async move |$desk: &mut postgres::Desk| $work.await;
                store.work(work).await
            }
        }
    };
}

/// Checks every account's ledger in a file, with a seal also against what it says; blocks. May run
/// beside the gateway.
///
/// # Errors
///
/// [`AuditError`] when there is nothing that could be checked. What is wrong with a ledger is in the
/// [`Report`].
pub fn verify(path: &Path, seal: Option<&Seal>) -> Result<Report, AuditError> {
    sqlite::verify(path, seal)
}

/// Checks every account's ledger, wherever it is. May run beside gateways.
///
/// # Errors
///
/// As [`verify`].
pub async fn verify_at(place: &Place, seal: Option<&Seal>) -> Result<Report, AuditError> {
    match place {
        Place::Database(database) => postgres::verify(database, seal).await,
        Place::File(path) => {
            let (path, seal) = (path.clone(), seal.cloned());
            let looking = tokio::task::spawn_blocking(move || verify(&path, seal.as_ref())).await;
            // It ends early only if it panicked, or the program ends.
            looking.unwrap_or_else(|_| Err(StoreError::Closed.into()))
        }
    }
}

impl Store {
    /// Opens a store wherever it is, or makes it.
    ///
    /// # Errors
    ///
    /// [`OpenError`] as [`Self::open`], and when a database cannot be reached.
    pub async fn open_at(place: &Place, role: Role) -> Result<Self, OpenError> {
        match place {
            Place::Database(database) => {
                let opened = postgres::Postgres::open(database.clone(), role).await;
                opened.map(|store| Self(Kind::Postgres(store)))
            }
            Place::File(path) => {
                let (file, opened) = (path.clone(), path.clone());
                let opening = tokio::task::spawn_blocking(move || Self::open(&file, role)).await;
                // It ends early only if it panicked, or the program ends.
                opening.unwrap_or_else(|_| Err(OpenError::refused(&opened, StoreError::Closed)))
            }
        }
    }

    /// Opens the file, or makes it; blocks.
    ///
    /// # Errors
    ///
    /// [`OpenError`] when another gateway has it, when it is no store, is damaged or is newer than
    /// this program, and when the operating system refuses.
    pub fn open(path: &Path, role: Role) -> Result<Self, OpenError> {
        sqlite::Sqlite::open(path, role).map(|store| Self(Kind::Sqlite(store)))
    }

    /// This store, if it is a gateway's.
    fn as_gateway(&self) -> Result<&Self, StoreError> {
        each!(self, store => store.as_gateway().map(|_| self))
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
        work!(self, desk => desk.create_account(&account, now))
    }

    /// Every account by name, at most [`STORE_LIST_MAX`](mesh_core::limits::STORE_LIST_MAX).
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError> {
        work!(self, desk => desk.accounts())
    }

    /// The account of that name.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownAccount`], or the store is unavailable.
    pub async fn account_named(&self, name: &str) -> Result<AccountRow, StoreError> {
        let name = name.to_owned();
        work!(self, desk => desk.account_named(&name))
    }

    /// Stores a key.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownAccount`], [`StoreError::BadName`], or the store is unavailable.
    pub async fn create_key(&self, key: NewKey, now: UnixMillis) -> Result<(), StoreError> {
        work!(self, desk => desk.create_key(&key, now))
    }

    /// The keys of one account, or of all, the oldest first.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn keys(&self, account: Option<AccountId>) -> Result<Vec<KeyRow>, StoreError> {
        work!(self, desk => desk.keys(account))
    }

    /// The key with this hash, unless it was revoked.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownKey`], [`StoreError::KeyRevoked`], or the store is unavailable.
    pub async fn key(&self, hash: KeyHash) -> Result<KeyRow, StoreError> {
        work!(self, desk => desk.key_by_hash(&hash))
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
        work!(self, desk => desk.revoke_key(key, devices_too, now))
    }

    /// Enrols a device into the account of the key, and says which that is.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownKey`], [`StoreError::KeyRevoked`], [`StoreError::DeviceTaken`],
    /// [`StoreError::TooManyDevices`], or the store is unavailable.
    pub async fn enrol(&self, device: NewDevice, now: UnixMillis) -> Result<AccountId, StoreError> {
        work!(self, desk => desk.enrol(&device, now))
    }

    /// The devices of one account, or of all, the oldest first.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn devices(&self, account: Option<AccountId>) -> Result<Vec<DeviceRow>, StoreError> {
        work!(self, desk => desk.devices(account))
    }

    /// Revokes a device. Again is no error.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownDevice`], or the store is unavailable.
    pub async fn revoke_device(&self, device: DeviceId, now: UnixMillis) -> Result<(), StoreError> {
        work!(self, desk => desk.revoke_device(device, now))
    }

    /// The revocations after one that was seen (0: from the beginning), the oldest first, also those
    /// that another process made. A gateway asks from time to time, and ends the devices' sessions.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn revocations(&self, after: u64) -> Result<Vec<Revocation>, StoreError> {
        work!(self, desk => desk.revocations(after))
    }

    /// The number of the last revocation; 0 if there was none.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn last_revocation(&self) -> Result<u64, StoreError> {
        work!(self, desk => desk.last_revocation())
    }

    /// Which certificate authorities the gateways of this store have, by their fingerprint; `None` before
    /// the first start.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn authorities(&self) -> Result<Option<Fingerprint>, StoreError> {
        work!(self, desk => desk.authorities())
    }

    /// The same; these are written down if none were, so that of several that begin at once one is the
    /// first for all.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn claim_authorities(&self, own: Fingerprint) -> Result<Fingerprint, StoreError> {
        work!(self, desk => desk.claim_authorities(own))
    }

    /// Writes these down in place of any others.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn adopt_authorities(&self, own: Fingerprint) -> Result<(), StoreError> {
        work!(self, desk => desk.adopt_authorities(own))
    }

    /// What is known of an answer that this gateway does not have, for the device that asks.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn recall(
        &self,
        account: AccountId,
        device: DeviceId,
        request: RequestId,
        now: UnixMillis,
    ) -> Result<Recalled, StoreError> {
        each!(self.as_gateway()?, store => store.recall(account, device, request, now).await)
    }

    /// Deletes what finished answers said that have been kept long enough, and says how many those were.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn forget_answers(&self, now: UnixMillis) -> Result<usize, StoreError> {
        each!(self, store => store.forget_answers(now).await)
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
        work!(self.as_gateway()?, desk => desk.admit(device, certificate, now))
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
    ) -> Result<Granted, StoreError> {
        self.command(account, Command::Hold(hold), now)
            .await?
            .granted()
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
    ) -> Result<Settled, StoreError> {
        self.settle_and_keep(account, settle, None, now).await
    }

    /// The same, and keeps what the answer said, in the same transaction: the charge is never there without
    /// it. A repeated settle keeps nothing.
    ///
    /// # Errors
    ///
    /// As [`Self::settle`].
    pub async fn settle_and_keep(
        &self,
        account: AccountId,
        settle: Settle,
        keep: Option<Box<Keep>>,
        now: UnixMillis,
    ) -> Result<Settled, StoreError> {
        let command = Command::Settle(settle);
        let done = each!(self, store => store.command(account, command, keep, now).await)?;
        done.settled()
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

    /// Remembers what an answer under way has used, until its request is settled or released.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn checkpoint(&self, account: AccountId, lose: Lose) -> Result<(), StoreError> {
        work!(self.as_gateway()?, desk => desk.checkpoint(account, &lose))
    }

    /// Books what an answer of this gateway's own has used that is cut off: the operator's loss, and
    /// nothing for the account. Voids its hold; again is no error.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn cut_off(
        &self,
        account: AccountId,
        lose: Lose,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        each!(self, store => store.cut_off(account, lose, now).await)
    }

    /// Books what gateways that are gone were in the middle of: the operator's loss, and nothing for
    /// the accounts. Says how many answers that were. A gateway does it before anything else.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn lose_all(&self, now: UnixMillis) -> Result<usize, StoreError> {
        work!(self.as_gateway()?, desk => desk.lose_all(now))
    }

    async fn command(
        &self,
        account: AccountId,
        command: Command,
        now: UnixMillis,
    ) -> Result<Done, StoreError> {
        each!(self, store => store.command(account, command, None, now).await)
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

    /// What stands in the ledger under an order's reference.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn ordered(
        &self,
        account: AccountId,
        reference: Reference,
    ) -> Result<Option<Record>, StoreError> {
        work!(self, desk => desk.ordered(account, &reference))
    }

    /// What an account used, added up.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn usage(
        &self,
        account: AccountId,
        span: Span,
    ) -> Result<Vec<(Key, Sums)>, StoreError> {
        work!(self, desk => desk.usage(account, span))
    }

    /// The months of all accounts that are over and not invoiced, the earliest of each first.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn months_due(&self, now: UnixMillis) -> Result<Vec<(AccountId, Month)>, StoreError> {
        work!(self, desk => desk.months_due(now))
    }

    /// Takes the credits out of the books that have ended.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn lapse_all(&self, now: UnixMillis) -> Result<(), StoreError> {
        each!(self, store => store.lapse_all(now).await)
    }

    /// Where every account's chain ends, to be sealed.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn heads(&self) -> Result<BTreeMap<AccountId, Head>, StoreError> {
        work!(self, desk => desk.heads())
    }

    /// Remembers something that has to be done outside; put again, nothing happens.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn put_task(&self, task: NewTask, now: UnixMillis) -> Result<(), StoreError> {
        work!(self, desk => desk.put_task(&task, now))
    }

    /// The tasks of a kind that are not done, the oldest first, at most
    /// [`STORE_LIST_MAX`](mesh_core::limits::STORE_LIST_MAX).
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn tasks(&self, kind: &'static str) -> Result<Vec<Task>, StoreError> {
        work!(self, desk => desk.tasks(kind))
    }

    /// Writes down how far a task is; done, it is on no list any more.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn update_task(
        &self,
        kind: &'static str,
        key: String,
        body: String,
        done_at: Option<UnixMillis>,
    ) -> Result<(), StoreError> {
        work!(self, desk => desk.update_task(kind, &key, &body, done_at))
    }

    /// The key that an account pays a provider with, as it was sealed.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn provider_key(
        &self,
        account: AccountId,
        provider: String,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        work!(self, desk => desk.provider_key(account, &provider))
    }

    /// Keeps a sealed key that an account pays a provider with, or forgets it.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownAccount`], or the store is unavailable.
    pub async fn set_provider_key(
        &self,
        account: AccountId,
        provider: String,
        sealed: Option<Vec<u8>>,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        work!(self, desk => desk.set_provider_key(account, &provider, sealed.as_deref(), now))
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
        work!(self, desk => desk.summary(account, now))
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
        work!(self, desk => desk.booked(account, request))
    }

    /// An account's ledger from an entry on, at most
    /// [`LEDGER_PAGE_MAX`](mesh_core::limits::LEDGER_PAGE_MAX) entries.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn entries(&self, account: AccountId, from: u64) -> Result<Vec<Stored>, StoreError> {
        work!(self, desk => desk.entries(account, from))
    }

    /// How much the writer has done.
    #[must_use]
    pub fn load(&self) -> Load {
        each!(self, store => store.load())
    }
}
