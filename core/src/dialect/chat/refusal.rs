//! Errors in the form that each dialect has for them: the official clients choose their exception by
//! the status, and show the message.

use serde_json::{Value, json};

use crate::error::{ErrorClass, ErrorCode};
use crate::wire::message::DialectName;

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
