//! A batch of calls about money as one transaction: lock the accounts, look up what the rules ask for, run
//! them, write what they say.
//!
//! ```text
//!   ──▶ BEGIN, lock, holds, priors ──▶ rules, in memory ──▶ entries, standings, holds, COMMIT ──▶
//!        one round trip                                      one round trip
//! ```

use std::collections::{BTreeMap, BTreeSet};

use mesh_core::billing::account::order::{Known, Order, Subject};
use mesh_core::billing::account::{Command, Facts, Lose, Prior};
use mesh_core::billing::lease::{self, GatewayId, Judge, Lease};
use mesh_core::billing::ledger::{self, Record};
use mesh_core::billing::usage::{Key, Sums};
use mesh_core::gateway::{Keep, Transcript};
use mesh_core::ids::{AccountId, DeviceId, RequestId};
use mesh_core::time::UnixMillis;
use tokio_postgres::Row;
use uuid::Uuid;

use super::connection::Link;
use super::desk::Values;
use super::rows::{self, signed, uuid};
use super::{statements, usage};
use crate::gateway::store::books::{self, Done, Line, Outcome, Standing};
use crate::gateway::store::error::StoreError;
use crate::gateway::store::types::{NewTask, Ordered};

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

/// What an answer said, to be kept.
struct Spoken {
    request: RequestId,
    device: DeviceId,
    ends_at: UnixMillis,
    transcript: Transcript,
}

/// One account, locked.
struct Book {
    standing: Standing,
    /// Whose each hold is, as it is in the database; void ones too.
    holders: BTreeMap<RequestId, GatewayId>,
    /// The providers that the account pays itself.
    providers: Vec<String>,
    /// What stands under requests' ids and orders' references.
    priors: BTreeMap<String, Prior>,
    records: BTreeMap<String, Record>,
    /// What the only order of the batch undoes, and what has been undone of that.
    subject: Option<(UnixMillis, Record)>,
    undone: Vec<Record>,
    /// To be added.
    lines: Vec<Line>,
    usage: Vec<(Key, Sums)>,
    tasks: Vec<(NewTask, UnixMillis)>,
    answers: Vec<Spoken>,
    /// Requests that began or ended.
    touched: BTreeSet<RequestId>,
    /// Requests whose hold is void. What their gateway was in the middle of is booked by itself.
    void: BTreeSet<RequestId>,
}

impl Book {
    fn new(standing: Standing, providers: Vec<String>) -> Self {
        Self {
            standing,
            holders: BTreeMap::new(),
            providers,
            priors: BTreeMap::new(),
            records: BTreeMap::new(),
            subject: None,
            undone: Vec::new(),
            lines: Vec::new(),
            usage: Vec::new(),
            tasks: Vec::new(),
            answers: Vec::new(),
            touched: BTreeSet::new(),
            void: BTreeSet::new(),
        }
    }

    fn command(
        &mut self,
        me: GatewayId,
        asked: &Asked<'_>,
        command: &Command,
    ) -> Result<Done, StoreError> {
        if self.is_of_another_life(me, command) {
            return Ok(Done::default());
        }
        self.carry_out(me, asked, command)
    }

    /// An answer that is another gateway's meanwhile is left to it.
    fn cut_off(
        &mut self,
        me: GatewayId,
        asked: &Asked<'_>,
        lose: &Lose,
    ) -> Result<Done, StoreError> {
        if self
            .holders
            .get(&lose.request)
            .is_some_and(|&holder| holder != me)
        {
            return Ok(Done::default());
        }
        self.carry_out(me, asked, &Command::Lose(lose.clone()))
    }

    fn carry_out(
        &mut self,
        me: GatewayId,
        asked: &Asked<'_>,
        command: &Command,
    ) -> Result<Done, StoreError> {
        let request = command.request();
        let prior = self.priors.get(&request.to_string()).cloned();
        let (provider_key, ends) = match command {
            Command::Hold(hold) => (self.providers.contains(&hold.provider), false),
            Command::Settle(_) | Command::Release(_) | Command::Lose(_) => (false, true),
        };
        let facts = Facts {
            now: asked.now,
            prior: prior.clone(),
            provider_key,
        };
        let outcome = self
            .standing
            .carry_out(asked.account, &facts, command.clone())?;
        if ends {
            self.touched.insert(request);
        }
        for (request, _) in &outcome.touched {
            self.touched.insert(*request);
            if self.standing.account.holds.contains_key(request) {
                self.holders.insert(*request, me);
            }
        }
        let done = Done::new(prior, &outcome);
        self.take(outcome, asked.now);
        Ok(done)
    }

    /// Keeps what an answer said, by the server's clock.
    fn keep(&mut self, command: &Command, keep: Option<&Keep>, clock: UnixMillis) {
        if let Some((keep, device)) = keep.zip(command.device()) {
            self.answers.push(Spoken {
                request: command.request(),
                device,
                ends_at: books::ends_at(clock, keep.kept),
                transcript: keep.transcript.clone(),
            });
        }
    }

    /// Whether a command speaks of a hold that is not there any more, while the same question was asked
    /// again and is held by somebody.
    fn is_of_another_life(&self, me: GatewayId, command: &Command) -> bool {
        let request = command.request();
        let held = self.standing.account.holds.get(&request);
        let Some((held, holder)) = held.zip(self.holders.get(&request)) else {
            return false;
        };
        match command {
            Command::Release(release) => !lease::means(me, release, *holder, held.id),
            Command::Lose(_) => true,
            Command::Hold(_) | Command::Settle(_) => false,
        }
    }

    /// Whatever it does, holds stay.
    fn order(&mut self, asked: &Asked<'_>, order: &Order) -> Result<Answer, StoreError> {
        let reference = order.reference.as_str();
        let known = Known {
            now: asked.now,
            prior: self.records.get(reference).cloned(),
            subject: self.subject.clone(),
            undone: self.undone.clone(),
        };
        let outcome = self.standing.order(asked.account, &known, order)?;
        let record = outcome.lines.last();
        let record = record.map(|line| line.entry.record.clone());
        let repeated = record.is_none();
        let lost = || StoreError::Damaged("an order was written and is not there".to_owned());
        let record = record.or(known.prior).ok_or_else(lost)?;
        self.take(outcome, asked.now);
        self.records.insert(reference.to_owned(), record.clone());
        Ok(Answer::Ordered(Box::new(Ordered { record, repeated })))
    }

    fn lapse(&mut self, asked: &Asked<'_>) -> Result<Answer, StoreError> {
        let outcome = self.standing.lapse(asked.account, asked.now)?;
        self.take(outcome, asked.now);
        Ok(Answer::Lapsed)
    }

    /// Keeps what has to be written, and what later calls of the batch have to know.
    fn take(&mut self, outcome: Outcome, now: UnixMillis) {
        for line in outcome.lines {
            let record = &line.entry.record;
            if let Some((request, prior)) = books::filed_under(record).zip(Prior::of(record)) {
                self.priors.insert(request, prior);
            }
            self.lines.push(line);
        }
        self.usage.extend(outcome.usage);
        let tasks = outcome.tasks.into_iter().map(|task| (task, now));
        self.tasks.extend(tasks);
    }
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

/// Everything that is to be written, as columns.
#[derive(Default)]
struct Columns<'a> {
    touched_accounts: Vec<Uuid>,
    touched_requests: Vec<Uuid>,
    gone_accounts: Vec<Uuid>,
    gone_requests: Vec<Uuid>,
    held_accounts: Vec<Uuid>,
    held_requests: Vec<Uuid>,
    helds: Vec<String>,
    entry_accounts: Vec<Uuid>,
    sequences: Vec<i64>,
    canonicals: Vec<&'a str>,
    hashes: Vec<&'a [u8]>,
    usage: usage::Columns,
    accounts: Vec<Uuid>,
    states: Vec<String>,
    entries: Vec<i64>,
    heads: Vec<&'a [u8]>,
    answer_accounts: Vec<Uuid>,
    answer_requests: Vec<Uuid>,
    answer_devices: Vec<Uuid>,
    answer_ends: Vec<i64>,
    transcripts: Vec<&'a [u8]>,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a Batch) -> Result<Self, StoreError> {
        let mut columns = Self::default();
        for (id, book) in &batch.books {
            if let Ok(book) = book {
                columns.take(*id, book)?;
            }
        }
        Ok(columns)
    }

    fn take(&mut self, id: AccountId, book: &'a Book) -> Result<(), StoreError> {
        let account = uuid(id.as_u128());
        for line in &book.lines {
            self.entry_accounts.push(account);
            self.sequences.push(signed(line.entry.sequence));
            self.canonicals.push(&line.canonical);
            self.hashes.push(&line.hash.0);
        }
        if !book.lines.is_empty() {
            self.accounts.push(account);
            self.states.push(book.standing.state()?);
            self.entries.push(signed(book.standing.entries));
            self.heads.push(&book.standing.head.0);
        }
        let mut sums: BTreeMap<&Key, Sums> = BTreeMap::new();
        for (key, more) in &book.usage {
            let sum = sums.entry(key).or_default();
            *sum = sum.plus(more)?;
        }
        for (key, sums) in sums {
            self.usage.push(account, key, &sums);
        }
        for spoken in &book.answers {
            self.answer_accounts.push(account);
            self.answer_requests.push(uuid(spoken.request.as_u128()));
            self.answer_devices.push(uuid(spoken.device.as_u128()));
            self.answer_ends.push(signed(spoken.ends_at.0));
            self.transcripts.push(spoken.transcript.as_bytes());
        }
        for request in &book.touched {
            self.touched_accounts.push(account);
            self.touched_requests.push(uuid(request.as_u128()));
        }
        for request in book.touched.union(&book.void) {
            let name = uuid(request.as_u128());
            if let Some(held) = book.standing.account.holds.get(request) {
                self.held_accounts.push(account);
                self.held_requests.push(name);
                let text = serde_json::to_string(held);
                self.helds
                    .push(text.map_err(|error| StoreError::Failed(error.to_string()))?);
            } else {
                self.gone_accounts.push(account);
                self.gone_requests.push(name);
            }
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.gone_accounts.is_empty()
            && self.held_accounts.is_empty()
            && self.entry_accounts.is_empty()
    }
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
    let lease = Lease::renewed(batch.lease, batch.clock);
    let begins = !columns.held_accounts.is_empty();
    let renews = begins && Lease::is_due(batch.lease, batch.clock);
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
