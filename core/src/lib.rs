//! The pure core of Synesis: every rule and every state machine of the tunnel between a device and
//! its gateway, QUIC and TLS included, with no socket, no clock, no thread and no runtime.
//!
//! Start at [`machine`] for the contract and [`time`] for how time enters.

pub mod api;
pub mod backoff;
pub mod billing;
pub mod buggify;
pub mod device;
pub mod dialect;
pub mod error;
pub mod escalation;
pub mod gateway;
pub mod heartbeat;
pub mod identity;
pub mod ids;
pub mod limits;
pub mod machine;
pub mod privacy;
pub mod quic;
pub mod rate;
pub mod rng;
pub mod stream;
pub mod time;
pub mod transport;
pub mod tunnel;
pub mod vitals;
pub mod wire;
