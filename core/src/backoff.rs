//! How long to wait before trying again: exponential, with full jitter.
//!
//! | retry | waits |
//! |---|---|
//! | 1st | not at all |
//! | 2nd | 0 to 1 s, any moment as likely as any other |
//! | 3rd, 4th, … | 0 to 2 s, 0 to 4 s, … |
//! | 8th and later | 0 to 60 s |
//!
//! Full jitter spreads a fleet that lost its gateway at one moment (M. Brooker, "Exponential Backoff
//! And Jitter", AWS Architecture Blog, 2015).
//!
//! # Invariants
//!
//! 1. A wait the server asked for is kept exactly, up to [`limits::RETRY_AFTER_MAX`].
//! 2. Retries are counted until [`Backoff::reset`], however their wait was chosen.

use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::limits;
use crate::rng::Seed;

/// See the module documentation.
#[derive(Clone, Debug)]
pub struct Backoff {
    rng: ChaCha8Rng,
    retries: u32,
    #[cfg(feature = "buggify")]
    unjittered: bool,
}

impl Backoff {
    /// Before the first retry, with a jitter of its own.
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        Self {
            rng: seed.stream("backoff"),
            retries: 0,
            #[cfg(feature = "buggify")]
            unjittered: seed.is_unjittered(),
        }
    }

    /// Counts one more retry and says how long to wait before it; `retry_after` is the server's
    /// word, which wins.
    pub fn next_wait(&mut self, retry_after: Option<Duration>) -> Duration {
        self.retries = self.retries.saturating_add(1);
        match retry_after {
            Some(wait) => wait.min(limits::RETRY_AFTER_MAX),
            None => self.jitter(wait_max(self.retries)),
        }
    }

    /// Counts one more retry, and waits as if many had gone before it: for who shall not fight for
    /// a place that another has taken.
    pub(crate) fn yielding_wait(&mut self) -> Duration {
        self.retries = self.retries.saturating_add(1);
        self.jitter(limits::BACKOFF_MAX)
    }

    /// Retries since the last reset.
    #[must_use]
    pub const fn retries(&self) -> u32 {
        self.retries
    }

    /// It worked for long enough: the next retry is a first one again.
    pub const fn reset(&mut self) {
        self.retries = 0;
    }

    /// Uniform over 0..=max, whole nanoseconds, by the high half of a product (D. Lemire, "Fast
    /// Random Integer Generation in an Interval", 2019); its bias here is below 2⁻²⁸.
    fn jitter(&mut self, max: Duration) -> Duration {
        #[cfg(feature = "buggify")]
        if self.unjittered {
            return max;
        }
        let product = u128::from(self.rng.next_u64()) * (max.as_nanos() + 1);
        Duration::from_nanos(u64::try_from(product >> 64).unwrap_or(u64::MAX))
    }
}

/// The longest wait before the `retry`th retry, counted from 1.
#[must_use]
pub fn wait_max(retry: u32) -> Duration {
    match retry.checked_sub(2) {
        None => Duration::ZERO,
        Some(doublings) => limits::BACKOFF_BASE
            .saturating_mul(2u32.saturating_pow(doublings))
            .min(limits::BACKOFF_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff(seed: u8) -> Backoff {
        Backoff::new(&Seed::new([seed; 32]))
    }

    #[test]
    fn the_longest_waits_are_those_of_the_table() {
        let secs: Vec<u64> = (1..=9).map(|retry| wait_max(retry).as_secs()).collect();
        assert_eq!(secs, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(wait_max(u32::MAX), Duration::from_secs(60));
    }

    #[test]
    fn waits_fill_their_range_and_never_leave_it() {
        let mut longest = [Duration::ZERO; 10];
        let mut shortest = [Duration::MAX; 10];
        for seed in 0..=255 {
            let mut backoff = backoff(seed);
            for retry in 1..=9 {
                let wait = backoff.next_wait(None);
                assert_eq!(backoff.retries(), retry);
                assert!(wait <= wait_max(retry));
                let at = retry as usize;
                longest[at] = longest[at].max(wait);
                shortest[at] = shortest[at].min(wait);
            }
        }
        // Of 256 draws the chance that none is in the top (or bottom) tenth is below 10⁻¹¹.
        for retry in 2..=9 {
            let max = wait_max(retry);
            assert!(longest[retry as usize] > max * 9 / 10, "{retry}");
            assert!(shortest[retry as usize] < max / 10, "{retry}");
        }
    }

    #[test]
    fn the_servers_word_wins_and_is_counted() {
        let mut backoff = backoff(1);
        let asked = Duration::from_secs(300);
        assert_eq!(backoff.next_wait(Some(asked)), asked);
        assert_eq!(
            backoff.next_wait(Some(Duration::MAX)),
            limits::RETRY_AFTER_MAX
        );
        assert_eq!(backoff.retries(), 2);
        backoff.reset();
        assert_eq!(backoff.next_wait(None), Duration::ZERO);
    }

    #[cfg(feature = "buggify")]
    #[test]
    fn without_jitter_every_wait_is_the_longest_of_the_table() {
        let mut backoff = Backoff::new(&Seed::new([1; 32]).without_jitter().child("device"));
        let waits: Vec<u64> = (0..9).map(|_| backoff.next_wait(None).as_secs()).collect();
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn devices_of_other_seeds_wait_otherwise_and_the_same_one_repeats() {
        let waits = |seed| {
            let mut backoff = backoff(seed);
            (0..6).map(|_| backoff.next_wait(None)).collect::<Vec<_>>()
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }
}
