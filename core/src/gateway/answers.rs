//! Questions under way: how one begins, and how what its answer asks for is carried out.

use super::answer::{self, Answer, Input};
use super::asks::Pending;
use super::attach::Kept;
use super::outside::{Ask, AskId, KeyOf, Settled};
use super::streams::Lane;
use super::{Due, Event, Gateway, Output, terms};
use crate::billing::account::alert::Alert;
use crate::billing::account::{Hold, HoldId, Lose, Release, Settle};
use crate::billing::tier::Tier;
use crate::dialect::{self, ModelRequest};
use crate::escalation::request;
use crate::ids::{AccountId, DeviceId};
use crate::time::Now;
use crate::transport::{ConnId, Priority, StreamId, Transport};
use crate::wire::message::{ErrorMessage, EscalationRequest, Message, TokensUsed};

/// One question under way. Never reused within one gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AnswerId(u64);

/// An answer with what its requests to the outside world need.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) answer: Answer,
    pub(super) account: AccountId,
    pub(super) device: DeviceId,
    hold: Hold,
    /// The tier that it is charged in, once that is known.
    pub(super) tier: Option<Tier>,
    model: String,
    project: Option<String>,
    /// The model call under way.
    pub(super) call: Option<AskId>,
}

impl Running {
    fn settle(&self, tokens: TokensUsed, estimated: bool) -> Settle {
        Settle {
            request: self.hold.request,
            body: self.hold.body,
            model: self.model.clone(),
            price: self.hold.price,
            tokens,
            estimated,
            device: Some(self.device),
            project: self.project.clone(),
        }
    }

    pub(super) const fn release(&self) -> Release {
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

    fn model_call(&self, call: ModelRequest) -> Ask {
        Ask::Call {
            provider: self.answer.provider().to_owned(),
            key: KeyOf::of(self.account, self.tier, &self.hold.price),
            call,
        }
    }
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
                self.begin(now, conn, stream, running);
            }
            Err(error) => self.refuse_question(now, (conn, stream), device, error),
        }
    }

    fn begin(&mut self, now: Now, conn: ConnId, stream: StreamId, running: Running) {
        let id = self.next_answer();
        self.transport
            .set_priority(conn, stream, Priority::Escalation);
        self.set_lane(conn, stream, Lane::Answer(id));
        self.watch(now, conn);
        let (account, device) = (running.account, running.device);
        let asked = (running.hold.request, running.hold.body);
        let provider = running.answer.provider();
        let drains = self.config.keeping.drained.contains(provider);
        let kept = Kept::new((account, device), asked, (conn, stream), drains);
        self.kept.insert(id, kept);
        self.requests.insert((account, running.hold.request), id);
        self.running_of_device.add(device);
        self.running_of_account.add(account);
        self.answers.insert(id, running);
        self.carry_out(now, id);
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
                let settle = running.settle(tokens, estimated);
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
                let ask = running.model_call(call);
                let asked = self.ask(Pending::Call(id), ask);
                if let Some(running) = self.answers.get_mut(&id) {
                    running.call = Some(asked);
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

    /// Notes a charge, and tells the account's devices when it comes near a limit. Streams are read in
    /// no order, so that whoever asked is told with the end of the answer too.
    pub(super) fn charged(&mut self, now: Now, id: AnswerId, settled: Settled) -> Settled {
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
}
