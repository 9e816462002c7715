//! A device: its machine, its link and its clocks.

use std::time::Duration;

use mesh_core::device::unfinished::Unfinished;
use mesh_core::device::{
    AnswerEvent, Attempts, Config, Device, Input, Output, State, Stats, Terms,
};
use mesh_core::identity::Fingerprint;
use mesh_core::ids::RequestId;
use mesh_core::machine::{Machine as _, RootMachine as _};
use mesh_core::privacy::Policy;
use mesh_core::time::Now;
use mesh_core::transport::Datagram;

use super::disk::Disk;
use super::{End, World, alternate_name, device_id, gateway_address, run_due};
use crate::chance::{Chance, seed_of};
use crate::invariants::Seen;
use crate::net::{Nat, Pipe};
use crate::plan::Plan;
use crate::queue::{Micros, SECOND};
use crate::record::Outcome;
use crate::recorder::Text;
use crate::wire::certificates::{Authority, Certificate};
use crate::wire::{Unbuildable, WallClock, Wire};

/// What a heartbeat may take beyond its path when nothing was dropped meanwhile, and when the full
/// queue dropped datagrams, the heartbeat's own perhaps several times: each resending waits twice as
/// long as the one before.
const UNDROPPED: Micros = 3 * SECOND;
const DROPPED: Micros = 12 * SECOND;

/// Certificates last beyond every simulation.
pub(super) const LAST_YEAR: i32 = 2100;
/// See the module documentation.
#[derive(Debug)]
pub(super) struct DeviceNode<W: Wire> {
    /// `None` while its process is dead.
    pub(super) machine: Option<Device<W>>,
    /// Lives of its process.
    pub(super) life: u32,
    pub(super) asleep_since: Option<Micros>,
    pub(super) slept: Micros,
    pub(super) skew_ms: i64,
    clock: WallClock,
    pub(super) certificate: Certificate,
    pub(super) up: Pipe,
    pub(super) down: Pipe,
    pub(super) nat: Nat,
    armed: Option<Micros>,
    /// Revoked, or without a valid certificate: not expected to come back.
    pub(super) banned: bool,
    prewarmed_at: Option<u64>,
    /// Heartbeats sent and answered when last looked.
    beats: (u64, u64),
    /// What the path had dropped when the last heartbeat went out, and when the one before did.
    drops: (u64, u64),
    names: Chance,
    pub(super) disk: Disk,
    /// What the process before left unfinished.
    pub(super) left: Unfinished,
    /// Whether its last attempt went where a gateway had sent it.
    sent_elsewhere: bool,
}

impl<W: Wire> DeviceNode<W> {
    pub(super) fn new(
        plan: &Plan,
        authority: &Authority,
        index: usize,
    ) -> Result<Self, Unbuildable> {
        let name = format!("device {index}");
        let own = &plan.devices[index];
        let pipe = |link, purpose| Pipe::new(link, Chance::of(plan.seed, &name, purpose));
        Ok(Self {
            machine: None,
            life: 0,
            asleep_since: None,
            slept: 0,
            skew_ms: 0,
            clock: WallClock::default(),
            certificate: authority.device(device_id(index), 1, LAST_YEAR)?,
            up: pipe(own.up, "up"),
            down: pipe(own.down, "down"),
            nat: Nat::new(own.nat_expiry_us),
            armed: None,
            banned: false,
            prewarmed_at: None,
            beats: (0, 0),
            drops: (0, 0),
            names: Chance::of(plan.seed, &name, "names"),
            disk: Disk::new(Chance::of(plan.seed, &name, "disk")),
            left: Unfinished::default(),
            sent_elsewhere: false,
        })
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.certificate.fingerprint()
    }

    const fn is_awake(&self) -> bool {
        self.machine.is_some() && self.asleep_since.is_none()
    }
}

impl<W: Wire> World<W> {
    /// Starts a device's process, anew after a crash, and has it connect.
    pub(super) fn start_device(&mut self, at: usize) -> Result<(), Unbuildable> {
        let now = self.device_now(at);
        let node = &mut self.devices[at];
        node.life += 1;
        let mut seed = seed_of(self.plan.seed, &format!("device {at}"));
        if self.plan.buggify {
            seed = seed.with_buggify();
        }
        if self.plan.unjittered {
            seed = seed.without_jitter();
        }
        let seed = seed.child(&format!("life {}", node.life));
        node.clock.set(now.wall);
        let transport = W::device(&self.authority, &node.certificate, &node.clock, &seed)?;
        let config = Config {
            device_id: device_id(at),
            agent: "mesh-sim".to_owned(),
            attempts: Attempts::Forever,
            privacy: Policy::default(),
            terms: Terms {
                keeps: true,
                ..Terms::default()
            },
        };
        node.machine = Some(Device::new(transport, config, &seed));
        node.prewarmed_at = None;
        node.beats = (0, 0);
        self.record.tunnels[at] = crate::record::TunnelRecord {
            life: self.devices[at].life,
            began: self.queue.now(),
            ..crate::record::TunnelRecord::default()
        };
        self.give_device(at, Input::Connect);
        self.go_on_with_questions(at);
        Ok(())
    }

    /// A device's process dies, and with it what it was asking and had not written down.
    pub(super) fn kill_device(&mut self, at: usize) {
        let now = self.queue.now();
        let node = &mut self.devices[at];
        node.machine = None;
        // Who dies asleep is awake when it comes back.
        if let Some(since) = node.asleep_since.take() {
            node.slept += now - since;
        }
        node.armed = None;
        self.record.tunnels[at] = crate::record::TunnelRecord::default();
        self.leave_questions(at);
    }

    pub(super) fn device_now(&self, at: usize) -> Now {
        let node = &self.devices[at];
        self.now_of(node.slept, node.skew_ms)
    }

    /// Gives a device an input, if it is alive and awake, and carries out what comes of it.
    pub(super) fn give_device(&mut self, at: usize, input: Input) {
        let now = self.device_now(at);
        let node = &mut self.devices[at];
        if !node.is_awake() {
            return;
        }
        node.clock.set(now.wall);
        let Some(machine) = &mut node.machine else {
            return;
        };
        if let Err(rejected) = machine.handle_input(now, input) {
            self.note(format!("device {at}"), format!("rejected: {rejected}"));
        }
        self.settle_device(at);
    }

    pub(super) fn device_datagram(&mut self, at: usize, port: u16, datagram: Datagram) {
        let (now, virtual_now) = (self.device_now(at), self.queue.now());
        let node = &mut self.devices[at];
        if !node.is_awake() || !node.nat.lets_in(virtual_now, port) {
            return;
        }
        node.clock.set(now.wall);
        if let Some(machine) = &mut node.machine {
            machine.handle_datagram(now, datagram);
            self.settle_device(at);
        }
    }

    pub(super) fn device_timer(&mut self, at: usize) {
        let now = self.device_now(at);
        let virtual_now = self.queue.now();
        let node = &mut self.devices[at];
        if node.armed != Some(virtual_now) {
            return;
        }
        node.armed = None;
        if !node.is_awake() {
            return;
        }
        node.clock.set(now.wall);
        let Some(machine) = &mut node.machine else {
            return;
        };
        run_due(machine, now);
        self.settle_device(at);
    }

    /// The local address changed: what the driver does after it has bound anew.
    pub(super) fn rebind_device(&mut self, at: usize) {
        let now = self.device_now(at);
        let node = &mut self.devices[at];
        if !node.is_awake() {
            return;
        }
        if let Some(machine) = &mut node.machine {
            machine.handle_rebind(now);
            self.settle_device(at);
        }
    }

    fn settle_device(&mut self, at: usize) {
        let mut outputs = 0;
        while let Some(output) = self.devices[at]
            .machine
            .as_mut()
            .and_then(|m| m.poll_output())
        {
            outputs += 1;
            self.device_says(at, output);
        }
        self.see(&Seen::Outputs(outputs));
        let now = self.device_now(at);
        let before = self.datagrams;
        self.send_all(End::Device(at), now, |world| {
            world.devices[at].machine.as_mut()
        });
        if self.datagrams > before {
            self.spoke(at);
        }
        if let Some(stats) = self.devices[at].machine.as_ref().map(Device::stats) {
            self.watch_prewarm(at, &stats);
            self.watch_heart(at, &stats);
        }
        self.arm_device(at);
    }

    pub(super) fn arm_device(&mut self, at: usize) {
        let node = &self.devices[at];
        let machine = node.machine.as_ref().filter(|_| node.is_awake());
        let deadline = machine.and_then(|machine| machine.poll_timeout());
        let (slept, armed) = (node.slept, node.armed);
        let armed = self.arm(End::Device(at), deadline.map(|(at, _)| at), slept, armed);
        self.devices[at].armed = armed;
    }

    /// It sent something, or has no more reason to.
    fn spoke(&mut self, at: usize) {
        if self.record.tunnels[at].doubted.is_some() {
            self.see(&Seen::Spoke(at));
            self.record.tunnels[at].doubted = Some(self.queue.now());
        }
    }

    /// From a heartbeat to its answer, on a path that only takes time and is not cut.
    fn watch_heart(&mut self, at: usize, stats: &Stats) {
        let beats = (stats.heartbeats_sent, stats.heartbeats_acked);
        let (sent_before, acked_before) = std::mem::replace(&mut self.devices[at].beats, beats);
        if beats.1 > acked_before || beats.0 < sent_before {
            if let Some(longest) = self.longest_beat(at) {
                self.see(&Seen::Beat(at, longest));
            }
            self.record.tunnels[at].beat = None;
        }
        if beats.0 > sent_before {
            self.record.tunnels[at].beat = Some(self.queue.now());
            let before = self.devices[at].drops.0;
            self.devices[at].drops = (self.drops(at), before);
        }
    }

    /// The longest that a heartbeat and its answer may take now, if that can be said.
    fn longest_beat(&self, at: usize) -> Option<Micros> {
        let node = &self.devices[at];
        let (up, down) = node.up.longest_us().zip(node.down.longest_us())?;
        // In one order for all, what was dropped before it may still have to come again first, each with
        // a round trip of its own.
        let (since, each) = if W::ORDERED {
            (node.drops.1, up + down)
        } else {
            (node.drops.0, 0)
        };
        let slack = match self.drops(at) - since {
            0 => UNDROPPED,
            dropped => DROPPED + dropped * each,
        };
        // What was sent before it in its packet's way, twice, and acknowledgements.
        self.is_steady(at).then_some(2 * (up + down) + slack)
    }

    /// Datagrams that full queues of the device's path have dropped.
    fn drops(&self, at: usize) -> u64 {
        self.devices[at].up.dropped() + self.devices[at].down.dropped()
    }

    /// Whether nothing but bulk has troubled the device's path in this world.
    fn is_steady(&self, at: usize) -> bool {
        use crate::plan::Happening as What;
        let troubles = |what: &What| match *what {
            What::Cut { device, .. }
            | What::SmallMtu { device, .. }
            | What::Rebind { device }
            | What::Move { device }
            | What::CrashDevice { device, .. }
            | What::Suspend { device, .. }
            | What::Skew { device, .. }
            | What::Revoke { device }
            | What::Expire { device } => device == at,
            What::CrashGateway { .. }
            | What::CrashAtEnd { .. }
            | What::StopGateway { .. }
            | What::DrainGateway { .. } => true,
            What::Ask { .. }
            | What::Cancel { .. }
            | What::AskAgain { .. }
            | What::Pause { .. }
            | What::Load { .. }
            | What::SkewGateway { .. }
            | What::Order { .. }
            | What::SlowStore { .. }
            | What::BrokenStore { .. } => false,
        };
        let plan = &self.plan;
        plan.devices[at].nat_expiry_us == 0
            && !plan.happenings.iter().any(|timed| troubles(&timed.what))
    }

    fn watch_prewarm(&mut self, at: usize, stats: &Stats) {
        let last = stats.prewarmed_at.map(|wall| wall.0);
        if last.is_none() || last == self.devices[at].prewarmed_at {
            return;
        }
        self.devices[at].prewarmed_at = last;
        self.see(&Seen::Prewarmed(at));
        self.record.tunnels[at].prewarmed = Some(self.queue.now());
    }

    fn device_says(&mut self, at: usize, output: Output) {
        match output {
            Output::Resolve { attempt, alternate } => {
                self.devices[at].sent_elsewhere = alternate.is_some();
                self.see(&Seen::Attempt(at));
                self.record.attempts.push(self.queue.now());
                self.record.tunnels[at].waiting_since = None;
                let result = Ok(self.addresses(at, alternate.as_deref()));
                let now = self.device_now(at);
                if let Some(machine) = &mut self.devices[at].machine {
                    // It was just asked for and cannot be misused by its answer.
                    let _never = machine.handle_input(now, Input::Resolved { attempt, result });
                }
            }
            Output::Rebind => {
                self.devices[at].nat.rebind();
                let now = self.device_now(at);
                if let Some(machine) = &mut self.devices[at].machine {
                    machine.handle_rebind(now);
                }
            }
            Output::Changed { from, to, why } => {
                self.see(&Seen::Changed(at, from, to, &why));
                self.record.tunnels[at].doubted = None;
                self.record.tunnels[at].beat = None;
                self.note(format!("device {at}"), format!("{from} → {to}: {why}"));
                let now = self.queue.now();
                let failure_is = |kind| matches!(&why, mesh_core::tunnel::Why::Failed(failure) if failure.kind == kind);
                if failure_is(mesh_core::tunnel::FailureKind::Forgotten) {
                    self.sometimes
                        .saw("a gateway forgot a session and reset it");
                }
                if failure_is(mesh_core::tunnel::FailureKind::Overtaken) {
                    self.sometimes
                        .saw("an attempt that was given up overtook a session");
                }
                self.count_uptime(at, now, to, &why);
                if why == mesh_core::tunnel::Why::Established && self.devices[at].sent_elsewhere {
                    self.sometimes
                        .saw("a device found the gateway that it was sent to");
                }
                let awake = now - self.devices[at].slept;
                self.record.tunnels[at].follow(now, awake, to, &why);
                if to == State::Failed {
                    self.note(format!("device {at}"), "gives up until it is told to go on");
                }
            }
            Output::Doubt(doubt) => {
                self.spoke(at);
                self.record.tunnels[at].doubted = doubt.then_some(self.queue.now());
                if !doubt {
                    self.sometimes.saw("a tunnel fell into doubt and out of it");
                }
                self.note(format!("device {at}"), format!("in doubt: {doubt}"));
            }
            Output::Answer { request, event } => self.answer_event(at, request, event),
            Output::Keep(unfinished) => self.keeps(at, unfinished),
            Output::Replied { .. } | Output::Notice(_) | Output::Stopped => {}
        }
    }

    fn count_uptime(&mut self, at: usize, now: Micros, to: State, why: &mesh_core::tunnel::Why) {
        let tunnel = &mut self.record.tunnels[at];
        let is_up = matches!(to, State::Connected { .. });
        if is_up {
            tunnel.up_since.get_or_insert(now);
            if *why == mesh_core::tunnel::Why::Established {
                self.record.sessions.push(now);
            }
            let again = matches!(tunnel.state, State::Reconnecting { .. });
            self.record.reconnects += u64::from(again);
        } else if let Some(since) = tunnel.up_since.take() {
            self.record.up_us += now - since;
        }
    }

    /// What a resolver says: of a gateway's own name its address; of the deployment's, every
    /// gateway, in an order that differs from time to time.
    fn addresses(&mut self, at: usize, alternate: Option<&str>) -> Vec<std::net::SocketAddr> {
        if let Some(name) = alternate {
            let named = (0..self.gateways.len()).find(|&n| alternate_name(n) == name);
            return named.map(gateway_address).into_iter().collect();
        }
        let all = self.gateways.len();
        let first = usize::try_from(self.devices[at].names.below(all as u64)).unwrap_or_default();
        (0..all)
            .map(|n| gateway_address((first + n) % all))
            .collect()
    }

    fn answer_event(&mut self, at: usize, request: RequestId, event: AnswerEvent) {
        let answered_as = match &event {
            AnswerEvent::Ended(end) => Some(end.request_id),
            AnswerEvent::Whole(answer) => Some(answer.request_id),
            AnswerEvent::Chunk(_)
            | AnswerEvent::Delta(_)
            | AnswerEvent::Cut
            | AnswerEvent::Resumed { .. }
            | AnswerEvent::Notice(_)
            | AnswerEvent::Failed(_) => None,
        };
        if let (Some(_), Some(asked)) = (answered_as, self.record.questions.get_mut(&request)) {
            asked.answered_as = answered_as;
        }
        let outcome = match event {
            AnswerEvent::Chunk(text) => {
                self.text(request, &text);
                return;
            }
            // Questions of a simulation are no client's own bodies.
            AnswerEvent::Delta(_) | AnswerEvent::Notice(_) => return,
            AnswerEvent::Cut => {
                let now = self.queue.now();
                if let Some(asked) = self.record.questions.get_mut(&request) {
                    asked.cut = Some(now);
                }
                self.note(format!("device {at}"), format!("{request} is cut"));
                return;
            }
            AnswerEvent::Resumed { at: piece } => {
                let words = format!("{request} goes on at piece {piece}");
                self.note(format!("device {at}"), words);
                return;
            }
            AnswerEvent::Ended(end) => Outcome::Answered {
                charged: end.cost_nanos.0,
                tokens: end.tokens_used,
                finish: end.finish_reason,
                estimated: end.estimated,
            },
            AnswerEvent::Whole(answer) => {
                self.text(request, &answer.content);
                Outcome::Answered {
                    charged: answer.cost_nanos.0,
                    tokens: answer.tokens_used,
                    finish: answer.finish_reason,
                    estimated: answer.estimated,
                }
            }
            // The first question of this id goes on; only the second asking ended.
            AnswerEvent::Failed(mesh_core::device::AskError::Duplicate) => {
                self.sometimes.saw("a device asked the same question twice");
                return;
            }
            AnswerEvent::Failed(error) => Outcome::Failed(error),
        };
        self.note(format!("device {at}"), format!("{request}: {outcome:?}"));
        self.ended(request, outcome);
        let now = self.device_now(at);
        if let Some(machine) = &mut self.devices[at].machine {
            // Whoever reads it has read it; what is drained cannot be misused by that.
            let _never = machine.handle_input(now, Input::Taken(request));
        }
    }

    fn text(&mut self, request: RequestId, text: &str) {
        self.see(&Seen::Text(request, text));
        if let Some(asked) = self.record.questions.get_mut(&request) {
            asked.delivered.push_str(text);
            let so_far = asked.delivered.len();
            self.record_text(request, Text::Delivered(so_far));
        }
    }

    pub(super) fn ended(&mut self, request: RequestId, outcome: Outcome) {
        self.see(&Seen::Ended(request, &outcome));
        self.count_refused(request, &outcome);
        self.count_ending(&outcome);
        self.record_text(request, Text::Ended);
        if let Some(asked) = self.record.questions.get_mut(&request) {
            asked.outcome = Some(outcome);
        }
    }

    fn count_ending(&mut self, outcome: &Outcome) {
        use mesh_core::device::AskError;
        use mesh_core::error::ErrorCode;
        use mesh_core::wire::message::FinishReason;
        match outcome {
            Outcome::Answered {
                finish: FinishReason::Cancelled,
                charged: 1..,
                ..
            } => self.sometimes.saw("an answer was cancelled and charged"),
            Outcome::Answered {
                estimated: true, ..
            } => {
                self.sometimes.saw("an answer without usage was estimated");
            }
            Outcome::Failed(AskError::TunnelLost(_)) => {
                self.sometimes.saw("an answer was cut off by a lost tunnel");
            }
            Outcome::Failed(AskError::Remote(error))
                if error.code == ErrorCode::PaymentRequired =>
            {
                self.sometimes.saw("an account could not pay");
            }
            Outcome::Answered { .. } | Outcome::Failed(_) | Outcome::DeviceDied => {}
        }
    }

    /// The device wakes: its monotonic clock stood still meanwhile.
    pub(super) fn wake_device(&mut self, at: usize) {
        let now = self.queue.now();
        let node = &mut self.devices[at];
        let Some(since) = node.asleep_since.take() else {
            return;
        };
        node.slept += now - since;
        node.armed = None;
        self.record.tunnels[at].excused = true;
        self.record.tunnels[at].doubted = None;
        let asleep = Duration::from_micros(now - since);
        self.give_device(at, Input::Woke { asleep });
    }
}
