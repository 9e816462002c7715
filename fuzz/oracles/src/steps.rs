//! What scripts of steps share: how inputs become steps, and how time passes in them.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};
use mesh_core::time::{Now, UnixMillis};

/// Steps of one script; what comes after is left out, so that an input is judged in milliseconds.
pub const STEPS_MAX: usize = 64;

/// The moment that every script begins at. Nothing depends on which it is.
#[must_use]
pub fn origin() -> Now {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    Now {
        instant: *ORIGIN.get_or_init(Instant::now),
        // 2026-11-01T00:00:00Z
        wall: UnixMillis(1_793_491_200_000),
    }
}

/// A span: little bytes make every kind from nothing to minutes.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub struct Span {
    unit: Unit,
    count: u8,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Unit {
    Nothing,
    Millis,
    Tenths,
    Seconds,
    HalfMinutes,
}

impl Span {
    /// As the standard library has it.
    #[must_use]
    pub fn duration(self) -> Duration {
        let count = u64::from(self.count);
        Duration::from_millis(match self.unit {
            Unit::Nothing => 0,
            Unit::Millis => count,
            Unit::Tenths => 97 * count,
            Unit::Seconds => 1000 * (count % 64),
            Unit::HalfMinutes => 30_000 * (count % 8),
        })
    }
}

/// The first steps of a script that together take at most so long: what is said in it and not drained
/// stays within any machine's bound.
#[must_use]
pub fn within<S>(script: &[(Duration, S)], longest: Duration) -> &[(Duration, S)] {
    let mut all = Duration::ZERO;
    let end = script.iter().position(|(wait, _)| {
        all += *wait;
        all > longest
    });
    &script[..end.unwrap_or(script.len())]
}

/// Reads a head and then steps until the bytes are used up.
pub fn script<'a, H: Arbitrary<'a>, S: Arbitrary<'a>>(data: &'a [u8]) -> Option<(H, Vec<S>)> {
    let mut bytes = Unstructured::new(data);
    let head = H::arbitrary(&mut bytes).ok()?;
    let mut steps = Vec::new();
    while !bytes.is_empty() && steps.len() < STEPS_MAX {
        match S::arbitrary(&mut bytes) {
            Ok(step) => steps.push(step),
            Err(_) => break,
        }
    }
    Some((head, steps))
}
