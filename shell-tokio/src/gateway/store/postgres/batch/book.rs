//! One account, locked: what is decided about it, and what has to be written of it.

use std::collections::{BTreeMap, BTreeSet};

use mesh_core::billing::account::order::{Known, Order};
use mesh_core::billing::account::{Command, Facts, Lose, Prior};
use mesh_core::billing::lease::{self, GatewayId};
use mesh_core::billing::ledger::Record;
use mesh_core::billing::usage::{Key, Sums};
use mesh_core::gateway::{Keep, Transcript};
use mesh_core::ids::{DeviceId, RequestId};
use mesh_core::time::UnixMillis;

use super::{Answer, Asked};
use crate::gateway::store::books::{self, Done, Line, Outcome, Standing};
use crate::gateway::store::error::StoreError;
use crate::gateway::store::types::{NewTask, Ordered};

/// What an answer said, to be kept.
pub(super) struct Spoken {
    pub(super) request: RequestId,
    pub(super) device: DeviceId,
    pub(super) ends_at: UnixMillis,
    pub(super) transcript: Transcript,
}

/// One account, locked.
pub(super) struct Book {
    pub(super) standing: Standing,
    /// Whose each hold is, as it is in the database; void ones too.
    pub(super) holders: BTreeMap<RequestId, GatewayId>,
    /// The providers that the account pays itself.
    pub(super) providers: Vec<String>,
    /// What stands under requests' ids and orders' references.
    pub(super) priors: BTreeMap<String, Prior>,
    pub(super) records: BTreeMap<String, Record>,
    /// What the only order of the batch undoes, and what has been undone of that.
    pub(super) subject: Option<(UnixMillis, Record)>,
    pub(super) undone: Vec<Record>,
    /// To be added.
    pub(super) lines: Vec<Line>,
    pub(super) usage: Vec<(Key, Sums)>,
    pub(super) tasks: Vec<(NewTask, UnixMillis)>,
    pub(super) answers: Vec<Spoken>,
    /// Requests that began or ended.
    pub(super) touched: BTreeSet<RequestId>,
    /// Requests whose hold is void. What their gateway was in the middle of is booked by itself.
    pub(super) void: BTreeSet<RequestId>,
}

impl Book {
    pub(super) fn new(standing: Standing, providers: Vec<String>) -> Self {
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

    pub(super) fn command(
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
    pub(super) fn cut_off(
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
    pub(super) fn keep(&mut self, command: &Command, keep: Option<&Keep>, clock: UnixMillis) {
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
    pub(super) fn order(&mut self, asked: &Asked<'_>, order: &Order) -> Result<Answer, StoreError> {
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

    pub(super) fn lapse(&mut self, asked: &Asked<'_>) -> Result<Answer, StoreError> {
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
