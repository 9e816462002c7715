//! What Stripe answers when it is asked: as much of each object as counts. What we do not know of is
//! `Other`, and never taken for what we do.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::id::{CustomerId, DisputeId, IntentId, RefundId, SessionId};
use super::request::Failure;
use crate::limits::STRIPE_URL_BYTES_MAX;

/// A Checkout Session.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Session {
    /// Its name.
    pub id: SessionId,
    /// What it is for.
    pub mode: Mode,
    /// How far it is.
    #[serde(default)]
    pub status: Option<SessionStatus>,
    /// Whether the money is there.
    pub payment_status: PaymentStatus,
    /// Three letters, lower case.
    #[serde(default)]
    pub currency: Option<String>,
    /// In the currency's smallest unit, discounts and taxes included.
    #[serde(default)]
    pub amount_total: Option<i64>,
    /// Whose it is, as we said when we made it.
    #[serde(default)]
    pub client_reference_id: Option<String>,
    /// What we wrote on it.
    #[serde(default)]
    pub metadata: Option<Metadata>,
    /// What it became.
    #[serde(default)]
    pub payment_intent: Option<Intent>,
    /// Who paid, if Stripe keeps that.
    #[serde(default)]
    pub customer: Option<Named<CustomerId>>,
    /// Where it is paid, as long as it is open.
    #[serde(default)]
    pub url: Option<String>,
}

/// What we write on what we make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Metadata {
    /// The account.
    #[serde(default)]
    pub account: Option<String>,
    /// How much was asked for, cents.
    #[serde(default)]
    pub cents: Option<String>,
}

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// One payment.
    Payment,
    /// Something else.
    #[serde(other)]
    Other,
}

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionStatus {
    /// It can be paid.
    Open,
    /// Whoever pays has done their part.
    Complete,
    /// It can be paid no longer.
    Expired,
    /// Something else.
    #[serde(other)]
    Other,
}

/// Whether a session's money is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentStatus {
    /// It is.
    Paid,
    /// Not, or not yet.
    Unpaid,
    /// Something else.
    #[serde(other)]
    Other,
}

/// A payment intent, or only its name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Intent {
    /// Its name.
    Name(IntentId),
    /// The object, where it was asked for.
    Whole {
        /// Its name.
        id: IntentId,
        /// How far it is.
        status: IntentStatus,
    },
}

impl Intent {
    /// Its name.
    #[must_use]
    pub const fn id(&self) -> &IntentId {
        match self {
            Self::Name(id) | Self::Whole { id, .. } => id,
        }
    }

    /// Whether the payment was tried and has failed.
    #[must_use]
    pub const fn has_failed(&self) -> bool {
        matches!(
            self,
            Self::Whole {
                status: IntentStatus::RequiresPaymentMethod | IntentStatus::Canceled,
                ..
            }
        )
    }
}

/// How far a payment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntentStatus {
    /// Nothing was given to pay with, or what was given has failed.
    RequiresPaymentMethod,
    /// It was given up.
    Canceled,
    /// Something else.
    #[serde(other)]
    Other,
}

/// An object, or only its name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Named<T> {
    /// Its name.
    Name(T),
    /// The object.
    Whole {
        /// Its name.
        id: T,
    },
}

impl<T> Named<T> {
    /// Its name.
    #[must_use]
    pub fn into_id(self) -> T {
        match self {
            Self::Name(id) | Self::Whole { id } => id,
        }
    }
}

/// How a top-up stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It can be paid.
    Open,
    /// Whoever pays has done their part; the bank has not.
    Processing,
    /// The money is there.
    Paid,
    /// It was tried and will not come.
    Failed,
    /// It was not paid in time.
    Expired,
}

impl Session {
    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let failed = self.payment_intent.as_ref().is_some_and(Intent::has_failed);
        match (self.payment_status, self.status) {
            (PaymentStatus::Paid, _) => Standing::Paid,
            (_, Some(SessionStatus::Expired)) => Standing::Expired,
            (_, Some(SessionStatus::Complete)) if failed => Standing::Failed,
            (_, Some(SessionStatus::Complete)) => Standing::Processing,
            (_, Some(SessionStatus::Open | SessionStatus::Other) | None) => Standing::Open,
        }
    }

    /// Where it is paid: only what can be printed and opened without harm.
    #[must_use]
    pub fn payable_at(&self) -> Option<&str> {
        self.url.as_deref().filter(|url| is_web_address(url))
    }
}

/// Whether a text is an address that a browser may be sent to.
#[must_use]
pub fn is_web_address(text: &str) -> bool {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| !host.is_empty() && !host.starts_with('/'))
        && text.len() <= STRIPE_URL_BYTES_MAX
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"\"'<>\\^`{|}".contains(&byte))
}

/// A refund.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Refund {
    /// Its name.
    pub id: RefundId,
    /// How far it is.
    #[serde(default)]
    pub status: Option<RefundStatus>,
    /// In the currency's smallest unit.
    pub amount: i64,
    /// Three letters, lower case.
    pub currency: String,
    /// Of which payment.
    #[serde(default)]
    pub payment_intent: Option<Intent>,
}

/// How far a refund is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundStatus {
    /// The money is gone.
    Succeeded,
    /// The money could not be sent, and is back.
    Failed,
    /// It was taken back before it was sent.
    Canceled,
    /// Not sent yet, or something else.
    #[serde(other)]
    Other,
}

/// A dispute: whoever paid has asked their bank for the money back.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Dispute {
    /// Its name.
    pub id: DisputeId,
    /// How far it is.
    pub status: DisputeStatus,
    /// In the currency's smallest unit.
    pub amount: i64,
    /// Three letters, lower case.
    pub currency: String,
    /// Of which payment.
    #[serde(default)]
    pub payment_intent: Option<Intent>,
}

/// How far a dispute is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisputeStatus {
    /// The money is gone until it is decided.
    NeedsResponse,
    /// The same, and the bank looks at it.
    UnderReview,
    /// The money is back.
    Won,
    /// The money stays gone.
    Lost,
    /// The bank only asks, or something else: no money has moved.
    #[serde(other)]
    Other,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct List<T> {
    /// What is on it.
    pub data: Vec<T>,
    /// Whether there is another page.
    #[serde(default)]
    pub has_more: bool,
}

/// How much a meter has counted in a while.
#[derive(Clone, Debug, Deserialize)]
pub struct MeterSummary {
    /// Counted, as Stripe writes it.
    aggregated_value: Box<RawValue>,
}

impl MeterSummary {
    /// The sum of a list, if all of it is whole cents.
    #[must_use]
    pub fn cents(list: &[Self]) -> Option<i64> {
        list.iter().try_fold(0i64, |sum, summary| {
            let text = summary.aggregated_value.get();
            let (whole, rest) = text.split_once('.').unwrap_or((text, "0"));
            let is_whole = rest.bytes().all(|digit| digit == b'0');
            is_whole.then_some(())?;
            sum.checked_add(whole.parse().ok()?)
        })
    }
}

/// Reads an object that Stripe answered with.
///
/// # Errors
///
/// [`Failure::NotUnderstood`].
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|_| Failure::NotUnderstood)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn session(changes: Value) -> Session {
        let mut object = json!({
            "id": "cs_1", "object": "checkout.session", "mode": "payment", "status": "open",
            "payment_status": "unpaid", "currency": "usd", "amount_total": 2000,
        });
        for (name, value) in changes.as_object().unwrap() {
            object[name] = value.clone();
        }
        read(object.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_session_stands_as_its_money_does() {
        let failed =
            json!({"id": "pi_1", "object": "payment_intent", "status": "requires_payment_method"});
        let processing = json!({"id": "pi_1", "status": "processing"});
        for (changes, expected) in [
            (json!({}), Standing::Open),
            (json!({"status": "complete"}), Standing::Processing),
            (
                json!({"status": "complete", "payment_intent": processing}),
                Standing::Processing,
            ),
            (
                json!({"status": "complete", "payment_intent": "pi_1"}),
                Standing::Processing,
            ),
            (
                json!({"status": "complete", "payment_intent": failed}),
                Standing::Failed,
            ),
            // Open sessions have an intent that nobody has tried to pay.
            (json!({"payment_intent": failed}), Standing::Open),
            (json!({"status": "expired"}), Standing::Expired),
            (
                json!({"status": "complete", "payment_status": "paid"}),
                Standing::Paid,
            ),
            (json!({"status": "novel"}), Standing::Open),
            (
                json!({"status": null, "payment_status": "novel"}),
                Standing::Open,
            ),
            (
                json!({"payment_status": "no_payment_required", "status": "complete"}),
                Standing::Processing,
            ),
        ] {
            assert_eq!(session(changes.clone()).standing(), expected, "{changes}");
        }
    }

    #[test]
    fn only_an_address_of_the_web_is_given_to_anybody() {
        for good in [
            "https://checkout.stripe.com/c/pay/cs_test_a1#fid",
            "http://127.0.0.1:9/p?x=1&y=%20",
        ] {
            assert_eq!(session(json!({"url": good})).payable_at(), Some(good));
        }
        let long = format!("https://x/{}", "y".repeat(STRIPE_URL_BYTES_MAX));
        for bad in [
            "",
            "https://",
            "https:///etc/passwd",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "https://x/\u{1b}[2J",
            "https://x/ --flag",
            "https://x/\"&calc",
            "-x",
            &long,
        ] {
            assert_eq!(session(json!({"url": bad})).payable_at(), None, "{bad:?}");
        }
        assert_eq!(session(json!({"url": null})).payable_at(), None);
    }

    #[test]
    fn a_name_may_come_with_its_object() {
        let plain = session(json!({"customer": "cus_1", "payment_intent": "pi_1"}));
        let whole = session(json!({
            "customer": {"id": "cus_1", "email": "x"},
            "payment_intent": {"id": "pi_1", "status": "succeeded"},
        }));
        for session in [plain, whole] {
            assert_eq!(session.customer.unwrap().into_id().as_str(), "cus_1");
            assert_eq!(session.payment_intent.unwrap().id().as_str(), "pi_1");
        }
        assert!(
            read::<Session>(br#"{"id":"../x","mode":"payment","payment_status":"paid"}"#).is_err()
        );
    }

    #[test]
    fn what_a_meter_counted_is_read_exactly_or_not_at_all() {
        let sum = |values: &str| {
            let list = format!(r#"{{"data":[{values}],"has_more":false}}"#);
            let list: List<MeterSummary> = read(list.as_bytes()).unwrap();
            MeterSummary::cents(&list.data)
        };
        let value = |number: &str| format!(r#"{{"id":"x","aggregated_value":{number}}}"#);
        assert_eq!(sum(""), Some(0));
        assert_eq!(sum(&value("10815")), Some(10815));
        assert_eq!(
            sum(&format!("{},{}", value("10815.0"), value("1"))),
            Some(10816)
        );
        assert_eq!(sum(&value("0.5")), None);
        assert_eq!(sum(&value("\"7\"")), None);
        assert_eq!(sum(&value("1e400000")), None);
        assert_eq!(
            sum(&format!("{},{}", value(&i64::MAX.to_string()), value("1"))),
            None
        );
    }
}
