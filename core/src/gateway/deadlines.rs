//! An ordered set of deadlines: one timeout touches only what is due.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// At most one deadline per key.
#[derive(Debug)]
pub(super) struct Deadlines<K> {
    ordered: BTreeSet<(Instant, K)>,
    by_key: BTreeMap<K, Instant>,
}

impl<K: Ord + Copy> Deadlines<K> {
    pub(super) const fn new() -> Self {
        Self {
            ordered: BTreeSet::new(),
            by_key: BTreeMap::new(),
        }
    }

    /// Sets, moves or (with `None`) clears the key's deadline.
    pub(super) fn set(&mut self, key: K, at: Option<Instant>) {
        if let Some(old) = self.by_key.remove(&key) {
            self.ordered.remove(&(old, key));
        }
        if let Some(at) = at {
            self.by_key.insert(key, at);
            self.ordered.insert((at, key));
        }
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.ordered.first().map(|&(at, _)| at)
    }

    /// Takes out one key whose deadline is not after `now`, the earliest first.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<K> {
        let &(at, key) = self.ordered.first()?;
        if at > now {
            return None;
        }
        self.ordered.pop_first();
        self.by_key.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::time::origin;

    #[test]
    fn only_what_is_due_is_popped_and_in_order() {
        let t = origin();
        let at = |s| t + Duration::from_secs(s);
        let mut deadlines = Deadlines::new();
        deadlines.set("late", Some(at(9)));
        deadlines.set("second", Some(at(5)));
        deadlines.set("first", Some(at(1)));
        deadlines.set("moved", Some(at(2)));
        deadlines.set("moved", Some(at(20)));
        deadlines.set("gone", Some(at(3)));
        deadlines.set("gone", None);
        assert_eq!(deadlines.next(), Some(at(1)));
        let due: Vec<_> = std::iter::from_fn(|| deadlines.pop_due(at(6))).collect();
        assert_eq!(due, ["first", "second"]);
        assert_eq!(deadlines.next(), Some(at(9)));
        assert_eq!(deadlines.ordered.len(), 2);
    }
}
