//! What the gateway asks of the outside world, and what it is told.
//!
//! Each [`Ask`] goes out under an [`AskId`] and is answered by exactly one [`Told`] of the same
//! name; a model call is told of by any number of [`Progress`] before that. Late answers are
//! counted, and a late success that took something is given back.

use bytes::Bytes;

use crate::billing::account::{Denied, Hold, Release, Settle, Summary};
use crate::billing::ledger::Charge;
use crate::dialect::ModelRequest;
use crate::dialect::exchange::{Broken, Head};
use crate::identity::Fingerprint;
use crate::ids::{AccountId, DeviceId, RequestId};

/// Names one [`Ask`]. Never reused within one gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// A question to the outside world.
#[derive(Clone, Debug)]
pub enum Ask {
    /// May this device in? Answered by [`Told::Admitted`].
    Admit {
        /// Who it says it is, by its certificate.
        device: DeviceId,
        /// SHA-256 of that certificate.
        certificate: Fingerprint,
    },
    /// Set money aside. Answered by [`Told::Held`].
    Hold {
        /// Whose.
        account: AccountId,
        /// For what, and how much at worst.
        hold: Hold,
    },
    /// Charge what was used, void the rest of the hold. Answered by [`Told::Settled`].
    Settle {
        /// Whose.
        account: AccountId,
        /// What was used.
        settle: Settle,
    },
    /// Void the hold. Answered by [`Told::Released`].
    Release {
        /// Whose.
        account: AccountId,
        /// Which.
        release: Release,
    },
    /// Call a model. [`Progress`] comes first, then [`Told::Called`].
    Call {
        /// The provider's name in the gateway's configuration.
        provider: String,
        /// What to send.
        call: ModelRequest,
    },
    /// How does the account stand? Answered by [`Told::Summed`].
    Summary {
        /// Which.
        account: AccountId,
    },
    /// A device wants to go on with an answer that this gateway does not have: what is known of it?
    /// Answered by [`Told::Recalled`].
    Recall {
        /// Whose it would be.
        account: AccountId,
        /// Which device asks.
        device: DeviceId,
        /// For which question.
        request: RequestId,
    },
}

/// The outside world's one answer to an [`Ask`].
#[derive(Clone, Debug)]
pub enum Told {
    /// To [`Ask::Admit`].
    Admitted(Result<Admitted, NotAdmitted>),
    /// To [`Ask::Hold`].
    Held(Result<(), HoldFailed>),
    /// To [`Ask::Settle`].
    Settled(Result<Charge, Unavailable>),
    /// To [`Ask::Release`].
    Released(Result<(), Unavailable>),
    /// To [`Ask::Call`]: how the upstream's body ended.
    Called(Result<(), Broken>),
    /// To [`Ask::Summary`].
    Summed(Result<Summary, Unavailable>),
    /// To [`Ask::Recall`].
    Recalled(Result<Recalled, Unavailable>),
}

/// What is known of an answer that the asked gateway does not have.
#[derive(Clone, Debug, PartialEq)]
pub enum Recalled {
    /// It ended and was charged to this device; its text is no longer there.
    Charged(Box<Charge>),
    /// A gateway died over it; what the provider took was booked as the operator's loss.
    Lost,
    /// Money is held for it: another gateway works on it.
    Elsewhere,
    /// It is another device's.
    NotYours,
    /// Nothing.
    Nothing,
}

/// The store is not there: full, locked, broken or lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the gateway's store is unavailable")]
pub struct Unavailable;

/// A device that may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Whose it is.
    pub account: AccountId,
    /// The number of its new session; grows for ever.
    pub epoch: u64,
}

/// A device that may not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// The store knows no such device.
    #[error("the device is not enrolled here")]
    Unknown,
    /// The store knows it with another certificate.
    #[error("the device was enrolled with another certificate")]
    Mismatched,
    /// It was revoked.
    #[error("the device was revoked")]
    Revoked,
    /// The store did not answer.
    #[error("the gateway's store is unavailable")]
    Unavailable,
}

/// Why no money was set aside.
#[derive(Clone, Debug, PartialEq)]
pub enum HoldFailed {
    /// The account's rules say no.
    Denied(Denied),
    /// The store did not answer.
    Unavailable,
}

/// News of a model call that is under way.
#[derive(Clone, Debug)]
pub enum Progress {
    /// The response's head.
    Head(Head),
    /// A piece of its body.
    Body(Bytes),
}
