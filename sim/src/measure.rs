//! How fast the simulator is, and what a year looks like: written plans, run and summed up for people.

use std::time::Instant;

use mesh_core::quic::Quic;

use crate::queue::{Micros, SECOND};
use crate::record::{Outcome, Violation};
use crate::scenario;
use crate::wire::plain::Plain;
use crate::wire::{Unbuildable, Wire};
use crate::world::World;

/// A fleet that beat for a while.
#[derive(Clone, Debug)]
pub struct Speed {
    /// Virtual seconds for each second on the wall, after every device was connected.
    pub virtual_per_wall: f64,
    /// Events a second.
    pub events_per_s: f64,
    /// Datagrams for each device and virtual minute.
    pub datagrams_per_device_minute: f64,
    /// Nothing should break.
    pub violation: Option<Violation>,
}

pub(crate) fn on<R>(
    transport: &str,
    quic: impl FnOnce() -> Result<R, Unbuildable>,
    plain: impl FnOnce() -> Result<R, Unbuildable>,
) -> Result<R, Unbuildable> {
    match transport {
        Quic::NAME => quic(),
        Plain::NAME => plain(),
        unknown => Err(Unbuildable(format!(
            "there is no transport {unknown:?}; use quic or plain"
        ))),
    }
}

/// Lets a fleet beat for `span` virtual µs after all are connected.
///
/// # Errors
///
/// [`Unbuildable`].
pub fn fleet(transport: &str, devices: usize, span: Micros) -> Result<Speed, Unbuildable> {
    on(
        transport,
        || fleet_on::<Quic>(devices, span),
        || fleet_on::<Plain>(devices, span),
    )
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn fleet_on<W: Wire>(devices: usize, span: Micros) -> Result<Speed, Unbuildable> {
    let mut world = World::<W>::new(scenario::fleet(W::NAME, devices), false)?;
    let before = world.run_for(120 * SECOND)?;
    let began = Instant::now();
    let after = world.run_for(span)?;
    let wall = began.elapsed().as_secs_f64();
    let datagrams = (after.datagrams - before.datagrams) as f64;
    Ok(Speed {
        virtual_per_wall: span as f64 / 1e6 / wall,
        events_per_s: (after.events - before.events) as f64 / wall,
        datagrams_per_device_minute: datagrams / devices as f64 / (span as f64 / 6e7),
        violation: after.violation,
    })
}

/// A device on a bad mobile link.
#[derive(Clone, Debug)]
pub struct Commuter {
    /// Days.
    pub days: u64,
    /// The part of the time in which there was a session.
    pub uptime: f64,
    /// Sessions that came back.
    pub reconnects: u64,
    /// Questions asked, and answered to their end.
    pub questions: (usize, usize),
    /// UDP payload a day both ways, bytes.
    pub bytes_a_day: u64,
    /// Wall time, s.
    pub wall_s: f64,
    /// Nothing should break.
    pub violation: Option<Violation>,
}

/// Lets one device live on a bad mobile link.
///
/// # Errors
///
/// [`Unbuildable`].
#[expect(clippy::cast_precision_loss, reason = "for people to read")]
pub fn commuter(days: u64) -> Result<Commuter, Unbuildable> {
    let began = Instant::now();
    let mut world = World::<Quic>::new(scenario::commuter(Quic::NAME, days), false)?;
    let span = days * 24 * 3600 * SECOND;
    let finished = world.run_for(span)?;
    let record = world.record();
    let open: Micros = record
        .tunnels
        .iter()
        .filter_map(|tunnel| tunnel.up_since)
        .map(|since| world.now() - since)
        .sum();
    let answered = record
        .questions
        .values()
        .filter(|asked| matches!(asked.outcome, Some(Outcome::Answered { .. })))
        .count();
    Ok(Commuter {
        days,
        uptime: (record.up_us + open) as f64 / span as f64,
        reconnects: record.reconnects,
        questions: (record.questions.len(), answered),
        bytes_a_day: world.device_bytes(0) / days.max(1),
        wall_s: began.elapsed().as_secs_f64(),
        violation: finished.violation,
    })
}
