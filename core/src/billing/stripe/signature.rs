//! `Stripe-Signature`: who sent a webhook, and when.
//!
//! ```text
//!   t=1795000000,v1=5257a8…,v1=6ffbb5…,v0=…
//!   v1 = HMAC-SHA256(secret, t ‖ "." ‖ body), lower-case hex; several while a secret is being changed
//! ```
//!
//! Source: Stripe's documentation, "Verify webhook signatures manually".

use std::fmt;

use ring::hmac;

use crate::limits::{
    STRIPE_SECRET_BYTES_MAX, WEBHOOK_SIGNATURE_BYTES_MAX, WEBHOOK_SIGNATURES_MAX, WEBHOOK_TOLERANCE,
};
use crate::time::UnixMillis;

/// What a signing secret begins with.
const PREFIX: &str = "whsec_";
/// Digits of a moment in seconds; more is thousands of years away.
const SECONDS_DIGITS_MAX: usize = 12;

/// The secret that Stripe signs with, `whsec_…`. `Debug` prints nothing of it.
#[derive(Clone)]
pub struct WebhookSecret(hmac::Key);

impl WebhookSecret {
    /// Takes a secret as the operator gave it; surrounding white space is no part of it. `None` for
    /// what is none of Stripe's.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let rest = text.strip_prefix(PREFIX)?;
        let printable = |byte: u8| byte.is_ascii_graphic();
        let fits = !rest.is_empty() && text.len() <= STRIPE_SECRET_BYTES_MAX;
        (fits && rest.bytes().all(printable))
            .then(|| Self(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes())))
    }
}

impl PartialEq for WebhookSecret {
    /// Whether both sign alike.
    fn eq(&self, other: &Self) -> bool {
        let sign = |secret: &Self| hmac::sign(&secret.0, PREFIX.as_bytes());
        sign(self).as_ref() == sign(other).as_ref()
    }
}

impl Eq for WebhookSecret {}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(..)")
    }
}

/// Why a webhook is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// The header is longer than any of Stripe's.
    #[error("the signature's header is too long")]
    TooLong,
    /// The header is not in Stripe's format.
    #[error("the signature's header is not in Stripe's format")]
    Malformed,
    /// Signed too long ago, or in the future.
    #[error("signed {secs} s from now, and {} s are allowed; is the clock right?", WEBHOOK_TOLERANCE.as_secs())]
    OutOfTime {
        /// How far.
        secs: u64,
    },
    /// Signed with another secret, or changed on the way.
    #[error("no signature is right; is this the endpoint's own signing secret?")]
    Mismatch,
}

/// Checks the header of a webhook against its raw body.
///
/// # Errors
///
/// [`BadSignature`].
pub fn verify(
    secret: &WebhookSecret,
    header: &str,
    body: &[u8],
    now: UnixMillis,
) -> Result<(), BadSignature> {
    let header = Header::parse(header)?;
    let message = message(header.seconds, body);
    // Before the time, so that whoever cannot sign learns nothing of our clock. In constant time.
    let right = |signature: &[u8; 32]| hmac::verify(&secret.0, &message, signature).is_ok();
    if !header.signatures.iter().any(right) {
        return Err(BadSignature::Mismatch);
    }
    let secs = header.at.abs_diff(now.as_secs());
    if secs > WEBHOOK_TOLERANCE.as_secs() {
        return Err(BadSignature::OutOfTime { secs });
    }
    Ok(())
}

/// The header as Stripe would make it.
#[must_use]
pub fn sign(secret: &WebhookSecret, at: UnixMillis, body: &[u8]) -> String {
    let seconds = at.as_secs().to_string();
    let tag = hmac::sign(&secret.0, &message(&seconds, body));
    let hex: String = tag
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("t={seconds},v1={hex}")
}

fn message(seconds: &str, body: &[u8]) -> Vec<u8> {
    [seconds.as_bytes(), b".", body].concat()
}

/// The header, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Header<'a> {
    /// The moment, as it was signed.
    seconds: &'a str,
    at: u64,
    /// Of scheme v1. Other schemes are weaker, or not known yet.
    signatures: Vec<[u8; 32]>,
}

impl<'a> Header<'a> {
    fn parse(text: &'a str) -> Result<Self, BadSignature> {
        if text.len() > WEBHOOK_SIGNATURE_BYTES_MAX {
            return Err(BadSignature::TooLong);
        }
        let mut seconds = None;
        let mut signatures = Vec::new();
        let mut told = 0;
        for item in text.split(',') {
            let (scheme, value) = item.split_once('=').ok_or(BadSignature::Malformed)?;
            match scheme.trim() {
                "t" if seconds.is_some() => return Err(BadSignature::Malformed),
                "t" => seconds = Some(value.trim()),
                "v1" if told >= WEBHOOK_SIGNATURES_MAX => return Err(BadSignature::TooLong),
                "v1" => {
                    told += 1;
                    signatures.extend(hex(value.trim()));
                }
                _ => {}
            }
        }
        let seconds = seconds.ok_or(BadSignature::Malformed)?;
        let digits = seconds.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || seconds.len() > SECONDS_DIGITS_MAX {
            return Err(BadSignature::Malformed);
        }
        let at = seconds.parse().map_err(|_| BadSignature::Malformed)?;
        Ok(Self {
            seconds,
            at,
            signatures,
        })
    }
}

/// 32 bytes in hex; a signature that is none is no reason to refuse the others.
fn hex(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text
        .bytes()
        .map(|digit| {
            char::from(digit)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        })
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits
        .chunks_exact(2)
        .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
        .collect();
    (digits.len() == 64).then_some(bytes)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "whsec_4mV2Zr0Xc9";
    const AT: u64 = 1_795_000_000;

    fn secret() -> WebhookSecret {
        WebhookSecret::new(SECRET).unwrap()
    }

    fn now() -> UnixMillis {
        UnixMillis(AT * 1000)
    }

    /// Made by `stripe` 16.1.0 from PyPI (`WebhookSignature.generate_signature_header`).
    const KNOWN: [(u64, &str, &str); 4] = [
        (
            AT,
            r#"{"id":"evt_1"}"#,
            "a63157a50142219f86cd633c1054edca2aafa2a0560d2be8fe36097c315640b5",
        ),
        (
            AT,
            "",
            "e1d6823c8bf9bbd7c843d939bdaac146b35d72b5a5212c06b1a3ba2169442339",
        ),
        (
            AT,
            r#"{"name":"Grüße, 世界"}"#,
            "624a17b0d49809c90c449db30bbd2e91bd3deb3c51f55c08523b8a441e0b7f20",
        ),
        (
            1,
            "x",
            "4a3991609c9ff6d48289f6816bab5e12bc18c5a833375f71c0231bfb98d360b2",
        ),
    ];

    #[test]
    fn signatures_are_those_of_stripes_own_package() {
        for (at, body, hex) in KNOWN {
            let header = format!("t={at},v1={hex}");
            let moment = UnixMillis(at * 1000);
            assert_eq!(sign(&secret(), moment, body.as_bytes()), header);
            assert_eq!(verify(&secret(), &header, body.as_bytes(), moment), Ok(()));
        }
    }

    #[test]
    fn one_right_signature_among_others_is_enough_and_other_schemes_count_for_nothing() {
        let (_, body, hex) = KNOWN[0];
        let wrong = "00".repeat(32);
        for header in [
            format!("t={AT},v1={wrong},v1={hex}"),
            format!("v1={hex},t={AT},v0={wrong},v9=anything at all"),
            format!(" t={AT} , v1=short , v1={hex}"),
        ] {
            assert_eq!(
                verify(&secret(), &header, body.as_bytes(), now()),
                Ok(()),
                "{header}"
            );
        }
        for header in [
            format!("t={AT},v0={hex}"),
            format!("t={AT}"),
            format!("t={AT},v1={wrong}"),
        ] {
            let refused = verify(&secret(), &header, body.as_bytes(), now());
            assert_eq!(refused, Err(BadSignature::Mismatch), "{header}");
        }
    }

    #[test]
    fn a_signature_holds_for_five_minutes_both_ways_and_not_a_second_longer() {
        let (_, body, hex) = KNOWN[0];
        let header = format!("t={AT},v1={hex}");
        for (secs, expected) in [
            (AT - 300, Ok(())),
            (AT + 300, Ok(())),
            (AT - 301, Err(BadSignature::OutOfTime { secs: 301 })),
            (AT + 301, Err(BadSignature::OutOfTime { secs: 301 })),
            (0, Err(BadSignature::OutOfTime { secs: AT })),
        ] {
            let now = UnixMillis(secs * 1000);
            assert_eq!(
                verify(&secret(), &header, body.as_bytes(), now),
                expected,
                "{secs}"
            );
        }
    }

    #[test]
    fn a_hostile_header_is_refused_before_anything_is_computed() {
        let hex = KNOWN[0].2;
        let many = format!("t={AT}") + &format!(",v1={hex}").repeat(WEBHOOK_SIGNATURES_MAX + 1);
        let long = format!(
            "t={AT},v1={hex},x={}",
            "y".repeat(WEBHOOK_SIGNATURE_BYTES_MAX)
        );
        let malformed = BadSignature::Malformed;
        for (header, expected) in [
            ("", malformed),
            (",", malformed),
            ("t", malformed),
            ("t=", malformed),
            (&format!("v1={hex}"), malformed),
            (&format!("t=-1,v1={hex}"), malformed),
            (&format!("t=+{AT},v1={hex}"), malformed),
            (&format!("t=1e9,v1={hex}"), malformed),
            (&format!("t={AT},t={AT},v1={hex}"), malformed),
            (&format!("t=9999999999999,v1={hex}"), malformed),
            (&many, BadSignature::TooLong),
            (&long, BadSignature::TooLong),
        ] {
            assert_eq!(
                verify(&secret(), header, b"", now()),
                Err(expected),
                "{header:.60}"
            );
        }
    }

    #[test]
    fn what_is_no_secret_of_stripes_is_none_and_a_secret_is_not_shown() {
        for bad in ["", "whsec_", "sk_live_x", "whsec_a b", "whsec_ü"] {
            assert!(WebhookSecret::new(bad).is_none(), "{bad:?}");
        }
        let shown = format!("{:?}", WebhookSecret::new(" whsec_abc\n").unwrap());
        assert_eq!(shown, "WebhookSecret(..)");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn whatever_is_changed_on_the_way_is_noticed(
            body in proptest::collection::vec(any::<u8>(), 1..200),
            at in 0u64..1 << 36,
            place in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let moment = UnixMillis(at * 1000);
            let header = sign(&secret(), moment, &body);
            prop_assert_eq!(verify(&secret(), &header, &body, moment), Ok(()));
            let mut changed = body.clone();
            changed[place.index(body.len())] ^= 1 << bit;
            prop_assert_eq!(verify(&secret(), &header, &changed, moment), Err(BadSignature::Mismatch));
            let later = header.replacen(&format!("t={at}"), &format!("t={}", at + 1), 1);
            prop_assert_eq!(verify(&secret(), &later, &body, moment), Err(BadSignature::Mismatch));
            let other = WebhookSecret::new("whsec_other").unwrap();
            prop_assert_eq!(verify(&other, &header, &body, moment), Err(BadSignature::Mismatch));
        }
    }
}
