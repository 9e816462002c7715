//! How the tunnel fares, as every shell shows it: what a subscription sees, and what `status`
//! reports.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Failure, State, Stats};
use crate::billing::account::Summary;
use crate::ids::DeviceId;
use crate::time::UnixMillis;

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

/// What a subscription shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The tunnel's state.
    pub state: State,
    /// Smoothed round-trip time, while connected.
    pub latency: Option<Duration>,
    /// How long the last handshake took.
    pub handshake: Option<Duration>,
    /// The number of the last session, which the gateway counts for each device.
    pub epoch: Option<u64>,
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
            epoch: None,
            prewarmed_at: None,
            last_failure: None,
            statistics: Statistics::default(),
        }
    }
}

impl Standing {
    /// How a device stands whose last failure is remembered by the caller.
    #[must_use]
    pub fn new(state: State, stats: &Stats, last_failure: Option<Failure>) -> Self {
        Self {
            state,
            latency: stats.rtt,
            handshake: stats.handshake,
            epoch: stats.epoch,
            prewarmed_at: stats.prewarmed_at,
            last_failure,
            statistics: Statistics::from(stats),
        }
    }

    /// Whether a subscriber should be woken: the state changed or there is something new to tell,
    /// and not only a counter moved.
    #[must_use]
    pub fn is_news_after(&self, shown: &Self) -> bool {
        (
            self.state,
            self.epoch,
            self.prewarmed_at,
            &self.last_failure,
        ) != (
            shown.state,
            shown.epoch,
            shown.prewarmed_at,
            &shown.last_failure,
        )
    }

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
    /// How long the last handshake took, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_us: Option<u64>,
    /// The number of the last session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
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

/// What a report says of the program that owns the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// This device.
    pub device: DeviceId,
    /// The gateway's tunnel address.
    pub gateway: String,
    /// When the device's certificate ends.
    pub certificate_ends_at: UnixMillis,
    /// The process, if it is an agent's.
    pub agent_pid: Option<u32>,
}

impl Status {
    /// The report of a tunnel that began `uptime` ago.
    #[must_use]
    pub fn new(
        about: About,
        standing: Standing,
        uptime: Duration,
        account: Option<Summary>,
    ) -> Self {
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Self {
            device_id: about.device,
            gateway: about.gateway,
            state: standing.state.into(),
            attempt: match standing.state {
                State::Reconnecting { attempt } => Some(attempt),
                State::Disconnected
                | State::Connecting
                | State::Connected { .. }
                | State::Failed => None,
            },
            in_doubt: standing.state == State::Connected { in_doubt: true },
            latency_us: standing.latency.map(micros),
            handshake_us: standing.handshake.map(micros),
            epoch: standing.epoch,
            last_failure: standing.last_failure.map(|failure| failure.to_string()),
            prewarmed_at: standing.prewarmed_at,
            certificate_ends_at: about.certificate_ends_at,
            agent_pid: about.agent_pid,
            uptime_secs: uptime.as_secs(),
            statistics: standing.statistics,
            account,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(state: State, stats: Stats) -> Standing {
        Standing::new(state, &stats, None)
    }

    #[test]
    fn a_counter_is_no_news_and_a_state_or_a_session_is() {
        let beaten = Stats {
            heartbeats_acked: 7,
            ..Stats::default()
        };
        let other = Stats {
            epoch: Some(2),
            ..Stats::default()
        };
        let (up, doubt) = (
            State::Connected { in_doubt: false },
            State::Connected { in_doubt: true },
        );
        let shown = standing(up, Stats::default());
        assert!(!standing(up, beaten).is_news_after(&shown));
        assert!(standing(doubt, Stats::default()).is_news_after(&shown));
        assert!(standing(up, other).is_news_after(&shown));
    }

    #[test]
    fn a_report_says_what_the_tunnel_is_in_units_that_its_names_tell() {
        let stats = Stats {
            rtt: Some(Duration::from_millis(3)),
            handshake: Some(Duration::from_micros(1_700)),
            epoch: Some(4),
            ..Stats::default()
        };
        let about = About {
            device: DeviceId::from_u128(1),
            gateway: "gw.example:4141".to_owned(),
            certificate_ends_at: UnixMillis(5),
            agent_pid: None,
        };
        let report = Status::new(
            about,
            standing(State::Reconnecting { attempt: 3 }, stats),
            Duration::from_secs(61),
            None,
        );
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["state"], "reconnecting");
        assert_eq!(json["attempt"], 3);
        assert_eq!(json["latency_us"], 3_000);
        assert_eq!(json["handshake_us"], 1_700);
        assert_eq!(json["epoch"], 4);
        assert_eq!(json["uptime_secs"], 61);
        assert!(json.get("agent_pid").is_none() && json.get("account").is_none());
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), report);
    }
}
