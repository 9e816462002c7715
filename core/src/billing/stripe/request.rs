//! What is sent to Stripe, and what its refusals mean.
//!
//! A request that makes something carries a key of its own, so that one said twice is done once.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Deserialize;

use super::id::{ChargeId, CustomerId, DisputeId, IntentId, MeterId, RefundId, SessionId};
use crate::ids::AccountId;
use crate::limits::{PAYMENT_ATTEMPTS_MAX, PAYMENT_RETRY_BASE};

/// The version of Stripe's interface that this is written for.
pub const VERSION: &str = "2025-03-31.basil";
/// Objects on a page of a list, at most what Stripe gives.
const PAGE: &str = "100";
/// Characters of a refusal's code that are told.
const CODE_CHARS_MAX: usize = 64;

/// A request, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Whether it changes something at Stripe.
    pub post: bool,
    /// Below the interface's address, with a leading slash.
    pub path: String,
    /// The body of a post, the query otherwise.
    pub form: String,
    /// For `Idempotency-Key`.
    pub idempotency_key: Option<String>,
}

/// A top-up that is to be paid.
#[derive(Clone, Debug)]
pub struct TopUp<'a> {
    /// Whose.
    pub account: AccountId,
    /// How much.
    pub cents: i64,
    /// Where whoever has paid is sent.
    pub success_url: &'a str,
    /// Where whoever has given up is sent.
    pub cancel_url: &'a str,
    /// Whose invoices are known already.
    pub customer: Option<&'a CustomerId>,
    /// Names this asking: the same one makes one session.
    pub key: &'a str,
}

impl Request {
    fn get(path: String, query: &[(&str, &str)]) -> Self {
        Self {
            post: false,
            path,
            form: encoded(query),
            idempotency_key: None,
        }
    }

    /// Makes a Checkout Session.
    #[must_use]
    pub fn top_up(wish: &TopUp<'_>) -> Self {
        let (account, cents) = (wish.account.to_string(), wish.cents.to_string());
        let mut form = vec![
            ("mode", "payment"),
            ("client_reference_id", &account),
            ("metadata[account]", &account),
            ("metadata[cents]", &cents),
            ("payment_intent_data[metadata][account]", &account),
            ("line_items[0][quantity]", "1"),
            ("line_items[0][price_data][currency]", "usd"),
            ("line_items[0][price_data][unit_amount]", &cents),
            (
                "line_items[0][price_data][product_data][name]",
                "Synesis credit",
            ),
            ("success_url", wish.success_url),
            ("cancel_url", wish.cancel_url),
        ];
        match wish.customer {
            Some(customer) => form.push(("customer", customer.as_str())),
            None => form.push(("customer_creation", "always")),
        }
        Self {
            post: true,
            path: "/v1/checkout/sessions".to_owned(),
            form: encoded(&form),
            idempotency_key: Some(wish.key.to_owned()),
        }
    }

    /// A Checkout Session, with its payment.
    #[must_use]
    pub fn session(id: &SessionId) -> Self {
        Self::get(
            format!("/v1/checkout/sessions/{id}"),
            &[("expand[]", "payment_intent")],
        )
    }

    /// The Checkout Session that a payment came from, as a list.
    #[must_use]
    pub fn session_of(payment: &IntentId) -> Self {
        Self::get(
            "/v1/checkout/sessions".to_owned(),
            &[("payment_intent", payment.as_str()), ("limit", "1")],
        )
    }

    /// A refund.
    #[must_use]
    pub fn refund(id: &RefundId) -> Self {
        Self::get(format!("/v1/refunds/{id}"), &[])
    }

    /// The refunds of a charge, as a list.
    #[must_use]
    pub fn refunds_of(charge: &ChargeId) -> Self {
        Self::get(
            "/v1/refunds".to_owned(),
            &[("charge", charge.as_str()), ("limit", PAGE)],
        )
    }

    /// A dispute.
    #[must_use]
    pub fn dispute(id: &DisputeId) -> Self {
        Self::get(format!("/v1/disputes/{id}"), &[])
    }

    /// Counts cents for a customer at a moment (seconds), once for each identifier within a day.
    #[must_use]
    pub fn meter_event(
        event_name: &str,
        customer: &CustomerId,
        cents: i64,
        at: u64,
        identifier: &str,
    ) -> Self {
        let form = [
            ("event_name", event_name),
            ("payload[stripe_customer_id]", customer.as_str()),
            ("payload[value]", &cents.to_string()),
            ("timestamp", &at.to_string()),
            ("identifier", identifier),
        ];
        Self {
            post: true,
            path: "/v1/billing/meter_events".to_owned(),
            form: encoded(&form),
            // The identifier does it, and longer than a key's first answer would be repeated.
            idempotency_key: None,
        }
    }

    /// What a meter has counted for a customer in a while (whole minutes, in seconds), as a list.
    #[must_use]
    pub fn meter_summaries(meter: &MeterId, customer: &CustomerId, from: u64, to: u64) -> Self {
        Self::get(
            format!("/v1/billing/meters/{meter}/event_summaries"),
            &[
                ("customer", customer.as_str()),
                ("start_time", &from.to_string()),
                ("end_time", &to.to_string()),
                ("limit", PAGE),
            ],
        )
    }
}

/// `application/x-www-form-urlencoded`, with everything escaped that is not unreserved in RFC 3986.
fn encoded(pairs: &[(&str, &str)]) -> String {
    let mut form = String::new();
    for (name, value) in pairs {
        if !form.is_empty() {
            form.push('&');
        }
        escape(&mut form, name);
        form.push('=');
        escape(&mut form, value);
    }
    form
}

fn escape(form: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            form.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(form, "%{byte:02X}");
        }
    }
}

/// Why Stripe did not do what it was asked, or whether it did is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It may have done it or not: no answer, or one that says so.
    #[error("Stripe cannot be reached, or has failed")]
    Unknown,
    /// It has not, and may if asked later.
    #[error("Stripe is asked too often")]
    TooOften,
    /// It knows no such thing, or not under this key.
    #[error("Stripe knows no such thing")]
    NotFound,
    /// The gateway's key is none, or may not do this.
    #[error("Stripe refuses the gateway's key")]
    Key,
    /// It has been done before under this name.
    #[error("Stripe has done it before")]
    Repeated,
    /// It will not do it.
    #[error("Stripe refuses: {code}")]
    Refused {
        /// Why, in a word of Stripe's.
        code: String,
    },
    /// It has answered something else.
    #[error("Stripe's answer is not understood")]
    NotUnderstood,
}

impl Failure {
    /// Whether asking again later may help although nothing was changed by anyone.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::Unknown | Self::TooOften | Self::Key => true,
            Self::NotFound | Self::Repeated | Self::Refused { .. } | Self::NotUnderstood => false,
        }
    }

    /// How long to wait before it is tried again at once, after so many tries.
    #[must_use]
    pub fn again_after(&self, tries: u32) -> Option<Duration> {
        let passing = matches!(self, Self::Unknown | Self::TooOften);
        (passing && tries < PAYMENT_ATTEMPTS_MAX)
            .then(|| PAYMENT_RETRY_BASE * 2u32.saturating_pow(tries.saturating_sub(1)))
    }
}

#[derive(Deserialize)]
struct Refusal {
    error: Reason,
}

#[derive(Default, Deserialize)]
struct Reason {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

/// What an answer's status means, and its body if it is a refusal.
///
/// # Errors
///
/// [`Failure`].
pub fn judge(status: u16, body: &[u8]) -> Result<(), Failure> {
    match status {
        200..=299 => Ok(()),
        401 | 403 => Err(Failure::Key),
        404 => Err(Failure::NotFound),
        429 => Err(Failure::TooOften),
        400 | 402 | 405..=408 | 410..=428 => Err(refusal(body)),
        // 409 is another request under the same key that has not ended.
        _ => Err(Failure::Unknown),
    }
}

fn refusal(body: &[u8]) -> Failure {
    let reason =
        serde_json::from_slice(body).map_or_else(|_| Reason::default(), |r: Refusal| r.error);
    // Stripe has no code for it in this version of its interface, only words.
    let said_before = reason
        .message
        .is_some_and(|words| words.contains("already exists with identifier"));
    if said_before || reason.code.as_deref() == Some("duplicate_meter_event") {
        return Failure::Repeated;
    }
    // Its words may quote what was sent; its codes cannot.
    let code = reason.code.or(reason.kind).unwrap_or_default();
    let code: String = code
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
        .take(CODE_CHARS_MAX)
        .collect();
    Failure::Refused { code }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: AccountId = AccountId::from_u128(5);

    fn wish<'a>(customer: Option<&'a CustomerId>) -> TopUp<'a> {
        TopUp {
            account: ACCOUNT,
            cents: 2000,
            success_url: "https://example.org/ok?a=b&c",
            cancel_url: "https://example.org/no",
            customer,
            key: "topup-1",
        }
    }

    #[test]
    fn a_top_up_says_whose_it_is_and_how_much_in_every_place_that_is_looked_at_later() {
        let request = Request::top_up(&wish(None));
        assert!(request.post);
        assert_eq!(request.path, "/v1/checkout/sessions");
        assert_eq!(request.idempotency_key.as_deref(), Some("topup-1"));
        let account = "acct_00000000000000000000000000000005";
        // Escaped by hand: [ is %5B, ] is %5D, : is %3A, / is %2F, ? is %3F, = is %3D, & is %26.
        for pair in [
            "mode=payment".to_owned(),
            format!("&client_reference_id={account}&"),
            format!("&metadata%5Baccount%5D={account}&metadata%5Bcents%5D=2000&"),
            "&line_items%5B0%5D%5Bprice_data%5D%5Bunit_amount%5D=2000&".to_owned(),
            "&line_items%5B0%5D%5Bprice_data%5D%5Bcurrency%5D=usd&".to_owned(),
            "&success_url=https%3A%2F%2Fexample.org%2Fok%3Fa%3Db%26c&".to_owned(),
            "&customer_creation=always".to_owned(),
        ] {
            assert!(request.form.contains(&pair), "{pair} in {}", request.form);
        }
        let customer = "cus_1".parse().unwrap();
        let known = Request::top_up(&wish(Some(&customer))).form;
        assert!(known.ends_with("&customer=cus_1"));
        assert!(!known.contains("customer_creation"));
    }

    #[test]
    fn a_meter_event_is_named_and_dated_and_its_summary_is_of_whole_minutes() {
        let customer = "cus_1".parse().unwrap();
        let event = Request::meter_event(
            "synesis_cents",
            &customer,
            10_815,
            1_795_000_020,
            "a:2026-11",
        );
        assert_eq!(
            event.form,
            "event_name=synesis_cents&payload%5Bstripe_customer_id%5D=cus_1&payload%5Bvalue%5D=10815\
             &timestamp=1795000020&identifier=a%3A2026-11"
        );
        let meter = "mtr_1".parse().unwrap();
        let sum = Request::meter_summaries(&meter, &customer, 60, 120);
        assert_eq!(sum.path, "/v1/billing/meters/mtr_1/event_summaries");
        assert_eq!(
            sum.form,
            "customer=cus_1&start_time=60&end_time=120&limit=100"
        );
        assert!(!sum.post);
    }

    #[test]
    fn each_answer_means_one_thing() {
        let body = |error: &str| format!(r#"{{"error":{error}}}"#);
        let refused = |code: &str| {
            Err(Failure::Refused {
                code: code.to_owned(),
            })
        };
        for (status, error, expected) in [
            (200, "{}", Ok(())),
            (401, "{}", Err(Failure::Key)),
            (403, "{}", Err(Failure::Key)),
            (
                404,
                r#"{"code":"resource_missing"}"#,
                Err(Failure::NotFound),
            ),
            (409, r#"{"code":"lock_timeout"}"#, Err(Failure::Unknown)),
            (429, "{}", Err(Failure::TooOften)),
            (500, "{}", Err(Failure::Unknown)),
            (503, "{}", Err(Failure::Unknown)),
            (302, "{}", Err(Failure::Unknown)),
            (
                400,
                r#"{"type":"invalid_request_error","code":"parameter_invalid"}"#,
                refused("parameter_invalid"),
            ),
            (402, r#"{"type":"card_error"}"#, refused("card_error")),
            (400, "7", refused("")),
            (
                400,
                r#"{"code":"a b\u001b[2Jsk_live_1"}"#,
                refused("ab2Jsk_live_1"),
            ),
            (
                400,
                r#"{"message":"An event already exists with identifier x.","type":"invalid_request_error"}"#,
                Err(Failure::Repeated),
            ),
            (
                400,
                r#"{"code":"duplicate_meter_event"}"#,
                Err(Failure::Repeated),
            ),
        ] {
            assert_eq!(
                judge(status, body(error).as_bytes()),
                expected,
                "{status} {error}"
            );
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again_and_three_times_in_all() {
        let waits = |failure: &Failure| -> Vec<Option<Duration>> {
            (1..=3).map(|tries| failure.again_after(tries)).collect()
        };
        let expected = [
            Some(Duration::from_millis(250)),
            Some(Duration::from_millis(500)),
            None,
        ];
        assert_eq!(waits(&Failure::Unknown), expected);
        assert_eq!(waits(&Failure::TooOften), expected);
        for failure in [
            Failure::Key,
            Failure::NotFound,
            Failure::Repeated,
            Failure::NotUnderstood,
        ] {
            assert_eq!(waits(&failure), [None; 3], "{failure:?}");
        }
    }
}
