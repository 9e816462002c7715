//! How the tunnel fares: what a subscription shows, and what `status` reports.

use std::time::Duration;

use mesh_core::billing::account::Summary;
use mesh_core::device::{Failure, State, Stats};
use mesh_core::ids::DeviceId;
use mesh_core::time::UnixMillis;
use serde::{Deserialize, Serialize};

/// The name of the tunnel's state, as JSON has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateName {
    /// Nobody wants a tunnel.
    Disconnected,
    /// The first attempt is under way.
    Connecting,
    /// There is a session.
    Connected,
    /// Attempts are made to get a session back.
    Reconnecting,
    /// Nothing more is tried.
    Failed,
}

impl From<State> for StateName {
    fn from(state: State) -> Self {
        match state {
            State::Disconnected => Self::Disconnected,
            State::Connecting => Self::Connecting,
            State::Connected { .. } => Self::Connected,
            State::Reconnecting { .. } => Self::Reconnecting,
            State::Failed => Self::Failed,
        }
    }
}

impl StateName {
    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Reconnecting => "reconnecting",
            Self::Failed => "failed",
        }
    }
}

/// Counters of one client's life, over all its tunnels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Statistics {
    /// UDP payload bytes sent.
    pub sent_bytes: u64,
    /// UDP payload bytes received.
    pub received_bytes: u64,
    /// Heartbeats sent.
    pub heartbeats_sent: u64,
    /// Heartbeats that were acknowledged.
    pub heartbeats_acked: u64,
    /// Questions sent.
    pub requests_sent: u64,
    /// Questions answered.
    pub requests_succeeded: u64,
    /// Questions that failed.
    pub requests_failed: u64,
    /// How often the tunnel came back.
    pub reconnections: u64,
}

impl From<&Stats> for Statistics {
    fn from(stats: &Stats) -> Self {
        Self {
            sent_bytes: stats.sent_bytes,
            received_bytes: stats.received_bytes,
            heartbeats_sent: stats.heartbeats_sent,
            heartbeats_acked: stats.heartbeats_acked,
            requests_sent: stats.requests_sent,
            requests_succeeded: stats.requests_succeeded,
            requests_failed: stats.requests_failed,
            reconnections: stats.reconnections,
        }
    }
}

/// What a subscription shows; see [`Client::subscribe`](super::client::Client::subscribe).
/// Subscribers are woken when the state changes, not by every counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The tunnel's state.
    pub state: State,
    /// Smoothed round-trip time, while connected.
    pub latency: Option<Duration>,
    /// How long the last handshake took.
    pub handshake: Option<Duration>,
    /// When the gateway was last told to expect a question.
    pub prewarmed_at: Option<UnixMillis>,
    /// Why the last attempt failed or the last tunnel ended.
    pub last_failure: Option<Failure>,
    /// Counters.
    pub statistics: Statistics,
}

impl Default for Standing {
    fn default() -> Self {
        Self {
            state: State::Disconnected,
            latency: None,
            handshake: None,
            prewarmed_at: None,
            last_failure: None,
            statistics: Statistics::default(),
        }
    }
}

impl Standing {
    /// Whether the tunnel is up.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected { .. })
    }
}

/// The whole report, as it travels over the control socket and `--json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// This device.
    pub device_id: DeviceId,
    /// The gateway's tunnel address.
    pub gateway: String,
    /// The tunnel's state.
    pub state: StateName,
    /// The attempt under way, while reconnecting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Connected, but nothing was heard for longer than usual.
    pub in_doubt: bool,
    /// Smoothed round-trip time in microseconds, while connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<u64>,
    /// Why the last attempt failed or the last tunnel ended, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
    /// When the gateway was last told to expect a question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prewarmed_at: Option<UnixMillis>,
    /// When the device's certificate ends.
    pub certificate_ends_at: UnixMillis,
    /// The agent's process, if it is the agent's tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_pid: Option<u32>,
    /// Seconds since the tunnel's client began.
    pub uptime_secs: u64,
    /// Counters.
    pub statistics: Statistics,
    /// The account, if the gateway could be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Summary>,
}
