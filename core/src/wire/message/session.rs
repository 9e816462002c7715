//! A session and its health: hello, heartbeats, notices, and asking a device to move.

use serde::{Deserialize, Serialize};

use super::{ErrorMessage, finite};
use crate::billing::account::alert::Alert;
use crate::ids::DeviceId;
use crate::time::UnixMillis;

/// Device → gateway, control: the device is alive, and how it fares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The sender; must be the certificate's.
    pub device_id: DeviceId,
    /// The device's wall clock.
    pub timestamp: UnixMillis,
    /// Grows by one with every heartbeat of a tunnel session.
    pub sequence: u64,
    /// What the device measured last.
    pub vitals: Vitals,
}

/// A device's load. Fractions are 0.0–1.0; what cannot be measured is absent, never zero.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Vitals {
    /// All processors together, 0.0–1.0.
    #[serde(deserialize_with = "finite::single")]
    pub cpu_usage: f32,
    /// Main memory, 0.0–1.0.
    #[serde(deserialize_with = "finite::single")]
    pub memory_usage: f32,
    /// The disk that holds the data folder, 0.0–1.0.
    #[serde(deserialize_with = "finite::single")]
    pub disk_usage: f32,
    /// GPU, 0.0–1.0.
    #[serde(
        default,
        deserialize_with = "finite::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub gpu_usage: Option<f32>,
    /// GPU memory, 0.0–1.0.
    #[serde(
        default,
        deserialize_with = "finite::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub gpu_vram_usage: Option<f32>,
    /// GPU temperature in degrees Celsius.
    #[serde(
        default,
        deserialize_with = "finite::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub gpu_temp_celsius: Option<f32>,
    /// Conversations open on the device.
    pub active_sessions: u32,
    /// Questions asked and not yet answered.
    pub pending_queries: u32,
    /// The model loaded locally, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded_model: Option<String>,
}

/// Gateway → device, control: answers one heartbeat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeartbeatAck {
    /// The heartbeat's sequence.
    pub sequence: u64,
    /// The gateway's wall clock.
    pub server_time: UnixMillis,
    /// The gateway's estimate of the round trip, milliseconds.
    pub latency_ms: u32,
    /// Answers that wait for this device.
    pub pending_messages: u32,
    /// How the gateway fares.
    pub server_status: ServerStatus,
}

/// How the gateway fares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "status")]
pub enum ServerStatus {
    /// Everything works.
    #[default]
    Healthy,
    /// Something does not.
    Degraded {
        /// What, for a person.
        reason: String,
    },
    /// Planned work.
    Maintenance {
        /// When it should be over.
        until: UnixMillis,
    },
}

/// Device → gateway, control: the device will probably escalate soon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrewarmSignal {
    /// The sender; must be the certificate's.
    pub device_id: DeviceId,
    /// The device's wall clock.
    pub timestamp: UnixMillis,
    /// GPU, 0.0–1.0.
    #[serde(deserialize_with = "finite::single")]
    pub gpu_usage: f32,
    /// Degrees Celsius.
    #[serde(
        default,
        deserialize_with = "finite::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub gpu_temp: Option<f32>,
    /// What was over its threshold.
    pub reason: String,
    /// The project that will be charged, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// The adapter that will be wanted, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora_id: Option<String>,
}

/// Device → gateway, control, first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The sender; must be the certificate's.
    pub device_id: DeviceId,
    /// Program and version.
    pub agent: String,
    /// Extensions understood.
    #[serde(default)]
    pub features: Vec<String>,
}

/// Gateway → device, control: the session is established.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloAck {
    /// The session's number, given out by the store; a higher one replaces a lower.
    pub epoch: u64,
    /// The gateway's wall clock.
    pub server_time: UnixMillis,
    /// How often to beat.
    pub heartbeat_secs: u32,
    /// What the gateway accepts.
    #[serde(default)]
    pub limits: SessionLimits,
    /// Extensions understood.
    #[serde(default)]
    pub features: Vec<String>,
}

/// What the gateway accepts from one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionLimits {
    /// Answers under way at once.
    pub escalations_max: u32,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            escalations_max: crate::limits::ESCALATIONS_PER_TUNNEL_MAX,
        }
    }
}

/// Gateway → device, control: move away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoAway {
    /// When to reconnect, counted from now.
    pub reconnect_in_ms: u64,
    /// How long this gateway goes on serving the session.
    pub try_for_secs: u32,
    /// Where to go instead, `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alternate: Option<String>,
}

/// Gateway → device, control: something the person may want to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// What it is about.
    pub kind: String,
    /// The particulars.
    #[serde(default)]
    pub data: serde_json::Value,
}

impl Notice {
    /// The kind of a notice that a limit of the account comes near. Its data is an
    /// [`Alert`].
    pub const LIMIT: &str = "limit";
    /// Where it is in the details of an error that ends an answer.
    pub const IN_DETAILS: &str = "notice";

    /// That of an answer that failed and was charged all the same.
    #[must_use]
    pub(crate) fn of_failed(error: &ErrorMessage) -> Option<Self> {
        let notice = error.details.as_ref()?.get(Self::IN_DETAILS)?;
        serde_json::from_value(notice.clone()).ok()
    }

    /// For a person, if it is of a kind that people are told of.
    #[must_use]
    pub fn in_words(&self) -> Option<String> {
        let limit = (self.kind == Self::LIMIT).then(|| self.data.clone())?;
        let alert = serde_json::from_value::<Alert>(limit).ok()?;
        Some(alert.in_words())
    }
}
