//! How an exchange with a model server fails, and what of the server's own words may be repeated.
//!
//! # Invariants
//!
//! 1. A message has a bounded length, no control characters and nothing that looks like a key
//!    (providers quote a part of the key they refuse).
//! 2. `Debug` and `Display` show the kind only: a provider may quote the prompt in its message, so
//!    the message goes to whoever asked and into no log.
//! 3. What [`FailureKind::is_transient`] holds for may be tried again before the first piece.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::limits;
use crate::time::UnixMillis;

/// What went wrong between the gateway and a model server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FailureKind {
    /// 401 or 403: the gateway's key is missing, wrong or not allowed to do this.
    #[error("the model server refused the gateway's key")]
    Unauthorized,
    /// 429.
    #[error("the model server asks for fewer requests")]
    RateLimited {
        /// How long to wait, if the server said so.
        retry_after: Option<Duration>,
    },
    /// 503, or Anthropic's 529.
    #[error("the model server is overloaded")]
    Overloaded {
        /// How long to wait, if the server said so.
        retry_after: Option<Duration>,
    },
    /// Any other 5xx, or an error inside the stream.
    #[error("the model server failed (status {status})")]
    Server {
        /// The status; 500 for an error inside a stream that names none.
        status: u16,
    },
    /// Any other status that is no success: the same request will be refused again.
    #[error("the model server refused the request (status {status})")]
    Rejected {
        /// The status.
        status: u16,
    },
    /// The answer is not in the format that the provider is configured for.
    #[error("the model server's answer could not be understood")]
    Malformed,
    /// The answer broke off.
    #[error("the model server's answer broke off")]
    Truncated,
    /// The server or the network took too long.
    #[error("the model server did not answer in time")]
    Timeout,
    /// No connection could be made.
    #[error("the model server could not be reached")]
    Connect,
    /// The answer is over a limit of the gateway.
    #[error("the model server's answer is too large")]
    TooLarge,
}

impl FailureKind {
    /// Whether the same request may succeed when it is simply made again.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        match self {
            Self::RateLimited { .. }
            | Self::Overloaded { .. }
            | Self::Server { .. }
            | Self::Truncated
            | Self::Timeout
            | Self::Connect => true,
            Self::Unauthorized | Self::Rejected { .. } | Self::Malformed | Self::TooLarge => false,
        }
    }

    /// How long the server asks us to wait before the next try.
    #[must_use]
    pub const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::Overloaded { retry_after } => retry_after,
            Self::Unauthorized
            | Self::Server { .. }
            | Self::Rejected { .. }
            | Self::Malformed
            | Self::Truncated
            | Self::Timeout
            | Self::Connect
            | Self::TooLarge => None,
        }
    }

    /// The kind that an HTTP status stands for.
    pub(super) const fn from_status(status: u16, retry_after: Option<Duration>) -> Self {
        match status {
            401 | 403 => Self::Unauthorized,
            408 | 504 => Self::Timeout,
            429 => Self::RateLimited { retry_after },
            503 | 529 => Self::Overloaded { retry_after },
            500..=599 => Self::Server { status },
            _ => Self::Rejected { status },
        }
    }
}

/// An exchange that failed.
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamFailure {
    /// What went wrong.
    pub kind: FailureKind,
    /// What went wrong in a sentence, with the provider's own words where they may be repeated.
    /// For whoever asked; not for logs.
    pub message: String,
}

impl UpstreamFailure {
    pub(super) fn new(kind: FailureKind, detail: &str) -> Self {
        let detail = repeatable(detail);
        let message = if detail.is_empty() {
            kind.to_string()
        } else {
            format!("{kind}: {detail}")
        };
        Self { kind, message }
    }

    /// See [`FailureKind::is_transient`].
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        self.kind.is_transient()
    }
}

impl From<FailureKind> for UpstreamFailure {
    fn from(kind: FailureKind) -> Self {
        Self::new(kind, "")
    }
}

impl fmt::Debug for UpstreamFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UpstreamFailure").field(&self.kind).finish()
    }
}

impl fmt::Display for UpstreamFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl std::error::Error for UpstreamFailure {}

/// An error object in any of the shapes that servers send it in.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum ProviderError {
    /// `{"error": {"message": …, "type": …, "code": …}}`
    Object {
        #[serde(default)]
        message: Option<String>,
        #[serde(default, rename = "type")]
        kind: Option<String>,
        #[serde(default)]
        code: Option<serde_json::Value>,
    },
    /// `{"error": "…"}`
    Text(String),
    /// Something else that is not null: an error all the same.
    Other(serde::de::IgnoredAny),
}

impl ProviderError {
    /// The failure that an error object stands for; `status` is the response's if it was no
    /// success, and decides.
    pub(super) fn into_failure(
        self,
        status: Option<u16>,
        retry_after: Option<Duration>,
    ) -> UpstreamFailure {
        let (message, kind, code) = match self {
            Self::Object {
                message,
                kind,
                code,
            } => (message.unwrap_or_default(), kind, code),
            Self::Text(message) => (message, None, None),
            Self::Other(_) => (String::new(), None, None),
        };
        let names = [
            code.as_ref().and_then(serde_json::Value::as_str),
            kind.as_deref(),
        ];
        let status = status.or_else(|| {
            let code = code.as_ref()?.as_u64()?;
            u16::try_from(code)
                .ok()
                .filter(|code| (400..=599).contains(code))
        });
        let kind = match (named_kind(names, retry_after), status) {
            // No waiting brings money back: not what the status says.
            (Some(kind @ FailureKind::Rejected { status: 402 }), _) => kind,
            (_, Some(status)) => FailureKind::from_status(status, retry_after),
            (Some(kind), None) => kind,
            (None, None) => FailureKind::Server { status: 500 },
        };
        match kind {
            // Providers put a part of the key into this message.
            FailureKind::Unauthorized => kind.into(),
            FailureKind::RateLimited { .. }
            | FailureKind::Overloaded { .. }
            | FailureKind::Server { .. }
            | FailureKind::Rejected { .. }
            | FailureKind::Malformed
            | FailureKind::Truncated
            | FailureKind::Timeout
            | FailureKind::Connect
            | FailureKind::TooLarge => UpstreamFailure::new(kind, &message),
        }
    }
}

/// The kinds that providers name in `code` or `type`, the first known name deciding.
/// Sources: Anthropic's "Errors" page, OpenAI's "Error codes" page, llama.cpp's server.
fn named_kind(names: [Option<&str>; 2], retry_after: Option<Duration>) -> Option<FailureKind> {
    names.into_iter().flatten().find_map(|name| {
        Some(match name {
            "authentication_error" | "permission_error" | "invalid_api_key" => {
                FailureKind::Unauthorized
            }
            "insufficient_quota" | "billing_error" => FailureKind::Rejected { status: 402 },
            "rate_limit_error" | "rate_limit_exceeded" => FailureKind::RateLimited { retry_after },
            "overloaded_error" | "unavailable_error" => FailureKind::Overloaded { retry_after },
            "timeout_error" => FailureKind::Timeout,
            "invalid_request_error" | "exceed_context_size_error" => {
                FailureKind::Rejected { status: 400 }
            }
            "not_found_error" | "model_not_found" => FailureKind::Rejected { status: 404 },
            "request_too_large" => FailureKind::Rejected { status: 413 },
            _ => return None,
        })
    })
}

/// The failure that a response with an error status stands for.
pub(super) fn from_error_body(
    status: u16,
    retry_after: Option<Duration>,
    body: &[u8],
) -> UpstreamFailure {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        error: Option<ProviderError>,
        #[serde(default)]
        message: Option<String>,
        #[serde(default)]
        detail: Option<String>,
    }
    let error = match serde_json::from_slice::<Body>(body) {
        Ok(Body {
            error: Some(error), ..
        }) => error,
        Ok(Body {
            message, detail, ..
        }) => ProviderError::Text(message.or(detail).unwrap_or_default()),
        Err(_) => ProviderError::Text(String::new()),
    };
    error.into_failure(Some(status), retry_after)
}

/// Reads a `Retry-After` field: seconds or a date (RFC 9110 §10.2.3), bounded by
/// [`limits::RETRY_AFTER_MAX`]. A date in the past means now.
#[must_use]
pub fn parse_retry_after(value: &str, wall: UnixMillis) -> Option<Duration> {
    let value = value.trim();
    let wait = if value.bytes().all(|byte| byte.is_ascii_digit()) && !value.is_empty() {
        value
            .parse()
            .map_or(limits::RETRY_AFTER_MAX, Duration::from_secs)
    } else if let Ok(seconds) = value.parse::<f64>() {
        // No standard, but seen: fractions of seconds.
        Duration::try_from_secs_f64(seconds).ok()?
    } else {
        let date = chrono::DateTime::parse_from_rfc2822(value).ok()?;
        let at = UnixMillis(u64::try_from(date.timestamp_millis()).unwrap_or(0));
        at.saturating_since(wall)
    };
    Some(wait.min(limits::RETRY_AFTER_MAX))
}

/// Cuts, and blanks control characters and whatever looks like a key.
fn repeatable(text: &str) -> String {
    let mut out = String::new();
    // Keys are looked for past the cut as well: half a key is a key.
    let text: String = text
        .chars()
        .take(2 * limits::PROVIDER_MESSAGE_CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    for word in text.trim().split_inclusive(|c: char| !is_key_char(c)) {
        let key = word.trim_end_matches(|c: char| !is_key_char(c));
        if looks_like_key(key) {
            out.push_str("[redacted]");
            out.push_str(&word[key.len()..]);
        } else {
            out.push_str(word);
        }
    }
    match out.char_indices().nth(limits::PROVIDER_MESSAGE_CHARS_MAX) {
        Some((end, _)) => out[..end].to_owned(),
        None => out,
    }
}

const fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '*')
}

fn looks_like_key(word: &str) -> bool {
    let prefixed = ["sk-", "sk_", "gsk_", "xai-", "AIza", "si_live_", "si_test_"]
        .iter()
        .any(|prefix| word.starts_with(prefix));
    let long = word.len() >= 32 && word.bytes().any(|byte| byte.is_ascii_digit());
    prefixed || long || word.contains("***")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_kind() {
        let wait = Some(Duration::from_secs(7));
        let kind = |status| FailureKind::from_status(status, wait);
        for status in [401, 403] {
            assert_eq!(kind(status), FailureKind::Unauthorized);
        }
        assert_eq!(kind(429), FailureKind::RateLimited { retry_after: wait });
        for status in [503, 529] {
            assert_eq!(kind(status), FailureKind::Overloaded { retry_after: wait });
        }
        for status in [500, 502, 599] {
            assert_eq!(kind(status), FailureKind::Server { status });
        }
        for status in [408, 504] {
            assert_eq!(kind(status), FailureKind::Timeout);
        }
        for status in [301, 400, 402, 404, 413, 422, 600] {
            assert_eq!(kind(status), FailureKind::Rejected { status });
            assert!(!kind(status).is_transient());
        }
    }

    #[test]
    fn error_bodies_of_all_servers_give_their_message() {
        let message = |body: &str| from_error_body(400, None, body.as_bytes()).message;
        let refused = "the model server refused the request (status 400)";
        for body in [
            r#"{"error":{"message":"too long","type":"invalid_request_error","code":null}}"#,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"too long"}}"#,
            r#"{"error":{"code":400,"message":"too long","type":"x"}}"#,
            r#"{"error":"too long"}"#,
            r#"{"object":"error","message":"too long"}"#,
            r#"{"detail":"too long"}"#,
        ] {
            assert_eq!(message(body), format!("{refused}: too long"), "{body}");
        }
        for body in [
            "",
            "<html>",
            "[]",
            "{}",
            r#"{"error":[]}"#,
            r#"{"error":{}}"#,
            "\u{0}",
        ] {
            assert_eq!(message(body), refused, "{body}");
        }
        let deep = format!(r#"{{"error":{}"#, "[".repeat(10_000));
        assert_eq!(message(&deep), refused);
    }

    #[test]
    fn a_real_servers_error_is_understood() {
        let body = include_str!("testdata/openai-error.txt");
        // The capture ends with a line that holds the status.
        let body = body.lines().next().unwrap();
        let failure = from_error_body(400, None, body.as_bytes());
        assert_eq!(failure.kind, FailureKind::Rejected { status: 400 });
        assert!(
            failure
                .message
                .ends_with("Expected 'messages' to be an array")
        );
    }

    #[test]
    fn an_empty_purse_is_not_waited_for() {
        let body = br#"{"error":{"message":"m","type":"x","code":"insufficient_quota"}}"#;
        let failure = from_error_body(429, None, body);
        assert_eq!(failure.kind, FailureKind::Rejected { status: 402 });
    }

    #[test]
    fn messages_hold_no_key_no_control_character_and_have_a_bound() {
        let key = format!("sk-ant-api03-{}", "a".repeat(80));
        let body = format!(r#"{{"error":{{"message":"Incorrect key: {key}"}}}}"#);
        assert!(
            !from_error_body(401, None, body.as_bytes())
                .message
                .contains("sk-")
        );
        assert_eq!(
            repeatable(
                "key sk-abc, sk-********1234. id 0123456789abcdef0123456789ABCDEF\n\u{1b}[1m!"
            ),
            "key [redacted], [redacted]. id [redacted]  [1m!"
        );
        assert_eq!(
            repeatable("Try meta-llama/Llama-3.3-70B-Instruct-Turbo"),
            "Try meta-llama/Llama-3.3-70B-Instruct-Turbo"
        );
        assert_eq!(repeatable(&"é".repeat(1000)).chars().count(), 300);
        let failure = UpstreamFailure::new(FailureKind::Rejected { status: 400 }, "canary");
        assert!(!format!("{failure:?} {failure}").contains("canary"));
        assert!(failure.message.contains("canary"));
    }

    #[test]
    fn a_key_cut_by_the_bound_is_still_blanked() {
        let text = format!("{}0123456789{}", "a ".repeat(146), "b".repeat(40));
        assert_eq!(repeatable(&text), format!("{}[redacte", "a ".repeat(146)));
    }

    #[test]
    fn retry_after_is_read_in_seconds_and_as_a_date() {
        // 2015-10-21T07:28:00Z is 1 445 412 480 s after the epoch (RFC 9110's example date).
        let wall = UnixMillis(1_445_412_420_000);
        let seconds = |s| Some(Duration::from_secs(s));
        assert_eq!(parse_retry_after(" 120 ", wall), seconds(120));
        assert_eq!(
            parse_retry_after("0.5", wall),
            Some(Duration::from_millis(500))
        );
        assert_eq!(
            parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT", wall),
            seconds(60)
        );
        assert_eq!(
            parse_retry_after("Wed, 21 Oct 2015 07:26:00 GMT", wall),
            seconds(0)
        );
        let most = Some(limits::RETRY_AFTER_MAX);
        assert_eq!(parse_retry_after("99999999999999999999999", wall), most);
        for nonsense in ["", "-1", "soon", "NaN", "inf", "1e400"] {
            assert_eq!(parse_retry_after(nonsense, wall), None, "{nonsense}");
        }
    }
}
