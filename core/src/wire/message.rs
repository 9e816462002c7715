//! The messages of the tunnel: one type per frame, with the type byte, direction and stream of each.
//!
//! Payloads are UTF-8 JSON, adjacently tagged (`{"type":"Heartbeat","data":{…}}`); the tag must agree
//! with the frame's type byte. Unknown JSON fields are ignored, missing optional ones take their
//! default. Raw JSON that is only passed on stays raw ([`RawValue`](serde_json::value::RawValue)). The first eight numbers
//! (0x01–0x08) never change. `Debug` shows what a message is about, never what people wrote.

mod escalation;
mod finite;
mod private;
mod session;
mod transfer;

use serde::{Deserialize, Serialize};

pub use self::escalation::{
    Cancel, Chat, ChunkAck, Context, DialectName, EscalationRequest, EscalationResponse,
    FinishReason, Knowledge, Preferences, Resume, Role, StreamChunk, StreamEnd, TokensUsed, Tone,
    Turn, Verbosity,
};
pub use self::session::{
    GoAway, Heartbeat, HeartbeatAck, Hello, HelloAck, Notice, PrewarmSignal, ServerStatus,
    SessionLimits, Vitals,
};
pub use self::transfer::{Call, Reply, UploadAck, UploadBegin, UploadDone, UploadReady};
use crate::error::ErrorCode;
use crate::ids::RequestId;
use crate::wire::frame::FrameType;

/// Either way, any stream: something was refused or failed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorMessage {
    /// What kind.
    pub code: ErrorCode,
    /// For a person: what happened and what to do.
    pub message: String,
    /// For a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<serde_json::Value>,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// How long to wait first, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_secs: Option<u32>,
    /// The request it is about, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
}

/// Any JSON message of the tunnel. (`UploadChunk`, 0x32, is binary and streams past this type.)
#[derive(Clone, Debug)]
#[expect(
    missing_docs,
    reason = "each variant is its message, documented at the type"
)]
pub enum Message {
    Heartbeat(Heartbeat),
    HeartbeatAck(HeartbeatAck),
    EscalationRequest(Box<EscalationRequest>),
    EscalationResponse(Box<EscalationResponse>),
    StreamChunk(StreamChunk),
    StreamEnd(StreamEnd),
    Error(ErrorMessage),
    PrewarmSignal(PrewarmSignal),
    Hello(Hello),
    HelloAck(HelloAck),
    GoAway(GoAway),
    Resume(Resume),
    Cancel(Cancel),
    ChunkAck(ChunkAck),
    Notice(Notice),
    Call(Call),
    Reply(Reply),
    UploadBegin(UploadBegin),
    UploadReady(UploadReady),
    UploadAck(UploadAck),
    UploadDone(UploadDone),
}

impl Message {
    /// The type of the frame that carries it.
    #[must_use]
    pub const fn frame_type(&self) -> FrameType {
        match self {
            Self::Heartbeat(_) => FrameType::Heartbeat,
            Self::HeartbeatAck(_) => FrameType::HeartbeatAck,
            Self::EscalationRequest(_) => FrameType::EscalationRequest,
            Self::EscalationResponse(_) => FrameType::EscalationResponse,
            Self::StreamChunk(_) => FrameType::StreamChunk,
            Self::StreamEnd(_) => FrameType::StreamEnd,
            Self::Error(_) => FrameType::Error,
            Self::PrewarmSignal(_) => FrameType::PrewarmSignal,
            Self::Hello(_) => FrameType::Hello,
            Self::HelloAck(_) => FrameType::HelloAck,
            Self::GoAway(_) => FrameType::GoAway,
            Self::Resume(_) => FrameType::Resume,
            Self::Cancel(_) => FrameType::Cancel,
            Self::ChunkAck(_) => FrameType::ChunkAck,
            Self::Notice(_) => FrameType::Notice,
            Self::Call(_) => FrameType::Call,
            Self::Reply(_) => FrameType::Reply,
            Self::UploadBegin(_) => FrameType::UploadBegin,
            Self::UploadReady(_) => FrameType::UploadReady,
            Self::UploadAck(_) => FrameType::UploadAck,
            Self::UploadDone(_) => FrameType::UploadDone,
        }
    }
}
