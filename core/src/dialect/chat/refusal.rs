//! Errors in the form that each dialect has for them: the official clients choose their exception by
//! the status, and show the message.

use std::time::Duration;

use serde_json::{Value, json};

use crate::dialect::failure::{FailureKind, UpstreamFailure};
use crate::error::{ErrorClass, ErrorCode};
use crate::wire::message::{DialectName, ErrorMessage};

/// Why a client gets no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// Our own code or class, in lower case.
    pub code: String,
    /// For a person.
    pub message: String,
    /// The field that is wrong, if one is.
    pub field: Option<String>,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// How long to wait first, seconds.
    pub retry_after_secs: Option<u32>,
}

impl Refusal {
    /// A refusal with a code of the protocol.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            status: code.http_status(),
            code: code.as_str().to_ascii_lowercase(),
            message: message.into(),
            field: None,
            retryable: code.retryable(),
            retry_after_secs: None,
        }
    }

    /// What a gateway refuses with.
    pub fn of_gateway(said: &ErrorMessage, message: impl Into<String>) -> Self {
        let detail = |name: &str| said.details.as_ref()?[name].as_str();
        let refusal = Self {
            field: detail("field").map(str::to_owned),
            retryable: said.retryable,
            retry_after_secs: said.retry_after_secs,
            ..Self::new(said.code, message)
        };
        match detail("unknown") {
            Some("model") => Self {
                field: refusal.field,
                ..Self::unknown_model(refusal.message)
            },
            Some(_) | None => refusal,
        }
    }

    /// There is no such model: what both dialects have a status of its own for.
    pub fn unknown_model(message: impl Into<String>) -> Self {
        Self {
            code: "model_not_found".to_owned(),
            field: Some("model".to_owned()),
            ..Self::new(ErrorCode::NotFound, message)
        }
    }

    /// What the model server of this device refuses with, or why it could not be asked.
    #[must_use]
    pub fn of_local(failure: &UpstreamFailure) -> Self {
        let code = match failure.kind {
            FailureKind::Rejected { .. } => ErrorCode::InvalidRequest,
            FailureKind::Timeout => ErrorCode::UpstreamTimeout,
            FailureKind::RateLimited { .. } => ErrorCode::RateLimited,
            FailureKind::Overloaded { .. } | FailureKind::Connect => ErrorCode::ShuttingDown,
            FailureKind::Unauthorized
            | FailureKind::Server { .. }
            | FailureKind::Malformed
            | FailureKind::Truncated
            | FailureKind::TooLarge => ErrorCode::UpstreamError,
        };
        let seconds = |wait: Duration| u32::try_from(wait.as_secs().max(1)).unwrap_or(u32::MAX);
        Self {
            code: "local_server".to_owned(),
            retryable: failure.is_transient(),
            retry_after_secs: failure.kind.retry_after().map(seconds),
            ..Self::new(code, format!("this device's server: {}", failure.message))
        }
    }

    /// A failure of the device's own, known by its class.
    pub fn of_class(class: ErrorClass, message: impl Into<String>) -> Self {
        let code = match class {
            ErrorClass::Validation => ErrorCode::InvalidRequest,
            ErrorClass::Auth | ErrorClass::Certificate => ErrorCode::Forbidden,
            ErrorClass::Billing => ErrorCode::PaymentRequired,
            ErrorClass::RateLimit => ErrorCode::RateLimited,
            ErrorClass::Timeout => ErrorCode::UpstreamTimeout,
            ErrorClass::NotConnected | ErrorClass::TunnelConnection => ErrorCode::ShuttingDown,
            ErrorClass::Api | ErrorClass::Serialization => ErrorCode::UpstreamError,
            ErrorClass::Tls | ErrorClass::Io | ErrorClass::Telemetry => ErrorCode::Internal,
        };
        let code_name = match class {
            ErrorClass::NotConnected | ErrorClass::TunnelConnection => "not_connected".to_owned(),
            ErrorClass::Tls
            | ErrorClass::Certificate
            | ErrorClass::Serialization
            | ErrorClass::Io
            | ErrorClass::Timeout
            | ErrorClass::Api
            | ErrorClass::Billing
            | ErrorClass::Auth
            | ErrorClass::RateLimit
            | ErrorClass::Validation
            | ErrorClass::Telemetry => code.as_str().to_ascii_lowercase(),
        };
        Self {
            code: code_name,
            ..Self::new(code, message)
        }
    }

    /// The body.
    #[must_use]
    pub fn body(&self, dialect: DialectName, request_id: &str) -> Value {
        match dialect {
            DialectName::Openai => json!({"error": {
                "message": self.message,
                "type": openai_type(self.status),
                "param": self.field,
                "code": self.code,
            }}),
            DialectName::Anthropic => json!({
                "type": "error",
                "error": {"type": anthropic_type(self.status), "message": self.message},
                "request_id": request_id,
            }),
        }
    }
}

const fn openai_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "insufficient_quota",
        403 => "permission_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}

const fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        503 | 529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_nobody_has_is_not_found_in_either_dialect() {
        let said = ErrorMessage {
            details: Some(json!({"field": "model", "unknown": "model"})),
            ..crate::api::refusal(ErrorCode::InvalidRequest, "no model x")
        };
        let refusal = Refusal::of_gateway(&said, "no model x");
        assert_eq!((refusal.status, refusal.retryable), (404, false));
        let openai = refusal.body(DialectName::Openai, "req_1");
        assert_eq!(openai["error"]["code"], "model_not_found");
        assert_eq!(openai["error"]["param"], "model");
        let anthropic = refusal.body(DialectName::Anthropic, "req_1");
        assert_eq!(anthropic["error"]["type"], "not_found_error");
        let other = Refusal::of_gateway(
            &ErrorMessage {
                details: Some(json!({"field": "n", "unknown": 7})),
                ..said
            },
            "bad",
        );
        assert_eq!((other.status, other.field.as_deref()), (400, Some("n")));
    }

    #[test]
    fn what_a_local_server_refuses_keeps_its_kind() {
        for (kind, status, retryable) in [
            (FailureKind::Connect, 503, true),
            (FailureKind::Timeout, 504, true),
            (FailureKind::Rejected { status: 422 }, 400, false),
            (FailureKind::Server { status: 500 }, 502, true),
            (FailureKind::RateLimited { retry_after: None }, 429, true),
            (FailureKind::Unauthorized, 502, false),
        ] {
            let refusal = Refusal::of_local(&kind.into());
            assert_eq!((refusal.status, refusal.retryable), (status, retryable));
        }
    }
}
