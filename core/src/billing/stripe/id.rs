//! Stripe's names of things: one newtype each. They go into paths and references, so nothing but
//! letters, digits and `_` passes, whatever an event says.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::billing::account::order::Reference;
use crate::limits::STRIPE_ID_BYTES_MAX;

/// Before Stripe's id in the reference of an order.
const REFERENCE_PREFIX: &str = "stripe:";

/// Why a text is no id of Stripe's. Says nothing of what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of Stripe's")]
pub struct NotAnId;

fn fits(text: &str) -> bool {
    (1..=STRIPE_ID_BYTES_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

macro_rules! stripe_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                Self::try_from(text.to_owned())
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotAnId;

            fn try_from(text: String) -> Result<Self, NotAnId> {
                if fits(&text) { Ok(Self(text)) } else { Err(NotAnId) }
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

stripe_id!(
    /// A Checkout Session, `cs_…`: one top-up.
    SessionId
);
stripe_id!(
    /// A payment intent, `pi_…`: what a session became when it was paid.
    IntentId
);
stripe_id!(
    /// A charge, `ch_…`.
    ChargeId
);
stripe_id!(
    /// A refund, `re_…`.
    RefundId
);
stripe_id!(
    /// A dispute, `dp_…`.
    DisputeId
);
stripe_id!(
    /// A customer, `cus_…`: who is sent the invoices of an account.
    CustomerId
);
stripe_id!(
    /// A billing meter, `mtr_…`.
    MeterId
);

/// The reference of what happened under an id; `stage` tells apart what happens to it twice.
fn reference(id: &str, stage: &str) -> Reference {
    Reference::of_parts(&[REFERENCE_PREFIX, id, stage])
}

impl SessionId {
    /// Under which its payment stands in the ledger.
    #[must_use]
    pub fn reference(&self) -> Reference {
        reference(&self.0, "")
    }

    /// The id that a payment's reference names.
    #[must_use]
    pub fn of_reference(reference: &Reference) -> Option<Self> {
        let id = reference.as_str().strip_prefix(REFERENCE_PREFIX)?;
        id.parse().ok()
    }
}

impl RefundId {
    /// Under which what it takes stands in the ledger.
    #[must_use]
    pub fn reference(&self) -> Reference {
        reference(&self.0, "")
    }

    /// Under which what a failed refund gives back stands in the ledger.
    #[must_use]
    pub fn failed(&self) -> Reference {
        reference(&self.0, ":failed")
    }
}

impl DisputeId {
    /// Under which what it takes stands in the ledger.
    #[must_use]
    pub fn reference(&self) -> Reference {
        reference(&self.0, "")
    }

    /// Under which what a won dispute gives back stands in the ledger.
    #[must_use]
    pub fn won(&self) -> Reference {
        reference(&self.0, ":won")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_leave_a_path_or_a_reference_is_no_id() {
        let longest = "c".repeat(STRIPE_ID_BYTES_MAX);
        let one_more = format!("{longest}c");
        for bad in [
            "",
            "cs/../refunds",
            "cs_1?x",
            "cs_1#",
            "cs 1",
            "cs_1\n",
            "ćs_1",
            "cs%2f",
            &one_more,
        ] {
            assert_eq!(bad.parse::<SessionId>(), Err(NotAnId), "{bad:?}");
            let json = serde_json::to_string(bad).unwrap();
            assert!(serde_json::from_str::<SessionId>(&json).is_err(), "{bad:?}");
        }
        let id: SessionId = longest.parse().unwrap();
        assert_eq!(id.reference().as_str(), format!("stripe:{longest}"));
    }

    #[test]
    fn each_thing_that_moves_money_has_a_reference_of_its_own() {
        let session: SessionId = "cs_test_a1".parse().unwrap();
        let refund: RefundId = "re_1".parse().unwrap();
        let dispute: DisputeId = "dp_1".parse().unwrap();
        assert_eq!(session.reference().as_str(), "stripe:cs_test_a1");
        assert_eq!(SessionId::of_reference(&session.reference()), Some(session));
        assert_eq!(refund.reference().as_str(), "stripe:re_1");
        assert_eq!(refund.failed().as_str(), "stripe:re_1:failed");
        assert_eq!(dispute.reference().as_str(), "stripe:dp_1");
        assert_eq!(dispute.won().as_str(), "stripe:dp_1:won");
        assert_eq!(SessionId::of_reference(&refund.failed()), None);
        let foreign = Reference::new("invoice-7").unwrap();
        assert_eq!(SessionId::of_reference(&foreign), None);
    }
}
