//! Questions under way, and what the gateway asks of the outside world for them.

use serde_json::value::RawValue;

use super::answer::{self, Answer, Input};
use super::attach::Kept;
use super::count;
use super::outside::{
    Ask, AskId, Granted, HoldFailed, KeyOf, Progress, SettleFailed, Settled, Told, Unavailable,
};
use super::recall::Recalling;
use super::streams::Lane;
use super::tunnels::Phase;
use super::{Due, Event, Gateway, Output, terms};
use crate::api;
use crate::billing::account::alert::Alert;
use crate::billing::account::{Denied, Hold, HoldId, Lose, Release, Settle};
use crate::billing::tier::Tier;
use crate::dialect;
use crate::escalation::request;
use crate::ids::{AccountId, DeviceId, RequestId};
use crate::limits;
use crate::time::Now;
use crate::transport::{ConnId, Priority, StreamId, Transport};
use crate::wire::message::{Call, ErrorMessage, EscalationRequest, Message, Reply, TokensUsed};

/// One question under way. Never reused within one gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AnswerId(u64);

/// An answer with what its requests to the outside world need.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) answer: Answer,
    account: AccountId,
    device: DeviceId,
    hold: Hold,
    /// The tier that it is charged in, once that is known.
    tier: Option<Tier>,
    model: String,
    project: Option<String>,
    /// The model call under way.
    call: Option<AskId>,
}

impl Running {
    const fn release(&self) -> Release {
        Release {
            request: self.hold.request,
            hold: self.hold.id,
        }
    }

    fn lose(&self, tokens: TokensUsed) -> Lose {
        Lose {
            request: self.hold.request,
            body: self.hold.body,
            tier: self.tier.unwrap_or(Tier::MANAGED),
            model: self.model.clone(),
            price: self.hold.price,
            tokens,
            device: Some(self.device),
        }
    }

    const fn key(&self) -> KeyOf {
        KeyOf::of(self.account, self.tier, &self.hold.price)
    }
}

/// What an outstanding ask was for.
#[derive(Debug)]
pub(super) enum Pending {
    Admit(ConnId),
    Hold(AnswerId),
    Settle(AnswerId),
    Release(AnswerId),
    Lose(AnswerId),
    Checkpoint(AnswerId),
    Call(AnswerId),
    /// A device asks how many tokens something is, and who pays its provider is not known yet.
    CountFor(Box<count::Wanted>),
    /// The same, asked of the model's server.
    Count(Box<count::Asked>),
    Service {
        conn: ConnId,
        stream: StreamId,
        call: u64,
    },
    Recall(Recalling),
    /// A hold that came too late to use: if it was granted, it is given back.
    LateHold {
        account: AccountId,
        release: Release,
    },
    /// The release of such a hold.
    GiveBack {
        account: AccountId,
        release: Release,
    },
    /// The store could not release it: asked again at the deadline. Nothing is asked under this id.
    GiveBackLater {
        account: AccountId,
        release: Release,
    },
    /// Its word no longer matters.
    Forgotten,
}

impl<T: Transport> Gateway<T> {
    /// A question arrived: check it, prepare the model call, begin.
    pub(super) fn question(
        &mut self,
        now: Now,
        conn: ConnId,
        stream: StreamId,
        request: &EscalationRequest,
    ) {
        let Some((account, device)) = self.asker(conn) else {
            return;
        };
        if self.asked_again(now, (conn, stream), (account, device), request) {
            return;
        }
        let prepared = self
            .knows(request)
            .and_then(|()| self.may_ask(now, account, device, request.request_id))
            .and_then(|()| self.prepare(now, device, request));
        match prepared {
            Ok((answer, hold, model)) => {
                let id = self.next_answer();
                self.transport
                    .set_priority(conn, stream, Priority::Escalation);
                self.set_lane(conn, stream, Lane::Answer(id));
                self.watch(now, conn);
                let asked = (request.request_id, hold.body);
                let drains = self.config.keeping.drained.contains(answer.provider());
                let kept = Kept::new((account, device), asked, (conn, stream), drains);
                self.kept.insert(id, kept);
                self.requests.insert((account, request.request_id), id);
                self.running_of_device.add(device);
                self.running_of_account.add(account);
                let running = Running {
                    answer,
                    account,
                    device,
                    hold,
                    tier: None,
                    model,
                    project: request.project_id.clone(),
                    call: None,
                };
                self.answers.insert(id, running);
                self.carry_out(now, id);
            }
            Err(error) => self.refuse_question(now, (conn, stream), device, error),
        }
    }

    pub(super) fn next_answer(&mut self) -> AnswerId {
        AnswerId(self.next_id())
    }

    /// Whether there is such a model: said before anything else, and for nothing.
    fn knows(&self, request: &EscalationRequest) -> Result<(), ErrorMessage> {
        match self.model(&request.model) {
            Some(_) => Ok(()),
            None => Err(terms::unknown_model(
                &request.model,
                &self.config.models,
                Some(request.request_id),
            )),
        }
    }

    /// Whether a new question may be taken now; if so, it counts. One that has to wait for another to end
    /// does not: its device comes back for it every second.
    fn may_ask(
        &mut self,
        now: Now,
        account: AccountId,
        device: DeviceId,
        id: RequestId,
    ) -> Result<(), ErrorMessage> {
        if self.draining.is_some() {
            return Err(terms::stopping(id));
        }
        let rates = self.config.rates;
        self.within_rates(now, account, device, Some(id))?;
        if self.running_of_device.of(&device) >= rates.device_at_once {
            return Err(terms::too_many_at_once(rates.device_at_once, "device", id));
        }
        if self.running_of_account.of(&account) >= rates.account_at_once {
            let most = rates.account_at_once;
            return Err(terms::too_many_at_once(most, "account", id));
        }
        self.count_turn(now, account, device);
        Ok(())
    }

    /// The store knows the question: it has been counted by the gateway that took it, and whoever comes back
    /// for its answer every second asks nothing new.
    pub(super) fn give_turn_back(&mut self, id: AnswerId) {
        if let Some(running) = self.answers.get(&id) {
            let rates = self.config.rates;
            self.asked_by_device
                .give_back(running.device, rates.device_per_minute);
            self.asked_by_account
                .give_back(running.account, rates.account_per_minute);
        }
    }

    /// Whether the asker may ask once more in this minute.
    fn within_rates(
        &self,
        now: Now,
        account: AccountId,
        device: DeviceId,
        id: Option<RequestId>,
    ) -> Result<(), ErrorMessage> {
        let rates = self.config.rates;
        let (of_device, of_account) = (rates.device_per_minute, rates.account_per_minute);
        self.asked_by_device
            .look(now.instant, device, of_device)
            .map_err(|wait| terms::too_often(wait, "device", id))?;
        self.asked_by_account
            .look(now.instant, account, of_account)
            .map_err(|wait| terms::too_often(wait, "account", id))?;
        Ok(())
    }

    /// Takes one from the asker's requests of this minute.
    fn count_turn(&mut self, now: Now, account: AccountId, device: DeviceId) {
        let rates = self.config.rates;
        self.asked_by_device
            .take(now.instant, device, rates.device_per_minute);
        self.asked_by_account
            .take(now.instant, account, rates.account_per_minute);
    }

    /// What makes a model's server work counts as a question does, free or not.
    pub(super) fn take_a_turn(&mut self, now: Now, conn: ConnId) -> Result<(), ErrorMessage> {
        match self.asker(conn) {
            Some((account, device)) => {
                self.within_rates(now, account, device, None)?;
                self.count_turn(now, account, device);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Whose a live tunnel is.
    pub(super) fn asker(&self, conn: ConnId) -> Option<(AccountId, DeviceId)> {
        let tunnel = self.tunnels.get(&conn)?;
        let Phase::Live { account, .. } = &tunnel.phase else {
            return None;
        };
        Some((*account, tunnel.device?))
    }

    fn prepare(
        &mut self,
        now: Now,
        device: DeviceId,
        request: &EscalationRequest,
    ) -> Result<(Answer, Hold, String), ErrorMessage> {
        let (id, hold) = (request.request_id, HoldId(self.next_id()));
        request::validate(request).map_err(|invalid| terms::invalid(&invalid, id))?;
        let model = self
            .model(&request.model)
            .ok_or_else(|| terms::unknown_model(&request.model, &self.config.models, Some(id)))?;
        let target = dialect::Target {
            dialect: model.dialect,
            model: &model.provider_model,
            max_tokens_field: model.max_tokens_field,
        };
        let call = dialect::build_request(&target, request)
            .map_err(|error| terms::untranslatable(&error, id))?;
        let body = request::body_hash(request).map_err(|_| terms::unreadable(id))?;
        let hold = Hold {
            id: hold,
            request: id,
            body,
            price: model.price,
            input_tokens_max: call.input_tokens_max,
            output_tokens_max: u64::from(request.max_tokens),
            provider: model.provider.clone(),
            device: Some(device),
            guest: None,
        };
        let answer = Answer::new(now, request, model.dialect, model.provider.clone(), call);
        Ok((answer, hold, model.name.clone()))
    }

    /// Feeds an answer and carries out what it says.
    pub(super) fn step_answer(&mut self, now: Now, id: AnswerId, input: Input<'_>) {
        let Some(running) = self.answers.get_mut(&id) else {
            return;
        };
        running.answer.handle_input(now, input);
        self.carry_out(now, id);
    }

    fn carry_out(&mut self, now: Now, id: AnswerId) {
        while let Some(running) = self.answers.get_mut(&id) {
            let Some(output) = running.answer.poll_output() else {
                break;
            };
            self.carry_out_one(now, id, output);
        }
        let deadline = self
            .answers
            .get(&id)
            .and_then(|running| running.answer.deadline());
        self.deadlines.set(Due::Answer(id), deadline);
        self.after_step(now, id);
    }

    fn carry_out_one(&mut self, now: Now, id: AnswerId, output: answer::Output) {
        let Some(running) = self.answers.get_mut(&id) else {
            return;
        };
        let account = running.account;
        match output {
            answer::Output::Hold => {
                let hold = running.hold.clone();
                self.ask_store(now, Pending::Hold(id), Ask::Hold { account, hold });
            }
            answer::Output::Settle { tokens, estimated } => {
                let settle = Settle {
                    request: running.answer.request_id(),
                    body: running.hold.body,
                    model: running.model.clone(),
                    price: running.hold.price,
                    tokens,
                    estimated,
                    device: Some(running.device),
                    project: running.project.clone(),
                };
                let keep = self.to_keep(now, id);
                let ask = Ask::Settle {
                    account,
                    settle,
                    keep,
                };
                self.ask_store(now, Pending::Settle(id), ask);
            }
            answer::Output::Release => {
                let release = running.release();
                self.ask_store(now, Pending::Release(id), Ask::Release { account, release });
            }
            answer::Output::Lose(tokens) => {
                let lose = running.lose(tokens);
                self.ask_store(now, Pending::Lose(id), Ask::Lose { account, lose });
            }
            answer::Output::Checkpoint(tokens) => {
                let lose = running.lose(tokens);
                let ask = Ask::Checkpoint { account, lose };
                self.ask_store(now, Pending::Checkpoint(id), ask);
            }
            answer::Output::Call(call) => {
                let (provider, key) = (running.answer.provider().to_owned(), running.key());
                let ask = Ask::Call {
                    provider,
                    key,
                    call,
                };
                let ask = self.ask(Pending::Call(id), ask);
                if let Some(running) = self.answers.get_mut(&id) {
                    running.call = Some(ask);
                }
            }
            answer::Output::Credit(bytes) => {
                if let Some(id) = running.call {
                    self.outputs.push_back(Output::Credit { id, bytes });
                }
            }
            answer::Output::Abandon => {
                if let Some(ask) = running.call.take() {
                    self.asks.insert(ask, Pending::Forgotten);
                    self.outputs.push_back(Output::Abandon { id: ask });
                }
            }
            answer::Output::Send(message) => {
                if let Message::Error(error) = &message {
                    let (device, request) = (running.device, running.answer.request_id());
                    self.event(Event::Failed {
                        device,
                        request,
                        code: error.code,
                    });
                }
                self.keep(now, id, message);
            }
            answer::Output::Over => {
                self.runs_no_more(id);
                self.ended(now, id);
            }
        }
    }

    /// The answer is no longer under way.
    pub(super) fn runs_no_more(&mut self, id: AnswerId) {
        if let Some(running) = self.answers.remove(&id) {
            self.running_of_device.remove(&running.device);
            self.running_of_account.remove(&running.account);
        }
    }

    pub(super) fn call(&mut self, now: Now, conn: ConnId, stream: StreamId, call: &Call) {
        let Some((account, device)) = self.asker(conn) else {
            return;
        };
        self.transport.set_priority(conn, stream, Priority::Call);
        self.set_lane(conn, stream, Lane::Call);
        match api::Method::named(&call.method) {
            Some(api::Method::Ping) => {
                let result = api::Pong {
                    server_time: now.wall,
                };
                self.reply(now, conn, stream, call.id, api::encode(&result));
            }
            Some(api::Method::Models) => {
                let known = self.config.models.iter().map(|model| model.name.clone());
                let names = std::iter::once("auto".to_owned()).chain(known);
                let result = api::Models {
                    names: names.take(limits::MODELS_LISTED_MAX).collect(),
                };
                self.reply(now, conn, stream, call.id, api::encode(&result));
            }
            Some(api::Method::CountTokens) => self.count_tokens(now, conn, stream, call),
            Some(method) => {
                let pending = Pending::Service {
                    conn,
                    stream,
                    call: call.id,
                };
                let ask = Ask::Service {
                    account,
                    device,
                    method,
                    params: call.params.clone().into(),
                };
                self.ask_store(now, pending, ask);
            }
            None => {
                let error = terms::unknown_method(&call.method);
                self.reply(now, conn, stream, call.id, Err(error));
            }
        }
    }

    pub(super) fn reply(
        &mut self,
        now: Now,
        conn: ConnId,
        stream: StreamId,
        id: u64,
        result: Result<Box<RawValue>, ErrorMessage>,
    ) {
        let (result, error) = match result {
            Ok(result) => (Some(result), None),
            Err(error) => (None, Some(error)),
        };
        self.send(
            now,
            conn,
            stream,
            &Message::Reply(Reply { id, result, error }),
        );
        self.end_stream(conn, stream);
    }

    pub(super) fn ask(&mut self, pending: Pending, ask: Ask) -> AskId {
        let id = AskId(self.next_id());
        self.asks.insert(id, pending);
        self.outputs.push_back(Output::Ask { id, ask });
        id
    }

    pub(super) fn ask_store(&mut self, now: Now, pending: Pending, ask: Ask) {
        let id = self.ask(pending, ask);
        self.deadlines
            .set(Due::Ask(id), Some(now.instant + limits::STORE_TIMEOUT));
    }

    pub(super) fn ask_admission(&mut self, now: Now, conn: ConnId, ask: Ask) {
        self.ask_store(now, Pending::Admit(conn), ask);
    }

    /// The outside world has not answered in time: go on without, and remember what a late success
    /// would have taken.
    pub(super) fn ask_overdue(&mut self, now: Now, id: AskId) {
        let Some(pending) = self.asks.get_mut(&id) else {
            return;
        };
        match std::mem::replace(pending, Pending::Forgotten) {
            Pending::Admit(conn) => {
                self.admission_told(now, conn, Err(super::NotAdmitted::Unavailable));
            }
            Pending::Hold(answer) => {
                if let Some(running) = self.answers.get(&answer) {
                    let (account, release) = (running.account, running.release());
                    self.asks.insert(id, Pending::LateHold { account, release });
                }
                self.step_answer(now, answer, Input::Held(None));
            }
            Pending::Settle(answer) => self.step_answer(now, answer, Input::Settled(None)),
            Pending::Release(answer) => self.step_answer(now, answer, Input::Released(false)),
            Pending::Lose(answer) => self.step_answer(now, answer, Input::Lost(false)),
            Pending::Checkpoint(answer) => {
                self.step_answer(now, answer, Input::Checkpointed(false));
            }
            Pending::Service { conn, stream, call } => {
                self.served(now, conn, stream, call, Err(terms::store_down()));
            }
            Pending::Recall(recalling) => self.recalled(now, &recalling, Err(Unavailable)),
            Pending::CountFor(wanted) => {
                self.count_for(now, *wanted, Err(terms::store_down()));
            }
            Pending::Count(asked) => self.count_overdue(now, id, *asked),
            Pending::GiveBack { account, release } => self.give_back(now, account, release),
            Pending::GiveBackLater { account, release } => {
                self.asks.remove(&id);
                self.give_back(now, account, release);
            }
            Pending::Call(_) | Pending::LateHold { .. } | Pending::Forgotten => {}
        }
    }

    fn give_back(&mut self, now: Now, account: AccountId, release: Release) {
        let pending = Pending::GiveBack { account, release };
        self.ask_store(now, pending, Ask::Release { account, release });
    }

    pub(super) fn progress(&mut self, now: Now, id: AskId, piece: Progress) {
        let Some(Pending::Call(answer)) = self.asks.get(&id) else {
            return self.count_progress(id, piece);
        };
        let answer = *answer;
        match piece {
            Progress::Head(head) => self.step_answer(now, answer, Input::Head(head)),
            Progress::Body(bytes) => self.step_answer(now, answer, Input::Body(&bytes)),
        }
    }

    pub(super) fn told(&mut self, now: Now, id: AskId, told: Told) {
        self.deadlines.set(Due::Ask(id), None);
        let Some(pending) = self.asks.remove(&id) else {
            return;
        };
        match (pending, told) {
            (Pending::Admit(conn), Told::Admitted(word)) => self.admission_told(now, conn, word),
            // Another gateway, or another life of this one, has had the question: what became of it?
            (
                Pending::Hold(answer),
                Told::Held(Err(HoldFailed::Denied(
                    Denied::Expired { .. } | Denied::InProgress | Denied::Interrupted { .. },
                ))),
            ) if self.recall_instead(now, answer) => {}
            (Pending::Hold(answer), Told::Held(word)) => {
                let word = match word {
                    Ok(Granted { tier }) => {
                        if let Some(running) = self.answers.get_mut(&answer) {
                            running.tier = Some(tier);
                        }
                        Some(Ok(()))
                    }
                    Err(HoldFailed::Denied(denied)) => Some(Err(denied)),
                    Err(HoldFailed::Unavailable) => None,
                };
                self.step_answer(now, answer, Input::Held(word));
            }
            (Pending::Settle(answer), Told::Settled(word)) => {
                let input = match word {
                    Ok(settled) => Input::Settled(Some(self.charged(now, answer, settled))),
                    Err(SettleFailed::Denied(denied)) => Input::SettleDenied(denied),
                    Err(SettleFailed::Unavailable) => Input::Settled(None),
                };
                self.step_answer(now, answer, input);
            }
            (Pending::Checkpoint(answer), Told::Checkpointed(word)) => {
                self.step_answer(now, answer, Input::Checkpointed(word.is_ok()));
            }
            (Pending::Lose(answer), Told::Lost(word)) => {
                self.step_answer(now, answer, Input::Lost(word.is_ok()));
            }
            (Pending::Release(answer), Told::Released(word)) => {
                self.step_answer(now, answer, Input::Released(word.is_ok()));
            }
            (Pending::Call(answer), Told::Called(end)) => {
                if let Some(running) = self.answers.get_mut(&answer) {
                    running.call = None;
                }
                self.step_answer(now, answer, Input::Ended(end));
            }
            (Pending::Count(asked), Told::Called(end)) => self.counted(now, *asked, end),
            (Pending::CountFor(wanted), Told::Served(word)) => self.count_for(now, *wanted, word),
            (Pending::Service { conn, stream, call }, Told::Served(word)) => {
                self.served(now, conn, stream, call, word);
            }
            (Pending::Recall(recalling), Told::Recalled(word)) => {
                self.recalled(now, &recalling, word);
            }
            (Pending::LateHold { account, release }, Told::Held(Ok(Granted { .. }))) => {
                self.event(Event::LateAnswer);
                self.give_back(now, account, release);
            }
            (Pending::GiveBack { .. }, Told::Released(Ok(()))) => {}
            (Pending::GiveBack { account, release }, Told::Released(Err(Unavailable))) => {
                let id = AskId(self.next_id());
                let pending = Pending::GiveBackLater { account, release };
                self.asks.insert(id, pending);
                let again = now.instant + limits::SETTLE_RETRY_MAX;
                self.deadlines.set(Due::Ask(id), Some(again));
            }
            (Pending::LateHold { .. } | Pending::Forgotten, _) => self.event(Event::LateAnswer),
            // The shell answered with another ask's kind: as if it had not answered at all.
            (mismatched, _) => {
                self.asks.insert(id, mismatched);
                self.ask_overdue(now, id);
                self.asks.remove(&id);
            }
        }
    }

    /// Notes a charge, and tells the account's devices when it comes near a limit. Streams are read in
    /// no order, so that whoever asked is told with the end of the answer too.
    fn charged(&mut self, now: Now, id: AnswerId, settled: Settled) -> Settled {
        let Settled { charge, alert } = &settled;
        if let Some(kept) = self.kept.get_mut(&id) {
            kept.charged(charge);
        }
        if let Some(running) = self.answers.get(&id) {
            let (account, device) = (running.account, running.device);
            self.event(Event::Charged {
                account,
                device,
                request: running.answer.request_id(),
                charge: charge.clone(),
            });
            if let Some(alert) = alert {
                self.alert(now, account, alert);
            }
        }
        settled
    }

    fn alert(&mut self, now: Now, account: AccountId, alert: &Alert) {
        let notice = Message::Notice(terms::limit_notice(alert));
        for (conn, control) in self.controls_of(account) {
            self.send(now, conn, control, &notice);
        }
    }

    pub(super) fn served(
        &mut self,
        now: Now,
        conn: ConnId,
        stream: StreamId,
        call: u64,
        word: Result<Box<RawValue>, ErrorMessage>,
    ) {
        // The stream may have been refused meanwhile.
        if self.lane(conn, stream) != Some(Lane::Call) {
            return;
        }
        self.reply(now, conn, stream, call, word);
    }
}
