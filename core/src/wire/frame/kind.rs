//! What frames there are: number, limit, direction and stream of each.
//!
//! | numbers | stream | to the gateway | to the device |
//! |---|---|---|---|
//! | 0x01–0x02, 0x08, 0x10–0x12, 0x16 | control | `Hello`, `Heartbeat`, `PrewarmSignal` | `HelloAck`, `HeartbeatAck`, `GoAway`, `Notice` |
//! | 0x03–0x06, 0x13–0x15 | escalation | `EscalationRequest`, `Resume`, `Cancel`, `ChunkAck` | `EscalationResponse`, `StreamChunk`, `StreamEnd` |
//! | 0x20–0x21 | call | `Call` | `Reply` |
//! | 0x30–0x34 | upload | `UploadBegin`, `UploadChunk` | `UploadReady`, `UploadAck`, `UploadDone` |
//! | 0x07 | any | `Error` | `Error` |
//! | 0x80–0xFF | any | extensions, skipped when unknown | the same |

use crate::limits;

/// Numbers from here on are for extensions and skipped when unknown.
pub(super) const EXTENSIONS_FROM: u8 = 0x80;

/// The types by their numbers: a look-up instead of a search for every frame.
const BY_NUMBER: [Option<FrameType>; EXTENSIONS_FROM as usize] = {
    let mut table = [None; EXTENSIONS_FROM as usize];
    let mut at = 0;
    while at < FrameType::ALL.len() {
        table[FrameType::ALL[at] as usize] = Some(FrameType::ALL[at]);
        at += 1;
    }
    table
};

/// The type byte of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "each is the message of the same name")]
pub enum FrameType {
    Heartbeat = 0x01,
    HeartbeatAck = 0x02,
    EscalationRequest = 0x03,
    EscalationResponse = 0x04,
    StreamChunk = 0x05,
    StreamEnd = 0x06,
    Error = 0x07,
    PrewarmSignal = 0x08,
    Hello = 0x10,
    HelloAck = 0x11,
    GoAway = 0x12,
    Resume = 0x13,
    Cancel = 0x14,
    ChunkAck = 0x15,
    Notice = 0x16,
    Call = 0x20,
    Reply = 0x21,
    UploadBegin = 0x30,
    UploadReady = 0x31,
    UploadChunk = 0x32,
    UploadAck = 0x33,
    UploadDone = 0x34,
}

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Device → gateway.
    ToGateway,
    /// Gateway → device.
    ToDevice,
}

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Heartbeats and what governs the session; one per connection.
    Control,
    /// One typed call and its reply.
    Call,
    /// One question and its answer.
    Escalation,
    /// One adapter.
    Upload,
}

impl FrameType {
    /// Every type, in the order of their numbers.
    pub const ALL: [Self; 22] = [
        Self::Heartbeat,
        Self::HeartbeatAck,
        Self::EscalationRequest,
        Self::EscalationResponse,
        Self::StreamChunk,
        Self::StreamEnd,
        Self::Error,
        Self::PrewarmSignal,
        Self::Hello,
        Self::HelloAck,
        Self::GoAway,
        Self::Resume,
        Self::Cancel,
        Self::ChunkAck,
        Self::Notice,
        Self::Call,
        Self::Reply,
        Self::UploadBegin,
        Self::UploadReady,
        Self::UploadChunk,
        Self::UploadAck,
        Self::UploadDone,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// The type of that number, if it is one of ours.
    #[must_use]
    #[inline]
    pub fn from_u8(number: u8) -> Option<Self> {
        BY_NUMBER.get(usize::from(number)).copied().flatten()
    }

    /// The message's name in the payload's `type` field.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Heartbeat => "Heartbeat",
            Self::HeartbeatAck => "HeartbeatAck",
            Self::EscalationRequest => "EscalationRequest",
            Self::EscalationResponse => "EscalationResponse",
            Self::StreamChunk => "StreamChunk",
            Self::StreamEnd => "StreamEnd",
            Self::Error => "Error",
            Self::PrewarmSignal => "PrewarmSignal",
            Self::Hello => "Hello",
            Self::HelloAck => "HelloAck",
            Self::GoAway => "GoAway",
            Self::Resume => "Resume",
            Self::Cancel => "Cancel",
            Self::ChunkAck => "ChunkAck",
            Self::Notice => "Notice",
            Self::Call => "Call",
            Self::Reply => "Reply",
            Self::UploadBegin => "UploadBegin",
            Self::UploadReady => "UploadReady",
            Self::UploadChunk => "UploadChunk",
            Self::UploadAck => "UploadAck",
            Self::UploadDone => "UploadDone",
        }
    }

    /// The longest payload, bytes.
    #[must_use]
    pub const fn payload_max(self) -> usize {
        match self {
            Self::EscalationRequest | Self::EscalationResponse => {
                limits::FRAME_ESCALATION_BYTES_MAX
            }
            Self::UploadChunk => limits::FRAME_UPLOAD_CHUNK_BYTES_MAX,
            Self::Call | Self::Reply | Self::StreamChunk => limits::FRAME_MEDIUM_BYTES_MAX,
            Self::Heartbeat
            | Self::HeartbeatAck
            | Self::StreamEnd
            | Self::Error
            | Self::PrewarmSignal
            | Self::Hello
            | Self::HelloAck
            | Self::GoAway
            | Self::Resume
            | Self::Cancel
            | Self::ChunkAck
            | Self::Notice
            | Self::UploadBegin
            | Self::UploadReady
            | Self::UploadAck
            | Self::UploadDone => limits::FRAME_SMALL_BYTES_MAX,
        }
    }

    /// What a stream is for that begins with this frame.
    #[must_use]
    pub const fn opens(self) -> Option<StreamKind> {
        match self {
            Self::Hello => Some(StreamKind::Control),
            Self::EscalationRequest | Self::Resume => Some(StreamKind::Escalation),
            Self::Call => Some(StreamKind::Call),
            Self::UploadBegin => Some(StreamKind::Upload),
            Self::Heartbeat
            | Self::HeartbeatAck
            | Self::EscalationResponse
            | Self::StreamChunk
            | Self::StreamEnd
            | Self::Error
            | Self::PrewarmSignal
            | Self::HelloAck
            | Self::GoAway
            | Self::Cancel
            | Self::ChunkAck
            | Self::Notice
            | Self::Reply
            | Self::UploadReady
            | Self::UploadChunk
            | Self::UploadAck
            | Self::UploadDone => None,
        }
    }

    /// Whether the frame may go this way on such a stream.
    #[must_use]
    pub fn allowed(self, direction: Direction, stream: StreamKind) -> bool {
        use Direction::{ToDevice, ToGateway};
        use StreamKind::{Call, Control, Escalation, Upload};
        match self {
            Self::Error => true,
            Self::Heartbeat | Self::PrewarmSignal | Self::Hello => {
                (direction, stream) == (ToGateway, Control)
            }
            Self::HeartbeatAck | Self::HelloAck | Self::GoAway | Self::Notice => {
                (direction, stream) == (ToDevice, Control)
            }
            Self::EscalationRequest | Self::Resume | Self::Cancel | Self::ChunkAck => {
                (direction, stream) == (ToGateway, Escalation)
            }
            Self::EscalationResponse | Self::StreamChunk | Self::StreamEnd => {
                (direction, stream) == (ToDevice, Escalation)
            }
            Self::Call => (direction, stream) == (ToGateway, Call),
            Self::Reply => (direction, stream) == (ToDevice, Call),
            Self::UploadBegin | Self::UploadChunk => (direction, stream) == (ToGateway, Upload),
            Self::UploadReady | Self::UploadAck | Self::UploadDone => {
                (direction, stream) == (ToDevice, Upload)
            }
        }
    }
}
