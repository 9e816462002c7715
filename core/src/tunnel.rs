//! The device's tunnel: five states, and what moves between them.
//!
//! ```text
//!                    Connect                         established
//!  Disconnected ───────────────▶ Connecting ─────────────────────▶ Connected ◀──┐
//!       ▲                         │     │ failed                    │           │ established, or
//!       │ Disconnect,             │     ▼          lost, silent     │           │ the old session
//!       │ from anywhere           │   Reconnecting(n) ◀─────────────┘           │ answers
//!                         final   │     │  │ failed: (n+1)                      │
//!                                 ▼     ▼  └────────────────────────────────────┘
//!                                  Failed ── Connect, a new network ──▶ Connecting
//! ```
//!
//! Exactly these transitions are legal:
//!
//! | from | to | when |
//! |---|---|---|
//! | Disconnected | Connecting | Connect |
//! | Connecting | Connected | the gateway said hello back |
//! | Connecting | Reconnecting | the first attempt failed |
//! | Connecting | Failed | it failed for good, or no retry is allowed |
//! | Connecting | Disconnected | Disconnect |
//! | Connected | Reconnecting | the session was lost, fell silent, or was asked to move |
//! | Connected | Disconnected | Disconnect |
//! | Reconnecting | Reconnecting | attempt n failed: n + 1 |
//! | Reconnecting | Connected | an attempt succeeded, or the old session answered |
//! | Reconnecting | Failed | it failed for good, or the attempts are used up |
//! | Reconnecting | Disconnected | Disconnect |
//! | Failed | Connecting | Connect, or a new network |
//! | Failed | Disconnected | Disconnect |
//!
//! The tunnel owns neither addresses nor connections. It says [`Output::StartAttempt`] and is told how
//! the attempt went; it keeps the session's heart ([`crate::heartbeat`]), the [`crate::backoff`] and
//! the pre-warm decision ([`crate::vitals`]).
//!
//! # Invariants
//!
//! 1. There is at most one attempt under way, and at most one old session beside it that may answer
//!    again.
//! 2. Every attempt that was started ends by what the parent says of it or by
//!    [`Output::AbandonAttempt`]; what is said of any other attempt is late and changes nothing.
//! 3. The backoff forgets only after a session that lived [`limits::BACKOFF_RESET_AFTER`], or on a
//!    person's command; so do the attempts that are counted against [`Attempts::AtMost`].
//! 4. A silent session is probed until it is lost, and whichever answers first wins.
//! 5. Who lost its place to the same device elsewhere does not take it back at once: two agents with
//!    one certificate would throw each other out as fast as they can. An attempt of this tunnel's own
//!    that was given up may have reached the gateway all the same, and takes the place of a session
//!    that was made or taken back meanwhile; that is no other agent, and is mended at once.
//! 6. After an attempt to which nothing came back, the next is made from another port: what swallows one
//!    flow (a firewall's or a translator's stale entry) is left behind. Not while an old session is kept,
//!    or one that was left, which would have to move with it.
//! 7. A session that the gateway asked to leave is left when its time has come, or at once when
//!    something waits to be begun, which a gateway that goes away would refuse. What is under way on
//!    it may be finished beside the next session, until the gateway's time is over.

mod attempts;
mod doubt;
mod failure;
mod leaving;
mod state;
#[cfg(test)]
mod tests;
mod timers;
mod words;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use self::attempts::Trying;
use self::doubt::Session;
pub use self::failure::{Failure, FailureKind};
use self::leaving::{Leave, Left};
pub use self::state::{AttemptId, Attempts, State, Why};
pub use self::words::{Input, Output, Rejected};
use crate::backoff::Backoff;
use crate::heartbeat::{self, Heartbeat};
use crate::limits;
use crate::machine::Machine;
use crate::rng::Seed;
use crate::time::Now;
use crate::vitals::Prewarm;
use crate::wire::message::Vitals;

#[derive(Debug)]
enum Phase {
    Disconnected,
    Connecting(Trying),
    Connected(Box<Session>),
    Reconnecting {
        /// From 1.
        n: u32,
        next: Next,
        /// It may live: it is probed, and taken back when it answers.
        old: Option<Box<Session>>,
    },
    Failed(Failure),
}

/// What a reconnecting tunnel waits for.
#[derive(Debug)]
enum Next {
    Wait(Instant),
    Try(Trying),
}

/// See the module documentation.
#[derive(Debug)]
pub struct Tunnel {
    phase: Phase,
    left: Option<Left>,
    /// Until when an attempt that came to nothing may still take a session's place at the gateway.
    stray_until: Option<Instant>,
    attempts: Attempts,
    silence: Duration,
    /// Between two heartbeats at most, whatever the gateway says.
    beat_max: Duration,
    backoff: Backoff,
    prewarm: Prewarm,
    next_attempt: u64,
    deadline: Option<(Instant, &'static str)>,
    outputs: VecDeque<Output>,
}

impl Tunnel {
    /// A tunnel that nobody wants yet.
    #[must_use]
    pub fn new(attempts: Attempts, seed: &Seed) -> Self {
        Self {
            phase: Phase::Disconnected,
            left: None,
            stray_until: None,
            attempts,
            silence: limits::HALF_OPEN_SILENCE,
            beat_max: limits::HEARTBEAT_EVERY_MAX,
            backoff: Backoff::new(seed),
            prewarm: Prewarm::default(),
            next_attempt: 0,
            deadline: None,
            outputs: VecDeque::new(),
        }
    }

    /// The same, whose sessions are taken for silent after another time of probing.
    #[must_use]
    pub(crate) const fn with_silence(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// The same, which beats at least so often.
    #[must_use]
    pub(crate) const fn with_beats(mut self, at_most: Duration) -> Self {
        self.beat_max = at_most;
        self
    }

    /// The state, as others see it.
    #[must_use]
    pub fn state(&self) -> State {
        match &self.phase {
            Phase::Disconnected => State::Disconnected,
            Phase::Connecting(_) => State::Connecting,
            Phase::Connected(session) => State::Connected {
                in_doubt: session.heart.in_doubt(),
            },
            Phase::Reconnecting { n, .. } => State::Reconnecting { attempt: *n },
            Phase::Failed(_) => State::Failed,
        }
    }

    /// Why nothing more is tried, in [`State::Failed`].
    #[must_use]
    pub const fn failure(&self) -> Option<&Failure> {
        match &self.phase {
            Phase::Failed(failure) => Some(failure),
            Phase::Disconnected
            | Phase::Connecting(_)
            | Phase::Connected(_)
            | Phase::Reconnecting { .. } => None,
        }
    }

    /// The session in use and its heart, in [`State::Connected`].
    #[must_use]
    pub fn session(&self) -> Option<(AttemptId, &Heartbeat)> {
        match &self.phase {
            Phase::Connected(session) => Some((session.attempt, &session.heart)),
            Phase::Disconnected
            | Phase::Connecting(_)
            | Phase::Reconnecting { .. }
            | Phase::Failed(_) => None,
        }
    }

    /// Whether nothing is to be begun on the session in use: the gateway asked to leave it.
    #[must_use]
    pub(crate) const fn is_asked_to_move(&self) -> bool {
        matches!(&self.phase, Phase::Connected(session) if session.leave.is_some())
    }

    /// Moves on from `from`. The only place where the state's kind changes.
    fn change(&mut self, from: State, phase: Phase, why: Why) {
        self.phase = phase;
        let to = self.state();
        assert!(from.may_become(to), "{from} may not become {to}");
        self.outputs.push_back(Output::Changed { from, to, why });
    }

    fn fail(&mut self, from: State, failure: Failure) {
        self.let_go();
        self.change(from, Phase::Failed(failure.clone()), Why::Failed(failure));
    }

    fn connect(&mut self, now: Now, why: Why) {
        self.backoff.reset();
        let from = self.state();
        let trying = self.start_attempt(now, limits::CONNECT_TIMEOUT);
        self.change(from, Phase::Connecting(trying), why);
    }

    fn disconnect(&mut self, now: Now) {
        let from = self.state();
        if from == State::Disconnected {
            return;
        }
        if let Some(trying) = self.trying() {
            self.give_up(now, trying.attempt);
        }
        if let Some(session) = self.kept_session() {
            self.abandon(session);
        }
        self.let_go();
        self.change(from, Phase::Disconnected, Why::Asked);
    }

    /// The session in use, or the old one that is kept.
    fn kept_session(&self) -> Option<AttemptId> {
        match &self.phase {
            Phase::Connected(session) => Some(session.attempt),
            Phase::Reconnecting { old, .. } => old.as_ref().map(|old| old.attempt),
            Phase::Disconnected | Phase::Connecting(_) | Phase::Failed(_) => None,
        }
    }

    /// A gateway that goes away may refuse for as long as answers are being finished at it.
    fn may_retry(&self) -> bool {
        match self.attempts {
            Attempts::AtMost(most) => self.left.is_some() || self.backoff.retries() < most,
            Attempts::Forever => true,
        }
    }

    /// Goes to Reconnecting(n), and tries at once if the backoff lets it.
    fn reconnect(&mut self, now: Now, from: State, n: u32, old: Option<Box<Session>>, why: Why) {
        let wait = match &why {
            Why::Failed(Failure {
                kind: FailureKind::Replaced,
                retry_after: None,
                ..
            }) => self.backoff.yielding_wait(),
            Why::Failed(failure) => self.backoff.next_wait(failure.retry_after),
            Why::Asked
            | Why::Established
            | Why::Answered
            | Why::Silent
            | Why::AskedToMove
            | Why::NetworkChanged => self.backoff.next_wait(None),
        };
        let next = Next::Wait(now.instant + wait);
        self.change(from, Phase::Reconnecting { n, next, old }, why);
        if wait.is_zero() {
            self.try_now(now);
        }
    }

    /// In Reconnecting: tries at once, anew if an attempt was under way.
    fn try_now(&mut self, now: Now) {
        if let Some(stale) = self.trying() {
            self.give_up(now, stale.attempt);
        }
        let trying = self.start_attempt(now, limits::RECONNECT_TIMEOUT);
        if let Phase::Reconnecting { next, .. } = &mut self.phase {
            *next = Next::Try(trying);
        }
    }

    fn established(&mut self, now: Now, heartbeat: Duration) {
        let from = self.state();
        let Some(Trying { attempt, .. }) = self.trying() else {
            return;
        };
        if let Some(old) = self.kept_session() {
            self.abandon(old);
        }
        let session = Session {
            attempt,
            since: now.instant,
            heart: Heartbeat::new(now.instant, heartbeat.min(self.beat_max))
                .with_silence(self.silence),
            busy: false,
            leave: None,
        };
        self.change(from, Phase::Connected(Box::new(session)), Why::Established);
    }

    /// The attempt under way is over, and closed.
    fn attempt_failed(&mut self, now: Now, failure: Failure) {
        let failure = self.told_apart(now, failure);
        self.stray(now);
        let from = self.state();
        let (n, old) = match &mut self.phase {
            Phase::Connecting(_) => (1, None),
            Phase::Reconnecting { n, old, .. } => (n.saturating_add(1), old.take()),
            Phase::Disconnected | Phase::Connected(_) | Phase::Failed(_) => return,
        };
        if failure.is_final() || !self.may_retry() {
            if let Some(old) = old {
                self.abandon(old.attempt);
            }
            self.fail(from, failure);
        } else {
            let kept = old.is_some() || self.left.is_some();
            if failure.kind == FailureKind::TimedOut && !kept {
                self.outputs.push_back(Output::Rebind);
            }
            self.reconnect(now, from, n, old, Why::Failed(failure));
        }
    }

    /// The session in use, or the old one, is over and closed.
    fn session_lost(&mut self, now: Now, failure: Failure) {
        match &mut self.phase {
            Phase::Connected(_) => {
                let failure = self.told_apart(now, failure);
                self.leave(now, |_| None, Why::Failed(failure));
            }
            Phase::Reconnecting { old, .. } => {
                *old = None;
                self.fail_if_final(failure);
            }
            Phase::Disconnected | Phase::Connecting(_) | Phase::Failed(_) => {}
        }
    }

    /// While another session is sought: what ended the old one may be so for every other.
    fn fail_if_final(&mut self, failure: Failure) {
        if failure.is_final() && matches!(self.phase, Phase::Reconnecting { .. }) {
            let from = self.state();
            let tried = self.trying().map(|trying| trying.attempt);
            for stale in tried.into_iter().chain(self.kept_session()) {
                self.abandon(stale);
            }
            self.fail(from, failure);
        }
    }

    /// From Connected to Reconnecting(1), and on to Failed where trying cannot help.
    fn leave(
        &mut self,
        now: Now,
        keep: impl FnOnce(Box<Session>) -> Option<Box<Session>>,
        why: Why,
    ) {
        let from = self.state();
        let session = match std::mem::replace(&mut self.phase, Phase::Disconnected) {
            Phase::Connected(session) => session,
            other @ (Phase::Disconnected
            | Phase::Connecting(_)
            | Phase::Reconnecting { .. }
            | Phase::Failed(_)) => {
                self.phase = other;
                return;
            }
        };
        let lived = now.instant.saturating_duration_since(session.since);
        if lived >= limits::BACKOFF_RESET_AFTER {
            self.backoff.reset();
        }
        let failure = match &why {
            Why::Failed(failure) => failure.clone(),
            Why::Asked
            | Why::Established
            | Why::Answered
            | Why::Silent
            | Why::AskedToMove
            | Why::NetworkChanged => FailureKind::TimedOut.into(),
        };
        if failure.is_final() || !self.may_retry() {
            if let Some(old) = keep(session) {
                self.abandon(old.attempt);
            }
            let next = Next::Wait(now.instant);
            let old = None;
            self.change(from, Phase::Reconnecting { n: 1, next, old }, why);
            let from = self.state();
            self.fail(from, failure);
        } else {
            self.reconnect(now, from, 1, keep(session), why);
        }
    }

    fn vitals(&mut self, now: Now, vitals: &Vitals) {
        if let Phase::Connected(session) = &self.phase
            && let Some(strain) = self.prewarm.decide(now.instant, vitals)
        {
            let attempt = session.attempt;
            self.outputs
                .push_back(Output::SendPrewarm { attempt, strain });
        }
    }

    fn input(&mut self, now: Now, input: Input<'_>) {
        let tried = self.trying().map(|trying| trying.attempt);
        let kept = self.kept_session();
        let left = self.left.map(|left| left.attempt);
        match input {
            Input::Connect => self.connect(now, Why::Asked),
            Input::Disconnect => self.disconnect(now),
            Input::NetworkChanged => self.network_changed(now),
            Input::Woke { asleep } => self.woke(now, asleep),
            Input::AttemptEstablished { attempt, heartbeat } if tried == Some(attempt) => {
                self.established(now, heartbeat);
            }
            Input::AttemptFailed { attempt, failure } if tried == Some(attempt) => {
                self.attempt_failed(now, failure);
            }
            Input::SessionLost { attempt, failure } if kept == Some(attempt) => {
                self.session_lost(now, failure);
            }
            Input::SessionLost { attempt, failure } if left == Some(attempt) => {
                self.left_lost(failure);
            }
            Input::Traffic {
                attempt,
                traffic,
                busy,
                wanted,
            } if kept == Some(attempt) => {
                if let Phase::Connected(session) = &mut self.phase {
                    session.busy = busy;
                    if let Some(leave) = &mut session.leave
                        && wanted
                    {
                        leave.at = leave.at.min(now.instant);
                    }
                }
                // What was heard counts before any timer.
                self.heart(now, heartbeat::Input::Traffic(traffic));
                self.heart(now, heartbeat::Input::Awaited(busy));
            }
            Input::Traffic {
                attempt,
                busy: false,
                ..
            } if left == Some(attempt) => self.let_go(),
            Input::HeartbeatAcked { attempt, sequence } if kept == Some(attempt) => {
                self.heart(now, heartbeat::Input::Acked { sequence });
            }
            Input::GoAway {
                attempt,
                reconnect_in,
                try_for,
            } => {
                if let Phase::Connected(session) = &mut self.phase
                    && session.attempt == attempt
                {
                    session.leave = Some(Leave {
                        at: now.instant + reconnect_in.min(limits::RETRY_AFTER_MAX),
                        served_until: now.instant + try_for.min(limits::RETRY_AFTER_MAX),
                    });
                }
            }
            Input::Vitals(vitals) => self.vitals(now, vitals),
            // Late words of an attempt that is no more, and a timeout's timers run below.
            Input::AttemptEstablished { .. }
            | Input::AttemptFailed { .. }
            | Input::SessionLost { .. }
            | Input::Traffic { .. }
            | Input::HeartbeatAcked { .. }
            | Input::Timeout => {}
        }
    }
}

impl Machine for Tunnel {
    type Input<'a> = Input<'a>;
    type Output = Output;
    type Rejected = Rejected;

    fn handle_input(&mut self, now: Now, input: Input<'_>) -> Result<(), Rejected> {
        if self.outputs.len() >= limits::OUTPUT_BACKLOG_MAX {
            return Err(Rejected::Backlog);
        }
        let idle = matches!(self.phase, Phase::Disconnected | Phase::Failed(_));
        if matches!(input, Input::Connect) && !idle {
            return Err(Rejected::AlreadyUp);
        }
        self.input(now, input);
        self.run_timers(now);
        self.deadline = self.next_deadline();
        Ok(())
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.deadline
    }
}
