//! What is known of a run from outside the machines: the questions and what became of them, the
//! devices' tunnels. The invariants judge by it.

pub mod rates;

use std::collections::BTreeMap;

use mesh_core::device::{AskError, State, Why};
use mesh_core::ids::{AccountId, RequestId};
use mesh_core::tunnel::FailureKind;
use mesh_core::wire::message::{FinishReason, TokensUsed};

use crate::queue::Micros;

/// How a question ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// An answer, with what the receipt says.
    Answered {
        /// Nano-dollars.
        charged: i64,
        /// Tokens.
        tokens: TokensUsed,
        /// Why it ended.
        finish: FinishReason,
        /// Whether the gateway guessed the tokens.
        estimated: bool,
    },
    /// None.
    Failed(AskError),
    /// The device's process died first.
    DeviceDied,
}

/// One question.
#[derive(Clone, Debug)]
pub struct Asked {
    /// By which device.
    pub device: usize,
    /// Whose.
    pub account: AccountId,
    /// When.
    pub at: Micros,
    /// Piece by piece.
    pub stream: bool,
    /// Whether the device cancelled it.
    pub cancelled: bool,
    /// Text the device was given.
    pub delivered: String,
    /// Text each upstream attempt produced.
    pub produced: Vec<String>,
    /// At which gateway the last attempt was made.
    pub called_at: Option<usize>,
    /// The id under which a model was called for it last: a new one where a gateway had lost the first
    /// answer.
    pub wire: RequestId,
    /// Attempts that were made under other ids before.
    pub wire_from: usize,
    /// Attempts that died with their gateway: what they produced is lost, and free.
    pub orphaned: usize,
    /// Whether an attempt at the upstream runs.
    pub calling: bool,
    /// What a whole answer counts.
    pub usage: TokensUsed,
    /// Words of a whole answer.
    pub words: u32,
    /// Under which id it was answered: a new one where a gateway had lost the first answer.
    pub answered_as: Option<RequestId>,
    /// When its tunnel was lost last.
    pub cut: Option<Micros>,
    /// When another process of its device went on with it last.
    pub restored: Option<Micros>,
    /// Whether another process of its device, which did not know that it had ended, asked it on.
    pub revived: bool,
    /// Whether a gateway refused it for a rate, or for too many answers at once.
    pub refused: bool,
    /// When it was charged, if the provider had counted it whole.
    pub counted: Option<Micros>,
    /// How it ended.
    pub outcome: Option<Outcome>,
}

/// One device's tunnel.
#[derive(Clone, Debug)]
pub struct TunnelRecord {
    /// Its state.
    pub state: State,
    /// When the session was had, virtual µs.
    pub up_since: Option<Micros>,
    /// Since when, by the device's own clock, which stands still while it sleeps, µs.
    pub since: Micros,
    /// Failures since the backoff last forgot, by a count of the invariants' own.
    pub retries: u32,
    /// When Reconnecting(n) was entered, until the attempt starts.
    pub waiting_since: Option<Micros>,
    /// The gateway or the shell said how long to wait, or to wait no longer.
    pub excused: bool,
    /// When the last pre-warm signal went out.
    pub prewarmed: Option<Micros>,
    /// When a gateway that goes away wants it to reconnect, at the earliest.
    pub moves_from: Option<Micros>,
    /// In doubt: when something was sent last, or when the doubt began.
    pub doubted: Option<Micros>,
    /// When the oldest heartbeat without an answer went out.
    pub beat: Option<Micros>,
    /// How often its device's process had begun.
    pub life: u32,
    /// When this life began.
    pub began: Micros,
    /// How often its state has changed in this life of its device's process.
    pub changes: u32,
}

impl TunnelRecord {
    /// Whether there is a session.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        matches!(self.state, State::Connected { .. })
    }

    /// Follows a change of state, counting the backoff's retries by a rule of its own: they are
    /// forgotten when somebody asks for a tunnel, and by a session that lived 30 s awake.
    pub fn follow(&mut self, now: Micros, awake: Micros, to: State, why: &Why) {
        const FORGET_AFTER: Micros = 30_000_000;
        match to {
            State::Connecting => self.retries = 0,
            State::Reconnecting { .. } => {
                if self.is_up() && awake - self.since >= FORGET_AFTER {
                    self.retries = 0;
                }
                self.retries += 1;
                self.waiting_since = Some(now);
                self.excused = match why {
                    Why::Failed(failure) => {
                        failure.retry_after.is_some() || failure.kind == FailureKind::Replaced
                    }
                    Why::NetworkChanged | Why::AskedToMove => true,
                    Why::Asked | Why::Established | Why::Answered | Why::Silent => false,
                };
            }
            State::Connected { .. } => {
                self.waiting_since = None;
                if *why == Why::Established {
                    self.since = awake;
                }
            }
            State::Disconnected | State::Failed => self.waiting_since = None,
        }
        self.state = to;
        self.changes += 1;
    }
}

impl Default for TunnelRecord {
    fn default() -> Self {
        Self {
            state: State::Disconnected,
            up_since: None,
            since: 0,
            retries: 0,
            waiting_since: None,
            excused: false,
            prewarmed: None,
            moves_from: None,
            doubted: None,
            beat: None,
            life: 0,
            began: 0,
            changes: 0,
        }
    }
}

/// A gateway that goes away.
#[derive(Clone, Copy, Debug)]
pub struct GoingAway {
    /// Its answers may run until then, virtual µs.
    pub until: Micros,
    /// What its time divided by its devices is, µs.
    pub step: Micros,
    /// When the device that was told last shall reconnect, counted from when it was told, µs.
    pub last_sent: Option<Micros>,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Record {
    /// By request id.
    pub questions: BTreeMap<RequestId, Asked>,
    /// By device.
    pub tunnels: Vec<TunnelRecord>,
    /// Until when a device's link was too narrow for QUIC, which needs 1 200 bytes (RFC 9000 §14):
    /// heartbeats pass, and keep a tunnel alive that no question fits through.
    pub narrow_until: BTreeMap<usize, Micros>,
    /// Since when and until when nothing came through that a device sent, though it may have heard its
    /// gateway: its streams are used up then by what is not acknowledged, and other questions find none.
    pub mute: BTreeMap<usize, (Micros, Micros)>,
    /// When devices began an attempt to connect, virtual µs.
    pub attempts: Vec<Micros>,
    /// When gateways had established a session, virtual µs.
    pub established: Vec<Micros>,
    /// When gateways refused a handshake before it began, virtual µs.
    pub refused: Vec<Micros>,
    /// When devices had a new session, virtual µs; an old one that answered after all is not new.
    pub sessions: Vec<Micros>,
    /// Sessions that came back.
    pub reconnects: u64,
    /// How often a gateway's process died or was stopped.
    pub gateways_ended: u64,
    /// How long answers are kept after their end, µs.
    pub kept: Micros,
    /// Which question an id is of under which it was asked anew.
    pub wires: BTreeMap<RequestId, RequestId>,
    /// Gateways that go away, until their processes have ended.
    pub going_away: BTreeMap<usize, GoingAway>,
    /// Gateways there are.
    pub gateways: usize,
    /// What gateways have let devices ask.
    pub rates: rates::Rates,
    /// For how long devices had a session, all together, µs.
    pub up_us: Micros,
}

impl Record {
    /// The question that an id is of.
    #[must_use]
    pub fn question_of(&self, id: RequestId) -> RequestId {
        self.wires.get(&id).copied().unwrap_or(id)
    }

    /// Which process of its device hears what is said of a question now, and over which state of its
    /// tunnel, each by number.
    #[must_use]
    pub fn heard_by(&self, id: RequestId) -> (u32, u32) {
        let asked = self.questions.get(&self.question_of(id));
        let tunnel = asked.and_then(|asked| self.tunnels.get(asked.device));
        tunnel.map_or((0, 0), |tunnel| (tunnel.life, tunnel.changes))
    }
}

/// What an invariant found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant, as a sentence.
    pub invariant: String,
    /// What breaks it.
    pub found: String,
}
