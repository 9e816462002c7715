//! What a run is made of, explicitly: who is there, how their links are, and everything that happens
//! to them. A plan can be saved, edited, shrunk and run again without the seed that it was drawn from.

mod money;

use serde::{Deserialize, Serialize};

pub use self::money::{Deed, TierPlan};
use crate::net::Link;
use crate::queue::Micros;

/// The wall clock when a world begins that does not say: 2026-11-18T11:06:40Z, ms since 1970.
pub const WALL_MS: u64 = 1_795_000_000_000;

const fn kept_secs() -> u32 {
    600
}

const fn wall_ms() -> u64 {
    WALL_MS
}

/// See the module documentation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What every stream of chance in the world is derived from.
    pub seed: u64,
    /// `quic` or `plain`.
    pub transport: String,
    /// Whether the machines' rare cases are armed.
    pub buggify: bool,
    /// Whether devices wait their longest before every retry, instead of a drawn part of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unjittered: bool,
    /// How long faults strike, µs. After it everything heals, and all must come to a good end.
    pub faults_until: Micros,
    /// The wall clock when the world begins, ms since 1970.
    #[serde(default = "wall_ms")]
    pub wall_ms: u64,
    /// How long answers are kept after their end, seconds.
    #[serde(default = "kept_secs")]
    pub kept_secs: u32,
    /// How much may be asked; what a gateway allows if nothing is said, if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rates: Option<RatesPlan>,
    /// Gateways of the deployment: with several, devices try them in turn.
    pub gateways: u32,
    /// What each account may spend in a month, nano-dollars.
    pub ceilings: Vec<i64>,
    /// The devices.
    pub devices: Vec<DevicePlan>,
    /// What the store takes to answer, µs, from and to.
    pub store_us: (Micros, Micros),
    /// What a model server takes to its first piece, µs, from and to.
    pub upstream_us: (Micros, Micros),
    /// Everything that happens, in order of time.
    pub happenings: Vec<Timed>,
}

/// How much may be asked of each gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RatesPlan {
    /// Questions of one device in a minute.
    pub device_per_minute: u32,
    /// Questions of one account in a minute.
    pub account_per_minute: u32,
    /// Answers of one device at once.
    pub device_at_once: u32,
    /// Answers of one account at once.
    pub account_at_once: u32,
}

impl RatesPlan {
    /// What the documentation says of a gateway that is told nothing.
    pub const UNTOLD: Self = Self {
        device_per_minute: 100,
        account_per_minute: 100,
        device_at_once: 32,
        account_at_once: 1024,
    };
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicePlan {
    /// Whose it is: an index into [`Plan::ceilings`].
    pub account: usize,
    /// To the gateways.
    pub up: Link,
    /// From the gateways.
    pub down: Link,
    /// After how long of nothing sent the translator before it forgets it, µs; zero: never.
    pub nat_expiry_us: Micros,
}

/// Something that happens at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed {
    /// Virtual µs.
    pub at: Micros,
    /// What.
    #[serde(flatten)]
    pub what: Happening,
}

/// What may happen to a world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Happening {
    /// A device asks.
    Ask {
        /// Which device.
        device: usize,
        /// The question's number, never used twice.
        question: u64,
        /// Whether piece by piece.
        stream: bool,
        /// Bytes that go with it.
        context_bytes: usize,
        /// Words of the answer.
        words: u32,
        /// What the model server does.
        upstream: Script,
    },
    /// A device cancels.
    Cancel {
        /// Which device.
        device: usize,
        /// Which question.
        question: u64,
    },
    /// The same question is sent again under the same id.
    AskAgain {
        /// Which device.
        device: usize,
        /// Which question.
        question: u64,
    },
    /// A device reads no further for a while.
    Pause {
        /// Which device.
        device: usize,
        /// Which question.
        question: u64,
        /// Until then.
        until: Micros,
    },
    /// A device measures its load.
    Load {
        /// Which device.
        device: usize,
        /// GPU load in percent.
        gpu_percent: u8,
    },
    /// A device's link is cut.
    Cut {
        /// Which device.
        device: usize,
        /// What it sends is lost.
        up: bool,
        /// What it should receive is lost.
        down: bool,
        /// Until then.
        until: Micros,
    },
    /// The path takes small datagrams only.
    SmallMtu {
        /// Which device.
        device: usize,
        /// The largest, bytes of UDP payload.
        bytes: u32,
        /// Until then.
        until: Micros,
    },
    /// The translator before a device gives it another port.
    Rebind {
        /// Which device.
        device: usize,
    },
    /// A device moves to another network, and notices.
    Move {
        /// Which device.
        device: usize,
    },
    /// A device's process dies; it comes back.
    CrashDevice {
        /// Which device.
        device: usize,
        /// Back then.
        until: Micros,
    },
    /// A device sleeps.
    Suspend {
        /// Which device.
        device: usize,
        /// Awake then.
        until: Micros,
    },
    /// A device's wall clock jumps.
    Skew {
        /// Which device.
        device: usize,
        /// By so much, ms.
        by_ms: i64,
    },
    /// A gateway's wall clock jumps.
    SkewGateway {
        /// Which gateway.
        gateway: usize,
        /// By so much, ms.
        by_ms: i64,
    },
    /// Something is done to an account, by whoever may.
    Order {
        /// Whose: an index into [`Plan::ceilings`].
        account: usize,
        /// What.
        order: Deed,
    },
    /// A gateway's process dies; it comes back.
    CrashGateway {
        /// Which gateway.
        gateway: usize,
        /// Back then.
        until: Micros,
    },
    /// The gateway that charges a question dies once that is written, before it can say so; it comes back.
    CrashAtEnd {
        /// Which question.
        question: u64,
        /// For so long, µs.
        for_us: Micros,
    },
    /// A gateway is stopped in good order, and comes back.
    StopGateway {
        /// Which gateway.
        gateway: usize,
        /// Back then.
        until: Micros,
    },
    /// A gateway goes away in good order, and comes back.
    DrainGateway {
        /// Which gateway.
        gateway: usize,
        /// Answers under way may take so long to end, µs.
        limit_us: Micros,
        /// Its devices are sent away within so long, µs.
        spread_us: Micros,
        /// Whether they are told to go to the other gateways, or to come back.
        elsewhere: bool,
        /// Back then.
        until: Micros,
    },
    /// The store takes this much longer: its word is late.
    SlowStore {
        /// µs.
        by_us: Micros,
        /// Until then.
        until: Micros,
    },
    /// The store's disk fails or is full: it answers that it is unavailable.
    BrokenStore {
        /// Until then.
        until: Micros,
    },
    /// A device is revoked.
    Revoke {
        /// Which device.
        device: usize,
    },
    /// A device's certificate is past its end.
    Expire {
        /// Which device.
        device: usize,
    },
}

/// What a model server does with one question, attempt after attempt; after the last it answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// What goes wrong at the first attempts.
    pub troubles: Vec<Trouble>,
    /// It speaks Anthropic's format, not OpenAI's.
    pub anthropic: bool,
    /// So many events of its stream arrive together; one by one when 0 or 1.
    #[serde(default)]
    pub together: u32,
    /// What it takes longer to say each of these groups, ms.
    #[serde(default)]
    pub pace_ms: u32,
}

/// What goes wrong at one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "trouble", rename_all = "snake_case")]
pub enum Trouble {
    /// An error status.
    Status {
        /// Which.
        status: u16,
    },
    /// The connection breaks after so many words.
    Break {
        /// How many.
        after: u32,
    },
    /// Nothing more comes after so many words, until everything heals.
    Stall {
        /// How many.
        after: u32,
    },
    /// It cannot be reached.
    Unreachable,
    /// The answer is whole, and says no usage.
    NoUsage,
}
