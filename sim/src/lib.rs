//! The deterministic simulator: the devices and gateways of production, QUIC and TLS included, on a
//! virtual clock, over links that lose, delay, reorder, damage and go black, among processes that die
//! and disks that fail. One seed, one history, bit for bit.
//!
//! Start at [`plan`] for what a run is made of, [`world`] for how it runs, [`invariants`] for what
//! must hold.

pub mod chance;
pub mod draw;
pub mod invariants;
pub mod measure;
pub mod minimize;
pub mod net;
pub mod outside;
pub mod page;
pub mod plan;
pub mod queue;
pub mod record;
pub mod recorder;
pub mod report;
pub mod scenario;
pub mod sometimes;
pub mod storm;
pub mod swarm;
pub mod trace;
pub mod wire;
pub mod world;
