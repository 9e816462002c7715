//! What is due when, and what happens then.

use std::time::Instant;

use super::{FailureKind, Next, Phase, Tunnel};
use crate::heartbeat;
use crate::machine::Machine;
use crate::time::{Now, earliest};

impl Tunnel {
    /// Runs what is due. Nothing that it does is due again at the same moment, but a wait may be
    /// over at once; so a few rounds do.
    pub(super) fn run_timers(&mut self, now: Now) {
        while let Some((at, _)) = self.next_deadline()
            && at <= now.instant
        {
            if let Some(trying) = self.trying()
                && trying.give_up_at <= now.instant
            {
                self.abandon(trying.attempt);
                self.attempt_failed(now, FailureKind::TimedOut.into());
                continue;
            }
            if self.left.is_some_and(|left| left.until <= now.instant) {
                self.let_go();
                continue;
            }
            match &self.phase {
                Phase::Reconnecting {
                    next: Next::Wait(until),
                    ..
                } if *until <= now.instant => self.try_now(now),
                Phase::Connected(session)
                    if session.leave.is_some_and(|leave| leave.at <= now.instant) =>
                {
                    self.move_away(now);
                }
                Phase::Disconnected
                | Phase::Connecting(_)
                | Phase::Connected(_)
                | Phase::Reconnecting { .. }
                | Phase::Failed(_) => self.heart(now, heartbeat::Input::Timeout),
            }
        }
    }

    pub(super) fn next_deadline(&self) -> Option<(Instant, &'static str)> {
        let left = self.left.map(|left| (left.until, "last words"));
        earliest(self.deadline_of_phase(), left)
    }

    fn deadline_of_phase(&self) -> Option<(Instant, &'static str)> {
        match &self.phase {
            Phase::Disconnected | Phase::Failed(_) => None,
            Phase::Connecting(trying) => Some((trying.give_up_at, "connect timeout")),
            Phase::Connected(session) => {
                let leave = session.leave.map(|leave| (leave.at, "move"));
                earliest(session.heart.poll_timeout(), leave)
            }
            Phase::Reconnecting { next, old, .. } => {
                let next = match next {
                    Next::Wait(until) => (*until, "backoff"),
                    Next::Try(trying) => (trying.give_up_at, "reconnect timeout"),
                };
                let old = old.as_ref().and_then(|old| old.heart.poll_timeout());
                earliest(Some(next), old)
            }
        }
    }
}
