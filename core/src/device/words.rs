//! What a device is told and what it says.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::value::RawValue;

use super::control;
use super::unfinished::Unfinished;
use super::{AttemptId, Failure, State, Why};
use crate::api::Method;
use crate::dialect::chat::Delta;
use crate::error::ErrorClass;
use crate::escalation::request::Invalid;
use crate::ids::RequestId;
use crate::privacy::NotSent;
use crate::transport::Datagram;
use crate::vitals::BadVitals;
use crate::wire::message::{
    ErrorMessage, EscalationRequest, EscalationResponse, Notice, StreamEnd, Vitals,
};

/// What a device takes.
#[derive(Debug)]
pub enum Input {
    /// A datagram arrived.
    Datagram(Datagram),
    /// The deadline has come.
    Timeout,
    /// A tunnel is wanted.
    Connect,
    /// It is wanted no longer.
    Disconnect,
    /// The local address or the route changed.
    NetworkChanged,
    /// The machine woke up.
    Woke {
        /// How long it slept.
        asleep: Duration,
    },
    /// The device's load was measured.
    Vitals(Vitals),
    /// Ask a question. Its events follow.
    Escalate(Box<EscalationRequest>),
    /// Stop an answer. Its last event still comes.
    Cancel(RequestId),
    /// Read no more of an answer for now: its gateway is slowed down.
    Pause(RequestId),
    /// Read on.
    Unpause(RequestId),
    /// A typed call. [`Output::Replied`] follows.
    Call {
        /// Chosen by the caller; not in use.
        id: u64,
        /// Which.
        method: Method,
        /// Its parameters.
        params: Option<Box<RawValue>>,
    },
    /// The answer to [`Output::Resolve`].
    Resolved {
        /// Whose.
        attempt: AttemptId,
        /// The gateway's addresses in the resolver's order, or why there are none.
        result: Result<Vec<SocketAddr>, String>,
    },
    /// What earlier processes of the device kept. Their questions go on; nobody is given their news
    /// until it attaches.
    Restore(Unfinished),
    /// Give me an answer that was restored, or that had no tunnel left, from its first word on.
    Attach(RequestId),
    /// The last event of an answer has reached whoever it is for: nothing of it need be kept.
    Taken(RequestId),
    /// Say goodbye; [`Output::Stopped`] follows.
    Stop,
}

/// What a device gives.
#[derive(Debug)]
pub enum Output {
    /// Find the gateway's addresses.
    Resolve {
        /// For which attempt; the answer names it.
        attempt: AttemptId,
        /// Where a gateway that goes away has sent the device, `host:port`; `None`: the configured
        /// gateway.
        alternate: Option<String>,
    },
    /// Go on from another local port, and tell the machine ([`crate::machine::RootMachine::handle_rebind`]):
    /// nothing came back to this one. With none to be had the old one stays.
    Rebind,
    /// The tunnel's state changed.
    Changed {
        /// From here.
        from: State,
        /// To here.
        to: State,
        /// For this reason.
        why: Why,
    },
    /// While Connected: the path may be dead, or is known to live again.
    Doubt(bool),
    /// News of an answer.
    Answer {
        /// To which question.
        request: RequestId,
        /// What.
        event: AnswerEvent,
    },
    /// A typed call's result.
    Replied {
        /// Which call's.
        id: u64,
        /// What came of it.
        result: Result<Box<RawValue>, AskError>,
    },
    /// Something the person may want to know.
    Notice(Notice),
    /// All that is to be kept now, in place of what was said before; to be written down whole or not
    /// at all. With [`Terms::keeps`](super::Terms::keeps) only.
    Keep(Unfinished),
    /// After [`Input::Stop`]: the connections are closed.
    Stopped,
}

/// News of an answer. `Debug` shows nothing of the answer.
pub enum AnswerEvent {
    /// The next text, in order.
    Chunk(String),
    /// The next of what is no text, for a question that was asked with a client's own body.
    Delta(Delta),
    /// Its tunnel was lost. It goes on when there is one again, or fails.
    Cut,
    /// After [`AnswerEvent::Cut`]: it goes on.
    Resumed {
        /// With this piece.
        at: u64,
    },
    /// A limit of the account came near.
    Notice(Notice),
    /// A streamed answer is complete. Last.
    Ended(StreamEnd),
    /// An unstreamed answer. Last.
    Whole(Box<EscalationResponse>),
    /// It failed; what text came before this stands. Last.
    Failed(AskError),
}

impl std::fmt::Debug for AnswerEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Chunk(text) => write!(f, "Chunk({} bytes)", text.len()),
            Self::Delta(delta) => f.debug_tuple("Delta").field(delta).finish(),
            Self::Cut => f.write_str("Cut"),
            Self::Resumed { at } => f.debug_struct("Resumed").field("at", at).finish(),
            Self::Notice(notice) => f.debug_tuple("Notice").field(notice).finish(),
            Self::Ended(end) => f.debug_tuple("Ended").field(end).finish(),
            Self::Whole(answer) => write!(f, "Whole({} bytes)", answer.content.len()),
            Self::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
        }
    }
}

/// Why a question or a call came to nothing, or not to its end.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AskError {
    /// The gateway's word.
    #[error("{}", .0.message)]
    Remote(Box<ErrorMessage>),
    /// The question breaks a rule; nothing was sent.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The question has something that is to stay on the device; nothing was sent.
    #[error(transparent)]
    Private(#[from] NotSent),
    /// The question does not fit one message; nothing was sent.
    #[error("the question with its context is too large for one message; send less context")]
    TooLarge,
    /// A question with this id is under way.
    #[error("this question is under way already; its answer goes to whoever asked it first")]
    Duplicate,
    /// Too much is under way; nothing was sent.
    #[error("too many questions wait already; wait for one to end")]
    Busy,
    /// There is no tunnel and none is being made; nothing was sent.
    #[error("there is no tunnel to the gateway{}", why(.0.as_ref()))]
    NotConnected(Option<Failure>),
    /// The tunnel was lost after the question was sent, and was not had back in time.
    #[error("the tunnel was lost in the middle of the answer: {0}")]
    TunnelLost(Failure),
    /// Nothing came in time.
    #[error("no answer came in time; ask again, or allow more time")]
    TimedOut,
    /// The answer had begun, its tunnel lived, and nothing more came of it for so long.
    #[error("nothing more of the answer came for {} seconds; ask again", .0.as_secs())]
    Silent(Duration),
    /// Another process of the device asked, longer ago than an answer is to be had.
    #[error("the device was away for too long to have the rest of the answer; ask again")]
    TooLate,
    /// No such question is kept.
    #[error("there is no such unfinished question on this device")]
    NothingKept,
    /// How it ended when it was asked by an earlier process.
    #[error("{}", .0.message)]
    Earlier(Box<control::Failure>),
    /// Cancelled before it was sent, or before the gateway could be told.
    #[error("cancelled while there was no tunnel")]
    Cancelled,
    /// The gateway broke the protocol.
    #[error("the gateway's answer is not understood: {0}")]
    Protocol(String),
}

impl AskError {
    /// The class a caller sees.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Earlier(failure) => failure.class(),
            Self::Remote(message) => message.code.class(),
            Self::Invalid(_)
            | Self::Private(_)
            | Self::TooLarge
            | Self::Duplicate
            | Self::NothingKept => ErrorClass::Validation,
            Self::Busy => ErrorClass::RateLimit,
            Self::NotConnected(Some(failure)) => failure.kind.class(),
            Self::NotConnected(None) => ErrorClass::NotConnected,
            Self::TunnelLost(_) => ErrorClass::TunnelConnection,
            Self::TimedOut | Self::Silent(_) | Self::TooLate => ErrorClass::Timeout,
            Self::Cancelled => ErrorClass::Api,
            Self::Protocol(_) => ErrorClass::Serialization,
        }
    }
}

fn why(failure: Option<&Failure>) -> String {
    failure
        .map(|failure| format!(": {failure}"))
        .unwrap_or_default()
}

/// How the caller misused the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Outputs have not been drained: drain them first.
    #[error("too many outputs wait to be drained")]
    Backlog,
    /// There is a tunnel, or one is being made.
    #[error("the tunnel is up or coming up already")]
    AlreadyUp,
    /// The measurement is none.
    #[error(transparent)]
    Vitals(#[from] BadVitals),
    /// A call with this id is under way.
    #[error("a call with this id is under way")]
    DuplicateCall,
}
