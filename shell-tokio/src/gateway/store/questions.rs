//! The money of a question, from its hold to its end, and what its answer said.

use mesh_core::billing::account::{Command, Hold, Lose, Release, Settle};
use mesh_core::gateway::{Granted, Keep, Recalled, Settled};
use mesh_core::ids::{AccountId, DeviceId, RequestId};
use mesh_core::time::UnixMillis;

use super::books::Done;
use super::{Kind, Store, StoreError, each, postgres, work};

impl Store {
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

    async fn command(
        &self,
        account: AccountId,
        command: Command,
        now: UnixMillis,
    ) -> Result<Done, StoreError> {
        each!(self, store => store.command(account, command, None, now).await)
    }
}
