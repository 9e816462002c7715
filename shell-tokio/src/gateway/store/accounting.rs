//! An account outside of its questions: orders, figures, months and the ledger, and what has to be done
//! elsewhere because of them.

use std::collections::BTreeMap;

use mesh_core::billing::account::order::{Order, Reference};
use mesh_core::billing::account::{Month, Summary};
use mesh_core::billing::ledger::seal::Head;
use mesh_core::billing::ledger::{Record, Stored};
use mesh_core::billing::usage::{Key, Sums};
use mesh_core::ids::{AccountId, RequestId};
use mesh_core::time::UnixMillis;

use super::{Booked, Kind, NewTask, Ordered, Span, Store, StoreError, Task, each, postgres, work};

impl Store {
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
}
