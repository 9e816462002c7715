//! Top-ups that are not over: asked about from time to time, for a webhook may never come.

use serde::{Deserialize, Serialize};

use crate::api::TopUpState;
use crate::limits::{TOPUP_BANK_MAX, TOPUP_LOOK_MAX, TOPUP_LOOK_MIN, TOPUP_OPEN_MAX};
use crate::time::UnixMillis;

/// What is remembered of a top-up until it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// How much.
    pub cents: i64,
    /// How it stood when it was last looked at.
    pub state: TopUpState,
}

impl Pending {
    /// One that has begun.
    #[must_use]
    pub const fn new(cents: i64) -> Self {
        let state = TopUpState::Open;
        Self { cents, state }
    }

    /// When to look again after a look: after half of its age, within bounds. `None` when it is over,
    /// or nothing can be expected any more.
    #[must_use]
    pub fn look_again(self, begun: UnixMillis, looked: UnixMillis) -> Option<UnixMillis> {
        let age = looked.saturating_since(begun);
        let patience = match self.state {
            TopUpState::Open => TOPUP_OPEN_MAX,
            TopUpState::Processing => TOPUP_BANK_MAX,
            TopUpState::Credited | TopUpState::Failed | TopUpState::Expired => return None,
        };
        let wait = (age / 2).clamp(TOPUP_LOOK_MIN, TOPUP_LOOK_MAX);
        (age < patience).then(|| looked.saturating_add(wait))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BEGUN: UnixMillis = UnixMillis(1_795_000_000_000);

    fn looks(state: TopUpState) -> Vec<Duration> {
        let pending = Pending { cents: 2000, state };
        let mut looked = BEGUN;
        let mut ages = Vec::new();
        while let Some(next) = pending.look_again(BEGUN, looked) {
            assert!(next > looked);
            looked = next;
            ages.push(looked.saturating_since(BEGUN));
        }
        ages
    }

    #[test]
    fn a_top_up_is_looked_at_often_at_first_and_for_two_days() {
        let ages = looks(TopUpState::Open);
        let secs: Vec<u64> = ages.iter().take(5).map(Duration::as_secs).collect();
        // 30, 60, then half as much again each time.
        assert_eq!(secs, [30, 60, 90, 135, 202]);
        let last = ages.last().unwrap().as_secs();
        assert!((48..=49).contains(&(last / 3600)), "{last}");
        // Thirteen looks until the wait is an hour, then one an hour.
        assert!(ages.len() < 64, "{}", ages.len());
    }

    #[test]
    fn a_bank_is_given_a_month_and_what_is_over_is_left_alone() {
        let last = looks(TopUpState::Processing).last().unwrap().as_secs();
        assert_eq!(last / 86_400, 30);
        for over in [
            TopUpState::Credited,
            TopUpState::Failed,
            TopUpState::Expired,
        ] {
            assert!(looks(over).is_empty(), "{over:?}");
        }
    }
}
