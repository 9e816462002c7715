//! Why an attempt or a session failed, and whether trying again can help.

use std::time::Duration;

use crate::error::{ErrorClass, ErrorCode};
use crate::transport::CloseReason;
use crate::wire::close::CloseCode;
use crate::wire::message::ErrorMessage;

/// What kind of failure. The words say what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum FailureKind {
    /// The gateway's name has no address.
    #[error("the gateway's address cannot be found; check its name and this machine's DNS")]
    Unresolved,
    /// No address could even be tried.
    #[error(
        "the gateway cannot be reached from this network; check its address and this machine's connection"
    )]
    Unreachable,
    /// Nothing came back in time.
    #[error("the gateway did not answer in time; check its address and that UDP is let through")]
    TimedOut,
    /// The gateway takes no connections now.
    #[error("the gateway refused the connection; it may be full or stopping")]
    Refused,
    /// The gateway restarted and has forgotten the session.
    #[error("the gateway has forgotten the session; it was probably restarted")]
    Forgotten,
    /// The same device connected from elsewhere.
    #[error("the same device connected from elsewhere; stop the other agent")]
    Replaced,
    /// An attempt of this device's own that it had given up came late and took the session's place.
    #[error("an earlier attempt of this device came late and took the session's place")]
    Overtaken,
    /// The gateway is going away.
    #[error("the gateway is going away")]
    GoingAway,
    /// The gateway has too much to do.
    #[error("the gateway is overloaded")]
    Overloaded,
    /// The gateway ended the session in good order.
    #[error("the gateway ended the session")]
    Ended,
    /// One side broke the protocol.
    #[error("the two sides do not speak the same protocol; update the older one")]
    Protocol,
    /// The transport failed otherwise.
    #[error("the connection failed")]
    Transport,
    /// TLS failed for a reason that is no certificate.
    #[error("the TLS handshake failed")]
    Tls,
    /// The gateway demands a certificate and this device showed none.
    #[error("the gateway demands a device certificate; enrol this device")]
    CertificateRequired,
    /// The gateway does not know the CA of this device's certificate.
    #[error("this device's certificate is of a CA the gateway does not know; enrol it there")]
    UnknownCa,
    /// This device's certificate is past its end.
    #[error("this device's certificate has expired; enrol the device again")]
    CertificateExpired,
    /// The gateway refused this device's certificate.
    #[error("the gateway refused this device's certificate; enrol the device again")]
    CertificateRefused,
    /// This device does not trust the gateway's certificate.
    #[error(
        "the gateway's certificate is not the one this device was enrolled with; if its authority was replaced, enrol this device again"
    )]
    GatewayUntrusted,
    /// The gateway's store does not know the device.
    #[error("the gateway does not know this device; enrol it again")]
    Unauthorized,
    /// The device was revoked.
    #[error("this device was revoked; ask whoever runs the gateway")]
    Revoked,
}

impl FailureKind {
    /// Whether trying again cannot help before a person does something.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::CertificateRequired
            | Self::UnknownCa
            | Self::CertificateExpired
            | Self::CertificateRefused
            | Self::GatewayUntrusted
            | Self::Unauthorized
            | Self::Revoked => true,
            Self::Unresolved
            | Self::Unreachable
            | Self::TimedOut
            | Self::Refused
            | Self::Forgotten
            | Self::Replaced
            | Self::Overtaken
            | Self::GoingAway
            | Self::Overloaded
            | Self::Ended
            | Self::Protocol
            | Self::Transport
            | Self::Tls => false,
        }
    }

    /// The class a caller sees.
    #[must_use]
    pub const fn class(self) -> ErrorClass {
        match self {
            Self::CertificateRequired
            | Self::UnknownCa
            | Self::CertificateExpired
            | Self::CertificateRefused
            | Self::GatewayUntrusted
            | Self::Revoked => ErrorClass::Certificate,
            Self::Unauthorized => ErrorClass::Auth,
            Self::Tls => ErrorClass::Tls,
            Self::Protocol => ErrorClass::Serialization,
            Self::Overloaded => ErrorClass::RateLimit,
            Self::Unresolved
            | Self::Unreachable
            | Self::TimedOut
            | Self::Refused
            | Self::Forgotten
            | Self::Replaced
            | Self::Overtaken
            | Self::GoingAway
            | Self::Ended
            | Self::Transport => ErrorClass::TunnelConnection,
        }
    }
}

/// A failure with its particulars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind.
    pub kind: FailureKind,
    /// The other side's or the transport's own words, if any.
    pub detail: Option<String>,
    /// How long the gateway asked to wait.
    pub retry_after: Option<Duration>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.detail {
            Some(detail) if !detail.is_empty() => write!(f, "{} ({detail})", self.kind),
            _ => write!(f, "{}", self.kind),
        }
    }
}

impl std::error::Error for Failure {}

impl From<FailureKind> for Failure {
    fn from(kind: FailureKind) -> Self {
        Self {
            kind,
            detail: None,
            retry_after: None,
        }
    }
}

impl Failure {
    /// A failure in somebody's own words.
    #[must_use]
    pub fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        Self {
            detail: Some(detail.into()),
            ..kind.into()
        }
    }

    /// Whether trying again cannot help before a person does something.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        self.kind.is_final()
    }

    /// What the end of a connection means.
    #[must_use]
    pub(crate) fn of_close(reason: &CloseReason) -> Self {
        match reason {
            CloseReason::Local => FailureKind::Ended.into(),
            CloseReason::Application { code, reason } => {
                Self::new(kind_of_code(*code), reason.as_str())
            }
            CloseReason::Tls {
                alert,
                by_peer,
                reason,
            } => Self::new(kind_of_alert(*alert, *by_peer), reason.as_str()),
            CloseReason::TimedOut => FailureKind::TimedOut.into(),
            CloseReason::Reset => FailureKind::Forgotten.into(),
            CloseReason::Refused => FailureKind::Refused.into(),
            CloseReason::VersionMismatch => FailureKind::Protocol.into(),
            CloseReason::Transport(words) => Self::new(FailureKind::Transport, words.as_str()),
        }
    }

    /// What an error on the control stream means.
    #[must_use]
    pub(crate) fn of_error(error: &ErrorMessage) -> Self {
        let kind = match error.code {
            ErrorCode::Unauthorized | ErrorCode::Forbidden | ErrorCode::NotFound => {
                FailureKind::Unauthorized
            }
            ErrorCode::RateLimited | ErrorCode::Internal => FailureKind::Overloaded,
            ErrorCode::ShuttingDown => FailureKind::GoingAway,
            ErrorCode::InvalidRequest
            | ErrorCode::Conflict
            | ErrorCode::PaymentRequired
            | ErrorCode::QuotaExceeded
            | ErrorCode::TooLarge
            | ErrorCode::Protocol
            | ErrorCode::UpstreamError
            | ErrorCode::UpstreamTimeout
            | ErrorCode::Interrupted
            | ErrorCode::InProgress
            | ErrorCode::Expired => FailureKind::Protocol,
        };
        Self {
            retry_after: error
                .retry_after_secs
                .map(|secs| Duration::from_secs(secs.into())),
            ..Self::new(kind, error.message.as_str())
        }
    }
}

fn kind_of_code(code: u32) -> FailureKind {
    match CloseCode::from_u32(code) {
        Some(CloseCode::Done) => FailureKind::Ended,
        Some(CloseCode::Protocol) | None => FailureKind::Protocol,
        Some(CloseCode::Replaced) => FailureKind::Replaced,
        Some(CloseCode::Unauthorized) => FailureKind::Unauthorized,
        Some(CloseCode::Revoked) => FailureKind::Revoked,
        Some(CloseCode::GoingAway) => FailureKind::GoingAway,
        Some(CloseCode::Overloaded) => FailureKind::Overloaded,
        Some(CloseCode::TooSlow) => FailureKind::TimedOut,
    }
}

/// RFC 8446 §6 and §B.2. Raised by the peer an alert is about our certificate, else about its.
fn kind_of_alert(alert: u8, by_peer: bool) -> FailureKind {
    const BAD_CERTIFICATE: u8 = 42;
    const UNSUPPORTED_CERTIFICATE: u8 = 43;
    const CERTIFICATE_REVOKED: u8 = 44;
    const CERTIFICATE_EXPIRED: u8 = 45;
    const CERTIFICATE_UNKNOWN: u8 = 46;
    const UNKNOWN_CA: u8 = 48;
    const ACCESS_DENIED: u8 = 49;
    // A certificate whose signature is of another key than its issuer's name says.
    const DECRYPT_ERROR: u8 = 51;
    const CERTIFICATE_REQUIRED: u8 = 116;
    match alert {
        BAD_CERTIFICATE
        | UNSUPPORTED_CERTIFICATE
        | CERTIFICATE_REVOKED
        | CERTIFICATE_EXPIRED
        | CERTIFICATE_UNKNOWN
        | UNKNOWN_CA
        | DECRYPT_ERROR
            if !by_peer =>
        {
            FailureKind::GatewayUntrusted
        }
        BAD_CERTIFICATE
        | UNSUPPORTED_CERTIFICATE
        | CERTIFICATE_UNKNOWN
        | DECRYPT_ERROR
        | ACCESS_DENIED => FailureKind::CertificateRefused,
        CERTIFICATE_REVOKED => FailureKind::Revoked,
        CERTIFICATE_EXPIRED => FailureKind::CertificateExpired,
        UNKNOWN_CA => FailureKind::UnknownCa,
        CERTIFICATE_REQUIRED => FailureKind::CertificateRequired,
        _ => FailureKind::Tls,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(alert: u8, by_peer: bool) -> FailureKind {
        let reason = String::new();
        Failure::of_close(&CloseReason::Tls {
            alert,
            by_peer,
            reason,
        })
        .kind
    }

    #[test]
    fn alerts_about_our_certificate_are_final_and_say_what_is_wrong_with_it() {
        for (number, kind) in [
            (116, FailureKind::CertificateRequired),
            (48, FailureKind::UnknownCa),
            (45, FailureKind::CertificateExpired),
            (42, FailureKind::CertificateRefused),
            (46, FailureKind::CertificateRefused),
            (49, FailureKind::CertificateRefused),
            (51, FailureKind::CertificateRefused),
            (44, FailureKind::Revoked),
        ] {
            assert_eq!(alert(number, true), kind, "{number}");
            assert!(kind.is_final(), "{number}");
            assert_eq!(kind.class(), ErrorClass::Certificate, "{number}");
        }
    }

    #[test]
    fn alerts_we_raise_are_about_the_gateway_and_others_are_worth_a_retry() {
        for number in [42, 45, 46, 48, 51] {
            assert_eq!(alert(number, false), FailureKind::GatewayUntrusted);
        }
        // internal_error, no_application_protocol
        for number in [80, 120] {
            assert_eq!(alert(number, true), FailureKind::Tls);
            assert!(!alert(number, true).is_final());
        }
    }

    #[test]
    fn a_close_code_is_final_exactly_when_the_protocol_says_so() {
        for code in CloseCode::ALL {
            let reason = CloseReason::Application {
                code: code.as_u32(),
                reason: String::new(),
            };
            assert_eq!(
                Failure::of_close(&reason).is_final(),
                code.is_final(),
                "{code:?}"
            );
        }
        assert_eq!(kind_of_code(999), FailureKind::Protocol);
    }

    #[test]
    fn an_error_message_keeps_its_words_and_its_wait() {
        let error = ErrorMessage {
            code: ErrorCode::RateLimited,
            message: "too many tunnels".into(),
            details: None,
            retryable: true,
            retry_after_secs: Some(7),
            request_id: None,
        };
        let failure = Failure::of_error(&error);
        assert_eq!(failure.retry_after, Some(Duration::from_secs(7)));
        assert_eq!(
            failure.to_string(),
            "the gateway is overloaded (too many tunnels)"
        );
        assert_eq!(
            Failure::from(FailureKind::Overloaded).to_string(),
            "the gateway is overloaded"
        );
    }
}
