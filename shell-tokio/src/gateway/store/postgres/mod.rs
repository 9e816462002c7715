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

use std::sync::Arc;

use mesh_core::billing::account::order::Order;
use mesh_core::billing::account::{Command, Lose};
use mesh_core::gateway::{Keep, Recalled};
use mesh_core::ids::{AccountId, DeviceId, RequestId};
use mesh_core::time::UnixMillis;

pub(super) use self::audit::verify;
use self::batch::{Answer, Ask};
pub(super) use self::desk::Desk;
use super::books::Done;
use super::error::{OpenError, StoreError};
use super::place::Database;
use super::types::Ordered;
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

    /// This store, if it is a gateway's.
    pub(super) fn as_gateway(&self) -> Result<&Self, StoreError> {
        self.0.as_gateway().map(|_| self)
    }

    /// Has work done at the desk, and waits for what comes of it.
    pub(super) async fn work<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: AsyncFnOnce(&mut Desk) -> Result<T, StoreError> + Send + 'static,
    {
        self.0.at_desk(work).await
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

    pub(super) async fn cut_off(
        &self,
        account: AccountId,
        lose: Lose,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let answered = self.0.as_gateway()?.ask(account, Ask::CutOff(lose), now);
        answered.await.map(drop)
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

    pub(super) async fn lapse_all(&self, now: UnixMillis) -> Result<(), StoreError> {
        let over = self.work(async move |desk: &mut Desk| desk.lapsed(now).await);
        for account in over.await? {
            self.0.ask(account, Ask::Lapse, now).await?;
        }
        Ok(())
    }

    pub(super) async fn recall(
        &self,
        account: AccountId,
        device: DeviceId,
        request: RequestId,
        _now: UnixMillis,
    ) -> Result<Recalled, StoreError> {
        self.work(async move |desk: &mut Desk| desk.recall(account, device, request).await)
            .await
    }

    /// By the database's clock.
    pub(super) async fn forget_answers(&self, _now: UnixMillis) -> Result<usize, StoreError> {
        self.work(async |desk: &mut Desk| desk.forget_answers().await)
            .await
    }

    pub(super) fn load(&self) -> Load {
        self.0.load()
    }
}

fn mixed_up() -> StoreError {
    StoreError::Failed("a call was answered as another".to_owned())
}
