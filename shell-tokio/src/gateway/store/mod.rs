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

mod accounting;
mod audit;
mod books;
mod directory;
mod error;
mod place;
mod postgres;
mod questions;
mod sqlite;
mod types;

#[cfg(test)]
mod conformance;

use std::path::Path;

use mesh_core::billing::ledger::seal::Seal;

pub use audit::{AccountReport, AuditError, Report};
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

use {each, work};

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

    /// How much the writer has done.
    #[must_use]
    pub fn load(&self) -> Load {
        each!(self, store => store.load())
    }
}
