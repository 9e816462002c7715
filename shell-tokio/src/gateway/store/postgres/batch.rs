//! A batch of calls about money as one transaction: lock the accounts, look up what the rules ask for, run
//! them, write what they say.
//!
//! ```text
//!   ──▶ BEGIN, lock, holds, priors ──▶ rules, in memory ──▶ entries, standings, holds, COMMIT ──▶
//!        one round trip                                      one round trip
//! ```

use std::collections::{BTreeMap, BTreeSet};

use mesh_core::billing::account::order::{Order, Reference};
use mesh_core::billing::account::{Command, Facts, Held};
use mesh_core::billing::lease::{self, GatewayId, Holder};
use mesh_core::billing::ledger::{Charge, Record};
use mesh_core::ids::{AccountId, RequestId};
use mesh_core::time::UnixMillis;
use tokio_postgres::Row;
use uuid::Uuid;

use super::connection::Link;
use super::desk::Values;
use super::rows::{self, signed, uuid};
use super::statements;
use crate::gateway::store::books::{self, Done, Line, Standing};
use crate::gateway::store::error::StoreError;
use crate::gateway::store::types::Ordered;

/// What is asked about an account's money.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Command(Command),
    Order(Order),
}

/// What came of it.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Done(Box<Done>),
    Ordered(Box<Ordered>),
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
    let mut desk = load(link, me, batch).await?;
    let answers = batch.iter().map(|asked| desk.carry_out(asked)).collect();
    write(link, me, &desk).await?;
    Ok(answers)
}

/// What the calls of a batch work on.
struct Desk {
    me: GatewayId,
    books: BTreeMap<AccountId, Result<Book, StoreError>>,
    /// This gateway has to renew its lease, if it sets anything aside.
    lease_is_due: bool,
}

/// One account, locked.
struct Book {
    standing: Standing,
    /// Whose each hold is, as it is in the database; void ones too.
    holders: BTreeMap<RequestId, GatewayId>,
    charges: BTreeMap<RequestId, Charge>,
    records: BTreeMap<Reference, Record>,
    /// To be added.
    lines: Vec<Line>,
    /// Rows of holds that are not what they were.
    touched: BTreeSet<RequestId>,
}

impl Book {
    fn new(standing: Standing) -> Self {
        Self {
            standing,
            holders: BTreeMap::new(),
            charges: BTreeMap::new(),
            records: BTreeMap::new(),
            lines: Vec::new(),
            touched: BTreeSet::new(),
        }
    }

    fn command(
        &mut self,
        me: GatewayId,
        asked: &Asked<'_>,
        command: &Command,
    ) -> Result<Answer, StoreError> {
        let about = books::about(command);
        if let Command::Release(release) = command
            && let (Some(held), Some(holder)) = (
                self.standing.account.holds.get(&about),
                self.holders.get(&about),
            )
            && !lease::means(me, release, *holder, held.id)
        {
            return Ok(Answer::Done(Box::default()));
        }
        let prior = self.charges.get(&about).cloned();
        let facts = Facts {
            now: asked.now,
            prior: prior.clone(),
        };
        let outcome = self
            .standing
            .carry_out(asked.account, &facts, command.clone())?;
        for (request, _) in &outcome.touched {
            self.touched.insert(*request);
            if self.standing.account.holds.contains_key(request) {
                self.holders.insert(*request, me);
            }
        }
        let done = Done::new(prior, &outcome);
        for line in outcome.lines {
            if let Some(charge) = line.entry.record.charge() {
                self.charges.insert(charge.request, charge.clone());
            }
            self.lines.push(line);
        }
        Ok(Answer::Done(Box::new(done)))
    }

    /// Whatever it does, holds stay.
    fn order(&mut self, asked: &Asked<'_>, order: &Order) -> Result<Answer, StoreError> {
        let prior = self.records.get(&order.reference);
        let lines = self
            .standing
            .order(asked.account, asked.now, prior, order)?;
        let record = lines.last().map(|line| line.entry.record.clone());
        let repeated = record.is_none();
        let lost = || StoreError::Damaged("an order was written and is not there".to_owned());
        let record = record.or_else(|| prior.cloned()).ok_or_else(lost)?;
        self.lines.extend(lines);
        self.records.insert(order.reference.clone(), record.clone());
        Ok(Answer::Ordered(Box::new(Ordered { record, repeated })))
    }
}

impl Desk {
    /// Runs one call. Changes nothing when it fails.
    fn carry_out(&mut self, asked: &Asked<'_>) -> Result<Answer, StoreError> {
        match self.books.get_mut(&asked.account) {
            None => Err(StoreError::UnknownAccount),
            Some(Err(error)) => Err(error.clone()),
            Some(Ok(book)) => match asked.ask {
                Ask::Command(command) => book.command(self.me, asked, command),
                Ask::Order(order) => book.order(asked, order),
            },
        }
    }

    fn book(&mut self, row: &Row) -> Result<Option<&mut Book>, StoreError> {
        let book = self.books.get_mut(&rows::account_id(row, 0)?);
        Ok(book.and_then(|book| book.as_mut().ok()))
    }

    /// Reads `account, sequence, canonical, hash`, of what stands under an id that is asked about.
    fn take_prior(&mut self, row: &Row) -> Result<(), StoreError> {
        let Some(book) = self.book(row)? else {
            return Ok(());
        };
        let entry = books::entry(&rows::stored(row, 1)?)?;
        let reference: Option<String> = row.try_get(4)?;
        if let Some(charge) = entry.record.charge() {
            book.charges.insert(charge.request, charge.clone());
        }
        if let Some(reference) = reference.and_then(|text| Reference::new(text).ok()) {
            book.records.insert(reference, entry.record);
        }
        Ok(())
    }

    /// Reads a hold. One that is void does not count, and goes.
    fn take_hold(&mut self, row: &Row) -> Result<(), StoreError> {
        let me = self.me;
        let Some(book) = self.book(row)? else {
            return Ok(());
        };
        let (request, gateway, held) = rows::held(row, 1)?;
        let (clock, renewed_at) = (rows::time(row, 9)?, rows::maybe_time(row, 10)?);
        let holder = Holder {
            gateway,
            renewed_at,
        };
        book.holders.insert(request, gateway);
        if holder.is_gone(me, clock) {
            book.touched.insert(request);
        } else {
            book.standing.account.holds.insert(request, held);
        }
        Ok(())
    }
}

async fn load(link: &mut Link, me: GatewayId, batch: &[Asked<'_>]) -> Result<Desk, Broken> {
    let accounts: BTreeSet<AccountId> = batch.iter().map(|asked| asked.account).collect();
    let accounts: Vec<Uuid> = accounts.iter().map(|id| uuid(id.as_u128())).collect();
    let (mut of, mut requests) = (Vec::new(), Vec::new());
    let (mut by, mut references) = (Vec::new(), Vec::new());
    for asked in batch {
        let account = uuid(asked.account.as_u128());
        match asked.ask {
            Ask::Command(command) => {
                of.push(account);
                requests.push(books::about(command).to_string());
            }
            Ask::Order(order) => {
                by.push(account);
                references.push(order.reference.as_str());
            }
        }
    }
    let lock = link.statement(statements::LOCK).await?;
    let holds = link.statement(statements::HOLDS).await?;
    let charges = link.statement(statements::CHARGES).await?;
    let records = link.statement(statements::RECORDS).await?;
    // All are sent before the first is answered. Each sees what was committed before its own turn, so
    // that what follows the lock is what the lock guards.
    let client = &link.client;
    let (own, of_accounts): (Uuid, Values<'_>) = (uuid(me.as_u128()), &[&accounts]);
    let to_lock: Values<'_> = &[&accounts, &own];
    let of_requests: Values<'_> = &[&of, &requests];
    let of_references: Values<'_> = &[&by, &references];
    let ((), locked, held, charges, records) = tokio::try_join!(
        biased;
        client.batch_execute("BEGIN"),
        client.query(&lock, to_lock),
        client.query(&holds, of_accounts),
        client.query(&charges, of_requests),
        async {
            if references.is_empty() {
                return Ok(Vec::new());
            }
            client.query(&records, of_references).await
        },
    )?;
    let mut desk = Desk {
        me,
        books: BTreeMap::new(),
        lease_is_due: false,
    };
    for row in &locked {
        let (state, entries, head) = rows::standing(row, 1)?;
        let book = Standing::read(state, entries, head).map(Book::new);
        desk.books.insert(rows::account_id(row, 0)?, book);
        desk.lease_is_due = lease::is_due(rows::maybe_time(row, 5)?, rows::time(row, 4)?);
    }
    for row in &held {
        desk.take_hold(row)?;
    }
    for row in charges.iter().chain(&records) {
        desk.take_prior(row)?;
    }
    Ok(desk)
}

/// Everything that is to be written, as columns.
#[derive(Default)]
struct Columns<'a> {
    entry_accounts: Vec<Uuid>,
    sequences: Vec<i64>,
    canonicals: Vec<&'a str>,
    hashes: Vec<&'a [u8]>,
    accounts: Vec<Uuid>,
    states: Vec<String>,
    entries: Vec<i64>,
    heads: Vec<&'a [u8]>,
    gone_accounts: Vec<Uuid>,
    gone_requests: Vec<Uuid>,
    held: NewHolds<'a>,
}

/// The columns of new holds.
#[derive(Default)]
struct NewHolds<'a> {
    accounts: Vec<Uuid>,
    requests: Vec<Uuid>,
    ids: Vec<i64>,
    bodies: Vec<&'a [u8]>,
    ats: Vec<i64>,
    months: Vec<i32>,
    charges: Vec<i64>,
    bases: Vec<i64>,
}

impl<'a> Columns<'a> {
    fn of(desk: &'a Desk) -> Result<Self, StoreError> {
        let mut columns = Self::default();
        for (id, book) in &desk.books {
            let Ok(book) = book else { continue };
            let account = uuid(id.as_u128());
            for line in &book.lines {
                columns.entry_accounts.push(account);
                columns.sequences.push(signed(line.entry.sequence));
                columns.canonicals.push(&line.canonical);
                columns.hashes.push(&line.hash.0);
            }
            if !book.lines.is_empty() {
                columns.accounts.push(account);
                columns.states.push(book.standing.state()?);
                columns.entries.push(signed(book.standing.entries));
                columns.heads.push(&book.standing.head.0);
            }
            for request in &book.touched {
                match book.standing.account.holds.get(request) {
                    Some(held) => columns.held.push(account, *request, held),
                    None => {
                        columns.gone_accounts.push(account);
                        columns.gone_requests.push(uuid(request.as_u128()));
                    }
                }
            }
        }
        Ok(columns)
    }
}

impl<'a> NewHolds<'a> {
    fn push(&mut self, account: Uuid, request: RequestId, held: &'a Held) {
        self.accounts.push(account);
        self.requests.push(uuid(request.as_u128()));
        self.ids.push(held.id.0.cast_signed());
        self.bodies.push(&held.body);
        self.ats.push(signed(held.at.0));
        self.months.push(held.month.index());
        self.charges.push(held.charge.0);
        self.bases.push(held.base.0);
    }
}

/// Writes and commits, all of it sent at once. Also what is only set aside waits for the disk: a hold that
/// a crash of the server took away would make its charge an overage, and a release that it took back
/// would set money aside for as long as the gateway lives.
async fn write(link: &mut Link, me: GatewayId, desk: &Desk) -> Result<(), Broken> {
    let columns = Columns::of(desk)?;
    let (held, me) = (&columns.held, uuid(me.as_u128()));
    let begins = !held.accounts.is_empty();
    let nothing = !begins && columns.gone_accounts.is_empty() && columns.entry_accounts.is_empty();
    let write = link.statement(statements::WRITE).await?;
    let renew = link.statement(statements::RENEW).await?;
    let values: Values<'_> = &[
        &columns.gone_accounts,
        &columns.gone_requests,
        &me,
        &held.accounts,
        &held.requests,
        &held.ids,
        &held.bodies,
        &held.ats,
        &held.months,
        &held.charges,
        &held.bases,
        &columns.entry_accounts,
        &columns.sequences,
        &columns.canonicals,
        &columns.hashes,
        &columns.accounts,
        &columns.states,
        &columns.entries,
        &columns.heads,
    ];
    let renewal: Values<'_> = &[&me];
    let client = &link.client;
    // A commit after a statement that failed undoes it all.
    tokio::try_join!(
        biased;
        async {
            if nothing {
                return Ok(0);
            }
            client.execute(&write, values).await
        },
        async {
            if !(begins && desk.lease_is_due) {
                return Ok(0);
            }
            client.execute(&renew, renewal).await
        },
        client.batch_execute("COMMIT"),
    )?;
    Ok(())
}
