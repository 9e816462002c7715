//! What a tunnel is told and what it says.

use std::time::{Duration, Instant};

use super::{AttemptId, Failure, State, Why};
use crate::heartbeat::Traffic;
use crate::vitals::Strain;
use crate::wire::message::Vitals;

/// What a tunnel is told.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// A person or a program wants a tunnel.
    Connect,
    /// Nobody wants it any more.
    Disconnect,
    /// The local address or the route changed.
    NetworkChanged,
    /// The machine woke up.
    Woke {
        /// How long it slept.
        asleep: Duration,
    },
    /// The gateway said hello back.
    AttemptEstablished {
        /// Which.
        attempt: AttemptId,
        /// How often the gateway wants beats.
        heartbeat: Duration,
    },
    /// An attempt failed.
    AttemptFailed {
        /// Which.
        attempt: AttemptId,
        /// Why.
        failure: Failure,
    },
    /// An established session is over.
    SessionLost {
        /// Which.
        attempt: AttemptId,
        /// Why.
        failure: Failure,
    },
    /// What the transport knows of a session, after every step of the parent.
    Traffic {
        /// Which.
        attempt: AttemptId,
        /// The facts.
        traffic: Traffic,
        /// Whether answers are under way on it.
        busy: bool,
        /// Whether something waits to be begun on a session.
        wanted: bool,
    },
    /// The gateway acknowledged a beat.
    HeartbeatAcked {
        /// On which session.
        attempt: AttemptId,
        /// The beat's sequence.
        sequence: u64,
    },
    /// The gateway asks to move: at the latest then, or as soon as something waits to be begun.
    GoAway {
        /// On which session.
        attempt: AttemptId,
        /// When, from now.
        reconnect_in: Duration,
        /// How long it goes on serving, from now: answers under way may be finished until then, beside
        /// the next session.
        try_for: Duration,
    },
    /// The device's load was measured.
    Vitals(&'a Vitals),
    /// The deadline has come.
    Timeout,
}

/// What a tunnel says.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Try to establish a session. If nothing is said of it until `give_up_at` it is abandoned.
    StartAttempt {
        /// Its name.
        attempt: AttemptId,
        /// Its end.
        give_up_at: Instant,
    },
    /// Close everything that belongs to an attempt or to the session it became.
    AbandonAttempt {
        /// Which.
        attempt: AttemptId,
    },
    /// Go on from another local port: nothing came back to this one.
    Rebind,
    /// The state changed.
    Changed {
        /// From here.
        from: State,
        /// To here.
        to: State,
        /// For this reason.
        why: Why,
    },
    /// While Connected: the path may be dead, or is known to live again.
    Doubt(bool),
    /// Send a heartbeat on the session's control stream.
    SendHeartbeat {
        /// Which session.
        attempt: AttemptId,
        /// The beat's sequence.
        sequence: u64,
    },
    /// Make the peer answer.
    Probe {
        /// On which session.
        attempt: AttemptId,
    },
    /// Send a pre-warm signal on the session's control stream.
    SendPrewarm {
        /// Which session.
        attempt: AttemptId,
        /// Why.
        strain: Strain,
    },
}

/// How the caller misused the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Outputs have not been drained: drain them first.
    #[error("too many outputs wait to be drained")]
    Backlog,
    /// There is a tunnel, or one is being made.
    #[error("the tunnel is up or coming up already")]
    AlreadyUp,
}
