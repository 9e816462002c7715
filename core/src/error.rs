//! Wire error codes: one table from code to error class and HTTP status.

use serde::{Deserialize, Serialize};

/// What kind of refusal or failure an error frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// The request breaks a rule; asking again as it is cannot help.
    InvalidRequest,
    /// Nobody known asks.
    Unauthorized,
    /// Somebody known asks for what is not theirs.
    Forbidden,
    /// There is no such thing, or not for this asker.
    NotFound,
    /// The id was used with another body.
    Conflict,
    /// The account's funds do not cover the worst case.
    PaymentRequired,
    /// The free quota or a guest's cap is spent.
    QuotaExceeded,
    /// Too many at once or in a minute.
    RateLimited,
    /// Over a size limit.
    TooLarge,
    /// The peer broke the protocol.
    Protocol,
    /// The model's provider failed.
    UpstreamError,
    /// The model's provider did not answer in time.
    UpstreamTimeout,
    /// The gateway restarted in the middle; free, may be asked again under a new id.
    Interrupted,
    /// The answer runs on another gateway or attempt.
    InProgress,
    /// The answer's text is no longer kept; the receipt is.
    Expired,
    /// The gateway is going away.
    ShuttingDown,
    /// Our own fault.
    Internal,
}

/// The error classes that a caller tells apart; each has one exit code in the CLI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorClass {
    /// The tunnel could not be established or broke.
    TunnelConnection,
    /// TLS failed.
    Tls,
    /// A certificate was missing, foreign, expired or revoked.
    Certificate,
    /// Bytes that are not what the protocol says.
    Serialization,
    /// The operating system refused.
    Io,
    /// Not in time.
    Timeout,
    /// The gateway or the provider failed.
    Api,
    /// Money.
    Billing,
    /// Who is asking.
    Auth,
    /// Too often.
    RateLimit,
    /// What is asked.
    Validation,
    /// No tunnel.
    NotConnected,
    /// Vitals could not be read or sent.
    Telemetry,
}

/// Every class with its exit code, in the order of the classes. 0 is success, 1 an error of our own,
/// 2 a wrong command line, 130 an interrupt.
pub const EXIT_CODES: [(ErrorClass, u8); 13] = [
    (ErrorClass::TunnelConnection, 10),
    (ErrorClass::Tls, 11),
    (ErrorClass::Certificate, 12),
    (ErrorClass::Serialization, 13),
    (ErrorClass::Io, 14),
    (ErrorClass::Timeout, 15),
    (ErrorClass::Api, 16),
    (ErrorClass::Billing, 17),
    (ErrorClass::Auth, 18),
    (ErrorClass::RateLimit, 19),
    (ErrorClass::Validation, 20),
    (ErrorClass::NotConnected, 21),
    (ErrorClass::Telemetry, 22),
];

impl ErrorClass {
    /// The exit code of a program that ends with an error of this class.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        EXIT_CODES
            .iter()
            .find(|(known, _)| *known == self)
            .map_or(1, |(_, code)| *code)
    }
}

impl ErrorCode {
    /// Every code, in the order of the protocol's list.
    pub const ALL: [Self; 17] = [
        Self::InvalidRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::Conflict,
        Self::PaymentRequired,
        Self::QuotaExceeded,
        Self::RateLimited,
        Self::TooLarge,
        Self::Protocol,
        Self::UpstreamError,
        Self::UpstreamTimeout,
        Self::Interrupted,
        Self::InProgress,
        Self::Expired,
        Self::ShuttingDown,
        Self::Internal,
    ];

    /// The error class of the code.
    #[must_use]
    pub const fn class(self) -> ErrorClass {
        match self {
            Self::InvalidRequest | Self::Conflict | Self::TooLarge => ErrorClass::Validation,
            Self::Unauthorized | Self::Forbidden => ErrorClass::Auth,
            Self::PaymentRequired | Self::QuotaExceeded => ErrorClass::Billing,
            Self::RateLimited => ErrorClass::RateLimit,
            Self::Protocol => ErrorClass::Serialization,
            Self::UpstreamTimeout => ErrorClass::Timeout,
            Self::NotFound
            | Self::UpstreamError
            | Self::Interrupted
            | Self::InProgress
            | Self::Expired
            | Self::ShuttingDown
            | Self::Internal => ErrorClass::Api,
        }
    }

    /// The HTTP status of the code (RFC 9110 §15; 429 is RFC 6585).
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::InvalidRequest | Self::Protocol => 400,
            Self::Unauthorized => 401,
            Self::PaymentRequired => 402,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict | Self::InProgress => 409,
            Self::Expired => 410,
            Self::TooLarge => 413,
            Self::QuotaExceeded | Self::RateLimited => 429,
            Self::Internal => 500,
            Self::UpstreamError => 502,
            Self::Interrupted | Self::ShuttingDown => 503,
            Self::UpstreamTimeout => 504,
        }
    }

    /// Whether the same request may succeed later without anyone changing anything.
    #[must_use]
    pub const fn retryable(self) -> bool {
        matches!(
            self,
            Self::RateLimited
                | Self::UpstreamError
                | Self::UpstreamTimeout
                | Self::Interrupted
                | Self::InProgress
                | Self::ShuttingDown
                | Self::Internal
        )
    }

    /// The code as it is spelled on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "INVALID_REQUEST",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Forbidden => "FORBIDDEN",
            Self::NotFound => "NOT_FOUND",
            Self::Conflict => "CONFLICT",
            Self::PaymentRequired => "PAYMENT_REQUIRED",
            Self::QuotaExceeded => "QUOTA_EXCEEDED",
            Self::RateLimited => "RATE_LIMITED",
            Self::TooLarge => "TOO_LARGE",
            Self::Protocol => "PROTOCOL",
            Self::UpstreamError => "UPSTREAM_ERROR",
            Self::UpstreamTimeout => "UPSTREAM_TIMEOUT",
            Self::Interrupted => "INTERRUPTED",
            Self::InProgress => "IN_PROGRESS",
            Self::Expired => "EXPIRED",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::Internal => "INTERNAL",
        }
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_one_exit_code_of_its_own() {
        let mut codes: Vec<u8> = EXIT_CODES.iter().map(|(_, code)| *code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), EXIT_CODES.len());
        assert!(codes.iter().all(|code| ![0, 1, 2, 130].contains(code)));
    }
}
