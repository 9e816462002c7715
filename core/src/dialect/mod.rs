//! The two formats that model servers speak, and the one neutral form between them.
//!
//! ```text
//!  EscalationRequest ──neutral::Prompt──▶ openai | anthropic ──▶ ModelRequest   (build_request)
//!
//!  Head, body bytes, end ──▶ exchange::Exchange ──▶ Piece …, then Finished or Failed
//!                              └ sse ▸ openai | anthropic ▸ neutral::Answer
//! ```
//!
//! A client's own body ([`chat`]) goes around the prompt, and its answer comes back in its own form.
//!
//! Everything here is a function of bytes: no socket, no clock. A shell carries the bytes.
//!
//! # Invariants
//!
//! 1. Text of questions and answers never appears in `Debug`, nor do keys in failures.
//! 2. What a model server sends is data: the worst it can do is to make its own answer fail.

pub mod chat;
pub mod exchange;
pub mod failure;
pub mod neutral;
pub mod sse;

mod anthropic;
mod count;
mod openai;

use bytes::Bytes;

use self::chat::fields::BadField;
use crate::error::ErrorCode;
use crate::wire::message::{DialectName, EscalationRequest};
use neutral::Prompt;

/// How a server wants to be told the longest answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaxTokensField {
    /// `max_tokens`: what every compatible server takes.
    #[default]
    MaxTokens,
    /// `max_completion_tokens`: what OpenAI's own reasoning models insist on.
    MaxCompletionTokens,
}

/// Whom a question goes to, as far as the format matters.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The format.
    pub dialect: DialectName,
    /// The provider's own name of the model.
    pub model: &'a str,
    /// Only meaningful for [`DialectName::Openai`].
    pub max_tokens_field: MaxTokensField,
}

impl<'a> Target<'a> {
    /// A target that takes `max_tokens`.
    #[must_use]
    pub const fn new(dialect: DialectName, model: &'a str) -> Self {
        Self {
            dialect,
            model,
            max_tokens_field: MaxTokensField::MaxTokens,
        }
    }
}

/// One request to a model server, complete but for the server's address and key.
#[derive(Clone)]
pub struct ModelRequest {
    /// The format of the body and of the answer.
    pub dialect: DialectName,
    /// To be appended to the provider's base URL.
    pub path: &'static str,
    /// Besides the provider's key.
    pub headers: &'static [(&'static str, &'static str)],
    /// JSON.
    pub body: Bytes,
    /// No tokenizer makes more of the prompt: what a hold must cover.
    pub input_tokens_max: u64,
}

impl std::fmt::Debug for ModelRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelRequest")
            .field("dialect", &self.dialect)
            .field("path", &self.path)
            .field("body_bytes", &self.body.len())
            .field("input_tokens_max", &self.input_tokens_max)
            .finish_non_exhaustive()
    }
}

/// Why a question cannot be put to a model server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A client's own body has a field that cannot be carried.
    #[error(transparent)]
    Chat(#[from] BadField),
    /// An adapter.
    #[error("this gateway does not apply adapters; leave lora_id out")]
    Adapter,
    /// JSON could not be written.
    #[error("the request could not be written as JSON")]
    Encoding,
}

impl BuildError {
    /// The code to refuse the question with.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Chat(_) | Self::Adapter => ErrorCode::InvalidRequest,
            Self::Encoding => ErrorCode::Internal,
        }
    }
}

/// Puts a question into a model server's format. Answers are always asked for as a stream, whatever
/// the device wants: that is how a hanging server is told from a thinking one.
///
/// # Errors
///
/// See [`BuildError`].
pub fn build_request(
    target: &Target<'_>,
    request: &EscalationRequest,
) -> Result<ModelRequest, BuildError> {
    if request.lora_id.is_some() {
        return Err(BuildError::Adapter);
    }
    let (path, headers) = match target.dialect {
        DialectName::Openai => (openai::PATH, openai::HEADERS),
        DialectName::Anthropic => (anthropic::PATH, anthropic::HEADERS),
    };
    if let Some(chat) = &request.chat {
        let (body, input_tokens_max) = chat::outgoing::build(target, chat, request.max_tokens)?;
        return Ok(ModelRequest {
            dialect: target.dialect,
            path,
            headers,
            body: body.into(),
            input_tokens_max,
        });
    }
    let prompt = Prompt::from_request(request);
    let body = match target.dialect {
        DialectName::Openai => openai::body(target, &prompt),
        DialectName::Anthropic => anthropic::body(target, &prompt),
    };
    Ok(ModelRequest {
        dialect: target.dialect,
        path,
        headers,
        body: body.map_err(|_| BuildError::Encoding)?.into(),
        input_tokens_max: prompt.input_tokens_max(),
    })
}

/// Reads a JSON object; serde alone would also take an array of the fields' values.
fn from_json_object<'a, T: serde::Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    let object = json.trim_ascii_start().first() == Some(&b'{');
    object.then(|| serde_json::from_slice(json).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::escalation::context::Question;
    use crate::ids::RequestId;
    use crate::wire::message::{Chat, Role, Tone, Verbosity};

    fn question() -> EscalationRequest {
        Question::new("Which valve?")
            .system("You help mechanics.")
            .turn(Role::User, "Hello", crate::time::UnixMillis(1))
            .turn(Role::Assistant, "Hi", crate::time::UnixMillis(2))
            .preferences("", Verbosity::Normal, Tone::Casual)
            .max_tokens(77)
            .into_request(RequestId::from_u128(1))
    }

    fn body(target: &Target<'_>) -> Value {
        let request = build_request(target, &question()).unwrap();
        serde_json::from_slice(&request.body).unwrap()
    }

    #[test]
    fn an_openai_body_has_the_system_prompt_first_and_the_question_last() {
        let mut target = Target::new(DialectName::Openai, "tiny");
        let system = "You help mechanics.\n\nWrite in a casual tone.";
        let mut expected = json!({
            "model": "tiny",
            "messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": "Hi"},
                {"role": "user", "content": "Which valve?"},
            ],
            "max_tokens": 77,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        assert_eq!(body(&target), expected);
        target.max_tokens_field = MaxTokensField::MaxCompletionTokens;
        let fields = expected.as_object_mut().unwrap();
        let max_tokens = fields.remove("max_tokens").unwrap();
        fields.insert("max_completion_tokens".to_owned(), max_tokens);
        assert_eq!(body(&target), expected);
    }

    #[test]
    fn an_anthropic_body_has_the_system_prompt_beside_the_messages() {
        let target = Target::new(DialectName::Anthropic, "claude");
        let expected = json!({
            "model": "claude",
            "system": "You help mechanics.\n\nWrite in a casual tone.",
            "messages": [
                {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": "Hi"},
                {"role": "user", "content": "Which valve?"},
            ],
            "max_tokens": 77,
            "stream": true,
        });
        assert_eq!(body(&target), expected);
        let request = build_request(&target, &question()).unwrap();
        assert!(
            request
                .headers
                .contains(&("anthropic-version", "2023-06-01"))
        );
        assert_eq!(request.path, "/v1/messages");
    }

    #[test]
    fn what_this_gateway_cannot_do_is_refused_and_not_ignored() {
        let target = Target::new(DialectName::Openai, "tiny");
        let raw = serde_json::value::RawValue::from_string(r#"{"n":2}"#.to_owned()).unwrap();
        let dialect = DialectName::Openai;
        let chat = EscalationRequest {
            chat: Some(Chat { dialect, body: raw }),
            ..question()
        };
        let refused = build_request(&target, &chat).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::InvalidRequest);
        let adapter = EscalationRequest {
            lora_id: Some("mine".to_owned()),
            ..question()
        };
        let refused = build_request(&target, &adapter).unwrap_err();
        assert_eq!(refused, BuildError::Adapter);
    }

    #[test]
    fn a_request_never_prints_the_question() {
        let target = Target::new(DialectName::Openai, "tiny");
        let printed = format!("{:?}", build_request(&target, &question()).unwrap());
        assert!(!printed.contains("valve"), "{printed}");
    }
}
