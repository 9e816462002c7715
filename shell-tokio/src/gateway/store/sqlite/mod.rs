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

use std::path::Path;
use std::sync::Arc;

use mesh_core::billing::account::order::Order;
use mesh_core::billing::account::{Command, Lose};
use mesh_core::gateway::{Keep, Recalled};
use mesh_core::ids::{AccountId, DeviceId, RequestId};
use mesh_core::time::UnixMillis;

pub(super) use self::audit::verify;
pub(super) use self::writer::Work;
use super::books::Done;
use super::error::{OpenError, StoreError};
use super::types::Ordered;
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

    /// This store, if it is a gateway's.
    pub(super) fn as_gateway(&self) -> Result<&Self, StoreError> {
        self.0.as_gateway().map(|_| self)
    }

    /// Has work done in the next transaction, and waits until that is on disk.
    pub(super) async fn work<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Work<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.0.submit(work).await
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
        let work = move |work: &mut Work<'_>| {
            let done = work.carry_out(account, command, now)?;
            if let Some((keep, device)) = keep.filter(|_| done.is_new) {
                work.keep_answer((account, device, request), &keep, now)?;
            }
            Ok(done)
        };
        self.as_gateway()?.work(work).await
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
        self.work(move |work| work.order(account, &order, now))
            .await
    }

    pub(super) async fn lapse_all(&self, now: UnixMillis) -> Result<(), StoreError> {
        self.work(move |work| work.lapse_all(now)).await
    }

    pub(super) async fn recall(
        &self,
        account: AccountId,
        device: DeviceId,
        request: RequestId,
        now: UnixMillis,
    ) -> Result<Recalled, StoreError> {
        self.work(move |work| work.recall(account, device, request, now))
            .await
    }

    pub(super) async fn forget_answers(&self, now: UnixMillis) -> Result<usize, StoreError> {
        self.work(move |work| work.forget_answers(now)).await
    }

    pub(super) fn load(&self) -> Load {
        self.0.load()
    }
}
