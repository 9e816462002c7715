//! Identifiers: one newtype each, with the prefix that people see.

use std::fmt;
use std::str::FromStr;

use rand::Rng;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Why a text is not the identifier it was given for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an id of the form {expected}")]
pub struct IdError {
    expected: &'static str,
}

macro_rules! prefixed_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $form:literal, $hyphens:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh id: 122 bits from the given stream, marked as a version 4 UUID (RFC 9562).
            #[must_use]
            pub fn random(rng: &mut impl Rng) -> Self {
                let mut bytes = [0; 16];
                rng.fill_bytes(&mut bytes);
                Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
            }

            /// The id that is exactly these 128 bits.
            #[must_use]
            pub const fn from_u128(bits: u128) -> Self {
                Self(Uuid::from_u128(bits))
            }

            /// The id's 128 bits.
            #[must_use]
            pub const fn as_u128(self) -> u128 {
                self.0.as_u128()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if $hyphens {
                    write!(f, concat!($prefix, "{}"), self.0.hyphenated())
                } else {
                    write!(f, concat!($prefix, "{}"), self.0.simple())
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let refused = IdError { expected: $form };
                let digits = text.strip_prefix($prefix).ok_or_else(|| refused.clone())?;
                let uuid = Uuid::try_parse(digits).map_err(|_| refused.clone())?;
                // One id has one spelling: anything else would be a second idempotency key.
                let id = Self(uuid);
                if id.to_string() == text { Ok(id) } else { Err(refused) }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

prefixed_id!(
    /// A machine with a certificate. It is the certificate's common name: `device-{uuid}`.
    DeviceId, "device-", "device-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx (a lower-case UUID)", true
);
prefixed_id!(
    /// One question and its answer; with the account it is the idempotency key.
    RequestId, "req_", "req_ and 32 lower-case hex digits", false
);

impl RequestId {
    /// The id under which this question is asked anew: the first 128 bits of a SHA-256 over it,
    /// marked as a version 8 UUID (RFC 9562). It follows from the old one, so that a process that
    /// dies before it has written the new one down asks for the same answer again, not for another.
    #[must_use]
    pub fn anew(self) -> Self {
        let digest = Sha256::new()
            .chain_update(b"synesis question asked anew\0")
            .chain_update(self.0.as_bytes())
            .finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }
}
prefixed_id!(
    /// Whoever owns keys, devices, money and one ledger chain.
    AccountId, "acct_", "acct_ and 32 lower-case hex digits", false
);
prefixed_id!(
    /// A stored API key (never the key itself).
    KeyId, "key_", "key_ and 32 lower-case hex digits", false
);
prefixed_id!(
    /// Somebody who asks on an account's money, within a cap.
    GuestId, "guest_", "guest_ and 32 lower-case hex digits", false
);

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked out with Python's hashlib and uuid.
    #[test]
    fn the_id_of_a_question_asked_anew_follows_from_the_old_one() {
        let id = RequestId::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(
            id.anew().to_string(),
            "req_ffc9262b25d38c89a44b973037d6d515"
        );
        assert_eq!(
            id.anew().anew().to_string(),
            "req_36764fe8d3b089c19f713a18cdd69297"
        );
    }

    #[test]
    fn an_id_has_exactly_one_spelling() {
        let id = RequestId::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(id.to_string(), "req_0123456789abcdef0123456789abcdef");
        assert_eq!(id.to_string().parse(), Ok(id));
        for other in [
            "req_0123456789ABCDEF0123456789abcdef",
            "req_01234567-89ab-cdef-0123-456789abcdef",
            "0123456789abcdef0123456789abcdef",
            "req_0123",
            "",
        ] {
            assert!(other.parse::<RequestId>().is_err(), "{other}");
        }
        let device = DeviceId::from_u128(1);
        assert_eq!(
            device.to_string(),
            "device-00000000-0000-0000-0000-000000000001"
        );
        assert_eq!(device.to_string().parse(), Ok(device));
    }

    #[test]
    fn ids_travel_as_plain_strings() {
        let id = AccountId::from_u128(5);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, "\"acct_00000000000000000000000000000005\"");
        assert_eq!(serde_json::from_str::<AccountId>(&json).unwrap(), id);
        assert!(serde_json::from_str::<AccountId>("\"acct_\"").is_err());
        assert!(serde_json::from_str::<AccountId>("5").is_err());
    }
}
