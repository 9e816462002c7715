//! Token buckets: how often something may be done, with a burst, decided from counts and the clock
//! alone.
//!
//! A bucket holds a minute's worth of tokens. Each use takes one; they come back evenly. An idle
//! bucket is full and need not be kept.
//!
//! # Invariants
//!
//! 1. In any span of `t` seconds, at most `per_minute × (1 + t / 60)` uses are granted and not given
//!    back.
//! 2. After a refusal the use is granted once the wait it named has passed, if nobody else used the
//!    bucket meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// Refused: how long until the next use would be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait(pub Duration);

impl Wait {
    /// In whole seconds for the wire, rounded up, at least one.
    #[must_use]
    pub fn as_secs(self) -> u32 {
        let secs = self.0.as_nanos().div_ceil(1_000_000_000).max(1);
        u32::try_from(secs).unwrap_or(u32::MAX)
    }
}

/// One bucket for each key that used some of it lately.
///
/// A bucket is kept as the moment at which it would be full (the generic cell rate algorithm, ITU-T
/// I.371): no count has to be brought up to date.
#[derive(Debug)]
pub struct Buckets<K> {
    full_at: BTreeMap<K, Instant>,
    swept_at: Option<Instant>,
}

impl<K: Ord + Copy> Default for Buckets<K> {
    fn default() -> Self {
        Self {
            full_at: BTreeMap::new(),
            swept_at: None,
        }
    }
}

impl<K: Ord + Copy> Buckets<K> {
    /// How long a use would have to wait now; takes nothing. `per_minute` of zero never grants.
    ///
    /// # Errors
    ///
    /// [`Wait`] when the bucket is empty.
    pub fn look(&self, now: Instant, key: K, per_minute: u32) -> Result<(), Wait> {
        let Some(each) = MINUTE.checked_div(per_minute) else {
            return Err(Wait(MINUTE));
        };
        let lacks = self
            .full_at
            .get(&key)
            .map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        // Full after a minute at the latest: one more use must still fit into that.
        match (lacks + each).checked_sub(MINUTE) {
            Some(over) if !over.is_zero() => Err(Wait(over)),
            Some(_) | None => Ok(()),
        }
    }

    /// Takes one use, granted or not; [`Buckets::look`] says which.
    pub fn take(&mut self, now: Instant, key: K, per_minute: u32) {
        self.sweep(now);
        if let Some(each) = MINUTE.checked_div(per_minute) {
            let full_at = self.full_at.entry(key).or_insert(now);
            *full_at = (*full_at).max(now) + each;
        }
    }

    /// Gives one use back that was taken at the same rate.
    pub fn give_back(&mut self, key: K, per_minute: u32) {
        let each = MINUTE.checked_div(per_minute);
        if let (Some(each), Some(full_at)) = (each, self.full_at.get_mut(&key)) {
            *full_at = full_at.checked_sub(each).unwrap_or(*full_at);
        }
    }

    /// Once a minute, forgets those that are full again: what is kept is bounded by the uses of two
    /// minutes.
    fn sweep(&mut self, now: Instant) {
        let due = self
            .swept_at
            .is_none_or(|at| now.saturating_duration_since(at) >= MINUTE);
        if due {
            self.swept_at = Some(now);
            self.full_at.retain(|_, full_at| *full_at > now);
        }
    }
}

/// How many of something each key has at once. Those with none take no room.
#[derive(Debug)]
pub struct Tally<K>(BTreeMap<K, u32>);

impl<K: Ord> Default for Tally<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord> Tally<K> {
    /// How many there are.
    #[must_use]
    pub fn of(&self, key: &K) -> u32 {
        self.0.get(key).copied().unwrap_or_default()
    }

    /// One more.
    pub fn add(&mut self, key: K) {
        let count = self.0.entry(key).or_default();
        *count = count.saturating_add(1);
    }

    /// One less.
    pub fn remove(&mut self, key: &K) {
        if let Some(count) = self.0.get_mut(key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.0.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::origin;

    fn use_one(buckets: &mut Buckets<u8>, now: Instant, per_minute: u32) -> Result<(), Wait> {
        buckets.look(now, 1, per_minute)?;
        buckets.take(now, 1, per_minute);
        Ok(())
    }

    #[test]
    fn a_hundred_at_once_pass_and_the_next_waits_six_tenths_of_a_second() {
        let t = origin();
        let mut buckets = Buckets::default();
        for _ in 0..100 {
            assert_eq!(use_one(&mut buckets, t, 100), Ok(()));
        }
        let wait = Wait(Duration::from_millis(600));
        assert_eq!(use_one(&mut buckets, t, 100), Err(wait));
        assert_eq!(wait.as_secs(), 1);
        assert_eq!(use_one(&mut buckets, t + wait.0, 100), Ok(()));
        assert!(use_one(&mut buckets, t + wait.0, 100).is_err());
        assert_eq!(buckets.look(t, 2, 100), Ok(()), "another's is another's");
    }

    #[test]
    fn what_is_given_back_is_there_for_the_next_and_no_more_than_was_taken() {
        let t = origin();
        let mut buckets = Buckets::default();
        for _ in 0..2 {
            use_one(&mut buckets, t, 2).unwrap();
        }
        assert_eq!(use_one(&mut buckets, t, 2), Err(Wait(MINUTE / 2)));
        buckets.give_back(1, 2);
        assert_eq!(use_one(&mut buckets, t, 2), Ok(()));
        assert_eq!(use_one(&mut buckets, t, 2), Err(Wait(MINUTE / 2)));
        // A minute later all have come back, and one too many is not kept.
        buckets.give_back(1, 2);
        buckets.give_back(9, 2);
        for _ in 0..2 {
            assert_eq!(use_one(&mut buckets, t + MINUTE, 2), Ok(()));
        }
        assert!(use_one(&mut buckets, t + MINUTE, 2).is_err());
    }

    #[test]
    fn zero_never_grants_and_full_buckets_are_forgotten() {
        let t = origin();
        let mut buckets = Buckets::default();
        assert_eq!(use_one(&mut buckets, t, 0), Err(Wait(MINUTE)));
        use_one(&mut buckets, t, 60).unwrap();
        assert_eq!(buckets.full_at.len(), 1);
        buckets.take(t + 2 * MINUTE, 9, 60);
        assert_eq!(buckets.full_at.keys().collect::<Vec<_>>(), [&9]);
    }

    #[test]
    fn a_tally_counts_each_key_and_forgets_those_with_none() {
        let mut tally = Tally::default();
        tally.add(1);
        tally.add(1);
        tally.add(2);
        tally.remove(&1);
        tally.remove(&2);
        tally.remove(&3);
        assert_eq!((tally.of(&1), tally.of(&2)), (1, 0));
        assert_eq!(tally.0.len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Beside a count of tokens, in thousandths of the time that one takes to come back.
        #[test]
        fn it_grants_what_a_count_of_tokens_grants(
            per_minute in 1u32..200,
            waits in prop::collection::vec(0u64..3000, 0..300),
        ) {
            let mut buckets = Buckets::default();
            let mut now = origin();
            // Both in units of 1 / (60 000 × per_minute) minutes, so that nothing is rounded.
            let full = u128::from(per_minute) * 60_000;
            let mut tokens = full;
            for wait in waits {
                now += Duration::from_millis(wait);
                tokens = (tokens + u128::from(wait) * u128::from(per_minute)).min(full);
                let granted = tokens >= 60_000;
                // A bucket counts in nanoseconds and rounds each token down by less than one.
                let exact = tokens.abs_diff(60_000) > 60_000 / 100;
                let used = use_one(&mut buckets, now, per_minute).is_ok();
                if exact {
                    prop_assert_eq!(used, granted);
                }
                if used {
                    tokens = tokens.saturating_sub(60_000);
                }
            }
        }
    }
}
