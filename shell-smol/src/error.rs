//! The shell's public error: a class, which has the exit code, and words that say what to do.

use std::io;
use std::path::Path;

use mesh_core::device::{AskError, Failure, control};
use mesh_core::error::{ErrorClass, ErrorCode};
use mesh_core::escalation::request::Invalid;
use mesh_core::wire::message::ErrorMessage;
use mesh_shell::random::NoChance;

/// Anything that a command can fail with. Messages are for people; they hold no secret, and of a
/// question or an answer only what the gateway itself says.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    class: ErrorClass,
    message: String,
    /// The gateway's own words, if it is the gateway's refusal.
    gateway: Option<Box<ErrorMessage>>,
}

impl Error {
    /// An error of a class.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            gateway: None,
        }
    }

    /// There is no tunnel.
    #[must_use]
    pub fn not_connected(doing: &str) -> Self {
        let words = format!("there is no tunnel to the gateway ({doing}); see `synesis doctor`");
        Self::new(ErrorClass::NotConnected, words)
    }

    /// An error of the operating system, with what was being done.
    #[must_use]
    pub fn io(doing: &str, source: &io::Error) -> Self {
        Self::new(ErrorClass::Io, format!("{doing}: {source}"))
    }

    /// An error of the operating system with a file.
    #[must_use]
    pub fn file(path: &Path, source: &io::Error) -> Self {
        Self::io(&path.display().to_string(), source)
    }

    /// The class.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        self.class
    }

    /// The gateway's own code, when it is the gateway's word.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        self.gateway.as_ref().map(|message| message.code)
    }
}

impl From<ErrorMessage> for Error {
    fn from(message: ErrorMessage) -> Self {
        Self {
            class: message.code.class(),
            message: message.message.clone(),
            gateway: Some(Box::new(message)),
        }
    }
}

impl From<AskError> for Error {
    fn from(error: AskError) -> Self {
        let class = error.class();
        match error {
            AskError::Remote(message) => (*message).into(),
            AskError::Earlier(failure) => (*failure).into(),
            AskError::NotConnected(Some(failure)) => failure.into(),
            AskError::Invalid(_)
            | AskError::Private(_)
            | AskError::TooLarge
            | AskError::Duplicate
            | AskError::Busy
            | AskError::NotConnected(None)
            | AskError::TunnelLost(_)
            | AskError::TimedOut
            | AskError::Silent(_)
            | AskError::TooLate
            | AskError::NothingKept
            | AskError::Cancelled
            | AskError::Protocol(_) => Self::new(class, error.to_string()),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::new(failure.kind.class(), failure.to_string())
    }
}

impl From<control::Failure> for Error {
    fn from(failure: control::Failure) -> Self {
        match failure.gateway {
            Some(message) => (*message).into(),
            None => Self::new(failure.class(), failure.message),
        }
    }
}

impl From<control::Instead> for Error {
    fn from(instead: control::Instead) -> Self {
        match instead {
            control::Instead::Failed(failure) => failure.into(),
            control::Instead::Unexpected(_) => {
                Self::new(ErrorClass::Serialization, instead.to_string())
            }
        }
    }
}

impl From<&Error> for control::Failure {
    fn from(error: &Error) -> Self {
        Self {
            gateway: error.gateway.clone(),
            ..Self::new(error.class, &error.message)
        }
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::new(ErrorClass::Validation, invalid.to_string())
    }
}

impl From<NoChance> for Error {
    fn from(none: NoChance) -> Self {
        Self::new(ErrorClass::Io, none.to_string())
    }
}

impl From<crate::driver::BindError> for Error {
    fn from(error: crate::driver::BindError) -> Self {
        Self::new(ErrorClass::Io, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::tunnel::FailureKind;

    use super::*;

    #[test]
    fn a_failure_keeps_the_class_and_the_words_that_the_machine_gave_it() {
        let revoked = Error::from(Failure::from(FailureKind::Revoked));
        assert_eq!(revoked.class(), ErrorClass::Certificate);
        assert!(revoked.to_string().contains("revoked"), "{revoked}");
        let lost = AskError::NotConnected(Some(FailureKind::UnknownCa.into()));
        assert_eq!(Error::from(lost).class(), ErrorClass::Certificate);
        assert_eq!(Error::from(AskError::TimedOut).class(), ErrorClass::Timeout);
    }

    #[test]
    fn the_gateways_refusal_keeps_its_code() {
        let refusal = ErrorMessage {
            code: ErrorCode::PaymentRequired,
            message: "the ceiling is reached".to_owned(),
            details: None,
            retryable: false,
            retry_after_secs: None,
            request_id: None,
        };
        let error = Error::from(AskError::Remote(Box::new(refusal)));
        assert_eq!(error.code(), Some(ErrorCode::PaymentRequired));
        assert_eq!(error.class(), ErrorClass::Billing);
        let over_the_socket = Error::from(control::Failure::from(&error));
        assert_eq!(over_the_socket.code(), error.code());
        assert_eq!(over_the_socket.to_string(), error.to_string());
    }
}
