//! The writer: one thread, one connection, one transaction for all that waits.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mesh_core::billing::account::Held;
use mesh_core::ids::{AccountId, RequestId};
use mesh_core::limits::{STORE_BATCH_MAX, STORE_QUEUE_MAX};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::open::{BUSY_TIMEOUT, Opened};
use crate::gateway::store::error::{OpenError, StoreError};
use crate::gateway::store::{Load, Role};

#[derive(Debug, Default)]
struct Counters {
    batches: AtomicU64,
    calls: AtomicU64,
}

/// The sending side, shared by all handles.
pub(super) struct Writer {
    role: Role,
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
    counters: Arc<Counters>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl Writer {
    pub(super) fn start(opened: Opened, role: Role) -> Result<Self, OpenError> {
        let (queue, jobs) = mpsc::channel(STORE_QUEUE_MAX);
        let counters = Arc::new(Counters::default());
        let counted = Arc::clone(&counters);
        let path = opened.connection.path().unwrap_or_default().to_owned();
        let thread = std::thread::Builder::new()
            .name("synesis-store".to_owned())
            .spawn(move || run(&opened, jobs, &counted))
            .map_err(|error| OpenError::refused(path.as_ref(), error))?;
        Ok(Self {
            role,
            queue: Some(queue),
            thread: Some(thread),
            counters,
        })
    }

    /// This writer, if it is a gateway's.
    pub(super) fn as_gateway(&self) -> Result<&Self, StoreError> {
        match self.role {
            Role::Gateway => Ok(self),
            Role::Administration => Err(StoreError::NotTheGateway),
        }
    }

    /// Has the work done in the next transaction, and waits until that is on disk.
    pub(super) async fn submit<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Work<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call = Call {
            work: Some(work),
            outcome: None,
            reply,
        };
        let queue = self.queue.as_ref().ok_or(StoreError::Closed)?;
        queue
            .try_send(Box::new(call))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => StoreError::Busy,
                mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
            })?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    pub(super) fn load(&self) -> Load {
        Load {
            batches: self.counters.batches.load(Ordering::Relaxed),
            calls: self.counters.calls.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // It fails only if the writer panicked, and then there is nothing left to wait for.
            let _ = thread.join();
        }
    }
}

/// One call, carried out in two steps with the commit between them.
trait Job: Send {
    fn carry_out(&mut self, work: &mut Work<'_>);
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Call<T, F> {
    work: Option<F>,
    outcome: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job for Call<T, F>
where
    T: Send,
    F: FnOnce(&mut Work<'_>) -> Result<T, StoreError> + Send,
{
    fn carry_out(&mut self, work: &mut Work<'_>) {
        let Some(carry_out) = self.work.take() else {
            return;
        };
        if !self.reply.is_closed() {
            self.outcome = Some(work.alone(carry_out));
        }
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let answer = match (self.outcome, committed) {
            (Some(Err(own)), _) => Err(own),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (_, Err(error)) => Err(error),
            (None, Ok(())) => return,
        };
        // Nobody may be waiting any more: the work is done all the same.
        let _ = self.reply.send(answer);
    }
}

/// What the calls of one batch work on.
pub(in crate::gateway::store) struct Work<'a> {
    pub(super) connection: &'a Connection,
    pub(super) holds: &'a mut Holds,
    /// What answers had said was deleted: nothing of it may stay in the log either.
    pub(super) text_was_deleted: bool,
    /// Why SQLite ended the transaction by itself (a full disk is one reason), if it did.
    broken: Option<StoreError>,
}

impl Work<'_> {
    /// Runs one call of a batch so that its failure undoes it, and nothing else.
    fn alone<T>(
        &mut self,
        call: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let mark = self.holds.undo.len();
        self.connection.execute_batch("SAVEPOINT alone")?;
        let outcome = call(self).and_then(|value| {
            self.connection.execute_batch("RELEASE alone")?;
            Ok(value)
        });
        if let Err(error) = &outcome {
            self.holds.undo_to(mark);
            let back = self
                .connection
                .execute_batch("ROLLBACK TO alone; RELEASE alone");
            if back.is_err() || self.connection.is_autocommit() {
                self.broken = Some(error.clone());
            }
        }
        outcome
    }
}

/// The money set aside, per account, with what undoes the present batch's changes.
#[derive(Debug, Default)]
pub(super) struct Holds {
    accounts: BTreeMap<AccountId, BTreeMap<RequestId, Held>>,
    undo: Vec<(AccountId, RequestId, Option<Held>)>,
}

impl Holds {
    /// Whether something is set aside for a request.
    pub(super) fn has(&self, account: AccountId, request: RequestId) -> bool {
        self.held(account, request).is_some()
    }

    /// What is set aside for a request.
    pub(super) fn held(&self, account: AccountId, request: RequestId) -> Option<&Held> {
        self.accounts.get(&account)?.get(&request)
    }

    /// Takes an account's holds out, to be given back by [`Holds::put`].
    pub(super) fn take(&mut self, account: AccountId) -> BTreeMap<RequestId, Held> {
        self.accounts.remove(&account).unwrap_or_default()
    }

    /// Gives an account's holds back. Of them, only those `touched` have changed: each was so.
    pub(super) fn put(
        &mut self,
        account: AccountId,
        holds: BTreeMap<RequestId, Held>,
        touched: &[(RequestId, Option<Held>)],
    ) {
        let undo = touched
            .iter()
            .map(|(request, before)| (account, *request, *before));
        self.undo.extend(undo);
        if !holds.is_empty() {
            self.accounts.insert(account, holds);
        }
    }

    /// What an account has set aside.
    pub(super) fn of(&self, account: AccountId) -> BTreeMap<RequestId, Held> {
        self.accounts.get(&account).cloned().unwrap_or_default()
    }

    fn undo_to(&mut self, mark: usize) {
        while self.undo.len() > mark {
            let Some((account, request, before)) = self.undo.pop() else {
                break;
            };
            let holds = self.accounts.entry(account).or_default();
            match before {
                Some(held) => holds.insert(request, held),
                None => holds.remove(&request),
            };
            if holds.is_empty() {
                self.accounts.remove(&account);
            }
        }
    }
}

fn run(opened: &Opened, mut jobs: mpsc::Receiver<Box<dyn Job>>, counters: &Counters) {
    let mut holds = Holds::default();
    let mut batch = Vec::new();
    let mut text_was_deleted = false;
    while let Some(job) = jobs.blocking_recv() {
        batch.push(job);
        while batch.len() < STORE_BATCH_MAX {
            match jobs.try_recv() {
                Ok(job) => batch.push(job),
                Err(_) => break,
            }
        }
        let calls = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        counters.batches.fetch_add(1, Ordering::Relaxed);
        counters.calls.fetch_add(calls, Ordering::Relaxed);
        let committed = in_one_transaction(&opened.connection, &mut holds, &mut batch);
        match &committed {
            Ok(deleted) => text_was_deleted |= deleted,
            Err(error) => tracing::error!(%error, calls, "a batch was not written"),
        }
        let committed = committed.map(drop);
        if text_was_deleted {
            text_was_deleted = !empty_log(&opened.connection);
        }
        for job in batch.drain(..) {
            job.answer(committed.clone());
        }
    }
}

fn in_one_transaction(
    connection: &Connection,
    holds: &mut Holds,
    batch: &mut [Box<dyn Job>],
) -> Result<bool, StoreError> {
    holds.undo.clear();
    let committed = run_batch(connection, holds, batch);
    if committed.is_err() {
        holds.undo_to(0);
        if !connection.is_autocommit()
            && let Err(error) = connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a broken transaction could not be ended");
        }
    }
    committed
}

fn run_batch(
    connection: &Connection,
    holds: &mut Holds,
    batch: &mut [Box<dyn Job>],
) -> Result<bool, StoreError> {
    // At once, not at the first write: a snapshot that another process has overtaken cannot write.
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let mut work = Work {
        connection,
        holds,
        text_was_deleted: false,
        broken: None,
    };
    for job in batch {
        job.carry_out(&mut work);
    }
    match work.broken {
        Some(error) => Err(error),
        None => {
            connection.execute_batch("COMMIT")?;
            Ok(work.text_was_deleted)
        }
    }
}

/// Writes the log into the file and cuts it to nothing: deleted text is overwritten in the file, and stands
/// in the log until then. `false` where another process reads it at this moment.
fn empty_log(connection: &Connection) -> bool {
    let emptied = connection.busy_timeout(Duration::ZERO).and_then(|()| {
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
            row.get::<_, i64>(0)
        })
    });
    let restored = connection.busy_timeout(BUSY_TIMEOUT);
    if let Err(error) = emptied.as_ref().map(drop).and(restored.as_ref().map(drop)) {
        tracing::warn!(%error, "the store's log was not emptied");
    }
    emptied.is_ok_and(|busy| busy == 0)
}
