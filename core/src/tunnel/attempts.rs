//! The attempt under way, and what may yet become of those that came to nothing.

use std::time::{Duration, Instant};

use super::{AttemptId, Failure, FailureKind, Next, Output, Phase, Tunnel};
use crate::limits;
use crate::time::Now;

#[derive(Clone, Copy, Debug)]
pub(super) struct Trying {
    pub(super) attempt: AttemptId,
    pub(super) give_up_at: Instant,
}

impl Tunnel {
    /// The attempt under way.
    pub(super) const fn trying(&self) -> Option<Trying> {
        match &self.phase {
            Phase::Connecting(trying)
            | Phase::Reconnecting {
                next: Next::Try(trying),
                ..
            } => Some(*trying),
            Phase::Disconnected
            | Phase::Connected(_)
            | Phase::Reconnecting { .. }
            | Phase::Failed(_) => None,
        }
    }

    pub(super) fn start_attempt(&mut self, now: Now, patience: Duration) -> Trying {
        self.next_attempt += 1;
        let attempt = AttemptId(self.next_attempt);
        let give_up_at = now.instant + patience;
        self.outputs.push_back(Output::StartAttempt {
            attempt,
            give_up_at,
        });
        Trying {
            attempt,
            give_up_at,
        }
    }

    pub(super) fn abandon(&mut self, attempt: AttemptId) {
        self.outputs.push_back(Output::AbandonAttempt { attempt });
    }

    /// Abandons an attempt that is no session yet. What it has sent may be on its way.
    pub(super) fn give_up(&mut self, now: Now, attempt: AttemptId) {
        self.stray(now);
        self.abandon(attempt);
    }

    /// An attempt came to nothing. A gateway forgets a connection whose client says nothing more
    /// after the idle timeout at the latest.
    pub(super) fn stray(&mut self, now: Now) {
        self.stray_until = Some(now.instant + limits::QUIC_IDLE_TIMEOUT);
    }

    /// What ended a session, with the place lost to an attempt of this tunnel's own told apart. Once
    /// for each that came to nothing, so that two agents do not fight under this name either.
    pub(super) fn told_apart(&mut self, now: Now, failure: Failure) -> Failure {
        if failure.kind != FailureKind::Replaced {
            return failure;
        }
        match self.stray_until.take() {
            Some(until) if now.instant < until => FailureKind::Overtaken.into(),
            Some(_) | None => failure,
        }
    }
}
