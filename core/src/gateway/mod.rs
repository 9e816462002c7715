//! The gateway's root machine: thousands of tunnels, their answers and their money, as one step
//! function.
//!
//! ```text
//!  datagrams ─▶ transport ─▶ tunnels (one per connection: who, which streams)
//!                               │ questions            ▲ pieces, receipts
//!                               ▼                      │
//!                            answers (one per question: hold → call → settle)
//!                               │ Ask                  ▲ Told, Progress
//!                               ▼                      │
//!                            the outside world: store, model servers
//! ```
//!
//! * `admission`: who may begin a handshake.
//! * `tunnels`: connections and their sessions.
//! * `streams`: their streams and messages.
//! * `answers`: questions under way, and what their answers ask for carried out.
//! * `answer`: one of them, as a machine of its own.
//! * `asks`: what the outside world was asked, and what follows from its word.
//! * `turns`: how much may be asked.
//! * `calls`, `count`: typed calls; the one that counts tokens.
//! * `drain`: going away in good order.
//! * `attach`: what they have said, kept for devices that lose their tunnel and come back.
//! * `recall`: the same for answers that the store knows and this gateway does not.
//! * `transcript`: an answer as the store keeps it.
//! * `terms`: what devices are told, in words.
//!
//! # Invariants
//!
//! 1. Nothing of a connection is read before the store has admitted its device, and no message of
//!    a device is taken for another's.
//! 2. One device has at most one live tunnel: the one with the highest epoch.
//! 3. Every [`Ask`] is answered by one [`Told`], or its deadline passes and a late success is given
//!    back.
//! 4. Half-received bytes are bounded per tunnel and in all; so is what answers have said.
//! 5. A timeout touches only what is due.

mod admission;
mod answer;
mod answers;
mod asks;
mod attach;
mod calls;
mod count;
mod deadlines;
mod drain;
mod outside;
mod probing;
mod recall;
mod streams;
mod terms;
mod transcript;
mod tunnels;
mod turns;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use self::answers::{AnswerId, Running};
use self::asks::Pending;
use self::attach::Kept;
pub use self::attach::{Keeping, Return};
use self::deadlines::Deadlines;
pub use self::drain::Drain;
use self::drain::Draining;
pub use self::outside::{
    Admitted, Ask, AskId, Granted, HoldFailed, Keep, KeyOf, NotAdmitted, Progress, Recalled,
    SettleFailed, Settled, Told, Transcript, Unavailable,
};
use self::tunnels::Tunnel;
use crate::billing::ledger::Charge;
use crate::billing::price::Price;
use crate::dialect::MaxTokensField;
use crate::error::ErrorCode;
use crate::ids::{AccountId, DeviceId, RequestId};
use crate::limits;
use crate::machine::{Machine, RootMachine};
use crate::rate::{Buckets, Tally};
use crate::stream::shelf::Shelf;
use crate::time::{Monotonic, Now, earliest};
use crate::transport::{ConnId, Datagram, Transmit, Transport};
use crate::wire::close::CloseCode;
use crate::wire::message::DialectName;

/// One row of the model table.
#[derive(Clone, Debug)]
pub struct Model {
    /// What devices ask for.
    pub name: String,
    /// The provider's name in the gateway's configuration.
    pub provider: String,
    /// What the provider speaks.
    pub dialect: DialectName,
    /// The provider's own name of the model.
    pub provider_model: String,
    /// How it wants to be told the longest answer.
    pub max_tokens_field: MaxTokensField,
    /// What it costs.
    pub price: Price,
}

/// What a gateway is made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The model table.
    pub models: Vec<Model>,
    /// The name in the table that `auto` stands for.
    pub default_model: String,
    /// Tunnels at once; over it, newcomers are refused.
    pub tunnels_max: usize,
    /// How long answers are kept for devices that lost their tunnel.
    pub keeping: Keeping,
    /// How much may be asked.
    pub rates: Rates,
}

/// How much may be asked; over it `RATE_LIMITED`, with the time to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Questions of one device in a minute.
    pub device_per_minute: u32,
    /// Questions of one account in a minute.
    pub account_per_minute: u32,
    /// Answers of one device that run at once.
    pub device_at_once: u32,
    /// Answers of one account that run at once.
    pub account_at_once: u32,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            device_per_minute: limits::REQUESTS_PER_MINUTE,
            account_per_minute: limits::REQUESTS_PER_MINUTE,
            device_at_once: limits::ANSWERS_PER_DEVICE_MAX,
            account_at_once: limits::ANSWERS_PER_ACCOUNT_MAX,
        }
    }
}

/// What a gateway takes.
#[derive(Debug)]
pub enum Input {
    /// A datagram arrived.
    Datagram(Datagram),
    /// The deadline has come.
    Timeout,
    /// News of a model call that is under way.
    Progress {
        /// The call's.
        id: AskId,
        /// What came.
        piece: Progress,
    },
    /// The one answer to an [`Ask`].
    Told {
        /// The ask's.
        id: AskId,
        /// What the outside world says.
        told: Told,
    },
    /// A device was revoked: its tunnel ends at once.
    Revoked(DeviceId),
    /// Prices and models were changed by the operator.
    Configured(Config),
    /// Go away in good order: take nobody in, send the devices away, let answers under way end,
    /// close, then [`Output::Stopped`].
    Drain(Drain),
    /// The same at once: what runs is cut off, and costs nothing.
    Stop,
}

/// What a gateway gives.
#[derive(Debug)]
pub enum Output {
    /// Ask the outside world.
    Ask {
        /// The answer names it.
        id: AskId,
        /// What.
        ask: Ask,
    },
    /// So many more bytes of a model call's body may be read.
    Credit {
        /// The call's.
        id: AskId,
        /// How many.
        bytes: usize,
    },
    /// A model call is no longer wanted: stop it. Its [`Told::Called`] still comes.
    Abandon {
        /// The call's.
        id: AskId,
    },
    /// A device will probably ask soon: have a connection to the provider ready.
    Warm {
        /// The provider's name.
        provider: String,
    },
    /// For logs and metrics.
    Event(Event),
    /// After [`Input::Drain`] or [`Input::Stop`]: everything is settled and closed.
    Stopped,
}

/// What happened, for logs and metrics. Holds nothing secret and nothing of a question or answer.
#[derive(Clone, Debug)]
pub enum Event {
    /// A handshake was refused before it began.
    HandshakeRefused {
        /// Whose.
        remote: SocketAddr,
    },
    /// A device's session is established.
    TunnelUp {
        /// Whose.
        device: DeviceId,
        /// Its account.
        account: AccountId,
        /// The session's number.
        epoch: u64,
        /// Where it is.
        remote: SocketAddr,
        /// How long the handshake took.
        handshake: Duration,
    },
    /// A connection ended, or never became a session.
    TunnelDown {
        /// Whose, if it had said.
        device: Option<DeviceId>,
        /// Why, for a person.
        reason: String,
    },
    /// A gateway that goes away told a device to go.
    SentAway {
        /// Whom.
        device: DeviceId,
        /// When it shall reconnect, from now.
        reconnect_in: Duration,
    },
    /// A question was answered and charged.
    Charged {
        /// Whom.
        account: AccountId,
        /// By which device.
        device: DeviceId,
        /// For which question.
        request: RequestId,
        /// How much for what.
        charge: Box<Charge>,
    },
    /// A question was refused or failed.
    Failed {
        /// By which device.
        device: DeviceId,
        /// Which question.
        request: RequestId,
        /// How.
        code: ErrorCode,
    },
    /// The stream of a running answer is lost; the answer goes on.
    Detached {
        /// Whose.
        device: DeviceId,
        /// Which question's.
        request: RequestId,
    },
    /// A device came back to an answer.
    Attached {
        /// Which.
        device: DeviceId,
        /// Which question's.
        request: RequestId,
        /// In which way.
        how: Return,
        /// From which piece on it wants it.
        from: u64,
        /// Whether the answer still runs.
        running: bool,
    },
    /// What a charged answer said is no longer kept.
    Forgotten {
        /// Whose.
        device: DeviceId,
        /// Which question's.
        request: RequestId,
    },
    /// A gateway that goes away could not write down how an answer ended: it is left as after a crash.
    Unbooked {
        /// Whose.
        device: DeviceId,
        /// Which question's.
        request: RequestId,
    },
    /// The outside world answered after the deadline.
    LateAnswer,
}

/// How the caller misused the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Outputs have not been drained: drain them first.
    #[error("too many outputs wait to be drained")]
    Backlog,
    /// No ask goes by this id, or it has been answered.
    #[error("nothing was asked under this id")]
    UnknownAsk,
    /// The default model is not in the table.
    #[error("the default model is not in the model table")]
    NoDefaultModel,
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Hello(ConnId),
    Ask(AskId),
    Answer(AnswerId),
    Kept(AnswerId),
    Look(ConnId),
    Drain,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Gateway<T> {
    transport: T,
    config: Config,
    clock: Monotonic,
    tunnels: BTreeMap<ConnId, Tunnel>,
    handshakes: usize,
    live: BTreeMap<DeviceId, ConnId>,
    answers: BTreeMap<AnswerId, Running>,
    /// What answers have said, those under way and those that ended not long ago.
    kept: BTreeMap<AnswerId, Kept>,
    requests: BTreeMap<(AccountId, RequestId), AnswerId>,
    shelf: Shelf<AnswerId>,
    asked_by_device: Buckets<DeviceId>,
    asked_by_account: Buckets<AccountId>,
    running_of_device: Tally<DeviceId>,
    running_of_account: Tally<AccountId>,
    asks: BTreeMap<AskId, Pending>,
    deadlines: Deadlines<Due>,
    outputs: VecDeque<Output>,
    /// Bytes of half-received messages, all tunnels together.
    received_bytes: usize,
    next_id: u64,
    draining: Option<Draining>,
    stopped: bool,
}

impl<T: Transport> Gateway<T> {
    /// A gateway over a transport that listens already.
    ///
    /// # Errors
    ///
    /// [`Rejected::NoDefaultModel`] when the configuration names a default that is not there.
    pub fn new(transport: T, config: Config) -> Result<Self, Rejected> {
        check(&config)?;
        let shelf = Shelf::new(config.keeping.bytes_max);
        Ok(Self {
            transport,
            config,
            shelf,
            clock: Monotonic::default(),
            tunnels: BTreeMap::new(),
            handshakes: 0,
            live: BTreeMap::new(),
            answers: BTreeMap::new(),
            kept: BTreeMap::new(),
            requests: BTreeMap::new(),
            asked_by_device: Buckets::default(),
            asked_by_account: Buckets::default(),
            running_of_device: Tally::default(),
            running_of_account: Tally::default(),
            asks: BTreeMap::new(),
            deadlines: Deadlines::new(),
            outputs: VecDeque::new(),
            received_bytes: 0,
            next_id: 0,
            draining: None,
            stopped: false,
        })
    }

    /// Connections that exist, established or not.
    #[must_use]
    pub fn tunnels(&self) -> usize {
        self.tunnels.len()
    }

    /// Devices with an established session.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.live.len()
    }

    /// Answers kept, those under way among them.
    #[must_use]
    pub fn answers_kept(&self) -> usize {
        self.kept.len()
    }

    /// What they hold together, bytes.
    #[must_use]
    pub const fn kept_bytes(&self) -> usize {
        self.shelf.bytes()
    }

    /// Answers under way.
    #[must_use]
    pub fn answers_under_way(&self) -> usize {
        self.answers.len()
    }

    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn model(&self, name: &str) -> Option<&Model> {
        let name = if name == "auto" {
            self.config.default_model.as_str()
        } else {
            name
        };
        self.config.models.iter().find(|model| model.name == name)
    }

    /// After every input: due timers, then everything that became possible, until nothing moves.
    fn settle_step(&mut self, now: Now) {
        while let Some(due) = self.deadlines.pop_due(now.instant) {
            match due {
                Due::Hello(conn) => self.close(now, conn, CloseCode::TooSlow, "no session in time"),
                Due::Ask(id) => self.ask_overdue(now, id),
                Due::Answer(id) => self.step_answer(now, id, answer::Input::Timeout),
                Due::Kept(id) => self.kept_too_long(now, id),
                Due::Look(conn) => self.look(now, conn),
                // Looked at below, as after every step.
                Due::Drain => {}
            }
        }
        loop {
            self.transport.flush(now);
            let Some(event) = self.transport.poll_event() else {
                break;
            };
            self.transport_event(now, event);
        }
        self.go_away(now);
    }

    /// What is kept already stays under the terms it came under until it is looked at again.
    fn configure(&mut self, config: Config) {
        self.shelf.set_bytes_max(config.keeping.bytes_max);
        self.config = config;
    }
}

fn check(config: &Config) -> Result<(), Rejected> {
    let known = config
        .models
        .iter()
        .any(|model| model.name == config.default_model);
    if known {
        Ok(())
    } else {
        Err(Rejected::NoDefaultModel)
    }
}

impl<T: Transport> Machine for Gateway<T> {
    type Input<'a> = Input;
    type Output = Output;
    type Rejected = Rejected;

    fn handle_input(&mut self, now: Now, input: Input) -> Result<(), Rejected> {
        // What the gateway asked for is bounded by what it asked, and must not be lost.
        if self.outputs.len() >= limits::OUTPUT_BACKLOG_MAX
            && matches!(input, Input::Datagram(_) | Input::Timeout)
        {
            return Err(Rejected::Backlog);
        }
        if let Input::Progress { id, .. } | Input::Told { id, .. } = &input
            && !self.asks.contains_key(id)
        {
            return Err(Rejected::UnknownAsk);
        }
        if let Input::Configured(config) = &input {
            check(config)?;
        }
        let now = self.clock.clamp(now);
        match input {
            Input::Datagram(datagram) => self.transport.handle_datagram(now, datagram),
            Input::Timeout => self.transport.handle_timeout(now),
            Input::Progress { id, piece } => self.progress(now, id, piece),
            Input::Told { id, told } => self.told(now, id, told),
            Input::Revoked(device) => {
                if let Some(&conn) = self.live.get(&device) {
                    self.close(now, conn, CloseCode::Revoked, "the device was revoked");
                }
                self.drop_answers_of(now, device);
            }
            Input::Configured(config) => self.configure(config),
            Input::Drain(drain) => self.drain(now, &drain),
            Input::Stop => self.stop(now),
        }
        self.settle_step(now);
        Ok(())
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let own = self.deadlines.next().map(|at| (at, "gateway deadline"));
        earliest(own, self.transport.poll_timeout())
    }
}

impl<T: Transport> RootMachine for Gateway<T> {
    /// With a backlog of outputs the datagram is dropped, as a full socket would.
    fn handle_datagram(&mut self, now: Now, datagram: Datagram) {
        let _dropped = self.handle_input(now, Input::Datagram(datagram));
    }

    fn handle_datagrams(&mut self, now: Now, datagrams: impl Iterator<Item = Datagram>) {
        if self.outputs.len() >= limits::OUTPUT_BACKLOG_MAX {
            return;
        }
        let now = self.clock.clamp(now);
        for datagram in datagrams {
            self.transport.handle_datagram(now, datagram);
        }
        self.settle_step(now);
    }

    fn handle_timeout(&mut self, now: Now) {
        let _postponed = self.handle_input(now, Input::Timeout);
    }

    fn handle_rebind(&mut self, now: Now) {
        let now = self.clock.clamp(now);
        self.transport.handle_rebind(now);
        self.settle_step(now);
    }

    fn poll_transmit(&mut self, now: Now, buf: &mut Vec<u8>) -> Option<Transmit> {
        let now = self.clock.clamp(now);
        self.transport.poll_transmit(now, buf)
    }
}
