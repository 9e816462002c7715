//! The shell's public error: the classes that callers tell apart, each with words that say what to
//! do and one exit code.

use std::io;
use std::path::Path;

use mesh_core::error::{ErrorClass, ErrorCode};
use mesh_core::escalation::request::Invalid;
use mesh_core::wire::message::ErrorMessage;

use crate::gateway::store::{AuditError, OpenError, StoreError};

/// Anything that a command or a client of this library can fail with.
///
/// Messages are for people and say what to do next. They hold no secret, and of a question or an
/// answer only what the gateway itself says.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tunnel could not be established, or broke.
    #[error("{0}")]
    TunnelConnection(String),
    /// TLS could not be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] crate::tls::TlsError),
    /// A certificate is missing, foreign, expired or revoked.
    #[error("{0}")]
    Certificate(String),
    /// Bytes that are not what they should be.
    #[error("{0}")]
    Serialization(String),
    /// The operating system refused.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// The system's word.
        source: io::Error,
    },
    /// Not in time.
    #[error("{doing} took longer than {secs} s; try again, or allow more time with --timeout")]
    Timeout {
        /// What was being done.
        doing: String,
        /// How long was allowed, seconds.
        secs: u64,
    },
    /// The gateway refused, or its provider failed; the class follows the code.
    #[error("{}", .0.message)]
    Gateway(Box<ErrorMessage>),
    /// Who is asking is not known or may not.
    #[error("{0}")]
    Auth(String),
    /// What is asked breaks a rule.
    #[error("{0}")]
    Validation(String),
    /// There is no tunnel.
    #[error("there is no tunnel to the gateway ({doing}); see `synesis doctor`")]
    NotConnected {
        /// What was being done.
        doing: &'static str,
    },
    /// Vitals cannot be read or sent.
    #[error("vitals: {0}")]
    Telemetry(String),
    /// The account's books do not hold.
    #[error("{0}")]
    Billing(String),
    /// Something else failed on the gateway.
    #[error("{0}")]
    Api(String),
    /// What the agent said when it was asked.
    #[error("{message}")]
    Relayed {
        /// The class it named.
        class: ErrorClass,
        /// Its words.
        message: String,
    },
}

impl Error {
    /// An error of the operating system, with what was being done.
    pub fn io(doing: impl Into<String>, source: io::Error) -> Self {
        let doing = doing.into();
        Self::Io { doing, source }
    }

    /// An error of the operating system with a file.
    pub fn file(path: &Path, source: io::Error) -> Self {
        Self::io(path.display().to_string(), source)
    }

    /// Bytes that are not what they should be.
    pub fn protocol(what: impl Into<String>) -> Self {
        Self::Serialization(what.into())
    }

    /// The class.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::TunnelConnection(_) => ErrorClass::TunnelConnection,
            Self::Tls(_) => ErrorClass::Tls,
            Self::Certificate(_) => ErrorClass::Certificate,
            Self::Serialization(_) => ErrorClass::Serialization,
            Self::Io { .. } => ErrorClass::Io,
            Self::Timeout { .. } => ErrorClass::Timeout,
            Self::Gateway(message) => message.code.class(),
            Self::Auth(_) => ErrorClass::Auth,
            Self::Validation(_) => ErrorClass::Validation,
            Self::NotConnected { .. } => ErrorClass::NotConnected,
            Self::Telemetry(_) => ErrorClass::Telemetry,
            Self::Billing(_) => ErrorClass::Billing,
            Self::Api(_) => ErrorClass::Api,
            Self::Relayed { class, .. } => *class,
        }
    }

    /// The gateway's own code, when it is the gateway's word.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        self.of_gateway().map(|message| message.code)
    }

    /// The gateway's own word, when it is one.
    pub(crate) const fn of_gateway(&self) -> Option<&ErrorMessage> {
        match self {
            Self::Gateway(message) => Some(message),
            Self::TunnelConnection(_)
            | Self::Tls(_)
            | Self::Certificate(_)
            | Self::Serialization(_)
            | Self::Io { .. }
            | Self::Timeout { .. }
            | Self::Auth(_)
            | Self::Validation(_)
            | Self::NotConnected { .. }
            | Self::Telemetry(_)
            | Self::Billing(_)
            | Self::Api(_)
            | Self::Relayed { .. } => None,
        }
    }

    /// The exit code of its class.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.class().exit_code()
    }
}

impl From<ErrorMessage> for Error {
    fn from(message: ErrorMessage) -> Self {
        Self::Gateway(Box::new(message))
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Validation(invalid.to_string())
    }
}

impl From<crate::driver::BindError> for Error {
    fn from(error: crate::driver::BindError) -> Self {
        let doing = format!("cannot bind UDP {}", error.addr);
        Self::Io {
            doing,
            source: error.source,
        }
    }
}

impl From<crate::random::NoChance> for Error {
    fn from(_none: crate::random::NoChance) -> Self {
        let source = io::ErrorKind::Other.into();
        Self::io("asking the system for random numbers", source)
    }
}

impl From<crate::gateway::ca::CaError> for Error {
    fn from(error: crate::gateway::ca::CaError) -> Self {
        Self::Certificate(error.to_string())
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let words = error.to_string();
        match error {
            StoreError::Denied(_) => Self::Billing(words),
            StoreError::NotAdmitted(_) => Self::Auth(words),
            StoreError::Refused(_)
            | StoreError::UnknownAccount
            | StoreError::UnknownKey
            | StoreError::KeyRevoked
            | StoreError::UnknownDevice
            | StoreError::NameTaken
            | StoreError::BadName
            | StoreError::DeviceTaken
            | StoreError::TooManyDevices => Self::Validation(words),
            StoreError::NotTheGateway | StoreError::Busy | StoreError::Closed => Self::Api(words),
            StoreError::Damaged(_) => Self::Serialization(words),
            StoreError::Full
            | StoreError::Locked
            | StoreError::Unreachable(_)
            | StoreError::Failed(_) => Self::io("the store", io::Error::other(words)),
        }
    }
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        let words = error.to_string();
        match error {
            OpenError::InUse { .. }
            | OpenError::Foreign { .. }
            | OpenError::ForeignSchema { .. }
            | OpenError::Newer { .. } => Self::Validation(words),
            OpenError::Refused { path, reason } => Self::file(&path, io::Error::other(reason)),
        }
    }
}

impl From<AuditError> for Error {
    fn from(error: AuditError) -> Self {
        match error {
            AuditError::Open(error) => error.into(),
            AuditError::Read(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::error::EXIT_CODES;

    use super::*;

    #[test]
    fn the_table_in_the_documentation_is_the_codes() {
        let documented = include_str!("../../docs/errors.md");
        for code in ErrorCode::ALL {
            let row = format!(
                "| `{code}` | {:?} | {} | {} | {} |",
                code.class(),
                code.http_status(),
                code.class().exit_code(),
                if code.retryable() { "yes" } else { "no" },
            );
            assert!(documented.contains(&row), "{row}");
        }
        for (class, code) in EXIT_CODES {
            assert!(
                documented.contains(&format!("| {code} | {class:?} |")),
                "{class:?}"
            );
        }
        let rows = documented
            .lines()
            .filter(|line| line.starts_with("| `"))
            .count();
        assert_eq!(rows, ErrorCode::ALL.len(), "nothing else is documented");
    }
}
