//! What is done to an account from outside of any question.

use serde::{Deserialize, Serialize};

/// An order, as a plan has it. The number is its reference's: one that comes twice is said twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "deed", rename_all = "snake_case")]
pub enum Deed {
    /// Money comes in.
    Pay {
        /// Which payment.
        payment: u32,
        /// How much, nano-dollars.
        nanos: i64,
    },
    /// Money is given for a time.
    Grant {
        /// Which credit.
        credit: u32,
        /// How much, nano-dollars.
        nanos: i64,
        /// The wall clock at its end, ms since 1970.
        ends_ms: u64,
    },
    /// The charge of an earlier question goes back.
    Refund {
        /// Which refund.
        refund: u32,
        /// Of which question.
        question: u64,
        /// How much of the charge, parts in a million; above a million it is more than there is.
        share_ppm: u32,
    },
    /// Whoever paid takes the money back.
    Dispute {
        /// Which dispute.
        dispute: u32,
        /// Of which payment.
        payment: u32,
        /// How much, nano-dollars.
        nanos: i64,
    },
    /// The account is charged differently.
    SetTier {
        /// Which change.
        change: u32,
        /// How.
        tier: TierPlan,
    },
    /// The account may spend more or less in a month.
    SetCeiling {
        /// Which change.
        change: u32,
        /// How much, nano-dollars.
        nanos: i64,
    },
}

/// A tier, as a plan has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TierPlan {
    /// Nothing within $1 of the provider's price.
    Free,
    /// The provider's price and a markup.
    Managed,
    /// A licence fee.
    Byok,
}

impl Deed {
    /// Whether an account may have less after it than before.
    #[must_use]
    pub const fn takes(&self) -> bool {
        match self {
            Self::Dispute { .. } | Self::SetTier { .. } | Self::SetCeiling { .. } => true,
            Self::Pay { .. } | Self::Grant { .. } | Self::Refund { .. } => false,
        }
    }
}
