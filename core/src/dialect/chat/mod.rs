//! A client's own request body and the answer in the client's own dialect.
//!
//! ```text
//!   client ─ body ─▶ Facts ─▶ EscalationRequest { chat } ─▶ gateway ─ outgoing ─▶ provider's body
//!                                                               │ same dialect: fields replaced
//!                                                               └ other: translate
//!   client ◀─ reply ◀─ text and Delta ◀── StreamChunk { content, delta } ◀── pieces
//! ```
//!
//! * [`fields`]: a body's members, raw, and the words that name one in a refusal.
//! * `outgoing`, `translate`: what the provider is sent.
//! * [`reply`]: whole bodies and event streams as the official clients read them.
//! * [`tokens`]: how many tokens a body would be.
//! * [`refusal`]: errors in the form that each dialect has for them.
//!
//! # Invariants
//!
//! 1. What cannot be carried is refused by the name of its field, never left out in silence.
//! 2. How long an answer may be, and which model writes it, the request says, never the body: so
//!    the hold covers it.
//! 3. Nothing of a body is in any error but the names of its fields.

pub mod fields;
pub(super) mod outgoing;
pub mod refusal;
pub mod reply;
pub mod tokens;
mod translate;

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use self::fields::{BadField, Fields};
use crate::limits;
use crate::wire::message::DialectName;

/// What a device must know of a client's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The model that is asked for.
    pub model: String,
    /// Whether the answer is wanted piece by piece.
    pub stream: bool,
    /// Whether a stream is to end with a report of usage (OpenAI).
    pub include_usage: bool,
    /// The longest answer, tokens.
    pub max_tokens: u32,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StreamOptions {
    include_usage: bool,
}

impl Facts {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// What is missing or wrong, by its name.
    pub fn read(dialect: DialectName, body: &str) -> Result<Self, BadField> {
        let fields = Fields::read(body)?;
        let model: String = fields.required("model")?;
        if model.is_empty() || model.chars().count() > limits::NAME_CHARS_MAX {
            return Err(BadField::new("model", "is no name of a model"));
        }
        fields.required::<&RawValue>("messages")?;
        let options: Option<StreamOptions> = fields.optional("stream_options")?;
        let named: Option<u32> = match dialect {
            DialectName::Openai => match fields.optional("max_completion_tokens")? {
                None => fields.optional("max_tokens")?,
                named => named,
            },
            DialectName::Anthropic => Some(fields.required("max_tokens")?),
        };
        let max_tokens = named.unwrap_or(limits::CHAT_MAX_TOKENS_DEFAULT);
        if !(1..=limits::MAX_TOKENS_MAX).contains(&max_tokens) {
            let why = format!("must be from 1 to {}", limits::MAX_TOKENS_MAX);
            return Err(BadField::new("max_tokens", why));
        }
        Ok(Self {
            model,
            stream: fields.optional("stream")?.unwrap_or(false),
            include_usage: options.unwrap_or_default().include_usage,
            max_tokens,
        })
    }
}

/// What of an answer is no text. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub enum Delta {
    /// The model's reasoning.
    Reasoning(String),
    /// What proves the reasoning to be the model's own (Anthropic).
    Signature(String),
    /// A tool call begins.
    ToolCall {
        /// The how-manieth of the answer, from 0.
        index: u32,
        /// Its id, which the result will name.
        id: String,
        /// The tool.
        name: String,
    },
    /// More of a call's arguments.
    Arguments {
        /// Which call's.
        index: u32,
        /// JSON, or a part of it.
        json: String,
    },
}

impl std::fmt::Debug for Delta {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reasoning(text) => write!(f, "Reasoning({} bytes)", text.len()),
            Self::Signature(text) => write!(f, "Signature({} bytes)", text.len()),
            Self::ToolCall { index, .. } => write!(f, "ToolCall({index})"),
            Self::Arguments { index, json } => {
                write!(f, "Arguments({index}, {} bytes)", json.len())
            }
        }
    }
}

/// Every field of a delta in either dialect.
#[derive(Deserialize)]
struct Wire {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    reasoning_content: Option<String>,
    #[serde(default)]
    tool_calls: Vec<WireCall>,
    #[serde(default)]
    thinking: Option<String>,
    #[serde(default)]
    signature: Option<String>,
    #[serde(default)]
    index: u32,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    partial_json: Option<String>,
}

#[derive(Deserialize)]
struct WireCall {
    index: u32,
    #[serde(default)]
    id: Option<String>,
    function: WireFunction,
}

#[derive(Deserialize, Serialize)]
struct WireFunction {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    arguments: Option<String>,
}

impl Delta {
    /// Bytes of what the model wrote.
    pub(crate) fn written_bytes(&self) -> u64 {
        let bytes = match self {
            Self::Reasoning(text) => text.len(),
            Self::Signature(_) => 0,
            Self::ToolCall { name, .. } => name.len(),
            Self::Arguments { json, .. } => json.len(),
        };
        bytes as u64
    }

    /// As a stream chunk carries it: OpenAI's `delta`, or Anthropic's block or delta with the
    /// call's place beside. `None` for what a dialect has no words for.
    #[must_use]
    pub fn to_json(&self, dialect: DialectName) -> Option<Box<RawValue>> {
        let value = match (dialect, self) {
            (DialectName::Openai, Self::Reasoning(text)) => json!({"reasoning_content": text}),
            (DialectName::Openai, Self::Signature(_)) => return None,
            (DialectName::Openai, Self::ToolCall { index, id, name }) => json!({"tool_calls": [{
                "index": index, "id": id, "type": "function",
                "function": {"name": name, "arguments": ""},
            }]}),
            (DialectName::Openai, Self::Arguments { index, json }) => json!({"tool_calls": [{
                "index": index, "function": {"arguments": json},
            }]}),
            (DialectName::Anthropic, Self::Reasoning(text)) => {
                json!({"type": "thinking_delta", "thinking": text})
            }
            (DialectName::Anthropic, Self::Signature(text)) => {
                json!({"type": "signature_delta", "signature": text})
            }
            (DialectName::Anthropic, Self::ToolCall { index, id, name }) => {
                json!({"type": "tool_use", "index": index, "id": id, "name": name, "input": {}})
            }
            (DialectName::Anthropic, Self::Arguments { index, json }) => {
                json!({"type": "input_json_delta", "index": index, "partial_json": json})
            }
        };
        serde_json::value::to_raw_value(&value).ok()
    }

    /// Reads what [`Self::to_json`] wrote in either dialect.
    #[must_use]
    pub fn from_json(json: &str) -> Option<Self> {
        let wire: Wire = serde_json::from_str(json).ok()?;
        if let Some(text) = wire.reasoning_content.or(wire.thinking) {
            return Some(Self::Reasoning(text));
        }
        if let Some(signature) = wire.signature {
            return Some(Self::Signature(signature));
        }
        if let Some(call) = wire.tool_calls.into_iter().next() {
            let index = call.index;
            return Some(match (call.id, call.function.name) {
                (Some(id), Some(name)) => Self::ToolCall { index, id, name },
                (None, _) | (_, None) => Self::Arguments {
                    index,
                    json: call.function.arguments?,
                },
            });
        }
        let index = wire.index;
        match wire.kind.as_deref() {
            Some("tool_use") => Some(Self::ToolCall {
                index,
                id: wire.id?,
                name: wire.name?,
            }),
            Some("input_json_delta") => Some(Self::Arguments {
                index,
                json: wire.partial_json?,
            }),
            Some(_) | None => None,
        }
    }
}

#[cfg(test)]
mod tests;
