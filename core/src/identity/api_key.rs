//! API keys: `si_live_` or `si_test_` and 43 base62 digits that hold 32 random bytes. Shown once,
//! stored as SHA-256.

use std::fmt;
use std::str::FromStr;

use rand::Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// 62⁴³ > 2²⁵⁶ > 62⁴²: what 32 bytes need.
const DIGITS: usize = 43;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const LIVE: &str = "si_live_";
const TEST: &str = "si_test_";

/// A key, in the clear. Its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

/// What is stored of a key. 256 random bits need no slow hash.
pub type KeyHash = [u8; 32];

/// Not a key. Says nothing of what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an API key; one begins with si_live_ or si_test_ and has 51 characters")]
pub struct NotAKey;

impl ApiKey {
    /// A fresh key from a secret stream.
    #[must_use]
    pub fn random(rng: &mut impl Rng) -> Self {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        Self(format!("{LIVE}{}", base62(bytes)))
    }

    /// The key, to be shown once or sent.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        Sha256::digest(self.0.as_bytes()).into()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

impl FromStr for ApiKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let digits = text
            .strip_prefix(LIVE)
            .or_else(|| text.strip_prefix(TEST))
            .ok_or(NotAKey)?;
        if digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotAKey)
        }
    }
}

/// Long division of the 256-bit number by 62, most significant digit first.
fn base62(mut number: [u8; 32]) -> String {
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0u32;
        for byte in &mut number {
            let part = rest * 256 + u32::from(*byte);
            // `rest` is below 62, so the quotient fits a byte.
            *byte = u8::try_from(part / 62).unwrap_or_default();
            rest = part % 62;
        }
        *digit = ALPHABET[rest as usize];
    }
    digits.iter().map(|&digit| char::from(digit)).collect()
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Look.
    Read,
    /// Enrol devices and change what the account owns.
    Write,
    /// Ask questions.
    Escalate,
    /// Everything on the gateway.
    Admin,
}

/// The scopes of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// What a key gets when nothing is said: read, write, escalate.
    pub const DEFAULT: Self = Self(0b0111);

    /// Exactly these.
    #[must_use]
    pub fn of(scopes: impl IntoIterator<Item = Scope>) -> Self {
        Self(
            scopes
                .into_iter()
                .fold(0, |bits, scope| bits | 1 << scope as u8),
        )
    }

    /// Whether the key may; `admin` may everything.
    #[must_use]
    pub const fn allow(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8 | 1 << Scope::Admin as u8) != 0
    }

    /// As a store keeps them.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// As a store kept them; unknown bits are dropped.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 0b1111)
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Scope::Read, "read"),
            (Scope::Write, "write"),
            (Scope::Escalate, "escalate"),
            (Scope::Admin, "admin"),
        ];
        let held: Vec<&str> = names
            .iter()
            .filter(|(scope, _)| self.0 & (1 << *scope as u8) != 0)
            .map(|(_, name)| *name)
            .collect();
        f.write_str(&held.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Seed;

    #[test]
    fn base62_of_known_numbers() {
        let mut one = [0; 32];
        one[31] = 1;
        assert_eq!(base62(one), format!("{}1", "0".repeat(42)));
        let mut big = [0; 32];
        big[30..].copy_from_slice(&3844u16.to_be_bytes());
        assert_eq!(base62(big), format!("{}100", "0".repeat(40)), "62² = 3844");
        // python3: n = 2**256 - 1, digits by repeated divmod(n, 62) over 0-9A-Za-z.
        assert_eq!(
            base62([0xFF; 32]),
            "yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp1"
        );
    }

    #[test]
    fn a_fresh_key_reads_back_and_is_never_printed() {
        let key = ApiKey::random(&mut Seed::new([3; 32]).secret("key"));
        assert_eq!(key.reveal().len(), 51);
        assert_eq!(key.reveal().parse(), Ok(key.clone()));
        assert_eq!(format!("{key:?}"), "ApiKey(..)");
        assert_ne!(key.hash(), [0; 32]);
    }

    #[test]
    fn what_is_no_key_is_refused_without_repeating_it() {
        let good = ApiKey::random(&mut Seed::new([3; 32]).secret("key"));
        let short = &good.reveal()[..50];
        let long = format!("{}a", good.reveal());
        let odd = format!("{short}-");
        for text in ["", "si_live_", short, &long, &odd, "sk-1234", " si_live_"] {
            assert_eq!(text.parse::<ApiKey>(), Err(NotAKey));
        }
        assert!(!NotAKey.to_string().contains(short));
    }

    #[test]
    fn admin_may_everything_and_the_others_only_their_own() {
        let writer = Scopes::of([Scope::Write]);
        assert!(writer.allow(Scope::Write) && !writer.allow(Scope::Read));
        assert!(Scopes::of([Scope::Admin]).allow(Scope::Escalate));
        assert!(!Scopes::DEFAULT.allow(Scope::Admin));
        assert_eq!(Scopes::from_bits(Scopes::DEFAULT.bits()), Scopes::DEFAULT);
        assert_eq!(Scopes::DEFAULT.to_string(), "read,write,escalate");
    }
}
