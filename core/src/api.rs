//! The typed calls: method, parameters, result. One definition for the tunnel's Call frames and for
//! HTTP.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::ErrorCode;
use crate::ids::DeviceId;
use crate::time::UnixMillis;
use crate::wire::message::ErrorMessage;

/// What may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Is the gateway there? Answered by [`Pong`].
    Ping,
    /// How does the account stand? Answered by [`crate::billing::account::Summary`].
    AccountSummary,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 2] = [Self::Ping, Self::AccountSummary];

    /// The method's name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::AccountSummary => "account.summary",
        }
    }

    /// The method of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == name)
    }
}

/// The result of [`Method::Ping`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// The gateway's wall clock.
    pub server_time: UnixMillis,
}

/// The body of `POST /v2/devices`: enrol a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrol {
    /// The certificate request, PEM. Of it only the key counts, which must be Ed25519.
    pub csr: String,
}

/// The answer to [`Enrol`]. Nothing of it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// The id in the certificate.
    pub device_id: DeviceId,
    /// The device's certificate, PEM.
    pub certificate: String,
    /// When it ends.
    pub not_after: UnixMillis,
    /// The CA of the gateway's own certificate in the tunnel, PEM.
    pub gateway_ca: String,
    /// Where the tunnel goes, `host:port`.
    pub tunnel_address: String,
}

/// A result as it goes into a reply.
///
/// # Errors
///
/// An `INTERNAL` error when the value cannot be written as JSON.
pub fn encode(value: &impl Serialize) -> Result<Box<RawValue>, ErrorMessage> {
    serde_json::value::to_raw_value(value).map_err(|error| ErrorMessage {
        code: ErrorCode::Internal,
        message: format!("the result cannot be written: {error}"),
        details: None,
        retryable: false,
        retry_after_secs: None,
        request_id: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_found_by_its_name_and_nothing_else_is() {
        for method in Method::ALL {
            assert_eq!(Method::named(method.as_str()), Some(method));
        }
        assert_eq!(Method::named("Ping"), None);
        assert_eq!(Method::named(""), None);
    }

    #[test]
    fn a_result_travels_as_plain_json() {
        let raw = encode(&Pong {
            server_time: UnixMillis(5),
        })
        .unwrap();
        assert_eq!(raw.get(), r#"{"server_time":5}"#);
    }
}
