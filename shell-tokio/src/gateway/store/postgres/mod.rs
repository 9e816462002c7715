//! The store on a PostgreSQL server: any number of gateways at once.
//!
//! ```text
//!   Postgres (cloneable) ── bounded queues ──▶ writer thread ── a few connections ──▶ PostgreSQL
//!        ▲                                       │ rules of money, on locked accounts
//!        └───────────── answered after the commit ─────────────┘
//! ```
//!
//! What waits about money is carried out in batches: the accounts of a batch are locked in one order,
//! what the rules ask for is read at once, and what they say is written at once. Holds are rows, with the
//! gateway that made them; each gateway keeps a lease, and holds of one that let its lease end are void
//! ([`mesh_core::billing::lease`]).
//!
//! A connection that breaks is made again when it is needed. Until then calls are answered as unavailable;
//! whether a transaction that broke at its commit was written is then not known here, and does not matter:
//! whoever repeats a call gets what stands in the ledger.

mod answers;
mod audit;
mod batch;
mod chores;
mod connection;
mod desk;
mod directory;
mod reading;
mod rows;
mod schema;
mod statements;
mod tls;
mod usage;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
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
use self::batch::{Answer, Ask};
use self::desk::Desk;
use super::books::Done;
use super::error::{OpenError, StoreError};
use super::place::Database;
use super::types::{
    AccountRow, Booked, DeviceRow, KeyRow, NewAccount, NewDevice, NewKey, NewTask, Ordered,
    Revocation, Span, Task,
};
use super::{Load, Role};

/// A handle on the writer, which ends when the last of them is dropped; dropping that one waits
/// until everything that was queued is answered.
#[derive(Clone, Debug)]
pub(super) struct Postgres(Arc<writer::Writer>);

impl Postgres {
    pub(super) async fn open(database: Database, role: Role) -> Result<Self, OpenError> {
        let writer = writer::Writer::start(database, role).await?;
        Ok(Self(Arc::new(writer)))
    }

    pub(super) async fn lose_all(&self, now: UnixMillis) -> Result<usize, StoreError> {
        let work = async move |desk: &mut Desk| desk.lose_all(now).await;
        self.0.as_gateway()?.at_desk(work).await
    }

    pub(super) async fn cut_off(
        &self,
        account: AccountId,
        lose: Lose,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let answered = self.0.as_gateway()?.ask(account, Ask::CutOff(lose), now);
        answered.await.map(drop)
    }

    pub(super) async fn checkpoint(
        &self,
        account: AccountId,
        lose: Lose,
    ) -> Result<(), StoreError> {
        let work = async move |desk: &mut Desk| desk.checkpoint(account, &lose).await;
        self.0.as_gateway()?.at_desk(work).await
    }

    pub(super) async fn usage(
        &self,
        account: AccountId,
        span: Span,
    ) -> Result<Vec<(Key, Sums)>, StoreError> {
        let work = async move |desk: &mut Desk| desk.usage(account, span).await;
        self.0.at_desk(work).await
    }

    pub(super) async fn ordered(
        &self,
        account: AccountId,
        reference: Reference,
    ) -> Result<Option<Record>, StoreError> {
        let work = async move |desk: &mut Desk| desk.ordered(account, reference.as_str()).await;
        self.0.at_desk(work).await
    }

    pub(super) async fn months_due(
        &self,
        now: UnixMillis,
    ) -> Result<Vec<(AccountId, Month)>, StoreError> {
        let work = async move |desk: &mut Desk| desk.months_due(now).await;
        self.0.at_desk(work).await
    }

    pub(super) async fn lapse_all(&self, now: UnixMillis) -> Result<(), StoreError> {
        let work = async move |desk: &mut Desk| desk.lapsed(now).await;
        for account in self.0.at_desk(work).await? {
            self.0.ask(account, Ask::Lapse, now).await?;
        }
        Ok(())
    }

    pub(super) async fn heads(&self) -> Result<BTreeMap<AccountId, Head>, StoreError> {
        let work = async |desk: &mut Desk| desk.heads().await;
        self.0.at_desk(work).await
    }

    pub(super) async fn put_task(&self, task: NewTask, now: UnixMillis) -> Result<(), StoreError> {
        let work = async move |desk: &mut Desk| desk.put_task(&task, now).await;
        self.0.at_desk(work).await
    }

    pub(super) async fn tasks(&self, kind: &'static str) -> Result<Vec<Task>, StoreError> {
        let work = async move |desk: &mut Desk| desk.tasks(kind).await;
        self.0.at_desk(work).await
    }

    pub(super) async fn update_task(
        &self,
        kind: &'static str,
        key: String,
        body: String,
        done_at: Option<UnixMillis>,
    ) -> Result<(), StoreError> {
        let work = async move |desk: &mut Desk| desk.update_task(kind, &key, &body, done_at).await;
        self.0.at_desk(work).await
    }

    pub(super) async fn provider_key(
        &self,
        account: AccountId,
        provider: String,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let work = async move |desk: &mut Desk| desk.provider_key(account, &provider).await;
        self.0.at_desk(work).await
    }

    pub(super) async fn set_provider_key(
        &self,
        account: AccountId,
        provider: String,
        sealed: Option<Vec<u8>>,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let work = async move |desk: &mut Desk| {
            let sealed = sealed.as_deref();
            desk.set_provider_key(account, &provider, sealed, now).await
        };
        self.0.at_desk(work).await
    }

    pub(super) async fn create_account(
        &self,
        account: NewAccount,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let work = async move |desk: &mut Desk| desk.create_account(&account, now).await;
        self.0.at_desk(work).await
    }

    pub(super) async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError> {
        let work = async |desk: &mut Desk| desk.accounts().await;
        self.0.at_desk(work).await
    }

    pub(super) async fn account_named(&self, name: &str) -> Result<AccountRow, StoreError> {
        let name = name.to_owned();
        let work = async move |desk: &mut Desk| desk.account_named(&name).await;
        self.0.at_desk(work).await
    }

    pub(super) async fn create_key(&self, key: NewKey, now: UnixMillis) -> Result<(), StoreError> {
        let work = async move |desk: &mut Desk| desk.create_key(&key, now).await;
        self.0.at_desk(work).await
    }

    pub(super) async fn keys(&self, account: Option<AccountId>) -> Result<Vec<KeyRow>, StoreError> {
        let work = async move |desk: &mut Desk| desk.keys(account).await;
        self.0.at_desk(work).await
    }

    pub(super) async fn key(&self, hash: KeyHash) -> Result<KeyRow, StoreError> {
        let work = async move |desk: &mut Desk| desk.key_by_hash(&hash).await;
        self.0.at_desk(work).await
    }

    pub(super) async fn revoke_key(
        &self,
        key: KeyId,
        devices_too: bool,
        now: UnixMillis,
    ) -> Result<Vec<DeviceRow>, StoreError> {
        let work = async move |desk: &mut Desk| desk.revoke_key(key, devices_too, now).await;
        self.0.at_desk(work).await
    }

    pub(super) async fn enrol(
        &self,
        device: NewDevice,
        now: UnixMillis,
    ) -> Result<AccountId, StoreError> {
        let work = async move |desk: &mut Desk| desk.enrol(&device, now).await;
        self.0.at_desk(work).await
    }

    pub(super) async fn devices(
        &self,
        account: Option<AccountId>,
    ) -> Result<Vec<DeviceRow>, StoreError> {
        let work = async move |desk: &mut Desk| desk.devices(account).await;
        self.0.at_desk(work).await
    }

    pub(super) async fn revoke_device(
        &self,
        device: DeviceId,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let work = async move |desk: &mut Desk| desk.revoke_device(device, now).await;
        self.0.at_desk(work).await
    }

    pub(super) async fn revocations(&self, after: u64) -> Result<Vec<Revocation>, StoreError> {
        let work = async move |desk: &mut Desk| desk.revocations(after).await;
        self.0.at_desk(work).await
    }

    pub(super) async fn last_revocation(&self) -> Result<u64, StoreError> {
        let work = async |desk: &mut Desk| desk.last_revocation().await;
        self.0.at_desk(work).await
    }

    pub(super) async fn authorities(&self) -> Result<Option<Fingerprint>, StoreError> {
        let work = async |desk: &mut Desk| desk.authorities().await;
        self.0.at_desk(work).await
    }

    pub(super) async fn claim_authorities(
        &self,
        own: Fingerprint,
    ) -> Result<Fingerprint, StoreError> {
        let work = async move |desk: &mut Desk| desk.claim_authorities(own).await;
        self.0.at_desk(work).await
    }

    pub(super) async fn adopt_authorities(&self, own: Fingerprint) -> Result<(), StoreError> {
        let work = async move |desk: &mut Desk| desk.adopt_authorities(own).await;
        self.0.at_desk(work).await
    }

    pub(super) async fn admit(
        &self,
        device: DeviceId,
        certificate: Fingerprint,
        now: UnixMillis,
    ) -> Result<Admitted, StoreError> {
        let work = async move |desk: &mut Desk| desk.admit(device, certificate, now).await;
        self.0.as_gateway()?.at_desk(work).await
    }

    pub(super) async fn command(
        &self,
        account: AccountId,
        command: Command,
        keep: Option<Box<Keep>>,
        now: UnixMillis,
    ) -> Result<Done, StoreError> {
        let ask = Ask::Command { command, keep };
        match self.0.as_gateway()?.ask(account, ask, now).await? {
            Answer::Done(done) => Ok(*done),
            Answer::Ordered(_) | Answer::Lapsed => Err(mixed_up()),
        }
    }

    pub(super) async fn recall(
        &self,
        account: AccountId,
        device: DeviceId,
        request: RequestId,
        _now: UnixMillis,
    ) -> Result<Recalled, StoreError> {
        let work = async move |desk: &mut Desk| desk.recall(account, device, request).await;
        self.0.as_gateway()?.at_desk(work).await
    }

    pub(super) async fn forget_answers(&self, _now: UnixMillis) -> Result<usize, StoreError> {
        let work = async |desk: &mut Desk| desk.forget_answers().await;
        self.0.at_desk(work).await
    }

    pub(super) async fn order(
        &self,
        account: AccountId,
        order: Order,
        now: UnixMillis,
    ) -> Result<Ordered, StoreError> {
        match self.0.ask(account, Ask::Order(order), now).await? {
            Answer::Ordered(ordered) => Ok(*ordered),
            Answer::Done(_) | Answer::Lapsed => Err(mixed_up()),
        }
    }

    pub(super) async fn summary(
        &self,
        account: AccountId,
        now: UnixMillis,
    ) -> Result<Summary, StoreError> {
        let work = async move |desk: &mut Desk| desk.summary(account, now).await;
        self.0.at_desk(work).await
    }

    pub(super) async fn booked(
        &self,
        account: AccountId,
        request: RequestId,
    ) -> Result<Option<Booked>, StoreError> {
        let work = async move |desk: &mut Desk| desk.booked(account, request).await;
        self.0.at_desk(work).await
    }

    pub(super) async fn entries(
        &self,
        account: AccountId,
        from: u64,
    ) -> Result<Vec<Stored>, StoreError> {
        let work = async move |desk: &mut Desk| desk.entries(account, from).await;
        self.0.at_desk(work).await
    }

    pub(super) fn load(&self) -> Load {
        self.0.load()
    }
}

fn mixed_up() -> StoreError {
    StoreError::Failed("a call was answered as another".to_owned())
}
