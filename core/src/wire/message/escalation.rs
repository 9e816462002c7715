//! A question with its context, and its answer: whole or in pieces, stopped or gone on with.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Notice, finite};
use crate::billing::money::Nanos;
use crate::device::route::Route;
use crate::ids::RequestId;
use crate::time::UnixMillis;

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
    pub(crate) fn into_parts(self) -> (String, StreamEnd) {
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
