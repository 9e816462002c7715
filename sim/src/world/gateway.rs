//! A gateway: its machine, and what it asks of the store and the model servers.

use std::time::Duration;

use mesh_core::billing::price::Price;
use mesh_core::dialect::MaxTokensField;
use mesh_core::dialect::exchange::Broken;
use mesh_core::error::ErrorCode;
use mesh_core::gateway::{
    Ask, AskId, Config, Event as Happened, Gateway, HoldFailed, Input, Keeping, Model, NotAdmitted,
    Output, Progress, Rates, Return, SettleFailed, Told, Unavailable,
};
use mesh_core::ids::RequestId;
use mesh_core::machine::{Machine as _, RootMachine as _};
use mesh_core::time::Now;
use mesh_core::transport::Datagram;
use mesh_core::wire::message::DialectName;

use super::{End, Event, World, request_id, run_due};
use crate::chance::seed_of;
use crate::invariants::Seen;
use crate::outside::upstream::{self, Call, Next};
use crate::plan::{Happening, Script};
use crate::queue::{MILLI, Micros};
use crate::recorder::Text;
use crate::wire::{Unbuildable, WallClock, Wire};

/// See the module documentation.
#[derive(Debug)]
pub(super) struct GatewayNode<W: Wire> {
    /// `None` while its process is dead.
    pub(super) machine: Option<Gateway<W>>,
    /// Lives of its process.
    pub(super) life: u32,
    pub(super) skew_ms: i64,
    clock: WallClock,
    armed: Option<Micros>,
}

impl<W: Wire> Default for GatewayNode<W> {
    fn default() -> Self {
        Self {
            machine: None,
            life: 0,
            skew_ms: 0,
            clock: WallClock::default(),
            armed: None,
        }
    }
}

/// Something that the store was asked and will answer.
#[derive(Debug)]
pub(super) struct StoreJob {
    gateway: usize,
    life: u32,
    id: AskId,
    ask: Ask,
    at: Micros,
}

fn config(kept_secs: u32, rates: Rates) -> Config {
    let model = |name: &str, dialect| Model {
        name: name.to_owned(),
        provider: name.to_owned(),
        dialect,
        provider_model: name.to_owned(),
        max_tokens_field: MaxTokensField::MaxTokens,
        price: Price::CLAUDE_SONNET,
    };
    Config {
        models: vec![
            model("openai", DialectName::Openai),
            model("anthropic", DialectName::Anthropic),
        ],
        default_model: "openai".to_owned(),
        tunnels_max: 100_000,
        keeping: Keeping {
            kept: Duration::from_secs(kept_secs.into()),
            ..Keeping::default()
        },
        rates,
    }
}

impl<W: Wire> World<W> {
    /// Starts a gateway's process, anew after a crash.
    pub(super) fn start_gateway(&mut self, at: usize) -> Result<(), Unbuildable> {
        let now = self.gateway_now(at);
        let node = &mut self.gateways[at];
        node.life += 1;
        node.clock.set(now.wall);
        let mut seed = seed_of(self.plan.seed, &format!("gateway {at}"));
        if self.plan.buggify {
            seed = seed.with_buggify();
        }
        let seed = seed.child(&format!("life {}", node.life));
        let shard = u8::try_from(at).map_err(Unbuildable::new)?;
        let transport = W::gateway(&self.authority, shard, &node.clock, &seed)?;
        let config = config(self.plan.kept_secs, super::rates::rates(self.plan.rates));
        let machine = Gateway::new(transport, config).map_err(Unbuildable::new)?;
        node.machine = Some(machine);
        node.armed = None;
        self.settle_gateway(at);
        Ok(())
    }

    /// A gateway's process dies: its holds are void, its calls are cut, its questions to the store
    /// are never answered.
    pub(super) fn kill_gateway(&mut self, at: usize) {
        let node = &mut self.gateways[at];
        let Some(machine) = node.machine.take() else {
            return;
        };
        let goes_away = self.record.going_away.remove(&at).is_some();
        if machine.answers_under_way() > 0 && !goes_away {
            self.sometimes
                .saw("a gateway crashed while it worked on an answer");
        }
        self.record.rates.forget(at);
        self.lose_all_of(at);
        for asked in self.record.questions.values_mut() {
            if asked.called_at == Some(at) && asked.counted.is_none() {
                asked.orphaned = asked.produced.len();
            }
        }
        let calls: Vec<u64> = self
            .calls
            .iter()
            .filter(|(_, call)| call.gateway == at)
            .map(|(&id, _)| id)
            .collect();
        for call in calls {
            self.end_call(call);
        }
    }

    pub(super) fn gateway_now(&self, at: usize) -> Now {
        self.now_of(0, self.gateways[at].skew_ms)
    }

    pub(super) fn give_gateway(&mut self, at: usize, input: Input) {
        let now = self.gateway_now(at);
        let node = &mut self.gateways[at];
        node.clock.set(now.wall);
        let Some(machine) = &mut node.machine else {
            return;
        };
        if let Err(rejected) = machine.handle_input(now, input) {
            self.note(format!("gateway {at}"), format!("rejected: {rejected}"));
        }
        self.settle_gateway(at);
    }

    pub(super) fn gateway_datagram(&mut self, at: usize, datagram: Datagram) {
        let now = self.gateway_now(at);
        let Some(node) = self.gateways.get_mut(at) else {
            return;
        };
        node.clock.set(now.wall);
        if let Some(machine) = &mut node.machine {
            machine.handle_datagram(now, datagram);
            self.settle_gateway(at);
        }
    }

    pub(super) fn gateway_timer(&mut self, at: usize) {
        let now = self.gateway_now(at);
        let virtual_now = self.queue.now();
        let node = &mut self.gateways[at];
        if node.armed != Some(virtual_now) {
            return;
        }
        node.armed = None;
        node.clock.set(now.wall);
        let Some(machine) = &mut node.machine else {
            return;
        };
        run_due(machine, now);
        self.settle_gateway(at);
    }

    fn settle_gateway(&mut self, at: usize) {
        let mut outputs = 0;
        while let Some(output) = self.gateways[at]
            .machine
            .as_mut()
            .and_then(|m| m.poll_output())
        {
            outputs += 1;
            self.gateway_says(at, output);
        }
        self.see(&Seen::Outputs(outputs));
        let now = self.gateway_now(at);
        self.send_all(End::Gateway(at), now, |world| {
            world.gateways[at].machine.as_mut()
        });
        let node = &self.gateways[at];
        let deadline = node.machine.as_ref().and_then(|m| m.poll_timeout());
        let armed = node.armed;
        let armed = self.arm(End::Gateway(at), deadline.map(|(at, _)| at), 0, armed);
        self.gateways[at].armed = armed;
    }

    fn gateway_says(&mut self, at: usize, output: Output) {
        match output {
            Output::Ask { id, ask } => self.asked(at, id, ask),
            Output::Credit { id, bytes } => {
                let life = self.gateways[at].life;
                if let Some(&call) = self.by_ask.get(&(at, life, id)) {
                    if let Some(call) = self.calls.get_mut(&call) {
                        call.credit += bytes;
                    }
                    self.schedule_call(call);
                }
            }
            Output::Abandon { id } => {
                let life = self.gateways[at].life;
                if let Some(&call) = self.by_ask.get(&(at, life, id)) {
                    if let Some(call) = self.calls.get_mut(&call) {
                        call.script = [Next::End(Err(Broken::Reset), String::new())].into();
                        if let Some(asked) = self.record.questions.get_mut(&call.request) {
                            asked.calling = false;
                        }
                    }
                    self.schedule_call(call);
                }
            }
            Output::Event(event) => self.gateway_event(at, &event),
            Output::Stopped => self.note(format!("gateway {at}"), "stopped in good order"),
            Output::Warm { .. } => {}
        }
    }

    fn gateway_event(&mut self, at: usize, event: &Happened) {
        match event {
            Happened::LateAnswer => self
                .sometimes
                .saw("a late answer of the outside world was given back"),
            Happened::TunnelUp { device, epoch, .. } => {
                self.record.established.push(self.queue.now());
                self.see(&Seen::TakenIn(at));
                self.note(
                    format!("gateway {at}"),
                    format!("{device} is up, epoch {epoch}"),
                );
            }
            Happened::TunnelDown { device, reason } => {
                self.note(
                    format!("gateway {at}"),
                    format!("{device:?} is down: {reason}"),
                );
            }
            Happened::SentAway {
                device,
                reconnect_in,
            } => self.sent_away(at, *device, *reconnect_in),
            Happened::Charged {
                request, charge, ..
            } => {
                if self.record.going_away.contains_key(&at) {
                    self.sometimes
                        .saw("an answer was finished by a gateway that went away");
                }
                let charged = charge.charge;
                self.note(
                    format!("gateway {at}"),
                    format!("{request} charged {charged}"),
                );
            }
            Happened::Failed {
                device,
                request,
                code,
            } => {
                self.question_refused(at, (*device, *request), *code);
                if *code == ErrorCode::ShuttingDown {
                    self.sometimes
                        .saw("a question was asked of a gateway that went away");
                }
                self.note(
                    format!("gateway {at}"),
                    format!("{request} failed: {code:?}"),
                );
            }
            Happened::Detached { request, .. } => {
                self.note(
                    format!("gateway {at}"),
                    format!("{request} goes on unheard"),
                );
            }
            Happened::Attached {
                request,
                how,
                from,
                running,
                ..
            } => {
                self.sometimes.saw(match (how, running) {
                    (Return::Resumed, true) => "an answer was resumed in the middle",
                    (Return::Resumed, false) => "an answer was resumed after its end",
                    (Return::AskedAgain, _) => "the same question joined its answer",
                });
                self.note(
                    format!("gateway {at}"),
                    format!("{request} is heard again from piece {from}"),
                );
            }
            Happened::Forgotten { .. } => self.sometimes.saw("an answer was kept no longer"),
            Happened::Unbooked { request, .. } => {
                let words = format!("{request} is left unbooked: the store stayed away");
                self.note(format!("gateway {at}"), words);
            }
            Happened::HandshakeRefused { .. } => self.record.refused.push(self.queue.now()),
        }
    }

    fn asked(&mut self, at: usize, id: AskId, ask: Ask) {
        let life = self.gateways[at].life;
        if let Ask::Call { call, .. } = &ask {
            let (body, prompt) = (call.body.clone(), call.body.len());
            return self.call_model(at, life, id, &body, prompt);
        }
        match &ask {
            Ask::Hold { .. } => {
                self.see(&Seen::TakenIn(at));
                self.question_begins(at, &ask);
            }
            Ask::Lose { .. } => self.cut_off(at),
            Ask::Admit { .. }
            | Ask::Settle { .. }
            | Ask::Release { .. }
            | Ask::Checkpoint { .. }
            | Ask::Call { .. }
            | Ask::Service { .. }
            | Ask::Recall { .. } => {}
        }
        let (least, most) = self.plan.store_us;
        let mut takes = self.store_chance.between(least, most);
        let (slow, slow_until) = self.store_slow;
        if self.queue.now() < slow_until {
            takes += slow;
        }
        let job = StoreJob {
            gateway: at,
            life,
            id,
            ask,
            at: self.queue.now(),
        };
        self.queue
            .put(self.queue.now() + takes, Event::StoreDone(Box::new(job)));
    }

    pub(super) fn store_done(&mut self, job: StoreJob) {
        let StoreJob {
            gateway,
            life,
            id,
            ask,
            at,
        } = job;
        let alive = self.gateways[gateway].life == life && self.gateways[gateway].machine.is_some();
        // What a dead gateway had asked and was not carried out is gone with its connection.
        if !alive {
            return;
        }
        let told = if self.queue.now() < self.store_broken_until {
            unavailable(&ask)
        } else {
            let (now, clock) = (self.gateway_now(gateway).wall, self.wall());
            match self.store.carry_out(now, clock, gateway, &ask) {
                Ok(told) => told,
                Err(broken) => {
                    self.note("store", format!("broken: {broken}"));
                    unavailable(&ask)
                }
            }
        };
        if let (Ask::Settle { settle, .. }, Some(Told::Settled(Ok(charge)))) = (&ask, &told)
            && !charge.charge.estimated
        {
            let now = self.queue.now();
            let question = self.record.question_of(settle.request);
            if let Some(asked) = self.record.questions.get_mut(&question) {
                asked.counted.get_or_insert(now);
            }
        }
        let took = self.queue.now() - at;
        self.running_told(gateway, (&ask, took), told.as_ref());
        self.record_told(&ask, told.as_ref());
        self.money_told(gateway, &ask, told.as_ref());
        if matches!(&told, Some(Told::Held(Err(HoldFailed::Denied(_))))) {
            self.sometimes.saw("a hold was denied");
        }
        let heard = self.answer_told(gateway, &ask, told.as_ref());
        if let Some(told) = told.filter(|_| heard) {
            self.give_gateway(gateway, Input::Told { id, told });
        }
        self.recalls.granted = None;
    }

    /// The question that a prompt belongs to is marked in its text.
    fn call_model(&mut self, at: usize, life: u32, id: AskId, body: &[u8], _prompt: usize) {
        let Some(question) = marked(body) else {
            self.note(
                format!("gateway {at}"),
                "called a model with no known question",
            );
            return;
        };
        let request = request_id(question);
        self.called_under(request);
        self.see(&Seen::Called(request));
        let Some((stream, words, script)) = self.script_of(question) else {
            return;
        };
        let Some(asked) = self.record.questions.get_mut(&request) else {
            return;
        };
        let attempt = asked.produced.len();
        asked.produced.push(String::new());
        asked.called_at = Some(at);
        asked.calling = true;
        self.record.rates.called(at, asked.wire);
        self.money.called(self.queue.now(), request);
        let usage = asked.usage;
        if attempt > 0 {
            self.sometimes.saw("a model server was asked again");
        }
        self.note(
            format!("gateway {at}"),
            format!("calls a model for {request}"),
        );
        self.next_call += 1;
        let call = self.next_call;
        self.calls.insert(
            call,
            Call {
                gateway: at,
                life,
                ask: id,
                request,
                script: upstream::says(question, &script, attempt, stream, words, usage),
                pace: Micros::from(script.pace_ms) * MILLI,
                credit: 0,
                scheduled: false,
            },
        );
        self.by_ask.insert((at, life, id), call);
        self.schedule_call(call);
    }

    fn script_of(&self, question: u64) -> Option<(bool, u32, Script)> {
        for timed in &self.plan.happenings {
            if let Happening::Ask {
                question: number,
                stream,
                words,
                ref upstream,
                ..
            } = timed.what
                && number == question
            {
                return Some((stream, words, upstream.clone()));
            }
        }
        let probing = self.record.questions.get(&request_id(question))?;
        Some((probing.stream, probing.words, Script::default()))
    }

    pub(super) fn schedule_call(&mut self, id: u64) {
        let now = self.queue.now();
        let healed = self.healed;
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let may = match call.script.front() {
            Some(Next::Piece(Progress::Body(bytes), _)) => call.credit >= bytes.len(),
            Some(Next::Piece(Progress::Head(_), _) | Next::End(..)) => true,
            Some(Next::Stall) => healed,
            None => false,
        };
        if may && !call.scheduled {
            call.scheduled = true;
            let is_head = matches!(call.script.front(), Some(Next::Piece(Progress::Head(_), _)));
            let (least, most) = self.plan.upstream_us;
            let most = if is_head { most } else { most / 50 };
            // When everything heals, the slow ones hurry too.
            let pace = if healed { 0 } else { call.pace };
            let takes = self.upstream_chance.between(least.min(most), most) + pace;
            self.queue.put(now + takes, Event::Upstream(id));
        }
    }

    /// The next word of a model server.
    pub(super) fn upstream(&mut self, id: u64) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        call.scheduled = false;
        let (gateway, ask, request) = (call.gateway, call.ask, call.request);
        match call.script.pop_front() {
            Some(Next::Piece(piece, text)) => {
                if let Progress::Body(bytes) = &piece {
                    call.credit = call.credit.saturating_sub(bytes.len());
                }
                self.produced(request, &text);
                self.give_gateway(gateway, Input::Progress { id: ask, piece });
                self.schedule_call(id);
            }
            Some(Next::End(end, text)) => {
                self.produced(request, &text);
                self.end_call(id);
                let told = Told::Called(end);
                self.give_gateway(gateway, Input::Told { id: ask, told });
            }
            Some(Next::Stall) => {
                self.end_call(id);
                let told = Told::Called(Err(Broken::Reset));
                self.give_gateway(gateway, Input::Told { id: ask, told });
            }
            None => {}
        }
    }

    fn produced(&mut self, request: RequestId, text: &str) {
        if let Some(asked) = self.record.questions.get_mut(&request)
            && let Some(produced) = asked.produced.last_mut()
        {
            produced.push_str(text);
            let so_far = produced.len();
            self.money.produced(self.queue.now(), request, so_far);
            self.record_text(request, Text::Produced(so_far));
        }
    }

    fn end_call(&mut self, id: u64) {
        let Some(call) = self.calls.remove(&id) else {
            return;
        };
        self.by_ask.remove(&(call.gateway, call.life, call.ask));
        if let Some(asked) = self.record.questions.get_mut(&call.request) {
            asked.calling = false;
        }
    }
}

fn unavailable(ask: &Ask) -> Option<Told> {
    Some(match ask {
        Ask::Admit { .. } => Told::Admitted(Err(NotAdmitted::Unavailable)),
        Ask::Hold { .. } => Told::Held(Err(HoldFailed::Unavailable)),
        Ask::Settle { .. } => Told::Settled(Err(SettleFailed::Unavailable)),
        Ask::Checkpoint { .. } => Told::Checkpointed(Err(Unavailable)),
        Ask::Lose { .. } => Told::Lost(Err(Unavailable)),
        Ask::Release { .. } => Told::Released(Err(Unavailable)),
        Ask::Recall { .. } => Told::Recalled(Err(Unavailable)),
        Ask::Service { .. } => Told::Served(Err(Unavailable.in_words())),
        Ask::Call { .. } => return None,
    })
}

/// The number between `[[` and `]]`.
fn marked(body: &[u8]) -> Option<u64> {
    let at = body.windows(2).position(|pair| pair == b"[[")? + 2;
    let digits = body[at..].split(|&byte| byte == b']').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}
