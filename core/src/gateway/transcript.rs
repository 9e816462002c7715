//! A finished answer as the store keeps it beside its charge: what it said, and how it ended. Never the
//! question, and no money: that stands in the ledger.
//!
//! ```text
//!   journal, end ──▶ Transcript ──▶ the store, in the settle's transaction ──▶ … the gateway dies …
//!                                        │
//!   pieces, last word ◀── with the charge ◀── Recall, at whichever gateway
//! ```
//!
//! # Invariants
//!
//! 1. What is told from a transcript is what was told, or would have been, by the gateway that wrote it:
//!    the same pieces under the same numbers, the same last word.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::terms;
use crate::billing::account::alert::Alert;
use crate::billing::ledger::Charge;
use crate::billing::money::Nanos;
use crate::device::route::Route;
use crate::ids::RequestId;
use crate::limits;
use crate::stream::journal::Journal;
use crate::wire::message::{
    ErrorMessage, EscalationResponse, FinishReason, Message, Notice, StreamEnd, TokensUsed,
};

/// See the module documentation. To a store it is bytes; `Debug` shows how many.
#[derive(Clone, PartialEq, Eq)]
pub struct Transcript(Bytes);

impl fmt::Debug for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transcript")
            .field("bytes", &self.0.len())
            .finish()
    }
}

impl Transcript {
    /// What a store has kept. Whether it can be read is seen when it is.
    #[must_use]
    pub const fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// What a store has to keep: UTF-8 JSON, at most [`limits::TRANSCRIPT_BYTES_MAX`].
    #[must_use]
    pub const fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// `None` where it would be larger than a store is asked to keep.
    pub(super) fn new(journal: &Journal, end: &End) -> Option<Self> {
        let bytes = serde_json::to_vec(&Written { journal, end }).ok()?;
        (bytes.len() <= limits::TRANSCRIPT_BYTES_MAX).then(|| Self(bytes.into()))
    }

    /// Every piece of the answer, and its last word; `None` if that is not what the store has kept.
    pub(super) fn told(&self, request: RequestId, charge: &Charge) -> Option<(Journal, Message)> {
        let Read { mut journal, end } = serde_json::from_slice(&self.0).ok()?;
        if matches!(end, End::Streamed { .. }) {
            journal.push("", None, true).ok()?;
        }
        Some((journal, end.last_word(request, &Bill::of(charge))))
    }
}

#[derive(Serialize)]
struct Written<'a> {
    journal: &'a Journal,
    end: &'a End,
}

#[derive(Deserialize)]
struct Read {
    journal: Journal,
    end: End,
}

/// How an answer ended, without the money.
#[derive(Clone, Serialize, Deserialize)]
pub(super) enum End {
    /// Piece by piece; an empty final piece comes before the last word.
    Streamed {
        model: String,
        reason: FinishReason,
        latency_ms: u64,
    },
    /// In one message.
    Whole {
        content: String,
        sources: Vec<String>,
        model: String,
        reason: FinishReason,
        latency_ms: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<Box<RawValue>>,
    },
    /// With what there was.
    Failed(ErrorMessage),
}

impl End {
    pub(super) fn last_word(self, request_id: RequestId, bill: &Bill) -> Message {
        match self {
            Self::Streamed {
                model,
                reason,
                latency_ms,
            } => Message::StreamEnd(StreamEnd {
                request_id,
                tokens_used: bill.tokens,
                cost_cents: bill.charge.to_cents_half_even(),
                cost_nanos: bill.charge,
                base_nanos: bill.base,
                model_used: model,
                finish_reason: reason,
                latency_ms,
                estimated: bill.estimated,
                hidden: 0,
                route: Route::Cloud,
                notice: bill.notice(),
            }),
            Self::Whole {
                content,
                sources,
                model,
                reason,
                latency_ms,
                body,
            } => Message::EscalationResponse(Box::new(EscalationResponse {
                request_id,
                content,
                model_used: model,
                tokens_used: bill.tokens,
                cost_cents: bill.charge.to_cents_half_even(),
                cost_nanos: bill.charge,
                base_nanos: bill.base,
                latency_ms,
                sources,
                lora_applied: false,
                finish_reason: reason,
                estimated: bill.estimated,
                hidden: 0,
                body,
                notice: bill.notice(),
            })),
            Self::Failed(error) => Message::Error(terms::with_bill(error, bill)),
        }
    }
}

/// What the device is told of the money.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bill {
    pub(super) tokens: TokensUsed,
    pub(super) charge: Nanos,
    pub(super) base: Nanos,
    pub(super) estimated: bool,
    /// The limit that the charge brought near.
    pub(super) alert: Option<Alert>,
}

impl Bill {
    pub(super) fn notice(&self) -> Option<Notice> {
        self.alert.as_ref().map(terms::limit_notice)
    }

    pub(super) const fn of(charge: &Charge) -> Self {
        Self {
            tokens: charge.tokens,
            charge: charge.charge,
            base: charge.base,
            estimated: charge.estimated,
            alert: None,
        }
    }
}

#[cfg(test)]
mod tests;
