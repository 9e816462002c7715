//! How many tokens a body of Anthropic's would be, asked of a server that can tell: the request, and
//! what is made of its answer.

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::fields::{BadField, Fields};
use crate::dialect::count::Count;
use crate::dialect::exchange::{Broken, Head};
use crate::dialect::failure::{FailureKind, UpstreamFailure, from_error_body};
use crate::dialect::{ModelRequest, Target, anthropic, from_json_object};
use crate::limits;
use crate::wire::message::DialectName;

/// Why a server cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCounted {
    /// OpenAI's format has no such question.
    #[error("this model's server cannot count tokens: its format has no such question")]
    Dialect,
    /// This server does not have it, though its format does.
    #[error("this model's server does not count tokens")]
    Server,
    /// The body is none.
    #[error(transparent)]
    Body(#[from] BadField),
}

/// The model that a body is to be counted for.
///
/// # Errors
///
/// What is missing or wrong, by its name.
pub fn model(body: &str) -> Result<String, BadField> {
    let fields = Fields::read(body)?;
    let model: String = fields.required("model")?;
    if model.is_empty() || model.chars().count() > limits::NAME_CHARS_MAX {
        return Err(BadField::new("model", "is no name of a model"));
    }
    fields.required::<&RawValue>("messages")?;
    Ok(model)
}

/// A client's body as the request to a server.
///
/// # Errors
///
/// [`NotCounted`].
pub fn request(target: &Target<'_>, body: &str) -> Result<ModelRequest, NotCounted> {
    if target.dialect != DialectName::Anthropic {
        return Err(NotCounted::Dialect);
    }
    let unwritable = |_| BadField::new("the body", "cannot be written as JSON");
    let model = serde_json::value::to_raw_value(&json!(target.model)).map_err(unwritable)?;
    let mut fields = Fields::read(body)?;
    fields.set("model", &model);
    Ok(ModelRequest {
        dialect: target.dialect,
        path: "/v1/messages/count_tokens",
        headers: anthropic::HEADERS,
        body: fields.write().map_err(unwritable)?.into(),
        input_tokens_max: 0,
    })
}

/// Whether a server that failed to count does not know the question at all.
#[must_use]
pub const fn is_unknown(failure: &UpstreamFailure) -> bool {
    matches!(
        failure.kind,
        FailureKind::Rejected {
            status: 404 | 405 | 501
        }
    )
}

#[derive(Deserialize)]
struct Counted {
    input_tokens: Count,
}

/// The server's answer, as it comes. `Debug` shows its length.
#[derive(Default)]
pub struct Counting {
    head: Option<Head>,
    body: Vec<u8>,
    too_large: bool,
}

impl std::fmt::Debug for Counting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Counting({} bytes)", self.body.len())
    }
}

impl Counting {
    /// The response's head arrived.
    pub fn handle_head(&mut self, head: Head) {
        self.head.get_or_insert(head);
    }

    /// The next bytes of its body arrived.
    pub fn handle_body(&mut self, bytes: &[u8]) {
        let room = limits::ERROR_BODY_BYTES_MAX.saturating_sub(self.body.len());
        self.too_large |= bytes.len() > room;
        self.body
            .extend_from_slice(bytes.get(..bytes.len().min(room)).unwrap_or_default());
    }

    /// The count, once the body has ended.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub fn finish(self, end: Result<(), Broken>) -> Result<u64, UpstreamFailure> {
        match (self.head, end) {
            (Some(head), _) if !(200..300).contains(&head.status) => {
                Err(from_error_body(head.status, head.retry_after, &self.body))
            }
            (_, Err(Broken::Connect)) => Err(FailureKind::Connect.into()),
            (_, Err(Broken::Timeout)) => Err(FailureKind::Timeout.into()),
            (_, Err(Broken::Reset)) | (None, Ok(())) => Err(FailureKind::Truncated.into()),
            (Some(_), Ok(())) if self.too_large => Err(FailureKind::TooLarge.into()),
            (Some(_), Ok(())) => from_json_object::<Counted>(&self.body)
                .and_then(|counted| counted.input_tokens.0)
                .ok_or_else(|| FailureKind::Malformed.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_goes_on_as_it_is_but_for_the_model() {
        let target = Target::new(DialectName::Anthropic, "claude-real");
        let body = r#"{"model":"claude","messages":[{"role":"user","content":"a"}],"tools":[]}"#;
        assert_eq!(model(body).as_deref(), Ok("claude"));
        let asked = request(&target, body).unwrap();
        assert_eq!(asked.path, "/v1/messages/count_tokens");
        let sent: serde_json::Value = serde_json::from_slice(&asked.body).unwrap();
        let mut expected: serde_json::Value = serde_json::from_str(body).unwrap();
        expected["model"] = "claude-real".into();
        assert_eq!(sent, expected);
        let other = Target::new(DialectName::Openai, "gpt");
        assert_eq!(request(&other, body).unwrap_err(), NotCounted::Dialect);
        for (bad, field) in [
            ("[]", "the body"),
            ("{", "the body"),
            ("{}", "model"),
            (r#"{"model":""}"#, "model"),
            (r#"{"model":7}"#, "model"),
            (r#"{"model":"m"}"#, "messages"),
        ] {
            assert_eq!(model(bad).unwrap_err().field(), field, "{bad}");
        }
    }

    #[test]
    fn only_a_count_is_a_count() {
        let counted = |status, body: &str, end| {
            let mut counting = Counting::default();
            counting.handle_head(Head {
                status,
                content_type: None,
                retry_after: None,
            });
            for byte in body.as_bytes().chunks(1) {
                counting.handle_body(byte);
            }
            counting.finish(end).map_err(|failure| failure.kind)
        };
        assert_eq!(counted(200, r#"{"input_tokens":12,"x":1}"#, Ok(())), Ok(12));
        for bad in [
            "",
            "12",
            "[12]",
            "{}",
            r#"{"input_tokens":-1}"#,
            r#"{"input_tokens":1e30}"#,
        ] {
            assert_eq!(
                counted(200, bad, Ok(())),
                Err(FailureKind::Malformed),
                "{bad}"
            );
        }
        let long = format!("{{\"input_tokens\":12{}", " ".repeat(1 << 20));
        assert_eq!(counted(200, &long, Ok(())), Err(FailureKind::TooLarge));
        assert_eq!(
            counted(404, "{}", Ok(())),
            Err(FailureKind::Rejected { status: 404 })
        );
        assert_eq!(
            counted(200, "", Err(Broken::Reset)),
            Err(FailureKind::Truncated)
        );
        let never = Counting::default().finish(Err(Broken::Connect));
        assert_eq!(never.unwrap_err().kind, FailureKind::Connect);
    }
}
