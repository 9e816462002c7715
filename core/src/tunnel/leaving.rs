//! Leaving a session because its gateway asked to, and finishing what is under way on it beside the
//! next one.

use std::time::Instant;

use super::{AttemptId, Failure, Phase, Tunnel, Why};
use crate::limits;
use crate::time::Now;

/// The gateway asked to move.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leave {
    /// When to.
    pub(super) at: Instant,
    /// Until when it serves what is under way.
    pub(super) served_until: Instant,
}

/// A session that was left, with answers that are being finished on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    pub(super) attempt: AttemptId,
    pub(super) until: Instant,
}

impl Tunnel {
    /// Gives up what was being finished on a session that was left.
    pub(super) fn let_go(&mut self) {
        if let Some(left) = self.left.take() {
            self.abandon(left.attempt);
        }
    }

    /// The session that was left is over and closed.
    pub(super) fn left_lost(&mut self, failure: Failure) {
        self.left = None;
        self.fail_if_final(failure);
    }

    /// Leaves the session in use as the gateway asked; what is under way on it may be finished.
    pub(super) fn move_away(&mut self, now: Now) {
        // One that was left before has had its time.
        self.let_go();
        let mut idle = None;
        if let Phase::Connected(session) = &self.phase {
            let attempt = session.attempt;
            match session.leave {
                Some(Leave { served_until, .. }) if session.busy => {
                    let until = served_until + limits::LAST_WORDS_TIMEOUT;
                    self.left = Some(Left { attempt, until });
                }
                Some(_) | None => idle = Some(attempt),
            }
        }
        if let Some(idle) = idle {
            self.abandon(idle);
        }
        self.leave(now, |_| None, Why::AskedToMove);
    }
}
