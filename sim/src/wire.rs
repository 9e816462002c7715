//! The transport below the machines: real QUIC, or an ideal one for very large fleets.

pub mod certificates;
pub mod plain;
mod provider;
pub mod quic;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mesh_core::rng::Seed;
use mesh_core::time::UnixMillis;
use mesh_core::transport::Transport;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use self::certificates::{Authority, Certificate};

/// One node's wall clock, as TLS reads it.
#[derive(Clone, Debug, Default)]
pub struct WallClock(Arc<AtomicU64>);

impl WallClock {
    /// Sets it.
    pub fn set(&self, wall: UnixMillis) {
        self.0.store(wall.0, Ordering::Relaxed);
    }
}

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        let millis = self.0.load(Ordering::Relaxed);
        Some(UnixTime::since_unix_epoch(Duration::from_millis(millis)))
    }
}

/// A world that cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("the simulated world cannot be built: {0}")]
pub struct Unbuildable(pub String);

impl Unbuildable {
    /// From any error's words.
    pub fn new(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// A transport that the simulator can make.
pub trait Wire: Transport + Sized {
    /// Its name on the command line and in plans.
    const NAME: &'static str;
    /// Whether all streams of a connection come in one order, so that what one has lost holds up the
    /// others.
    const ORDERED: bool;

    /// A device's end.
    ///
    /// # Errors
    ///
    /// [`Unbuildable`].
    fn device(
        authority: &Authority,
        own: &Certificate,
        clock: &WallClock,
        seed: &Seed,
    ) -> Result<Self, Unbuildable>;

    /// A gateway's end; `shard` is its number among those of the deployment.
    ///
    /// # Errors
    ///
    /// [`Unbuildable`].
    fn gateway(
        authority: &Authority,
        shard: u8,
        clock: &WallClock,
        seed: &Seed,
    ) -> Result<Self, Unbuildable>;
}
