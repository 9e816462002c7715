//! What the machine says in its own types, as the errors that people see; and the same over the
//! control socket.

use std::time::Duration;

use mesh_core::api;
use mesh_core::device::control::Instead;
use mesh_core::device::{AskError, Failure};
use mesh_core::error::{ErrorClass, ErrorCode};
use mesh_core::limits::UNFINISHED_RESUMABLE;
use mesh_core::wire::message::ErrorMessage;

use super::control;
use crate::error::Error;
use crate::tls::TlsError;

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let words = failure.to_string();
        match failure.kind.class() {
            ErrorClass::Certificate => Self::Certificate(words),
            ErrorClass::Auth => Self::Auth(words),
            ErrorClass::Serialization => Self::Serialization(words),
            ErrorClass::Tls => Self::Tls(TlsError::Unusable {
                what: "gateway's handshake",
                source: rustls::Error::General(failure.detail.unwrap_or_default()),
            }),
            ErrorClass::RateLimit => refusal(ErrorCode::RateLimited, words, failure.retry_after),
            ErrorClass::TunnelConnection
            | ErrorClass::Io
            | ErrorClass::Timeout
            | ErrorClass::Api
            | ErrorClass::Billing
            | ErrorClass::Validation
            | ErrorClass::NotConnected
            | ErrorClass::Telemetry => Self::TunnelConnection(words),
        }
    }
}

/// Why a question or a call came to nothing; `patience` is how long it was allowed to take.
pub(super) fn of_ask(error: AskError, patience: Duration) -> Error {
    let words = error.to_string();
    match error {
        AskError::Remote(message) => Error::Gateway(message),
        AskError::Invalid(invalid) => invalid.into(),
        AskError::TooLarge => refusal(ErrorCode::TooLarge, words, None),
        AskError::Private(_) | AskError::Duplicate | AskError::NothingKept => {
            Error::Validation(words)
        }
        AskError::Silent(idle) => Error::Timeout {
            doing: "the rest of the answer".to_owned(),
            secs: idle.as_secs(),
        },
        AskError::TooLate => Error::Timeout {
            doing: "the rest of the answer".to_owned(),
            secs: UNFINISHED_RESUMABLE.as_secs(),
        },
        AskError::Earlier(failure) => (*failure).into(),
        AskError::Busy => refusal(ErrorCode::RateLimited, words, None),
        AskError::NotConnected(Some(failure)) => failure.into(),
        AskError::NotConnected(None) => Error::NotConnected { doing: "asking" },
        AskError::TunnelLost(_) => Error::TunnelConnection(words),
        AskError::TimedOut => Error::Timeout {
            doing: "the answer".to_owned(),
            secs: patience.as_secs(),
        },
        AskError::Cancelled => Error::Api(words),
        AskError::Protocol(_) => Error::Serialization(words),
    }
}

/// A question whose id is under way already.
pub(super) fn duplicate() -> Error {
    of_ask(AskError::Duplicate, Duration::ZERO)
}

/// A refusal of our own in the gateway's form.
fn refusal(code: ErrorCode, message: String, retry_after: Option<Duration>) -> Error {
    ErrorMessage {
        retry_after_secs: retry_after.and_then(|span| u32::try_from(span.as_secs()).ok()),
        ..api::refusal(code, message)
    }
    .into()
}

impl From<Instead> for Error {
    fn from(instead: Instead) -> Self {
        match instead {
            Instead::Failed(failure) => failure.into(),
            Instead::Unexpected(_) => Self::protocol(instead.to_string()),
        }
    }
}

impl From<&Error> for control::Failure {
    fn from(error: &Error) -> Self {
        Self {
            gateway: error.of_gateway().cloned().map(Box::new),
            ..Self::new(error.class(), &error.to_string())
        }
    }
}

impl From<control::Failure> for Error {
    /// The same class and words; an unknown class is the agent's own fault.
    fn from(failure: control::Failure) -> Self {
        if let Some(message) = failure.gateway {
            return Self::Gateway(message);
        }
        Self::Relayed {
            class: failure.class(),
            message: failure.message,
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::tunnel::FailureKind;

    use super::*;

    #[test]
    fn an_error_keeps_its_class_and_words_over_the_control_socket() {
        let errors = [
            Error::from(Failure::from(FailureKind::Revoked)),
            Error::from(Failure::from(FailureKind::Unauthorized)),
            Error::from(Failure::from(FailureKind::TimedOut)),
            of_ask(AskError::Busy, Duration::ZERO),
            of_ask(AskError::TimedOut, Duration::from_secs(7)),
            of_ask(AskError::NotConnected(None), Duration::ZERO),
        ];
        for error in errors {
            let line = serde_json::to_string(&control::Failure::from(&error)).unwrap();
            let back = Error::from(serde_json::from_str::<control::Failure>(&line).unwrap());
            assert_eq!(
                (back.class(), back.to_string()),
                (error.class(), error.to_string())
            );
        }
    }

    #[test]
    fn an_error_has_the_class_that_the_machine_gave_it() {
        for error in [
            AskError::Busy,
            AskError::Duplicate,
            AskError::TooLarge,
            AskError::TimedOut,
            AskError::Cancelled,
            AskError::Protocol("odd".to_owned()),
            AskError::NotConnected(None),
            AskError::NotConnected(Some(FailureKind::Overloaded.into())),
            AskError::NotConnected(Some(FailureKind::Tls.into())),
            AskError::NotConnected(Some(FailureKind::Revoked.into())),
            AskError::TunnelLost(FailureKind::Forgotten.into()),
        ] {
            let class = error.class();
            assert_eq!(of_ask(error, Duration::ZERO).class(), class);
        }
    }

    #[test]
    fn a_revoked_device_is_told_so_in_the_certificates_class() {
        let error = Error::from(Failure::from(FailureKind::Revoked));
        assert_eq!(error.class(), ErrorClass::Certificate);
        assert!(error.to_string().contains("revoked"), "{error}");
    }
}
