//! A batch of calls about money as one transaction: lock the accounts, look up what the rules ask for, run
//! them, write what they say.
//!
//! ```text
//!   ──▶ BEGIN, lock, holds, priors ──▶ rules, in memory ──▶ entries, standings, holds, COMMIT ──▶
//!        one round trip                                      one round trip
//! ```

mod book;
mod columns;

use std::collections::{BTreeMap, BTreeSet};

use mesh_core::billing::account::order::{Order, Subject};
use mesh_core::billing::account::{Command, Lose, Prior};
use mesh_core::billing::lease::{GatewayId, Judge, Lease};
use mesh_core::billing::ledger;
use mesh_core::gateway::Keep;
use mesh_core::ids::AccountId;
use mesh_core::time::UnixMillis;
use tokio_postgres::Row;
use uuid::Uuid;

use self::book::Book;
use self::columns::Columns;
use super::connection::Link;
use super::desk::Values;
use super::rows::{self, signed, uuid};
use super::statements;
use crate::gateway::store::books::{self, Done, Standing};
use crate::gateway::store::error::StoreError;
use crate::gateway::store::types::Ordered;

/// What is asked about an account's money.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    /// With what an answer said that it charges.
    Command {
        command: Command,
        keep: Option<Box<Keep>>,
    },
    /// This gateway cuts an answer of its own off.
    CutOff(Lose),
    Order(Order),
    /// Book the credits that have ended.
    Lapse,
}

impl Ask {
    /// Whether it has to be decided by itself: what it undoes is looked up, and may be undone by
    /// another of its batch.
    pub(super) fn is_alone(&self) -> bool {
        matches!(self, Self::Order(order) if order.subject().is_some())
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Done(Box<Done>),
    Ordered(Box<Ordered>),
    Lapsed,
}

/// One of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) account: AccountId,
    pub(super) ask: &'a Ask,
    pub(super) now: UnixMillis,
}

/// What came of each, in their order.
pub(super) type Answers = Vec<Result<Answer, StoreError>>;

/// Why a batch was not carried out: the database's word, or ours about what it holds.
#[derive(Debug)]
pub(super) enum Broken {
    Database(tokio_postgres::Error),
    Data(StoreError),
}

impl From<tokio_postgres::Error> for Broken {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Self {
        Self::Data(error)
    }
}

impl From<Broken> for StoreError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Database(error) => error.into(),
            Broken::Data(error) => error,
        }
    }
}

/// Carries a batch out, and commits it. After an error nothing of it is done, unless the connection
/// broke at the commit: then nobody knows, and whoever asked says it again.
pub(super) async fn run(
    link: &mut Link,
    me: GatewayId,
    batch: &[Asked<'_>],
) -> Result<Answers, Broken> {
    let mut loaded = load(link, me, batch).await?;
    let answers = batch.iter().map(|asked| loaded.carry_out(asked)).collect();
    write(link, &loaded).await?;
    Ok(answers)
}

/// What the calls of a batch work on.
struct Batch {
    me: GatewayId,
    books: BTreeMap<AccountId, Result<Book, StoreError>>,
    /// The server's clock, and this gateway's lease.
    clock: UnixMillis,
    lease: Option<Lease>,
}

impl Batch {
    /// Runs one call. Changes nothing when it fails.
    fn carry_out(&mut self, asked: &Asked<'_>) -> Result<Answer, StoreError> {
        match self.books.get_mut(&asked.account) {
            None => Err(StoreError::UnknownAccount),
            Some(Err(error)) => Err(error.clone()),
            Some(Ok(book)) => match asked.ask {
                Ask::Command { command, keep } => {
                    let done = book.command(self.me, asked, command)?;
                    if done.is_new {
                        book.keep(command, keep.as_deref(), self.clock);
                    }
                    Ok(Answer::Done(Box::new(done)))
                }
                Ask::CutOff(lose) => {
                    let done = book.cut_off(self.me, asked, lose)?;
                    Ok(Answer::Done(Box::new(done)))
                }
                Ask::Order(order) => book.order(asked, order),
                Ask::Lapse => book.lapse(asked),
            },
        }
    }

    fn book(&mut self, row: &Row) -> Result<Option<&mut Book>, StoreError> {
        let book = self.books.get_mut(&rows::account_id(row, 0)?);
        Ok(book.and_then(|book| book.as_mut().ok()))
    }

    /// Reads an account, as it is locked.
    fn take_account(&mut self, row: &Row) -> Result<(), StoreError> {
        let (state, entries, head) = rows::standing(row, 1)?;
        let (standing, providers) = (Standing::read(state, entries, head), row.try_get(4)?);
        let book = standing.map(|standing| Book::new(standing, providers));
        self.books.insert(rows::account_id(row, 0)?, book);
        (self.clock, self.lease) = (rows::time(row, 5)?, rows::lease(row, 6)?);
        Ok(())
    }

    /// Reads a hold. One that is void does not count, and goes.
    fn take_hold(&mut self, row: &Row) -> Result<(), StoreError> {
        let judge = Judge {
            me: self.me,
            lease: self.lease,
            now: self.clock,
        };
        let Some(book) = self.book(row)? else {
            return Ok(());
        };
        let (request, gateway, held) = rows::held(row, 1)?;
        book.holders.insert(request, gateway);
        if judge.is_gone(gateway, rows::maybe_time(row, 4)?) {
            book.void.insert(request);
        } else {
            book.standing.account.holds.insert(request, held);
        }
        Ok(())
    }
}

/// What a batch is about, as columns.
#[derive(Default)]
struct Names<'a> {
    /// Its accounts, in the order in which they are locked.
    accounts: Vec<Uuid>,
    /// Of commands: the account and the request.
    of: Vec<Uuid>,
    requests: Vec<String>,
    /// Of orders: the account and the reference.
    by: Vec<Uuid>,
    references: Vec<&'a str>,
}

impl<'a> Names<'a> {
    fn of(batch: &[Asked<'a>]) -> Self {
        let accounts: BTreeSet<AccountId> = batch.iter().map(|asked| asked.account).collect();
        let mut names = Self {
            accounts: accounts.iter().map(|id| uuid(id.as_u128())).collect(),
            ..Self::default()
        };
        for asked in batch {
            let account = uuid(asked.account.as_u128());
            match asked.ask {
                Ask::Command { command, .. } => {
                    names.of.push(account);
                    names.requests.push(command.request().to_string());
                }
                Ask::CutOff(lose) => {
                    names.of.push(account);
                    names.requests.push(lose.request.to_string());
                }
                Ask::Order(order) => {
                    names.by.push(account);
                    names.references.push(order.reference.as_str());
                }
                Ask::Lapse => {}
            }
        }
        names
    }
}

async fn load(link: &mut Link, me: GatewayId, batch: &[Asked<'_>]) -> Result<Batch, Broken> {
    let Names {
        accounts,
        of,
        requests,
        by,
        references,
    } = Names::of(batch);
    let lock = link.statement(statements::LOCK).await?;
    let holds = link.statement(statements::HOLDS).await?;
    let requested = link.statement(statements::REQUESTED).await?;
    let ordered = link.statement(statements::ORDERED).await?;
    let own = uuid(me.as_u128());
    let (to_lock, of_accounts): (Values<'_>, Values<'_>) = (&[&accounts, &own], &[&accounts]);
    let (of_requests, of_orders): (Values<'_>, Values<'_>) =
        (&[&of, &requests], &[&by, &references]);
    // All are sent before the first is answered. Each sees what was committed before its own turn, so
    // that what follows the lock is what the lock guards.
    let client = &link.client;
    let ((), locked, held, requested, ordered) = tokio::try_join!(
        biased;
        client.batch_execute("BEGIN"),
        client.query(&lock, to_lock),
        client.query(&holds, of_accounts),
        client.query(&requested, of_requests),
        async {
            if by.is_empty() {
                return Ok(Vec::new());
            }
            client.query(&ordered, of_orders).await
        },
    )?;
    let mut loaded = Batch {
        me,
        books: BTreeMap::new(),
        clock: UnixMillis(0),
        lease: None,
    };
    for row in &locked {
        loaded.take_account(row)?;
    }
    for row in &held {
        loaded.take_hold(row)?;
    }
    for row in &requested {
        let entry = books::entry(&rows::stored(row, 2)?)?;
        if let (Some(book), Some(prior)) = (loaded.book(row)?, Prior::of(&entry.record)) {
            book.priors.insert(row.try_get(1)?, prior);
        }
    }
    for row in &ordered {
        let entry = books::entry(&rows::stored(row, 2)?)?;
        if let Some(book) = loaded.book(row)? {
            book.records.insert(row.try_get(1)?, entry.record);
        }
    }
    if let [only] = batch
        && let Ask::Order(order) = only.ask
        && let Some(subject) = order.subject()
        && let Some(Ok(book)) = loaded.books.get_mut(&only.account)
    {
        load_subject(link, only.account, &subject, book).await?;
    }
    Ok(loaded)
}

/// Looks up what an order undoes.
async fn load_subject(
    link: &mut Link,
    account: AccountId,
    subject: &Subject,
    book: &mut Book,
) -> Result<(), Broken> {
    let (account, name) = (uuid(account.as_u128()), subject.to_string());
    let sql = match subject {
        Subject::Charge(_) => statements::REQUESTED,
        Subject::Payment(_) => statements::ORDERED,
    };
    let statement = link.statement(sql).await?;
    let found = link
        .client
        .query_opt(&statement, &[&vec![account], &vec![name.as_str()]])
        .await?;
    let entry = |row: &Row, from| -> Result<ledger::Entry, StoreError> {
        books::entry(&rows::stored(row, from)?)
    };
    let found = found.as_ref().map(|row| entry(row, 2)).transpose()?;
    book.subject = found.map(|entry| (entry.at, entry.record));
    let statement = link.statement(statements::UNDONE).await?;
    for row in link.client.query(&statement, &[&account, &name]).await? {
        book.undone.push(entry(&row, 0)?.record);
    }
    Ok(())
}

/// Writes and commits, all of it sent at once. Also what is only set aside waits for the disk: a hold that
/// a crash of the server took away would make its charge an overage, and a release that it took back
/// would set money aside for as long as the gateway lives.
async fn write(link: &mut Link, batch: &Batch) -> Result<(), Broken> {
    let columns = Columns::of(batch)?;
    let me = uuid(batch.me.as_u128());
    let write = link.statement(statements::WRITE).await?;
    let renew = link.statement(statements::RENEW).await?;
    let put_task = link.statement(statements::PUT_TASK).await?;
    let before: Values<'_> = &[
        &columns.gone_accounts,
        &columns.gone_requests,
        &me,
        &columns.held_accounts,
        &columns.held_requests,
        &columns.helds,
        &columns.entry_accounts,
        &columns.sequences,
        &columns.canonicals,
        &columns.hashes,
    ];
    let after: Values<'_> = &[
        &columns.accounts,
        &columns.states,
        &columns.entries,
        &columns.heads,
        &columns.touched_accounts,
        &columns.touched_requests,
        &columns.answer_accounts,
        &columns.answer_requests,
        &columns.answer_devices,
        &columns.answer_ends,
        &columns.transcripts,
    ];
    let values = [before, &columns.usage.values(), after].concat();
    let lease = Lease::renewed(batch.lease, batch.clock, link.term);
    let begins = !columns.held_accounts.is_empty();
    let renews = begins && Lease::is_due(batch.lease, batch.clock, link.term);
    let (since, renewed_at) = (signed(lease.since.0), signed(lease.renewed_at.0));
    let renewal: Values<'_> = &[&me, &since, &renewed_at];
    let client = &link.client;
    let books = batch.books.values().filter_map(|book| book.as_ref().ok());
    for (task, now) in books.flat_map(|book| &book.tasks) {
        let (account, now) = (uuid(task.account.as_u128()), signed(now.0));
        let values: Values<'_> = &[&task.kind, &task.key, &account, &task.body, &now];
        client.execute(&put_task, values).await?;
    }
    // A commit after a statement that failed undoes it all.
    tokio::try_join!(
        biased;
        async {
            if columns.is_empty() {
                return Ok(0);
            }
            client.execute(&write, &values).await
        },
        async {
            if !renews {
                return Ok(0);
            }
            client.execute(&renew, renewal).await
        },
        client.batch_execute("COMMIT"),
    )?;
    Ok(())
}
