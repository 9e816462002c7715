//! A gateway that restarts under a whole fleet, with the jitter of the backoff and without it.
//!
//! How the devices come back depends on what they know when the gateway does:
//!
//! * One that has not given its session up probes it every second. The new gateway knows nothing of
//!   that session and resets it; the first retry does not wait. Jitter has no part in this. Over QUIC a
//!   gateway sends at most one reset in 20 ms (quinn's `min_reset_interval`; RFC 9000 §10.3.3 asks for
//!   a limit), so most of a fleet whose probes come together is not told, and gives up after 20 s of
//!   silence.
//! * One that has tried in vain waits before its next attempt: with jitter any moment up to the
//!   longest wait of that retry, without it exactly the longest, at the same moment as all others that
//!   noticed when it did.

mod chart;

use std::time::Instant;

use mesh_core::quic::Quic;

use crate::measure::on;
use crate::queue::{Micros, SECOND};
use crate::record::Violation;
use crate::scenario;
use crate::wire::plain::Plain;
use crate::wire::{Unbuildable, Wire};
use crate::world::World;

pub use self::chart::html;

/// For so long after its gateway's return a fleet is looked at: three of the longest waits.
const LOOKED_AT: Micros = 180 * SECOND;

/// What is to happen.
#[derive(Clone, Copy, Debug)]
pub struct Storm<'a> {
    /// `quic` or `plain`.
    pub transport: &'a str,
    /// How many.
    pub devices: usize,
    /// How long the gateway is away, µs.
    pub dark: Micros,
}

/// How a fleet came back.
#[derive(Clone, Debug)]
pub struct Course {
    /// Whether waits were drawn.
    pub jitter: bool,
    /// Sessions that the gateway established in each second since its death.
    pub established: Vec<u32>,
    /// Attempts that devices began in each second since its death, also in vain.
    pub begun: Vec<u32>,
    /// Attempts begun before the gateway was back.
    pub in_vain: u64,
    /// Handshakes that the gateway refused, because it had too many at once.
    pub refused: usize,
    /// From the gateway's return to the last device's session, s; `None` if one never came back.
    pub last_back_s: Option<f64>,
    /// Wall time of the whole, s.
    pub wall_s: f64,
    /// Nothing should break.
    pub violation: Option<Violation>,
}

impl Course {
    /// The most handshakes that the gateway finished in one second, and which second that was.
    #[must_use]
    pub fn peak(&self) -> (u32, usize) {
        peak(&self.established)
    }

    /// The most attempts begun in one second, and which second that was.
    #[must_use]
    pub fn peak_begun(&self) -> (u32, usize) {
        peak(&self.begun)
    }
}

/// The greatest and its place, the first of equals.
fn peak(per_second: &[u32]) -> (u32, usize) {
    let places = per_second.iter().copied().zip(0..);
    places.fold(
        (0, 0),
        |best, this| if this.0 > best.0 { this } else { best },
    )
}

impl Storm<'_> {
    /// Lets it happen.
    ///
    /// # Errors
    ///
    /// [`Unbuildable`].
    pub fn run(&self, jitter: bool) -> Result<Course, Unbuildable> {
        on(
            self.transport,
            || self.run_on::<Quic>(jitter),
            || self.run_on::<Plain>(jitter),
        )
    }

    /// Lets it happen with jitter and without, both at once.
    ///
    /// # Errors
    ///
    /// [`Unbuildable`].
    pub fn compare(&self) -> Result<[Course; 2], Unbuildable> {
        std::thread::scope(|scope| {
            let without = scope.spawn(|| self.run(false));
            let with = self.run(true)?;
            let without = without.join().unwrap_or_else(|panic| {
                std::panic::resume_unwind(panic);
            })?;
            Ok([with, without])
        })
    }

    fn run_on<W: Wire>(&self, jitter: bool) -> Result<Course, Unbuildable> {
        let began = Instant::now();
        let mut plan = scenario::storm(W::NAME, self.devices, self.dark);
        plan.unjittered = !jitter;
        let mut world = World::<W>::new(plan, false)?;
        let finished = world.run_for(scenario::STORM_AT + self.dark + LOOKED_AT)?;
        let record = world.record();
        let back = scenario::STORM_AT + self.dark;
        let last = record.sessions.last().map(|&at| at.saturating_sub(back));
        let everyone = world.connected() == self.devices;
        Ok(Course {
            jitter,
            established: self.per_second(&record.established),
            begun: self.per_second(&record.attempts),
            in_vain: since_the_death(&record.attempts)
                .filter(|&after| after < self.dark)
                .count() as u64,
            refused: since_the_death(&record.refused).count(),
            last_back_s: last.filter(|_| everyone).map(seconds),
            wall_s: began.elapsed().as_secs_f64(),
            violation: finished.violation,
        })
    }

    fn per_second(&self, moments: &[Micros]) -> Vec<u32> {
        let span = usize::try_from((self.dark + LOOKED_AT) / SECOND).unwrap_or_default();
        let mut counts = vec![0; span];
        for after in since_the_death(moments) {
            let second = usize::try_from(after / SECOND).unwrap_or(usize::MAX);
            if let Some(count) = counts.get_mut(second) {
                *count += 1;
            }
        }
        counts
    }
}

/// What was after the gateway's death, as spans since then.
fn since_the_death(moments: &[Micros]) -> impl Iterator<Item = Micros> {
    let after = |at: &Micros| at.checked_sub(scenario::STORM_AT);
    moments.iter().filter_map(after)
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn seconds(micros: Micros) -> f64 {
    micros as f64 / 1e6
}

/// Why the fleet came back as it did, from what it had done before its gateway was back.
#[must_use]
pub fn explanation(storm: &Storm<'_>, courses: &[Course]) -> String {
    let dark = storm.dark / SECOND;
    let devices = storm.devices as u64;
    let Some(with) = courses.first() else {
        return String::new();
    };
    if with.in_vain == 0 {
        let from = usize::try_from(dark).unwrap_or(usize::MAX);
        let at_once: u64 = with
            .established
            .iter()
            .skip(from)
            .take(2)
            .map(|&n| u64::from(n))
            .sum();
        let how = if at_once * 2 > devices {
            "resets each at its next probe: they all come back within about a second".to_owned()
        } else {
            format!(
                "resets few of them, since QUIC limits how often it does: the others give their session up when it has been silent for long enough, most of them in second {}",
                with.peak().1
            )
        };
        return format!(
            "Within {dark} s no device had given its session up: each was in doubt and probed it once a second. The new gateway knows none of these sessions and {how}. A first retry does not wait, so jitter has no part in this: it spreads only devices that have tried in vain."
        );
    }
    let noticed = with.begun.iter().position(|&count| count > 0).unwrap_or(0);
    let tenths = with.in_vain * 10 / devices.max(1);
    let (each, tenth) = (tenths / 10, tenths % 10);
    let fresh = if with.in_vain < devices {
        " Those that had not yet given their session up are reset at their next probe and come back at once: they are the first peak, with jitter and without."
    } else {
        ""
    };
    format!(
        "The first devices gave their session up {noticed} s after the gateway's death; until its return {each}.{tenth} attempts were made in vain for each device.{fresh} Who has tried in vain waits, longer after each attempt. With jitter the wait is any part of the longest one, so that the fleet returns spread over all of it; without, devices that noticed together return together."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_that_tried_in_vain_returns_spread_with_jitter_and_in_waves_without() {
        let storm = Storm {
            transport: "plain",
            devices: 200,
            dark: 120 * SECOND,
        };
        let [with, without] = storm.compare().unwrap();
        for course in [&with, &without] {
            assert_eq!(course.violation, None);
            let back: u32 = course.established.iter().sum();
            assert_eq!(back, 200, "each handshake is counted once");
            assert!(course.established[..120].iter().all(|&count| count == 0));
            assert!(course.in_vain > 200);
            assert!(course.last_back_s.is_some_and(|last| last < 70.0));
        }
        assert!(without.peak().0 > 2 * with.peak().0);
    }

    #[test]
    fn a_short_darkness_is_no_matter_of_jitter() {
        let storm = Storm {
            transport: "plain",
            devices: 50,
            dark: 10 * SECOND,
        };
        let courses = storm.compare().unwrap();
        assert_eq!(courses[0].established, courses[1].established);
        assert_eq!(courses[0].in_vain, 0);
        assert!(explanation(&storm, &courses).contains("no part in this"));
    }

    #[test]
    fn the_peak_is_the_first_of_the_greatest() {
        assert_eq!(peak(&[1, 5, 2, 5]), (5, 1));
        assert_eq!(peak(&[]), (0, 0));
    }
}
