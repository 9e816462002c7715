//! What a plan lets happen, and the healing of it.

use mesh_core::device::Input;
use mesh_core::escalation::context::Question;
use mesh_core::gateway;
use mesh_core::wire::message::Vitals;

use super::{Event, World, account_id, device_id, request_id};
use crate::net::Link;
use crate::outside::upstream;
use crate::plan::{Happening, Timed};
use crate::queue::{Micros, SECOND};
use crate::record::Asked;
use crate::wire::{Unbuildable, Wire};

/// The longest answer that a question asks for, tokens.
const MAX_TOKENS: u32 = 4000;
/// Numbers of the questions that probe whether all is well again.
const PROBES_FROM: u64 = 1 << 32;

impl<W: Wire> World<W> {
    #[expect(
        clippy::too_many_lines,
        reason = "one arm for each thing that may happen"
    )]
    pub(super) fn happen(&mut self, index: usize, what: &Happening) -> Result<(), Unbuildable> {
        if !matches!(what, Happening::Load { .. }) {
            self.note("plan", short(what));
        }
        match *what {
            Happening::Ask {
                device,
                question,
                stream,
                context_bytes,
                words,
                ref upstream,
            } => {
                let model = if upstream.anthropic {
                    "anthropic"
                } else {
                    "openai"
                };
                self.ask(device, question, stream, context_bytes, words, model);
            }
            Happening::Cancel { device, question } => {
                if let Some(asked) = self.record.questions.get_mut(&request_id(question)) {
                    asked.cancelled = true;
                    self.give_device(device, Input::Cancel(request_id(question)));
                }
            }
            Happening::AskAgain { device, question } => self.ask_again(device, question),
            Happening::Pause {
                device,
                question,
                until,
            } => {
                self.give_device(device, Input::Pause(request_id(question)));
                self.queue.put(until, Event::Undo(index));
            }
            Happening::Load {
                device,
                gpu_percent,
            } => {
                let vitals = Vitals {
                    gpu_usage: Some(f32::from(gpu_percent) / 100.0),
                    ..Vitals::default()
                };
                self.give_device(device, Input::Vitals(vitals));
            }
            Happening::Cut {
                device,
                up,
                down,
                until,
            } => {
                self.devices[device].up.cut(up);
                self.devices[device].down.cut(down);
                if up {
                    let now = self.queue.now();
                    self.record.mute.insert(device, (now, Micros::MAX));
                }
                self.queue.put(until, Event::Undo(index));
            }
            Happening::SmallMtu {
                device,
                bytes,
                until,
            } => {
                self.set_mtu(device, bytes);
                self.queue.put(until, Event::Undo(index));
            }
            Happening::Rebind { device } => self.devices[device].nat.rebind(),
            Happening::Move { device } => {
                self.devices[device].nat.rebind();
                self.record.tunnels[device].excused = true;
                self.rebind_device(device);
                self.give_device(device, Input::NetworkChanged);
            }
            Happening::CrashDevice { device, until } => {
                self.kill_device(device);
                self.queue.put(until, Event::Undo(index));
            }
            Happening::Suspend { device, until } => {
                let now = self.queue.now();
                let node = &mut self.devices[device];
                if node.machine.is_some() {
                    node.asleep_since.get_or_insert(now);
                    self.queue.put(until, Event::Undo(index));
                }
            }
            Happening::Skew { device, by_ms } => {
                self.devices[device].skew_ms += by_ms;
            }
            Happening::SkewGateway { gateway, by_ms } => {
                self.gateways[gateway].skew_ms += by_ms;
            }
            Happening::Order { account, ref order } => self.order(index, account, order),
            Happening::CrashGateway { gateway, until } => {
                self.record.gateways_ended += 1;
                self.kill_gateway(gateway);
                self.queue.put(until, Event::Undo(index));
            }
            Happening::CrashAtEnd { question, for_us } => {
                self.recalls.arm(request_id(question), index, for_us);
            }
            Happening::StopGateway { gateway, until } => {
                self.stop_gateway(gateway);
                self.queue.put(until, Event::Undo(index));
            }
            Happening::DrainGateway {
                gateway,
                limit_us,
                spread_us,
                elsewhere,
                until,
            } => {
                self.drain_gateway(gateway, (limit_us, spread_us), elsewhere);
                self.queue.put(until, Event::Undo(index));
            }
            Happening::SlowStore { by_us, until } => self.store_slow = (by_us, until),
            Happening::BrokenStore { until } => {
                self.store_broken_until = self.store_broken_until.max(until);
            }
            Happening::Revoke { device } => {
                self.store.revoke(device_id(device));
                self.devices[device].banned = true;
                for gateway in 0..self.gateways.len() {
                    let revoked = gateway::Input::Revoked(device_id(device));
                    self.give_gateway(gateway, revoked);
                }
            }
            Happening::Expire { device } => {
                let expired = self.authority.device(device_id(device), 2, 2026)?;
                let account = account_id(self.plan.devices[device].account);
                self.store
                    .enrol(device_id(device), account, expired.fingerprint());
                self.devices[device].certificate = expired;
                self.devices[device].banned = true;
                self.kill_device(device);
                self.start_device(device)?;
            }
        }
        Ok(())
    }

    /// The end of what lasted for a while.
    pub(super) fn undo(&mut self, index: usize, what: &Happening) -> Result<(), Unbuildable> {
        if self.healed {
            return Ok(());
        }
        match *what {
            Happening::Pause {
                device, question, ..
            } => {
                // A reader that sleeps reads on when it is awake.
                if self.devices[device].asleep_since.is_some() {
                    let later = self.queue.now() + SECOND;
                    self.queue.put(later, Event::Undo(index));
                }
                self.give_device(device, Input::Unpause(request_id(question)));
            }
            Happening::Cut { device, .. } => self.mend(device),
            Happening::SmallMtu { device, .. } => self.set_mtu(device, 0),
            Happening::CrashDevice { device, .. } => self.revive_device(device)?,
            Happening::Suspend { device, .. } => self.wake_device(device),
            Happening::CrashGateway { gateway, .. }
            | Happening::StopGateway { gateway, .. }
            | Happening::DrainGateway { gateway, .. } => {
                self.kill_gateway(gateway);
                self.start_gateway(gateway)?;
            }
            Happening::CrashAtEnd { .. } => {
                if let Some(gateway) = self.recalls.died.remove(&index) {
                    self.kill_gateway(gateway);
                    self.start_gateway(gateway)?;
                }
            }
            Happening::Ask { .. }
            | Happening::Cancel { .. }
            | Happening::AskAgain { .. }
            | Happening::Load { .. }
            | Happening::Rebind { .. }
            | Happening::Move { .. }
            | Happening::Skew { .. }
            | Happening::SkewGateway { .. }
            | Happening::Order { .. }
            | Happening::SlowStore { .. }
            | Happening::BrokenStore { .. }
            | Happening::Revoke { .. }
            | Happening::Expire { .. } => {}
        }
        Ok(())
    }

    /// A device's link is whole again.
    fn mend(&mut self, device: usize) {
        self.devices[device].up.cut(false);
        self.devices[device].down.cut(false);
        if let Some((_, until)) = self.record.mute.get_mut(&device) {
            *until = self.queue.now().min(*until);
        }
    }

    fn revive_device(&mut self, device: usize) -> Result<(), Unbuildable> {
        if self.devices[device].machine.is_none() {
            self.start_device(device)?;
        }
        Ok(())
    }

    fn set_mtu(&mut self, device: usize, mtu: u32) {
        const QUIC_BYTES_MIN: u32 = 1200;
        let (now, narrow) = (self.queue.now(), &mut self.record.narrow_until);
        if (1..QUIC_BYTES_MIN).contains(&mtu) {
            narrow.insert(device, Micros::MAX);
        } else if let Some(until) = narrow.get_mut(&device) {
            *until = now.min(*until);
        }
        let node = &mut self.devices[device];
        for pipe in [&mut node.up, &mut node.down] {
            let link = Link {
                mtu,
                ..*pipe.link()
            };
            pipe.set(link);
        }
    }

    fn ask(
        &mut self,
        device: usize,
        question: u64,
        stream: bool,
        context_bytes: usize,
        words: u32,
        model: &str,
    ) {
        let id = request_id(question);
        if self.devices[device].machine.is_none() || self.devices[device].asleep_since.is_some() {
            return;
        }
        let request = question_text(question, context_bytes)
            .model(model)
            .max_tokens(MAX_TOKENS)
            .stream(stream)
            .into_request(id);
        self.record.questions.insert(
            id,
            Asked {
                device,
                account: account_id(self.plan.devices[device].account),
                at: self.queue.now(),
                stream,
                cancelled: false,
                delivered: String::new(),
                produced: Vec::new(),
                called_at: None,
                wire: id,
                wire_from: 0,
                orphaned: 0,
                calling: false,
                usage: upstream::usage(context_bytes, words),
                words,
                answered_as: None,
                cut: None,
                restored: None,
                revived: false,
                refused: false,
                counted: None,
                outcome: None,
            },
        );
        self.give_device(device, Input::Escalate(Box::new(request)));
    }

    fn ask_again(&mut self, device: usize, question: u64) {
        let id = request_id(question);
        let open = self
            .record
            .questions
            .get(&id)
            .is_some_and(|asked| asked.outcome.is_none() && asked.device == device);
        if open {
            let request = question_text(question, 0).stream(true).into_request(id);
            self.give_device(device, Input::Escalate(Box::new(request)));
        }
    }

    /// Everything heals: links carry, clocks are right, processes live, the store and the model
    /// servers answer.
    pub(super) fn heal(&mut self) -> Result<(), Unbuildable> {
        self.note("plan", "everything heals");
        self.healed = true;
        self.store_slow = (0, 0);
        self.store_broken_until = 0;
        self.recalls.disarm();
        for gateway in 0..self.gateways.len() {
            self.gateways[gateway].skew_ms = 0;
            // One that was stopped has to be started again; the others go on.
            let stopped = self.is_stopped(gateway);
            if stopped {
                self.kill_gateway(gateway);
                self.start_gateway(gateway)?;
            }
        }
        for device in 0..self.devices.len() {
            let node = &mut self.devices[device];
            for pipe in [&mut node.up, &mut node.down] {
                let link = Link {
                    jitter_us: pipe.link().jitter_us,
                    ..Link::of_latency(pipe.link().latency_us)
                };
                pipe.set(link);
            }
            self.mend(device);
            // A heartbeat under way may have been lost on the link as it was.
            self.record.tunnels[device].beat = None;
            self.revive_device(device)?;
            self.wake_device(device);
        }
        self.unpause_all();
        let stalled: Vec<u64> = self.calls.keys().copied().collect();
        for call in stalled {
            self.schedule_call(call);
        }
        Ok(())
    }

    fn is_stopped(&self, gateway: usize) -> bool {
        let now = self.queue.now();
        let asked_to = self.plan.happenings.iter().any(|timed| {
            timed.at <= now
                && matches!(timed.what,
                    Happening::StopGateway { gateway: at, until }
                    | Happening::DrainGateway { gateway: at, until, .. }
                    if at == gateway && until >= now)
        });
        asked_to || self.gateways[gateway].machine.is_none()
    }

    fn unpause_all(&mut self) {
        let mut paused = Vec::new();
        for timed in &self.plan.happenings {
            if let Happening::Pause {
                device, question, ..
            } = timed.what
            {
                paused.push((device, question));
            }
        }
        for (device, question) in paused {
            self.give_device(device, Input::Unpause(request_id(question)));
        }
    }

    /// Every device that may asks one more question, or this one.
    pub(super) fn probe(&mut self, only: Option<usize>) {
        let all = 0..self.devices.len();
        for device in all.filter(|&device| only.is_none_or(|only| only == device)) {
            if self.devices[device].banned || self.is_poor(device) {
                continue;
            }
            let question = PROBES_FROM + device as u64;
            self.ask(device, question, true, 0, 5, "openai");
            self.probes.push((device, request_id(question)));
        }
    }

    /// Whether its account cannot be relied on to have money left.
    fn is_poor(&self, device: usize) -> bool {
        const RICH: i64 = 100_000_000_000;
        let own = self.plan.devices[device].account;
        let takes = |timed: &Timed| matches!(&timed.what, Happening::Order { account, order } if *account == own && order.takes());
        self.plan.ceilings[own] < RICH || self.plan.happenings.iter().any(takes)
    }

    /// The virtual time.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.queue.now()
    }
}

fn question_text(question: u64, context_bytes: usize) -> Question {
    let asked = Question::new(format!("[[{question}]] why?"));
    if context_bytes == 0 {
        asked
    } else {
        asked.knowledge("a file", "x".repeat(context_bytes), 1.0)
    }
}

/// A happening on one line.
fn short(what: &Happening) -> String {
    serde_json::to_string(what).unwrap_or_default()
}
