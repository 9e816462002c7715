//! What people copy and paste: ids, API keys, join lines, fingerprints, amounts of money, and the
//! waits that servers ask for. Each has one spelling, which is read back as itself, and none that
//! is secret is ever shown.

use std::time::Duration;

use mesh_core::billing::money::Nanos;
use mesh_core::dialect::exchange::Head;
use mesh_core::dialect::failure::parse_retry_after;
use mesh_core::identity::Fingerprint;
use mesh_core::identity::api_key::ApiKey;
use mesh_core::identity::join::JoinLine;
use mesh_core::ids::{AccountId, DeviceId, KeyId, RequestId};
use mesh_core::time::UnixMillis;

/// No server makes anybody wait longer.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(86_400);

/// See the module documentation.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    ids(text);
    api_key(text);
    join_line(text);
    fingerprint(text);
    dollars(text);
    waits(text);
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn ids(text: &str) {
    let simple = |prefix| text.strip_prefix(prefix).is_some_and(|hex| is_hex(hex, 32));
    let hyphens = text.strip_prefix("device-").is_some_and(|uuid| {
        let parts: Vec<_> = uuid.split('-').collect();
        let lengths = [8, 4, 4, 4, 12];
        parts.len() == 5 && parts.iter().zip(lengths).all(|(part, n)| is_hex(part, n))
    });
    let read = [
        (
            text.parse::<RequestId>().ok().map(|id| id.to_string()),
            simple("req_"),
        ),
        (
            text.parse::<AccountId>().ok().map(|id| id.to_string()),
            simple("acct_"),
        ),
        (
            text.parse::<KeyId>().ok().map(|id| id.to_string()),
            simple("key_"),
        ),
        (
            text.parse::<DeviceId>().ok().map(|id| id.to_string()),
            hyphens,
        ),
    ];
    for (id, expected) in read {
        assert_eq!(id.is_some(), expected, "{text:?}");
        assert!(id.is_none_or(|id| id == text), "a second spelling");
    }
}

fn is_key(text: &str) -> bool {
    let digits = ["si_live_", "si_test_"]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix));
    digits.is_some_and(|d| d.len() == 43 && d.bytes().all(|b| b.is_ascii_alphanumeric()))
}

fn api_key(text: &str) {
    match text.parse::<ApiKey>() {
        Ok(key) => {
            assert!(is_key(text) && key.reveal() == text);
            assert!(!format!("{key:?}").contains(&text[8..]));
        }
        Err(error) => {
            assert!(!is_key(text));
            let of_nothing = "".parse::<ApiKey>();
            assert_eq!(of_nothing, Err(error), "an error that tells of the text");
        }
    }
}

fn join_line(text: &str) {
    let read = text.parse::<JoinLine>();
    let parts: Vec<_> = text.trim().split('#').collect();
    let expected = parts[0].strip_prefix("synesis-join:").is_some_and(|url| {
        let host = ["https://", "http://"]
            .iter()
            .find_map(|scheme| url.strip_prefix(scheme));
        host.is_some_and(|host| !host.is_empty() && !host.contains(char::is_whitespace))
    }) && match parts[1..] {
        [key] => is_key(key),
        [key, pin] => {
            let hex = pin.strip_prefix("sha256:").map(str::to_ascii_lowercase);
            is_key(key) && hex.is_some_and(|hex| is_hex(&hex, 64))
        }
        _ => false,
    };
    assert_eq!(read.is_ok(), expected, "{text:?}");
    if let Ok(line) = read {
        assert_eq!(line.reveal().parse(), Ok(line.clone()));
        assert!(line.reveal().eq_ignore_ascii_case(text.trim()));
        let shown = format!("{line} {line:?} {line:#?}");
        let key = line.key.reveal();
        assert!(
            !shown.contains(key) || line.url.contains(key),
            "a key is shown"
        );
    }
}

fn fingerprint(text: &str) {
    let read = Fingerprint::parse(text);
    assert_eq!(read.is_some(), is_hex(&text.to_ascii_lowercase(), 64));
    if let Some(fingerprint) = read {
        assert_eq!(fingerprint.to_string(), text.to_ascii_lowercase());
    }
}

/// Digit by digit.
pub(crate) fn naive_nanos(text: &str) -> Option<i64> {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let text = text.strip_prefix('$').unwrap_or(text);
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    if whole.is_empty() || decimals.is_empty() || decimals.len() > 9 {
        return None;
    }
    let mut sum = 0i128;
    let zeros = "0".repeat(9 - decimals.len());
    for digit in whole.chars().chain(decimals.chars()).chain(zeros.chars()) {
        sum = sum * 10 + i128::from(digit.to_digit(10)?);
        if sum > i128::from(i64::MAX) {
            return None;
        }
    }
    i64::try_from(sign * sum).ok()
}

fn dollars(text: &str) {
    let read = Nanos::parse_dollars(text).ok();
    assert_eq!(read.map(|nanos| nanos.0), naive_nanos(text), "{text:?}");
    if let Some(nanos) = read {
        let shown = nanos.to_string();
        assert_eq!(Nanos::parse_dollars(&shown), Ok(nanos));
        let cents = nanos.to_cents_half_even();
        let off = i128::from(cents) * 10_000_000 - i128::from(nanos.0);
        assert!(off.abs() < 5_000_000 || off.abs() == 5_000_000 && cents % 2 == 0);
    }
}

fn waits(text: &str) {
    let wall = UnixMillis(1_793_491_200_000);
    if let Some(wait) = parse_retry_after(text, wall) {
        assert!(wait <= RETRY_AFTER_MAX);
    }
    let trimmed = text.trim();
    if !trimmed.is_empty() && trimmed.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds = trimmed.parse().unwrap_or(u64::MAX).min(86_400);
        assert_eq!(
            parse_retry_after(text, wall),
            Some(Duration::from_secs(seconds))
        );
    }
    let head = Head::from_fields(429, |_| Some(text), wall);
    assert!(head.retry_after.is_none_or(|wait| wait <= RETRY_AFTER_MAX));
}
