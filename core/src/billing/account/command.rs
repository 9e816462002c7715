//! What an account is told to do about a request, and what comes of it.

use serde::{Deserialize, Serialize};

use super::{Denied, Held, HoldId};
use crate::billing::ledger::{Charge, Loss, Record};
use crate::billing::price::Price;
use crate::billing::tier::Tier;
use crate::ids::{DeviceId, GuestId, RequestId};
use crate::time::UnixMillis;
use crate::wire::message::TokensUsed;

/// Set the worst case aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Its name, fresh.
    pub id: HoldId,
    /// For which request.
    pub request: RequestId,
    /// SHA-256 of its body.
    pub body: [u8; 32],
    /// The model's price.
    pub price: Price,
    /// The most tokens that can be read.
    pub input_tokens_max: u64,
    /// The most tokens that can be written.
    pub output_tokens_max: u64,
    /// Who would be paid for it: the provider's name in the gateway's configuration.
    pub provider: String,
    /// The device that asks.
    pub device: Option<DeviceId>,
    /// The guest who asks, if it is one.
    pub guest: Option<GuestId>,
}

/// Charge what was used and void the rest of the hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle {
    /// For which request.
    pub request: RequestId,
    /// SHA-256 of its body.
    pub body: [u8; 32],
    /// The model, as it was asked for.
    pub model: String,
    /// Its price, the one that the hold was made with.
    pub price: Price,
    /// What was used.
    pub tokens: TokensUsed,
    /// Whether the provider did not count it.
    pub estimated: bool,
    /// The device that asked.
    pub device: Option<DeviceId>,
    /// The project that it asked for.
    pub project: Option<String>,
}

/// A gateway went down in the middle of an answer: what the provider will take for it is the
/// operator's loss, and the request costs the account nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lose {
    /// Which request.
    pub request: RequestId,
    /// SHA-256 of its body.
    #[serde(with = "crate::billing::ledger::hex32")]
    pub body: [u8; 32],
    /// The tier that its hold was made in.
    pub tier: Tier,
    /// The model, as it was asked for.
    pub model: String,
    /// Its price.
    pub price: Price,
    /// What had been used by then, as far as is known.
    pub tokens: TokensUsed,
    /// The device that asked, which alone is told what became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
}

/// Void a hold; the request's id is free again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// Of which request.
    pub request: RequestId,
    /// Which hold. Another one of the same request stays.
    pub hold: HoldId,
}

/// What an account is told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// See [`Hold`].
    Hold(Hold),
    /// See [`Settle`].
    Settle(Settle),
    /// See [`Release`].
    Release(Release),
    /// See [`Lose`].
    Lose(Lose),
}

impl Command {
    /// The request that it is about.
    #[must_use]
    pub const fn request(&self) -> RequestId {
        match self {
            Self::Hold(hold) => hold.request,
            Self::Settle(settle) => settle.request,
            Self::Release(release) => release.request,
            Self::Lose(lose) => lose.request,
        }
    }

    /// The device that asked, as far as it is said.
    #[must_use]
    pub const fn device(&self) -> Option<DeviceId> {
        match self {
            Self::Hold(hold) => hold.device,
            Self::Settle(settle) => settle.device,
            Self::Release(_) | Self::Lose(_) => None,
        }
    }
}

/// What happens to an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Money was set aside. Not part of the ledger: a crash voids it.
    Held(RequestId, Held),
    /// It is void.
    Released(RequestId),
    /// Charged, for ever; goes into the ledger.
    Charged(Charge),
    /// The operator lost it, for ever; goes into the ledger.
    Lost(Loss),
}

impl Entry {
    /// The request that it is about.
    #[must_use]
    pub const fn request(&self) -> RequestId {
        match self {
            Self::Held(request, _) | Self::Released(request) => *request,
            Self::Charged(charge) => charge.request,
            Self::Lost(loss) => loss.request,
        }
    }

    /// What it is for the ledger, if it is anything there.
    #[must_use]
    pub fn record(&self) -> Option<Record> {
        match self {
            Self::Held(..) | Self::Released(_) => None,
            Self::Charged(charge) => Some(Record::Charged(charge.clone())),
            Self::Lost(loss) => Some(Record::Lost(loss.clone())),
        }
    }
}

/// How a request ended before, for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prior {
    /// Charged.
    Charged(Charge),
    /// Lost by the operator.
    Lost(Loss),
}

impl Prior {
    /// The end that a record is, if it is one.
    #[must_use]
    pub fn of(record: &Record) -> Option<Self> {
        record
            .charge()
            .cloned()
            .map(Self::Charged)
            .or_else(|| record.loss().cloned().map(Self::Lost))
    }

    pub(super) const fn body(&self) -> &[u8; 32] {
        match self {
            Self::Charged(charge) => &charge.body,
            Self::Lost(loss) => &loss.body,
        }
    }

    /// What whoever asks the same again is told.
    pub(super) fn denied(&self, body: &[u8; 32]) -> Denied {
        match self {
            prior if prior.body() != body => Denied::Conflict,
            Self::Charged(charge) => Denied::Expired {
                charge: Box::new(charge.clone()),
            },
            Self::Lost(loss) => Denied::Interrupted {
                loss: Box::new(loss.clone()),
            },
        }
    }
}

/// What the store knows besides the account.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The wall clock.
    pub now: UnixMillis,
    /// What is recorded in the ledger under the command's request id.
    pub prior: Option<Prior>,
    /// Whether the account has given a key of its own for the provider of a hold.
    pub provider_key: bool,
}
