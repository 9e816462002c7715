//! What a webhook is about. Of its body nothing counts but the kind and one id: how the thing stands is
//! asked of Stripe, so that neither an old event nor a forged one moves money.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::id::{ChargeId, DisputeId, RefundId, SessionId};

/// What has changed at Stripe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A Checkout Session: paid, failed or expired.
    Session(SessionId),
    /// A refund.
    Refund(RefundId),
    /// The refunds of a charge.
    Refunds(ChargeId),
    /// A dispute.
    Dispute(DisputeId),
    /// Nothing that we act on: to be acknowledged.
    Other,
}

/// Not an event, or one about something without a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is not an event of Stripe's")]
pub struct NotAnEvent;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
}

/// Reads a JSON object. An array would be read too, its values by their order.
fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, NotAnEvent> {
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(NotAnEvent);
    }
    serde_json::from_slice(json).map_err(|_| NotAnEvent)
}

/// Reads the raw body of a webhook, whose signature has been verified.
///
/// # Errors
///
/// [`NotAnEvent`].
pub fn parse(body: &[u8]) -> Result<Event, NotAnEvent> {
    let envelope: Envelope<'_> = read(body)?;
    let id = || {
        let data = envelope.data.ok_or(NotAnEvent)?;
        let data: Data<'_> = read(data.get().as_bytes())?;
        let named: Named<'_> = read(data.object.get().as_bytes())?;
        Ok(named.id.into_owned())
    };
    let named = |_| NotAnEvent;
    Ok(match &*envelope.kind {
        "checkout.session.completed"
        | "checkout.session.async_payment_succeeded"
        | "checkout.session.async_payment_failed"
        | "checkout.session.expired" => Event::Session(id()?.try_into().map_err(named)?),
        "refund.created" | "refund.updated" | "refund.failed" | "charge.refund.updated" => {
            Event::Refund(id()?.try_into().map_err(named)?)
        }
        "charge.refunded" => Event::Refunds(id()?.try_into().map_err(named)?),
        "charge.dispute.created"
        | "charge.dispute.updated"
        | "charge.dispute.closed"
        | "charge.dispute.funds_withdrawn"
        | "charge.dispute.funds_reinstated" => Event::Dispute(id()?.try_into().map_err(named)?),
        _ => Event::Other,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn of(kind: &str, id: &str) -> Result<Event, NotAnEvent> {
        let body = json!({
            "id": "evt_1", "object": "event", "type": kind, "livemode": true,
            "data": {"object": {"id": id, "amount_total": 1_000_000, "payment_status": "paid"}},
        });
        parse(body.to_string().as_bytes())
    }

    #[test]
    fn an_array_is_no_event_whatever_its_order() {
        for body in [
            r#"["unknown.kind"]"#,
            r#"["refund.created", {"object": {"id": "re_1"}}]"#,
            r#"{"type": "refund.created", "data": [{"id": "re_1"}]}"#,
            r#"{"type": "refund.created", "data": {"object": ["re_1"]}}"#,
        ] {
            assert_eq!(parse(body.as_bytes()), Err(NotAnEvent), "{body}");
        }
        let spaced = b" {\"type\": \"unknown.kind\"}";
        assert_eq!(parse(spaced), Ok(Event::Other));
    }

    #[test]
    fn each_kind_that_we_act_on_names_what_to_fetch() {
        for kind in [
            "checkout.session.completed",
            "checkout.session.async_payment_succeeded",
            "checkout.session.async_payment_failed",
            "checkout.session.expired",
        ] {
            assert_eq!(
                of(kind, "cs_1"),
                Ok(Event::Session("cs_1".parse().unwrap()))
            );
        }
        for kind in [
            "refund.created",
            "refund.updated",
            "refund.failed",
            "charge.refund.updated",
        ] {
            assert_eq!(of(kind, "re_1"), Ok(Event::Refund("re_1".parse().unwrap())));
        }
        assert_eq!(
            of("charge.refunded", "ch_1"),
            Ok(Event::Refunds("ch_1".parse().unwrap()))
        );
        for kind in [
            "created",
            "updated",
            "closed",
            "funds_withdrawn",
            "funds_reinstated",
        ] {
            let kind = format!("charge.dispute.{kind}");
            assert_eq!(
                of(&kind, "dp_1"),
                Ok(Event::Dispute("dp_1".parse().unwrap()))
            );
        }
    }

    #[test]
    fn what_we_do_not_act_on_is_acknowledged_whatever_is_in_it() {
        for body in [
            r#"{"type":"invoice.paid"}"#,
            r#"{"type":"customer.created","data":7}"#,
            r#"{"type":"v1.billing.meter.error_report_triggered","data":{"object":{"id":"../"}}}"#,
            r#"{"type":"","data":null,"more":[1,2]}"#,
        ] {
            assert_eq!(parse(body.as_bytes()), Ok(Event::Other), "{body}");
        }
    }

    #[test]
    fn what_is_no_event_is_none() {
        for body in [
            &b""[..],
            b"null",
            b"[]",
            b"{}",
            b"\xff",
            br#"{"type":7}"#,
            br#"{"type":"charge.refunded"}"#,
            br#"{"type":"charge.refunded","data":{}}"#,
            br#"{"type":"charge.refunded","data":{"object":{"id":7}}}"#,
            br#"{"type":"charge.refunded","data":{"object":{"id":"ch_1/../x"}}}"#,
            br#"{"type":"charge.refunded","type":"invoice.paid","data":{"object":{"id":"ch_1"}}}"#,
            br#"{"type":"invoice.paid"} x"#,
        ] {
            assert_eq!(
                parse(body),
                Err(NotAnEvent),
                "{}",
                String::from_utf8_lossy(body)
            );
        }
        let deep = "[".repeat(100_000);
        assert_eq!(parse(deep.as_bytes()), Err(NotAnEvent));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_event_or_not_and_never_a_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _verdict = parse(&body);
        }
    }
}
