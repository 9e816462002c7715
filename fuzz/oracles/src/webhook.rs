//! A webhook: its signature header (the first line), and its body, which is an event, or an object as
//! Stripe would answer with.
//!
//! In the header `@` stands for the signature that is right, so that an input can be believed.

use mesh_core::billing::stripe::event::{self, Event};
use mesh_core::billing::stripe::object::{Dispute, List, MeterSummary, Refund, Session, read};
use mesh_core::billing::stripe::signature::{WebhookSecret, verify};
use mesh_core::billing::stripe::{credit, request};
use mesh_core::time::UnixMillis;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::memory;

const SECRET: &str = "whsec_fuzz";
/// 2026-11-18T04:26:40Z, seconds.
const NOW: u64 = 1_795_000_000;
const MEMORY_FIXED: usize = 32 * 1024;
/// What is read is copied a few times; a list of empty objects is the worst.
const MEMORY_PER_BYTE: usize = 160;

/// HMAC-SHA256 (RFC 2104), step by step: the key fits a block.
fn hmac(key: &[u8], message: &[u8]) -> String {
    let pad = |with: u8| {
        let mut block = [with; 64];
        for (byte, key) in block.iter_mut().zip(key) {
            *byte ^= key;
        }
        block
    };
    let inner = Sha256::new()
        .chain_update(pad(0x36))
        .chain_update(message)
        .finalize();
    let outer = Sha256::new()
        .chain_update(pad(0x5c))
        .chain_update(inner)
        .finalize();
    outer.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The moment that a header names, if it names one.
fn moment(header: &str) -> Option<&str> {
    let mut moments = header
        .split(',')
        .filter_map(|item| item.split_once('='))
        .filter(|(name, _)| name.trim() == "t");
    let (_, moment) = moments.next()?;
    moments.next().is_none().then_some(moment.trim())
}

fn right(header: &str, body: &[u8]) -> String {
    let moment = moment(header).unwrap_or_default();
    hmac(SECRET.as_bytes(), &[moment.as_bytes(), b".", body].concat())
}

/// Whether the header is to be believed, as the specification says it.
fn believable(header: &str, body: &[u8]) -> bool {
    let items: Option<Vec<(&str, &str)>> =
        header.split(',').map(|item| item.split_once('=')).collect();
    let (Some(items), Some(moment)) = (items, moment(header)) else {
        return false;
    };
    let digits =
        !moment.is_empty() && moment.len() <= 12 && moment.bytes().all(|b| b.is_ascii_digit());
    let Some(at) = moment.parse::<i64>().ok().filter(|_| digits) else {
        return false;
    };
    let signatures: Vec<String> = items
        .iter()
        .filter(|(name, _)| name.trim() == "v1")
        .map(|(_, value)| value.trim().to_ascii_lowercase())
        .collect();
    header.len() <= 4096
        && signatures.len() <= 16
        && signatures.contains(&right(header, body))
        && (at - i64::try_from(NOW).unwrap_or_default()).abs() <= 300
}

fn is_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 100
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn event(body: &[u8]) {
    let (parsed, used) = memory::used(|| event::parse(body));
    let allowed = MEMORY_FIXED + MEMORY_PER_BYTE * body.len();
    assert!(used.peak <= allowed, "{used:?} for {} bytes", body.len());
    let Ok(tree) = serde_json::from_slice::<Value>(body) else {
        // What is passed over is not read as closely: a number too large to be one, say.
        return;
    };
    // A tree has no name twice; written anew, the model is exact.
    let anew = event::parse(tree.to_string().as_bytes());
    if parsed.is_ok() {
        assert_eq!(parsed, anew);
    }
    let Some(kind) = tree["type"].as_str() else {
        assert!(anew.is_err());
        return;
    };
    let session = [
        "checkout.session.completed",
        "checkout.session.async_payment_succeeded",
        "checkout.session.async_payment_failed",
        "checkout.session.expired",
    ];
    let refund = [
        "refund.created",
        "refund.updated",
        "refund.failed",
        "charge.refund.updated",
    ];
    let known = session.contains(&kind)
        || refund.contains(&kind)
        || kind == "charge.refunded"
        || [
            "created",
            "updated",
            "closed",
            "funds_withdrawn",
            "funds_reinstated",
        ]
        .iter()
        .any(|dispute| kind == format!("charge.dispute.{dispute}"));
    if !known {
        assert_eq!(anew, Ok(Event::Other), "{kind}");
        return;
    }
    let id = tree["data"]["object"]["id"].as_str().filter(|id| is_id(id));
    let named = match &anew {
        Ok(Event::Session(id)) => session.contains(&kind).then(|| id.as_str()),
        Ok(Event::Refund(id)) => refund.contains(&kind).then(|| id.as_str()),
        Ok(Event::Refunds(id)) => (kind == "charge.refunded").then(|| id.as_str()),
        Ok(Event::Dispute(id)) => kind.starts_with("charge.dispute.").then(|| id.as_str()),
        Ok(Event::Other) | Err(_) => None,
    };
    assert_eq!(named, id, "{kind}");
}

fn objects(body: &[u8]) {
    let (_, used) = memory::used(|| {
        let _refund = read::<Refund>(body).map(|refund| credit::of_refund(&refund));
        let _dispute = read::<Dispute>(body).map(|dispute| credit::of_dispute(&dispute));
        let _list = read::<List<MeterSummary>>(body).map(|list| MeterSummary::cents(&list.data));
        let _word = request::judge(400, body);
    });
    let allowed = MEMORY_FIXED + MEMORY_PER_BYTE * body.len();
    assert!(used.peak <= allowed, "{used:?} for {} bytes", body.len());
    let (Ok(session), Ok(tree)) = (read::<Session>(body), serde_json::from_slice::<Value>(body))
    else {
        return;
    };
    let Ok(payment) = credit::payment(&session) else {
        return;
    };
    // Whatever is credited says the same thing in every place.
    assert_eq!(tree["mode"], "payment");
    assert_eq!(tree["payment_status"], "paid");
    assert_eq!(tree["currency"], "usd");
    assert_eq!(tree["client_reference_id"], tree["metadata"]["account"]);
    assert_eq!(tree["client_reference_id"], payment.account.to_string());
    let cents = tree["amount_total"].as_i64().unwrap_or_default();
    assert!(cents > 0);
    let written = tree["metadata"]["cents"].as_str().map(str::parse::<i64>);
    assert_eq!(written, Some(Ok(cents)));
    assert_eq!(i128::from(payment.amount.0), i128::from(cents) * 10_000_000);
}

/// See the module documentation.
pub fn run(data: &[u8]) {
    let line = data
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(data.len());
    let (header, rest) = data.split_at(line);
    let body = rest.get(1..).unwrap_or_default();
    if let (Ok(header), Some(secret)) = (std::str::from_utf8(header), WebhookSecret::new(SECRET)) {
        let header = header.replace('@', &right(header, body));
        let verdict = verify(&secret, &header, body, UnixMillis(NOW * 1000));
        assert_eq!(
            verdict.is_ok(),
            believable(&header, body),
            "{header}: {verdict:?}"
        );
    }
    event(body);
    objects(body);
}
