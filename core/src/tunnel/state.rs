//! What others see of a tunnel: its state, which states may follow it, and why one did.

use std::fmt;

use super::Failure;
use crate::limits;

/// The tunnel's state, as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody wants a tunnel.
    Disconnected,
    /// The first attempt is under way.
    Connecting,
    /// There is a session.
    Connected {
        /// Whether its path may be dead.
        in_doubt: bool,
    },
    /// Attempts are made to get a session back.
    Reconnecting {
        /// The attempt's number, from 1.
        attempt: u32,
    },
    /// Nothing more is tried until a command or a new network.
    Failed,
}

impl State {
    /// The state's name, without its data.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disconnected => "Disconnected",
            Self::Connecting => "Connecting",
            Self::Connected { .. } => "Connected",
            Self::Reconnecting { .. } => "Reconnecting",
            Self::Failed => "Failed",
        }
    }

    /// Whether the table in the module documentation has this transition.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        match (self, next) {
            (Self::Reconnecting { attempt }, Self::Reconnecting { attempt: next }) => {
                next == attempt.saturating_add(1)
            }
            (Self::Disconnected | Self::Failed, Self::Connecting)
            | (
                Self::Connecting | Self::Connected { .. },
                Self::Reconnecting { attempt: 1 } | Self::Disconnected,
            )
            | (
                Self::Connecting | Self::Reconnecting { .. },
                Self::Connected { .. } | Self::Failed,
            )
            | (Self::Reconnecting { .. } | Self::Failed, Self::Disconnected) => true,
            (
                Self::Disconnected
                | Self::Connecting
                | Self::Connected { .. }
                | Self::Reconnecting { .. }
                | Self::Failed,
                _,
            ) => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { in_doubt: true } => f.write_str("Connected (in doubt)"),
            Self::Reconnecting { attempt } => write!(f, "Reconnecting ({attempt})"),
            Self::Disconnected | Self::Connecting | Self::Connected { .. } | Self::Failed => {
                f.write_str(self.name())
            }
        }
    }
}

/// Why the state changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Somebody asked for it.
    Asked,
    /// An attempt succeeded.
    Established,
    /// The old session answered after all.
    Answered,
    /// The session fell silent.
    Silent,
    /// The gateway asked to move.
    AskedToMove,
    /// The network changed.
    NetworkChanged,
    /// An attempt or the session failed.
    Failed(Failure),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("as asked"),
            Self::Established => f.write_str("the gateway said hello"),
            Self::Answered => f.write_str("the old session answered"),
            Self::Silent => f.write_str("the gateway has been silent under probing"),
            Self::AskedToMove => f.write_str("the gateway asked to move"),
            Self::NetworkChanged => f.write_str("the network changed"),
            Self::Failed(failure) => write!(f, "{failure}"),
        }
    }
}

/// How often a lost session is tried to be had back before [`State::Failed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempts {
    /// So many times.
    AtMost(u32),
    /// For ever, at the longest backoff.
    Forever,
}

impl Default for Attempts {
    fn default() -> Self {
        Self::AtMost(limits::RECONNECT_ATTEMPTS)
    }
}

/// One attempt, and the session it became. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttemptId(pub(super) u64);
