//! Whether a session lives: its heart, what raises doubt, silence, and taking the old one back.

use std::time::{Duration, Instant};

use super::attempts::Trying;
use super::leaving::Leave;
use super::{AttemptId, Next, Output, Phase, Tunnel, Why};
use crate::heartbeat::{self, Heartbeat};
use crate::limits;
use crate::machine::Machine;
use crate::time::Now;

#[derive(Debug)]
pub(super) struct Session {
    pub(super) attempt: AttemptId,
    pub(super) since: Instant,
    pub(super) heart: Heartbeat,
    /// Answers are under way on it.
    pub(super) busy: bool,
    pub(super) leave: Option<Leave>,
}

impl Tunnel {
    /// Tells the heart of the session in use, or of a silent old one, and passes on what it says.
    pub(super) fn heart(&mut self, now: Now, input: heartbeat::Input) {
        let (session, in_use) = match &mut self.phase {
            Phase::Connected(session) => (session, true),
            Phase::Reconnecting {
                old: Some(session), ..
            } => (session, false),
            Phase::Disconnected
            | Phase::Connecting(_)
            | Phase::Reconnecting { .. }
            | Phase::Failed(_) => return,
        };
        let attempt = session.attempt;
        // Drained below in every step, so that it cannot have a backlog.
        let _taken = session.heart.handle_input(now, input);
        let (mut silent, mut answered) = (false, false);
        while let Some(output) = session.heart.poll_output() {
            match output {
                heartbeat::Output::Beat { sequence } => {
                    self.outputs
                        .push_back(Output::SendHeartbeat { attempt, sequence });
                }
                heartbeat::Output::Probe => self.outputs.push_back(Output::Probe { attempt }),
                heartbeat::Output::Doubt(doubt) if in_use => {
                    self.outputs.push_back(Output::Doubt(doubt));
                }
                heartbeat::Output::Doubt(doubt) => answered |= !doubt,
                heartbeat::Output::Silent => silent = in_use,
            }
        }
        if silent {
            self.leave(now, Some, Why::Silent);
        } else if answered {
            self.take_back(now);
        }
    }

    /// The silent old session answers: use it again, and stop seeking another.
    fn take_back(&mut self, now: Now) {
        let from = self.state();
        let stale = self.trying();
        if let Phase::Reconnecting { old, .. } = &mut self.phase
            && let Some(session) = old.take()
        {
            if let Some(stale) = stale {
                self.give_up(now, stale.attempt);
            }
            self.change(from, Phase::Connected(session), Why::Answered);
        }
    }

    pub(super) fn network_changed(&mut self, now: Now) {
        match &self.phase {
            Phase::Disconnected => {}
            Phase::Connecting(trying) => {
                let Trying {
                    attempt,
                    give_up_at,
                } = *trying;
                self.give_up(now, attempt);
                let left = give_up_at.saturating_duration_since(now.instant);
                self.phase = Phase::Connecting(self.start_attempt(now, left));
            }
            Phase::Connected(_) => self.heart(now, heartbeat::Input::ProbeNow),
            Phase::Reconnecting { .. } => {
                self.heart(now, heartbeat::Input::ProbeNow);
                self.try_now(now);
            }
            Phase::Failed(_) => self.connect(now, Why::NetworkChanged),
        }
    }

    /// A session the transport must have given up during the sleep is not waited for.
    pub(super) fn woke(&mut self, now: Now, asleep: Duration) {
        match &self.phase {
            Phase::Connected(_) if asleep >= limits::QUIC_IDLE_TIMEOUT => {
                self.heart(now, heartbeat::Input::PresumeSilent);
            }
            Phase::Connected(_) => self.heart(now, heartbeat::Input::ProbeNow),
            Phase::Reconnecting {
                next: Next::Wait(_),
                ..
            } => self.try_now(now),
            Phase::Disconnected
            | Phase::Connecting(_)
            | Phase::Reconnecting { .. }
            | Phase::Failed(_) => {}
        }
    }
}
