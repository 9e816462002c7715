//! The messages of the tunnel: one type per frame, with the type byte, direction and stream of each.
//!
//! Payloads are UTF-8 JSON, adjacently tagged (`{"type":"Heartbeat","data":{…}}`); the tag must agree
//! with the frame's type byte. Unknown JSON fields are ignored, missing optional ones take their
//! default. Raw JSON that is only passed on stays raw ([`RawValue`]). The first eight numbers
//! (0x01–0x08) never change. `Debug` shows what a message is about, never what people wrote.

mod finite;
mod private;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::billing::account::alert::Alert;
use crate::billing::money::Nanos;
use crate::device::route::Route;
use crate::error::ErrorCode;
use crate::ids::{DeviceId, RequestId};
use crate::time::UnixMillis;
use crate::wire::frame::FrameType;

/// Device → gateway, control: the device is alive, and how it fares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The sender; must be the certificate's.
    pub device_id: DeviceId,
    /// The device's wall clock.
    pub timestamp: UnixMillis,
    /// Grows by one with every heartbeat of a tunnel session.
    pub sequence: u64,
    /// What the device measured last.
    pub vitals: Vitals,
}

/// A device's load. Fractions are 0.0–1.0; what cannot be measured is absent, never zero.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Vitals {
    /// All processors together, 0.0–1.0.
    #[serde(deserialize_with = "finite::single")]
    pub cpu_usage: f32,
    /// Main memory, 0.0–1.0.
    #[serde(deserialize_with = "finite::single")]
    pub memory_usage: f32,
    /// The disk that holds the data folder, 0.0–1.0.
    #[serde(deserialize_with = "finite::single")]
    pub disk_usage: f32,
    /// GPU, 0.0–1.0.
    #[serde(
        default,
        deserialize_with = "finite::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub gpu_usage: Option<f32>,
    /// GPU memory, 0.0–1.0.
    #[serde(
        default,
        deserialize_with = "finite::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub gpu_vram_usage: Option<f32>,
    /// GPU temperature in degrees Celsius.
    #[serde(
        default,
        deserialize_with = "finite::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub gpu_temp_celsius: Option<f32>,
    /// Conversations open on the device.
    pub active_sessions: u32,
    /// Questions asked and not yet answered.
    pub pending_queries: u32,
    /// The model loaded locally, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded_model: Option<String>,
}

/// Gateway → device, control: answers one heartbeat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeartbeatAck {
    /// The heartbeat's sequence.
    pub sequence: u64,
    /// The gateway's wall clock.
    pub server_time: UnixMillis,
    /// The gateway's estimate of the round trip, milliseconds.
    pub latency_ms: u32,
    /// Answers that wait for this device.
    pub pending_messages: u32,
    /// How the gateway fares.
    pub server_status: ServerStatus,
}

/// How the gateway fares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "status")]
pub enum ServerStatus {
    /// Everything works.
    #[default]
    Healthy,
    /// Something does not.
    Degraded {
        /// What, for a person.
        reason: String,
    },
    /// Planned work.
    Maintenance {
        /// When it should be over.
        until: UnixMillis,
    },
}

/// Device → gateway, escalation: one question with its context.
#[derive(Clone, Serialize, Deserialize)]
pub struct EscalationRequest {
    /// Made by the device; with the account it is the idempotency key.
    pub request_id: RequestId,
    /// The conversation's name on the device; groups requests, never looked up.
    pub session_id: String,
    /// The question, 1–100 000 characters; may be empty with `chat`.
    pub query: String,
    /// What goes with it.
    #[serde(default)]
    pub context: Context,
    /// `auto`, or a name in the gateway's model table.
    pub model: String,
    /// 1–128 000.
    pub max_tokens: u32,
    /// Whether the answer is wanted piece by piece.
    pub stream: bool,
    /// The project charged; `default` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// A system prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// An adapter to apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora_id: Option<String>,
    /// To the first piece of the answer, 1–600 seconds; 30 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_secs: Option<u32>,
    /// The request that was interrupted and is asked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<RequestId>,
    /// A client's own request body, from the local endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<Chat>,
}

/// A client's own request, passed on as it is.
#[derive(Clone, Serialize, Deserialize)]
pub struct Chat {
    /// The format the body is in.
    pub dialect: DialectName,
    /// The body.
    pub body: Box<RawValue>,
}

/// The two formats that model servers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DialectName {
    /// OpenAI Chat Completions.
    Openai,
    /// Anthropic Messages.
    Anthropic,
}

/// What goes with a question.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Context {
    /// A short note on the user's intent.
    pub pathos_framing: String,
    /// Passages from the device's own documents.
    pub local_knowledge: Vec<Knowledge>,
    /// The conversation so far, oldest first.
    pub conversation_history: Vec<Turn>,
    /// What the answer must keep to.
    pub constraints: Vec<String>,
    /// How the user likes answers.
    pub user_preferences: Preferences,
}

/// One passage from the device's own documents.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Knowledge {
    /// Where it is from, as the user knows it.
    pub source: String,
    /// The passage.
    pub content: String,
    /// 0.0–1.0.
    #[serde(deserialize_with = "finite::single")]
    pub relevance: f32,
}

/// One turn of the conversation so far.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// Who spoke.
    pub role: Role,
    /// What was said.
    pub content: String,
    /// When, by the device's wall clock.
    #[serde(default)]
    pub timestamp: UnixMillis,
}

/// Who spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The person.
    User,
    /// The model.
    Assistant,
}

/// How the user likes answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Preferences {
    /// A language's name or BCP 47 tag; empty for the question's own.
    pub preferred_language: String,
    /// How long.
    pub verbosity: Verbosity,
    /// In what manner.
    pub tone: Tone,
}

/// How long an answer should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verbosity {
    /// As short as possible.
    Concise,
    /// As the model would.
    #[default]
    Normal,
    /// With everything that helps.
    Detailed,
}

/// The manner of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tone {
    /// As at work.
    #[default]
    Professional,
    /// As among friends.
    Casual,
    /// As among engineers.
    Technical,
}

/// Tokens counted by the provider. `prompt` includes cached ones; `completion` includes reasoning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokensUsed {
    /// Everything read, cached or not.
    pub prompt: u64,
    /// Everything written.
    pub completion: u64,
    /// The part of `prompt` read from the provider's cache.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cache_read: u64,
    /// The part of `prompt` written to the provider's cache.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cache_write: u64,
    /// The part of `completion` spent on reasoning.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reasoning: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn hides_nothing(n: &u32) -> bool {
    *n == 0
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model was done.
    Stop,
    /// `max_tokens` was reached.
    Length,
    /// The model wants a tool's result.
    ToolCalls,
    /// The provider's filter stopped it.
    ContentFilter,
    /// The device cancelled.
    Cancelled,
    /// The upstream broke off after the first piece.
    Error,
}

/// Gateway → device, escalation: a whole answer.
#[derive(Clone, Serialize, Deserialize)]
pub struct EscalationResponse {
    /// The question's id.
    pub request_id: RequestId,
    /// The answer's text.
    pub content: String,
    /// The provider's own name of the model.
    pub model_used: String,
    /// What the provider counted.
    pub tokens_used: TokensUsed,
    /// Advisory, whole cents; the exact figure is `cost_nanos`.
    pub cost_cents: i64,
    /// Charged, in nano-dollars.
    pub cost_nanos: Nanos,
    /// The provider's price, in nano-dollars.
    pub base_nanos: Nanos,
    /// From the request's arrival to the answer's end at the gateway, milliseconds.
    pub latency_ms: u64,
    /// The knowledge passages sent along.
    #[serde(default)]
    pub sources: Vec<String>,
    /// Whether an adapter was applied.
    #[serde(default)]
    pub lora_applied: bool,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Whether usage was estimated because the provider sent none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
    /// How many values were replaced by tokens before the question was sent. The device's own word,
    /// never the gateway's.
    #[serde(default, skip_serializing_if = "hides_nothing")]
    pub hidden: u32,
    /// The answer in the client's own dialect, when asked with `chat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Box<RawValue>>,
    /// What its charge gives occasion to tell. The control stream says the same, before this or after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<Notice>,
}

/// Gateway → device, escalation: one piece of an answer.
#[derive(Clone, Serialize, Deserialize)]
pub struct StreamChunk {
    /// The question's id.
    pub request_id: RequestId,
    /// The piece's text; may be empty.
    pub content: String,
    /// 0, 1, 2 …
    pub sequence: u64,
    /// Whether it is the last.
    pub is_final: bool,
    /// What text cannot carry (tool calls, reasoning), in the client's dialect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<Box<RawValue>>,
}

impl EscalationResponse {
    /// The text as the one piece of a stream, and that stream's end.
    #[must_use]
    pub fn into_parts(self) -> (String, StreamEnd) {
        let end = StreamEnd {
            request_id: self.request_id,
            tokens_used: self.tokens_used,
            cost_cents: self.cost_cents,
            cost_nanos: self.cost_nanos,
            base_nanos: self.base_nanos,
            model_used: self.model_used,
            finish_reason: self.finish_reason,
            latency_ms: self.latency_ms,
            estimated: self.estimated,
            hidden: self.hidden,
            route: Route::Cloud,
            notice: self.notice,
        };
        (self.content, end)
    }
}

/// Gateway → device, escalation: after the final piece, usage and charge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEnd {
    /// The question's id.
    pub request_id: RequestId,
    /// What the provider counted.
    pub tokens_used: TokensUsed,
    /// Advisory, whole cents; the exact figure is `cost_nanos`.
    pub cost_cents: i64,
    /// Charged, in nano-dollars.
    pub cost_nanos: Nanos,
    /// The provider's price, in nano-dollars.
    pub base_nanos: Nanos,
    /// The provider's own name of the model.
    pub model_used: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// From the request's arrival to the answer's end at the gateway, milliseconds.
    pub latency_ms: u64,
    /// Whether usage was estimated because the provider sent none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
    /// How many values were replaced by tokens before the question was sent. The device's own word,
    /// never the gateway's.
    #[serde(default, skip_serializing_if = "hides_nothing")]
    pub hidden: u32,
    /// Which way it took. The device's own word, never the gateway's.
    #[serde(default, skip_serializing_if = "Route::is_cloud")]
    pub route: Route,
    /// What its charge gives occasion to tell. The control stream says the same, before this or after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<Notice>,
}

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

/// Device → gateway, control: the device will probably escalate soon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrewarmSignal {
    /// The sender; must be the certificate's.
    pub device_id: DeviceId,
    /// The device's wall clock.
    pub timestamp: UnixMillis,
    /// GPU, 0.0–1.0.
    #[serde(deserialize_with = "finite::single")]
    pub gpu_usage: f32,
    /// Degrees Celsius.
    #[serde(
        default,
        deserialize_with = "finite::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub gpu_temp: Option<f32>,
    /// What was over its threshold.
    pub reason: String,
    /// The project that will be charged, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// The adapter that will be wanted, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora_id: Option<String>,
}

/// Device → gateway, control, first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The sender; must be the certificate's.
    pub device_id: DeviceId,
    /// Program and version.
    pub agent: String,
    /// Extensions understood.
    #[serde(default)]
    pub features: Vec<String>,
}

/// Gateway → device, control: the session is established.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloAck {
    /// The session's number, given out by the store; a higher one replaces a lower.
    pub epoch: u64,
    /// The gateway's wall clock.
    pub server_time: UnixMillis,
    /// How often to beat.
    pub heartbeat_secs: u32,
    /// What the gateway accepts.
    #[serde(default)]
    pub limits: SessionLimits,
    /// Extensions understood.
    #[serde(default)]
    pub features: Vec<String>,
}

/// What the gateway accepts from one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionLimits {
    /// Answers under way at once.
    pub escalations_max: u32,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            escalations_max: crate::limits::ESCALATIONS_PER_TUNNEL_MAX,
        }
    }
}

/// Gateway → device, control: move away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoAway {
    /// When to reconnect, counted from now.
    pub reconnect_in_ms: u64,
    /// How long this gateway goes on serving the session.
    pub try_for_secs: u32,
    /// Where to go instead, `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alternate: Option<String>,
}

/// Device → gateway, escalation, first: go on with an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The question's id.
    pub request_id: RequestId,
    /// The first piece wanted.
    pub next_sequence: u64,
}

/// Device → gateway, escalation: stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// The question's id.
    pub request_id: RequestId,
}

/// Device → gateway, escalation: flow control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkAck {
    /// The question's id.
    pub request_id: RequestId,
    /// Everything up to and with this piece has arrived.
    pub received_through: u64,
}

/// Gateway → device, control: something the person may want to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// What it is about.
    pub kind: String,
    /// The particulars.
    #[serde(default)]
    pub data: serde_json::Value,
}

impl Notice {
    /// The kind of a notice that a limit of the account comes near. Its data is an
    /// [`Alert`].
    pub const LIMIT: &str = "limit";
    /// Where it is in the details of an error that ends an answer.
    pub const IN_DETAILS: &str = "notice";

    /// That of an answer that failed and was charged all the same.
    #[must_use]
    pub fn of_failed(error: &ErrorMessage) -> Option<Self> {
        let notice = error.details.as_ref()?.get(Self::IN_DETAILS)?;
        serde_json::from_value(notice.clone()).ok()
    }

    /// For a person, if it is of a kind that people are told of.
    #[must_use]
    pub fn in_words(&self) -> Option<String> {
        let limit = (self.kind == Self::LIMIT).then(|| self.data.clone())?;
        let alert = serde_json::from_value::<Alert>(limit).ok()?;
        Some(alert.in_words())
    }
}

/// Device → gateway, call: one typed call (see `api`).
#[derive(Clone, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the device, echoed in the reply.
    pub id: u64,
    /// Which one.
    pub method: String,
    /// Its parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<Box<RawValue>>,
}

/// Gateway → device, call: exactly one per call.
#[derive(Clone, Serialize, Deserialize)]
pub struct Reply {
    /// The call's id.
    pub id: u64,
    /// Present when it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<RawValue>>,
    /// Present when it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorMessage>,
}

/// Device → gateway, upload, first: announces an adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadBegin {
    /// The adapter's name.
    pub name: String,
    /// The model it was trained for.
    pub base_model: String,
    /// `safetensors` or `gguf`.
    pub format: String,
    /// The file's size.
    pub size_bytes: u64,
    /// The file's SHA-256, lower-case hex.
    pub sha256: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Gateway → device, upload: where to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadReady {
    /// The upload's name, for going on after a drop.
    pub upload_id: String,
    /// The first byte wanted.
    pub offset: u64,
}

/// Gateway → device, upload: durable so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadAck {
    /// Bytes before this one are durable.
    pub offset: u64,
}

/// Gateway → device, upload, last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadDone {
    /// The adapter's id.
    pub adapter_id: String,
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
