//! Both clocks, and whether the machine slept.

use std::time::{Duration, Instant, SystemTime};

use mesh_core::time::{Now, UnixMillis, asleep_between};

/// The only place where time enters.
#[derive(Debug)]
pub struct Clock {
    /// How far the clock that counts while asleep is ahead of the one that does not.
    ahead: Option<Duration>,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock that has seen no sleep.
    #[must_use]
    pub fn new() -> Self {
        Self {
            ahead: boot_time_ahead(),
        }
    }

    /// Both clocks, now.
    #[must_use]
    pub fn now(&self) -> Now {
        Now {
            instant: Instant::now(),
            wall: wall(),
        }
    }

    /// How long the machine slept since this was last asked, if it did.
    pub fn slept(&mut self) -> Option<Duration> {
        let ahead = boot_time_ahead()?;
        let before = self.ahead.replace(ahead)?;
        asleep_between(before, ahead)
    }
}

/// The wall clock; a clock before 1970 is 1970.
fn wall() -> UnixMillis {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// `CLOCK_BOOTTIME` counts while the machine is asleep, `CLOCK_MONOTONIC` does not.
#[cfg(target_os = "linux")]
fn boot_time_ahead() -> Option<Duration> {
    use rustix::time::{ClockId, clock_gettime};

    let read = |id| Duration::try_from(clock_gettime(id)).ok();
    let monotonic = read(ClockId::Monotonic)?;
    Some(read(ClockId::Boottime)?.saturating_sub(monotonic))
}

/// Elsewhere sleep shows as silence, which the tunnel notices by itself.
#[cfg(not(target_os = "linux"))]
fn boot_time_ahead() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_and_a_machine_that_is_awake_has_not_slept() {
        let mut clock = Clock::new();
        let (first, second) = (clock.now(), clock.now());
        assert!(second.instant >= first.instant);
        assert!(first.wall.as_secs() > 1_700_000_000);
        assert_eq!(clock.slept(), None);
    }
}
