//! The typed calls: method, parameters, result. One definition for the tunnel's Call frames and for
//! HTTP.

pub mod account;

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::billing::stripe::id::SessionId;
use crate::error::ErrorCode;
use crate::ids::DeviceId;
use crate::limits::{TOPUP_CENTS_MAX, TOPUP_CENTS_MIN};
use crate::time::UnixMillis;
use crate::wire::message::ErrorMessage;

/// What may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// Is the gateway there? Answered by [`Pong`].
    #[serde(rename = "ping")]
    Ping,
    /// How does the account stand? Answered by [`crate::billing::account::Summary`].
    #[serde(rename = "account.summary")]
    AccountSummary,
    /// What was used? See [`account::UsageQuery`].
    #[serde(rename = "account.usage")]
    AccountUsage,
    /// What did a month come to? See [`account::InvoiceQuery`].
    #[serde(rename = "account.invoice")]
    AccountInvoice,
    /// How is the account charged, or is to be? See [`account::TierQuery`].
    #[serde(rename = "account.tier")]
    AccountTier,
    /// A key of the account's own for a provider. See [`account::ProviderKeyQuery`].
    #[serde(rename = "account.provider_key")]
    AccountProviderKey,
    /// Begin a top-up: a page where it is paid. Takes a [`TopUp`], answered by [`TopUpBegun`].
    #[serde(rename = "payments.checkout")]
    PaymentsCheckout,
    /// How does a top-up stand? Takes a [`TopUpNamed`], answered by [`TopUpStatus`].
    #[serde(rename = "payments.status")]
    PaymentsStatus,
    /// Which of the account's top-ups are not over? Answered by [`TopUpStatus`]es.
    #[serde(rename = "payments.pending")]
    PaymentsPending,
    /// What models are there? Answered by [`Models`].
    #[serde(rename = "models")]
    Models,
    /// How many tokens would a body be? Takes a [`CountTokens`], answered by [`TokenCount`].
    #[serde(rename = "messages.count_tokens")]
    CountTokens,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 11] = [
        Self::Ping,
        Self::AccountSummary,
        Self::AccountUsage,
        Self::AccountInvoice,
        Self::AccountTier,
        Self::AccountProviderKey,
        Self::PaymentsCheckout,
        Self::PaymentsStatus,
        Self::PaymentsPending,
        Self::Models,
        Self::CountTokens,
    ];

    /// The method's name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::AccountSummary => "account.summary",
            Self::AccountUsage => "account.usage",
            Self::AccountInvoice => "account.invoice",
            Self::AccountTier => "account.tier",
            Self::AccountProviderKey => "account.provider_key",
            Self::PaymentsCheckout => "payments.checkout",
            Self::PaymentsStatus => "payments.status",
            Self::PaymentsPending => "payments.pending",
            Self::Models => "models",
            Self::CountTokens => "messages.count_tokens",
        }
    }

    /// The method of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == name)
    }
}

/// A call's parameters: JSON that is only passed on, and never shown, for a key may be in it.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Params(Option<Box<RawValue>>);

impl Params {
    /// None.
    pub const NONE: Self = Self(None);

    /// Parameters as they go into a call.
    ///
    /// # Errors
    ///
    /// As [`encode`].
    pub fn new(value: &impl Serialize) -> Result<Self, ErrorMessage> {
        encode(value).map(|raw| Self(Some(raw)))
    }

    /// What a method takes.
    ///
    /// # Errors
    ///
    /// `INVALID_REQUEST` when they are missing or something else; what was read is not quoted.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ErrorMessage> {
        let text = self.0.as_deref().map_or("null", RawValue::get);
        serde_json::from_str(text).map_err(|_| {
            refusal(
                ErrorCode::InvalidRequest,
                "the call's parameters are not what the method takes; update both sides",
            )
        })
    }

    /// As they stand in a [`Call`](crate::wire::message::Call).
    #[must_use]
    pub fn into_raw(self) -> Option<Box<RawValue>> {
        self.0
    }
}

impl From<Option<Box<RawValue>>> for Params {
    fn from(raw: Option<Box<RawValue>>) -> Self {
        Self(raw)
    }
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.as_deref().map_or(0, |raw| raw.get().len());
        write!(f, "Params({bytes} bytes)")
    }
}

/// The result of [`Method::Ping`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// The gateway's wall clock.
    pub server_time: UnixMillis,
}

/// What [`Method::PaymentsCheckout`] takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopUp {
    /// How much.
    pub amount_cents: i64,
}

impl TopUp {
    /// Checks the amount.
    ///
    /// # Errors
    ///
    /// `INVALID_REQUEST`, with what is allowed.
    pub fn check(self) -> Result<(), ErrorMessage> {
        if (TOPUP_CENTS_MIN..=TOPUP_CENTS_MAX).contains(&self.amount_cents) {
            return Ok(());
        }
        Err(refusal(
            ErrorCode::InvalidRequest,
            format!(
                "a top-up is from ${} to ${}",
                TOPUP_CENTS_MIN / 100,
                TOPUP_CENTS_MAX / 100
            ),
        ))
    }
}

/// The result of [`Method::PaymentsCheckout`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopUpBegun {
    /// Names it.
    pub session: SessionId,
    /// Where it is paid.
    pub url: String,
}

/// What [`Method::PaymentsStatus`] takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopUpNamed {
    /// Which.
    pub session: SessionId,
}

/// The result of [`Method::PaymentsStatus`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopUpStatus {
    /// Which.
    pub session: SessionId,
    /// How much.
    pub amount_cents: i64,
    /// How it stands.
    pub state: TopUpState,
}

/// How a top-up stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TopUpState {
    /// It can be paid.
    Open,
    /// It was paid, and the bank has not said yes yet.
    Processing,
    /// It is in the ledger.
    Credited,
    /// The payment failed.
    Failed,
    /// It was not paid in time.
    Expired,
}

impl TopUpState {
    /// Whether it may still become another.
    #[must_use]
    pub const fn is_pending(self) -> bool {
        matches!(self, Self::Open | Self::Processing)
    }
}

/// The result of [`Method::Models`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Models {
    /// What may be asked for, `auto` first.
    pub names: Vec<String>,
}

/// What [`Method::CountTokens`] takes. `Debug` shows nothing of the body.
#[derive(Clone, Serialize, Deserialize)]
pub struct CountTokens {
    /// The gateway's name of the model.
    pub model: String,
    /// As it would go to `POST /v1/messages/count_tokens`.
    pub body: Box<RawValue>,
}

impl fmt::Debug for CountTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.body.get().len();
        write!(f, "CountTokens({}, {bytes} bytes)", self.model)
    }
}

/// The result of [`Method::CountTokens`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCount {
    /// As the model's own server counts.
    pub input_tokens: u64,
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

/// A refusal in its code's own terms.
#[must_use]
pub fn refusal(code: ErrorCode, message: impl Into<String>) -> ErrorMessage {
    ErrorMessage {
        code,
        message: message.into(),
        details: None,
        retryable: code.retryable(),
        retry_after_secs: None,
        request_id: None,
    }
}

/// A result as it goes into a reply.
///
/// # Errors
///
/// An `INTERNAL` error when the value cannot be written as JSON.
pub fn encode(value: &impl Serialize) -> Result<Box<RawValue>, ErrorMessage> {
    serde_json::value::to_raw_value(value).map_err(|error| ErrorMessage {
        retryable: false,
        ..refusal(
            ErrorCode::Internal,
            format!("the result cannot be written: {error}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_found_by_its_name_and_nothing_else_is() {
        for method in Method::ALL {
            assert_eq!(Method::named(method.as_str()), Some(method));
            let json = serde_json::to_value(method).unwrap();
            assert_eq!(json, method.as_str());
        }
        assert_eq!(Method::named("Ping"), None);
        assert_eq!(Method::named(""), None);
    }

    #[test]
    fn parameters_are_passed_on_as_they_are_read_by_the_method_and_never_shown() {
        let params = Params::new(&("secret", 5)).unwrap();
        assert_eq!(format!("{params:?}"), "Params(12 bytes)");
        let line = serde_json::to_string(&params).unwrap();
        assert_eq!(line, r#"["secret",5]"#);
        let back: Params = serde_json::from_str(&line).unwrap();
        assert_eq!(back.read(), Ok(("secret".to_owned(), 5)));
        let refused = back.read::<Pong>().unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidRequest);
        assert!(!refused.message.contains("secret"));
        assert_eq!(
            Params::NONE.read::<Pong>().unwrap_err().code,
            ErrorCode::InvalidRequest
        );
        assert_eq!(Params::NONE.read(), Ok(()));
    }

    #[test]
    fn a_top_up_is_from_one_dollar_to_ten_thousand() {
        let checked = |amount_cents| TopUp { amount_cents }.check();
        assert_eq!(checked(100), Ok(()));
        assert_eq!(checked(1_000_000), Ok(()));
        for bad in [i64::MIN, -2000, 0, 99, 1_000_001, i64::MAX] {
            let refused = checked(bad).unwrap_err();
            assert_eq!(refused.code, ErrorCode::InvalidRequest, "{bad}");
            assert_eq!(refused.message, "a top-up is from $1 to $10000");
        }
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
