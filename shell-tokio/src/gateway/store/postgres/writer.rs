//! The thread that talks to the database: a few lanes for money, a desk for everything else.
//!
//! ```text
//!                   ┌ lane 0 ── one transaction a batch ──▶ connection
//!   account's calls ┼ lane 1 ──────────────────────────────▶ connection
//!                   └ …
//!   keys, devices, reading ── desk, one after the other ───▶ connection
//! ```
//!
//! All calls about one account's money go through one lane, so that a gateway is never in its own way.
//! Lanes wait for the database, not for each other: while one commits, the others decide.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use mesh_core::billing::lease::GatewayId;
use mesh_core::ids::AccountId;
use mesh_core::limits::{
    STORE_BATCH_MAX, STORE_QUEUE_MAX, STORE_RETRIES_MAX, STORE_TRANSACTION_TIMEOUT, STORE_WRITERS,
};
use mesh_core::time::UnixMillis;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use super::batch::{self, Answer, Answers, Ask, Asked, Broken};
use super::connection::{Door, Link, is_crowded};
use super::desk::Desk;
use super::schema;
use crate::gateway::store::error::{OpenError, StoreError};
use crate::gateway::store::place::Database;
use crate::gateway::store::{Load, Role};
use crate::random;

#[derive(Debug, Default)]
struct Counters {
    batches: AtomicU64,
    calls: AtomicU64,
}

impl Counters {
    fn count(&self, calls: usize) {
        let calls = u64::try_from(calls).unwrap_or(u64::MAX);
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.calls.fetch_add(calls, Ordering::Relaxed);
    }
}

/// A call about money that waits.
struct Call {
    account: AccountId,
    ask: Ask,
    now: UnixMillis,
    reply: oneshot::Sender<Result<Answer, StoreError>>,
}

/// Work for the desk. It answers by itself.
type Job = Box<dyn for<'a> FnOnce(&'a mut Desk) -> Pin<Box<dyn Future<Output = ()> + 'a>> + Send>;

/// The sending side, shared by all handles.
pub(super) struct Writer {
    role: Role,
    queues: Option<Queues>,
    thread: Option<JoinHandle<()>>,
    counters: Arc<Counters>,
}

struct Queues {
    lanes: Vec<mpsc::Sender<Call>>,
    desk: mpsc::Sender<Job>,
}

/// The receiving side.
struct Inbox {
    lanes: Vec<mpsc::Receiver<Call>>,
    desk: mpsc::Receiver<Job>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// Starts the thread, and waits until the database is open.
    pub(super) async fn start(database: Database, role: Role) -> Result<Self, OpenError> {
        let refused = |reason: StoreError| schema::refused(&database, reason);
        let failed = |error: &dyn fmt::Display| refused(StoreError::Failed(error.to_string()));
        let seed = random::seed().map_err(|error| failed(&error))?;
        let me = GatewayId::random(&mut seed.secret("gateway"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| failed(&error))?;
        let lanes = match role {
            Role::Gateway => STORE_WRITERS,
            Role::Administration => 1,
        };
        let (lanes, lane_inboxes) = (0..lanes).map(|_| mpsc::channel(STORE_QUEUE_MAX)).unzip();
        let (desk, desk_inbox) = mpsc::channel(STORE_QUEUE_MAX);
        let inbox = Inbox {
            lanes: lane_inboxes,
            desk: desk_inbox,
        };
        let counters = Arc::new(Counters::default());
        let counted = Arc::clone(&counters);
        let (opened, is_open) = oneshot::channel();
        let reached = database.clone();
        let thread = std::thread::Builder::new()
            .name("synesis-store".to_owned())
            .spawn(move || {
                LocalSet::new().block_on(&runtime, async {
                    let link = open(&reached).await;
                    let failed = link.is_err();
                    // Whoever opens it may have gone.
                    if opened.send(link.map(drop)).is_err() || failed {
                        return;
                    }
                    run(reached, role, me, inbox, &counted).await;
                });
            })
            .map_err(|error| failed(&error))?;
        let writer = Self {
            role,
            queues: Some(Queues { lanes, desk }),
            thread: Some(thread),
            counters,
        };
        match is_open.await {
            Ok(outcome) => outcome.map(|()| writer),
            Err(_) => Err(refused(StoreError::Closed)),
        }
    }

    /// This writer, if it is a gateway's.
    pub(super) fn as_gateway(&self) -> Result<&Self, StoreError> {
        match self.role {
            Role::Gateway => Ok(self),
            Role::Administration => Err(StoreError::NotTheGateway),
        }
    }

    fn queues(&self) -> Result<&Queues, StoreError> {
        self.queues.as_ref().ok_or(StoreError::Closed)
    }

    /// Has a call about money carried out in the next batch, and waits until that is committed.
    pub(super) async fn ask(
        &self,
        account: AccountId,
        ask: Ask,
        now: UnixMillis,
    ) -> Result<Answer, StoreError> {
        let (reply, answer) = oneshot::channel();
        let lanes = &self.queues()?.lanes;
        let count = u128::try_from(lanes.len()).unwrap_or(1).max(1);
        let lane = usize::try_from(account.as_u128() % count).unwrap_or_default();
        let lane = lanes.get(lane).ok_or(StoreError::Closed)?;
        let call = Call {
            account,
            ask,
            now,
            reply,
        };
        lane.try_send(call).map_err(|error| refused_by(&error))?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Has work done at the desk, and waits for what comes of it.
    pub(super) async fn at_desk<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: AsyncFnOnce(&mut Desk) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |desk| {
            Box::pin(async move {
                if !reply.is_closed() {
                    let outcome = desk.alone(work).await;
                    // Nobody may be waiting any more: the work is done all the same.
                    let _ = reply.send(outcome);
                }
            })
        });
        let desk = &self.queues()?.desk;
        desk.try_send(job).map_err(|error| refused_by(&error))?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    pub(super) fn load(&self) -> Load {
        Load {
            batches: self.counters.batches.load(Ordering::Relaxed),
            calls: self.counters.calls.load(Ordering::Relaxed),
        }
    }
}

fn refused_by<T>(error: &mpsc::error::TrySendError<T>) -> StoreError {
    match error {
        mpsc::error::TrySendError::Full(_) => StoreError::Busy,
        mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queues = None;
        if let Some(thread) = self.thread.take() {
            // It fails only if the writer panicked, and then there is nothing left to wait for.
            let _ = thread.join();
        }
    }
}

async fn open(database: &Database) -> Result<Link, OpenError> {
    let connected = Link::connect(database).await;
    let mut link = connected.map_err(|reason| schema::refused(database, reason))?;
    schema::migrate(&mut link, database).await?;
    Ok(link)
}

/// Serves until every handle has gone and everything that was queued is answered.
async fn run(
    database: Database,
    role: Role,
    me: GatewayId,
    inbox: Inbox,
    counters: &Arc<Counters>,
) {
    let mut serving = Vec::new();
    for calls in inbox.lanes {
        let lane = Lane {
            me,
            door: Door::new(database.clone()),
        };
        let counters = Arc::clone(counters);
        let serve = async move { lane.serve(calls, &counters).await };
        serving.push(tokio::task::spawn_local(serve));
    }
    let mut desk = Desk::new(database, me, role);
    let mut jobs = inbox.desk;
    loop {
        tokio::select! {
            biased;
            () = desk.renewal_is_due() => desk.renew().await,
            job = jobs.recv() => match job {
                Some(job) => {
                    counters.count(1);
                    job(&mut desk).await;
                }
                None => break,
            },
        }
    }
    for lane in serving {
        // A lane that panicked has nothing left to wait for.
        let _ = lane.await;
    }
    desk.leave().await;
}

/// A connection for money.
struct Lane {
    me: GatewayId,
    door: Door,
}

impl Lane {
    async fn serve(mut self, mut calls: mpsc::Receiver<Call>, counters: &Counters) {
        let mut batch = Vec::new();
        while calls.recv_many(&mut batch, STORE_BATCH_MAX).await > 0 {
            batch.retain(|call| !call.reply.is_closed());
            if batch.is_empty() {
                continue;
            }
            counters.count(batch.len());
            let asked: Vec<Asked<'_>> = batch.iter().map(Call::asked).collect();
            let answers = self.carry_out(&asked).await;
            for (call, answer) in batch.drain(..).zip(answers) {
                // Nobody may be waiting any more: the work is done all the same.
                let _ = call.reply.send(answer);
            }
        }
    }

    /// What comes of each call. What the database refuses for one call's sake it refuses for that one.
    async fn carry_out(&mut self, batch: &[Asked<'_>]) -> Answers {
        if let Some(at) = batch.iter().position(|asked| asked.ask.is_alone())
            && batch.len() > 1
        {
            let mut answers = Box::pin(self.carry_out(&batch[..at])).await;
            answers.extend(Box::pin(self.carry_out(&batch[at..=at])).await);
            answers.extend(Box::pin(self.carry_out(&batch[at + 1..])).await);
            return answers;
        }
        if batch.is_empty() {
            return Vec::new();
        }
        let broken = match self.try_to(batch).await {
            Ok(answers) => return answers,
            Err(error) => error,
        };
        tracing::error!(error = %broken, calls = batch.len(), "a batch was not written");
        let is_its_own = matches!(broken, StoreError::Failed(_) | StoreError::Damaged(_));
        if batch.len() == 1 || !is_its_own {
            return batch.iter().map(|_| Err(broken.clone())).collect();
        }
        let mut answers = Vec::with_capacity(batch.len());
        for alone in batch.chunks(1) {
            let answer = self.try_to(alone).await;
            answers.push(answer.and_then(|mut one| one.pop().unwrap_or(Err(StoreError::Closed))));
        }
        answers
    }

    async fn try_to(&mut self, batch: &[Asked<'_>]) -> Result<Answers, StoreError> {
        for _ in 0..STORE_RETRIES_MAX {
            let link = self.door.open().await?;
            let ran = batch::run(link, self.me, batch);
            let Ok(ran) = tokio::time::timeout(STORE_TRANSACTION_TIMEOUT, ran).await else {
                self.door.shut();
                return Err(StoreError::Unreachable(
                    "it did not answer in time".to_owned(),
                ));
            };
            let broken = match ran {
                Ok(answers) => return Ok(answers),
                Err(broken) => broken,
            };
            // Where it cannot be undone it ends with the connection.
            if link.client.batch_execute("ROLLBACK").await.is_err() {
                self.door.shut();
            }
            if !matches!(&broken, Broken::Database(error) if is_crowded(error)) {
                return Err(broken.into());
            }
        }
        Err(StoreError::Locked)
    }
}

impl Call {
    const fn asked(&self) -> Asked<'_> {
        Asked {
            account: self.account,
            ask: &self.ask,
            now: self.now,
        }
    }
}
