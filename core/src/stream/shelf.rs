//! What all kept answers of a gateway take together, and which goes first when it is too much.
//!
//! A running answer is never pushed out by another one: the finished go first, the oldest end first.
//! When none is left, the running one that wanted to grow is told that it cannot.
//!
//! # Invariants
//!
//! 1. The total is the sum of what was last said of each.
//! 2. A finished one is let go only when the total would be over the bound, the oldest first, and no
//!    more of them than needed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// What a kept answer costs beside what it holds, bytes. Bounds their number too.
const KEPT_OVERHEAD_BYTES: usize = 1024;

#[derive(Clone, Copy, Debug)]
struct Place {
    bytes: usize,
    ended: Option<Instant>,
}

/// What growing led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grown<K> {
    /// Finished ones that have been let go to make room.
    pub let_go: Vec<K>,
    /// Whether it fits; if not, nothing that could be let go is left.
    pub fits: bool,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Shelf<K> {
    bytes_max: usize,
    bytes: usize,
    places: BTreeMap<K, Place>,
    finished: BTreeSet<(Instant, K)>,
}

impl<K: Ord + Copy> Shelf<K> {
    /// An empty one for so many bytes.
    #[must_use]
    pub const fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            places: BTreeMap::new(),
            finished: BTreeSet::new(),
        }
    }

    /// From now on so many bytes may be held; what is too much goes when something grows next.
    pub(crate) const fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// What all of them take.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// An answer, new or known, holds so many bytes now.
    pub fn hold(&mut self, key: K, bytes: usize) -> Grown<K> {
        let bytes = bytes + KEPT_OVERHEAD_BYTES;
        let place = self.places.entry(key).or_insert(Place {
            bytes: 0,
            ended: None,
        });
        self.bytes = self.bytes + bytes - place.bytes;
        place.bytes = bytes;
        let mut let_go = Vec::new();
        while self.bytes > self.bytes_max {
            let oldest = self.finished.iter().find(|(_, other)| *other != key);
            let Some(&(_, oldest)) = oldest else {
                break;
            };
            self.remove(oldest);
            let_go.push(oldest);
        }
        let fits = self.bytes <= self.bytes_max;
        Grown { let_go, fits }
    }

    /// An answer has ended.
    pub fn finish(&mut self, key: K, at: Instant) {
        if let Some(place) = self.places.get_mut(&key)
            && place.ended.is_none()
        {
            place.ended = Some(at);
            self.finished.insert((at, key));
        }
    }

    /// An answer is no longer kept.
    pub fn remove(&mut self, key: K) {
        if let Some(place) = self.places.remove(&key) {
            self.bytes -= place.bytes;
            if let Some(ended) = place.ended {
                self.finished.remove(&(ended, key));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::time::origin;

    #[test]
    fn the_finished_go_first_the_oldest_end_first_and_no_more_than_needed() {
        let t = origin();
        let mut shelf = Shelf::new(4 * 2048);
        for key in 0..4 {
            assert!(shelf.hold(key, 1024).fits);
        }
        shelf.finish(2, t);
        shelf.finish(1, t + Duration::from_secs(1));
        assert_eq!(
            shelf.hold(0, 1025),
            Grown {
                let_go: vec![2],
                fits: true
            }
        );
        let too_large = shelf.hold(0, 9000);
        assert_eq!(
            too_large,
            Grown {
                let_go: vec![1],
                fits: false
            }
        );
        shelf.remove(0);
        assert_eq!((shelf.len(), shelf.bytes()), (1, 2048));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Beside a plain list in which everything is searched for each time.
        #[test]
        fn it_does_what_a_plain_list_does(
            deeds in prop::collection::vec((0u8..3, 0u8..6, 0usize..4000), 0..80),
        ) {
            const MAX: usize = 12_000;
            let mut shelf = Shelf::new(MAX);
            let mut list: Vec<(u8, usize, Option<usize>)> = Vec::new();
            for (step, (deed, key, bytes)) in deeds.into_iter().enumerate() {
                match deed {
                    0 => {
                        match list.iter_mut().find(|(other, ..)| *other == key) {
                            Some(row) => row.1 = bytes + 1024,
                            None => list.push((key, bytes + 1024, None)),
                        }
                        let mut let_go = Vec::new();
                        while list.iter().map(|row| row.1).sum::<usize>() > MAX {
                            let finished = list.iter().filter(|row| row.0 != key && row.2.is_some());
                            let Some(oldest) = finished.min_by_key(|row| row.2).map(|row| row.0) else {
                                break;
                            };
                            list.retain(|row| row.0 != oldest);
                            let_go.push(oldest);
                        }
                        let fits = list.iter().map(|row| row.1).sum::<usize>() <= MAX;
                        prop_assert_eq!(shelf.hold(key, bytes), Grown { let_go, fits });
                    }
                    1 => {
                        shelf.finish(key, origin() + Duration::from_secs(step as u64));
                        if let Some(row) = list.iter_mut().find(|row| row.0 == key) {
                            row.2 = row.2.or(Some(step));
                        }
                    }
                    _ => {
                        shelf.remove(key);
                        list.retain(|row| row.0 != key);
                    }
                }
                prop_assert_eq!(shelf.bytes(), list.iter().map(|row| row.1).sum::<usize>());
                prop_assert_eq!(shelf.len(), list.len());
            }
        }
    }
}
