//! A question that nobody wants any more: the gateway is told, also when the tunnel is away just then.
//!
//! ```text
//!   No ── Cancel, on a stream ──▶ Told ── the stream is lost ──▶ Wanted
//!   No ── Cancel, between tunnels ──▶ Wanted ── a new stream: Resume, Cancel ──▶ Told
//! ```
//!
//! One that was never sent ends at once. One that waits for a tunnel waits no longer than the gateway
//! would have stopped it by itself.

use std::time::Instant;

use super::{AskError, Device};
use crate::error::ErrorCode;
use crate::ids::RequestId;
use crate::time::Now;
use crate::transport::Transport;
use crate::wire::message::{Cancel, ErrorMessage, Message};

/// See the module documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cancelling {
    /// It is wanted.
    No,
    /// It is not, since then, and the gateway is to be told.
    Wanted(Instant),
    /// It is not, since then; that was said on the stream that it is on.
    Told(Instant),
}

impl Cancelling {
    /// The stream on which it was said is lost.
    pub(super) fn untold(&mut self) {
        if let Self::Told(at) = *self {
            *self = Self::Wanted(at);
        }
    }
}

impl<T: Transport> Device<T> {
    pub(super) fn cancel(&mut self, now: Now, id: RequestId) {
        let Some(question) = self.questions.get_mut(&id) else {
            return;
        };
        if question.sent.is_none() {
            return self.fail_question(id, AskError::Cancelled);
        }
        if question.cancelling == Cancelling::No {
            question.cancelling = Cancelling::Wanted(now.instant);
            self.touched = true;
        }
        self.tell_cancelled(id);
        self.unpause(now, id);
    }

    /// Says on its stream, if it is on one, that a question is not wanted, if it is not.
    pub(super) fn tell_cancelled(&mut self, id: RequestId) {
        let Some(question) = self.questions.get_mut(&id) else {
            return;
        };
        if let (Cancelling::Wanted(at), Some((conn, stream))) =
            (question.cancelling, question.place)
        {
            question.cancelling = Cancelling::Told(at);
            let request_id = question.wire_id;
            self.send(conn, stream, &Message::Cancel(Cancel { request_id }));
        }
    }

    /// Whether a refusal ends a question that is not wanted: it is not asked again, and that the
    /// gateway never had it is as good as stopped.
    pub(super) fn cancelled_is_over(&mut self, id: RequestId, error: &ErrorMessage) -> bool {
        let cancelled = self
            .questions
            .get(&id)
            .is_some_and(|question| question.cancelling != Cancelling::No);
        if cancelled {
            let error = match error.code {
                ErrorCode::NotFound | ErrorCode::InProgress | ErrorCode::RateLimited => {
                    AskError::Cancelled
                }
                ErrorCode::InvalidRequest
                | ErrorCode::Unauthorized
                | ErrorCode::Forbidden
                | ErrorCode::Conflict
                | ErrorCode::PaymentRequired
                | ErrorCode::QuotaExceeded
                | ErrorCode::TooLarge
                | ErrorCode::Protocol
                | ErrorCode::UpstreamError
                | ErrorCode::UpstreamTimeout
                | ErrorCode::Interrupted
                | ErrorCode::Expired
                | ErrorCode::ShuttingDown
                | ErrorCode::Internal => AskError::Remote(Box::new(error.clone())),
            };
            self.fail_question(id, error);
        }
        cancelled
    }
}
