//! Why an account's rules say no to a command, in words for whoever asked.

use crate::billing::ledger::{Charge, Loss};
use crate::billing::money::{Nanos, Overflow};
use crate::limits::HOLDS_PER_ACCOUNT_MAX;

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The id was used with another body.
    #[error("this request id was used for another question; use a new one")]
    Conflict,
    /// The request runs already.
    #[error("this request is being answered already")]
    InProgress,
    /// The request was answered and charged; its text is no longer kept.
    #[error("this request was answered and charged {} already; its text is no longer kept", .charge.charge)]
    Expired {
        /// The charge.
        charge: Box<Charge>,
    },
    /// The gateway went down while it answered the request.
    #[error(
        "the gateway went down while it answered this request, which cost nothing; ask again under a new id"
    )]
    Interrupted {
        /// What the operator lost by it.
        loss: Box<Loss>,
    },
    /// The free quota does not cover the worst case.
    #[error(
        "the month's free quota does not cover this request: it may take {needed}, {available} is left; ask for fewer tokens or change the tier"
    )]
    QuotaSpent {
        /// The worst case, in the provider's price.
        needed: Nanos,
        /// What is left.
        available: Nanos,
    },
    /// The ceiling does not cover the worst case.
    #[error(
        "the account does not cover this request: it may cost {needed}, {available} is left; ask for fewer tokens, top up (synesis cloud topup), or have its operator raise the ceiling"
    )]
    Insufficient {
        /// The worst case, charged.
        needed: Nanos,
        /// What is left.
        available: Nanos,
    },
    /// Something is owed.
    #[error(
        "{owed} is owed from before; nothing that costs can be asked until it is paid: top up (synesis cloud topup), or have the operator book a payment"
    )]
    Owing {
        /// How much.
        owed: Nanos,
    },
    /// The guest's cap does not cover the worst case.
    #[error(
        "this guest's share of the month does not cover this request: it may cost {needed}, {available} is left; ask for fewer tokens, or have the host raise the cap"
    )]
    GuestCap {
        /// The worst case, charged.
        needed: Nanos,
        /// What is left.
        available: Nanos,
    },
    /// The account has no such guest.
    #[error("this account has no such guest; have the host invite you again")]
    UnknownGuest,
    /// The account's own key should pay the provider, and there is none.
    #[error(
        "this account pays {provider} with a key of its own, and has given none; give one with `synesis cloud provider-key set {provider}`, or change the tier"
    )]
    NoProviderKey {
        /// The provider's name.
        provider: String,
    },
    /// Too many requests of the account are under way.
    #[error("{HOLDS_PER_ACCOUNT_MAX} requests of this account are under way; wait for one to end")]
    TooManyHolds,
    /// There is no such account.
    #[error("this account does not exist")]
    UnknownAccount,
    /// Larger than the ledger can hold.
    #[error("the amount is larger than the ledger can hold")]
    Overflow,
}

impl From<Overflow> for Denied {
    fn from(_: Overflow) -> Self {
        Self::Overflow
    }
}
