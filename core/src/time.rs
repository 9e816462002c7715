//! Time as an input: a monotonic instant and the wall clock, both handed in by the shell.
//!
//! The instant never goes backwards inside a machine ([`Monotonic`] clamps it). The wall clock may
//! jump either way and is never clamped: it is for timestamps that people and other machines read,
//! not for measuring.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00 UTC.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// Whole seconds since the epoch.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// This moment and a span after it, saturating at the end of time.
    #[must_use]
    pub fn saturating_add(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// The span from `earlier` to this moment; zero if `earlier` is later.
    #[must_use]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Both clocks at the moment of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic; measures spans and orders deadlines.
    pub instant: Instant,
    /// Wall clock; stamps what others read. May jump.
    pub wall: UnixMillis,
}

impl Now {
    /// Both clocks `span` later. For simulators and tests.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self {
            instant: self.instant + span,
            wall: self.wall.saturating_add(span),
        }
    }
}

/// Clamps the instants a machine sees, so that its own time never goes backwards.
#[derive(Clone, Copy, Debug, Default)]
pub struct Monotonic(Option<Instant>);

impl Monotonic {
    /// The later of `now` and everything seen before.
    pub fn clamp(&mut self, now: Now) -> Now {
        let instant = self.0.map_or(now.instant, |seen| seen.max(now.instant));
        self.0 = Some(instant);
        Now {
            instant,
            wall: now.wall,
        }
    }
}

/// Asleep for less than this goes unnoticed: two clocks are not read at the same moment.
const SLEPT_AT_LEAST: Duration = Duration::from_secs(2);

/// How long a machine slept between two looks at how far its clock that counts while asleep is
/// ahead of the one that does not.
#[must_use]
pub fn asleep_between(before: Duration, after: Duration) -> Option<Duration> {
    let asleep = after.saturating_sub(before);
    (asleep >= SLEPT_AT_LEAST).then_some(asleep)
}

/// The earlier of two optional deadlines, each with its reason.
#[must_use]
pub fn earliest(
    a: Option<(Instant, &'static str)>,
    b: Option<(Instant, &'static str)>,
) -> Option<(Instant, &'static str)> {
    match (a, b) {
        (Some(x), Some(y)) => Some(if y.0 < x.0 { y } else { x }),
        (x, None) => x,
        (None, y) => y,
    }
}

/// An instant for tests to count from: `Instant` has no other constructor.
#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "the one origin that tests count from"
)]
pub(crate) fn origin() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machines_instant_never_goes_backwards_but_its_wall_clock_may() {
        let origin = origin();
        let mut clock = Monotonic::default();
        let late = Now {
            instant: origin + Duration::from_secs(5),
            wall: UnixMillis(9),
        };
        let early = Now {
            instant: origin,
            wall: UnixMillis(3),
        };
        assert_eq!(clock.clamp(late), late);
        assert_eq!(
            clock.clamp(early),
            Now {
                instant: late.instant,
                wall: UnixMillis(3)
            }
        );
    }

    #[test]
    fn the_earlier_deadline_wins_and_keeps_its_reason() {
        let t = origin();
        let later = t + Duration::from_secs(1);
        assert_eq!(earliest(Some((later, "b")), Some((t, "a"))), Some((t, "a")));
        assert_eq!(earliest(None, Some((t, "a"))), Some((t, "a")));
        assert_eq!(earliest(None, None), None);
    }

    #[test]
    fn a_jump_of_the_boot_time_clock_is_sleep() {
        let second = Duration::from_secs(1);
        assert_eq!(asleep_between(second, 3601 * second), Some(3600 * second));
        assert_eq!(asleep_between(second, 2 * second), None);
        assert_eq!(asleep_between(3 * second, second), None);
    }
}
