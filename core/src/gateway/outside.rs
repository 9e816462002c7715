//! What the gateway asks of the outside world, and what it is told.
//!
//! Each [`Ask`] goes out under an [`AskId`] and is answered by exactly one [`Told`] of the same
//! name; a model call is told of by any number of [`Progress`] before that. Late answers are
//! counted, and a late success that took something is given back.

use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::terms;
pub use super::transcript::Transcript;
use crate::api::{Method, Params};
use crate::billing::account::alert::Alert;
use crate::billing::account::{Denied, Hold, Lose, Release, Settle};
use crate::billing::ledger::Charge;
use crate::billing::price::Price;
use crate::billing::tier::Tier;
use crate::dialect::ModelRequest;
use crate::dialect::exchange::{Broken, Head};
use crate::identity::Fingerprint;
use crate::ids::{AccountId, DeviceId, RequestId};
use crate::wire::message::ErrorMessage;

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
        /// What the answer said, to be kept in the same transaction as the charge is written in.
        keep: Option<Box<Keep>>,
    },
    /// Void the hold. Answered by [`Told::Released`].
    Release {
        /// Whose.
        account: AccountId,
        /// Which.
        release: Release,
    },
    /// Book what an answer that is cut off has used as the operator's loss, and void its hold.
    /// Answered by [`Told::Lost`].
    Lose {
        /// Whose.
        account: AccountId,
        /// What is lost.
        lose: Lose,
    },
    /// Remember what an answer under way has used: should the gateway go down, it is what the operator
    /// lost. Answered by [`Told::Checkpointed`]; the settle or the release of the request forgets it.
    Checkpoint {
        /// Whose.
        account: AccountId,
        /// What would be lost.
        lose: Lose,
    },
    /// Call a model. [`Progress`] comes first, then [`Told::Called`].
    Call {
        /// The provider's name in the gateway's configuration.
        provider: String,
        /// Whose key goes with it.
        key: KeyOf,
        /// What to send.
        call: ModelRequest,
    },
    /// A typed call that needs nothing of a session. Answered by [`Told::Served`].
    Service {
        /// Whose.
        account: AccountId,
        /// Who calls.
        device: DeviceId,
        /// What.
        method: Method,
        /// With what; not looked at yet.
        params: Params,
    },
    /// A device comes back for an answer that this gateway does not have: what is known of it? Answered by
    /// [`Told::Recalled`].
    Recall {
        /// Whose it would be.
        account: AccountId,
        /// Which device asks.
        device: DeviceId,
        /// For which question.
        request: RequestId,
    },
}

/// What a finished answer said, for the store to keep for its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    /// That.
    pub transcript: Transcript,
    /// For so long, by the store's clock; then nothing of it stays.
    pub kept: Duration,
}

/// Who pays the provider of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOf {
    /// The operator, with the key in the gateway's configuration.
    Operator,
    /// The account, with the key that it gave.
    Account(AccountId),
}

impl KeyOf {
    /// By the account's tier, if that is known, and the model's price. What costs nothing has nobody to be
    /// paid with a key of one's own.
    #[must_use]
    pub const fn of(account: AccountId, tier: Option<Tier>, price: &Price) -> Self {
        match tier {
            Some(Tier::Byok { .. }) if !price.is_free() => Self::Account(account),
            Some(Tier::Free { .. } | Tier::Managed { .. } | Tier::Byok { .. }) | None => {
                Self::Operator
            }
        }
    }
}

/// The outside world's one answer to an [`Ask`].
#[derive(Clone, Debug)]
pub enum Told {
    /// To [`Ask::Admit`].
    Admitted(Result<Admitted, NotAdmitted>),
    /// To [`Ask::Hold`].
    Held(Result<Granted, HoldFailed>),
    /// To [`Ask::Settle`].
    Settled(Result<Settled, SettleFailed>),
    /// To [`Ask::Release`].
    Released(Result<(), Unavailable>),
    /// To [`Ask::Lose`].
    Lost(Result<(), Unavailable>),
    /// To [`Ask::Checkpoint`].
    Checkpointed(Result<(), Unavailable>),
    /// To [`Ask::Call`]: how the upstream's body ended.
    Called(Result<(), Broken>),
    /// To [`Ask::Service`]: the method's result, or why there is none.
    Served(Result<Box<RawValue>, ErrorMessage>),
    /// To [`Ask::Recall`].
    Recalled(Result<Recalled, Unavailable>),
}

/// What is known of an answer that the asked gateway does not have.
#[derive(Clone, Debug, PartialEq)]
pub enum Recalled {
    /// It ended and was charged to this device, and its text is there.
    Kept {
        /// The charge.
        charge: Box<Charge>,
        /// What it said.
        transcript: Transcript,
    },
    /// It ended and was charged to this device; its text is no longer there.
    Charged(Box<Charge>),
    /// A gateway died over it; what the provider took was booked as the operator's loss.
    Lost,
    /// Money is held for it: another gateway works on it.
    Elsewhere,
    /// It is another device's, running or not.
    NotYours,
    /// Nothing.
    Nothing,
}

impl Recalled {
    /// In one word, for a log.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Kept { .. } => "kept",
            Self::Charged(_) => "charged",
            Self::Lost => "lost",
            Self::Elsewhere => "elsewhere",
            Self::NotYours => "another device's",
            Self::Nothing => "nothing",
        }
    }
}

/// Money was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The tier that the request is charged in.
    pub tier: Tier,
}

/// A request was charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// What stands in the ledger.
    pub charge: Box<Charge>,
    /// A limit of the account's that it came near to or reached.
    pub alert: Option<Alert>,
}

/// Why a request was not charged.
#[derive(Clone, Debug, PartialEq)]
pub enum SettleFailed {
    /// The account's rules say no, for good: it was given up for lost meanwhile.
    Denied(Denied),
    /// The store did not answer.
    Unavailable,
}

/// The store is not there: full, locked, broken or lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the gateway's store is unavailable")]
pub struct Unavailable;

impl Unavailable {
    /// What a device is told.
    #[must_use]
    pub fn in_words(self) -> ErrorMessage {
        terms::store_down()
    }
}

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
