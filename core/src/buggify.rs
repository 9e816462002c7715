//! Places where a simulation may make something rare but legal happen: a read in tiny pieces, a wake
//! without a reason.
//!
//! Two phases, as FoundationDB has them: a machine is born with some of its sites armed, so that one
//! run exercises a few of them hard and another run others; an armed site fires now and then. Chance
//! comes from the machine's own seed, so a run repeats.
//!
//! Without the feature `buggify` a [`Buggify`] is empty, [`buggify!`](crate::buggify!) is `false`, and
//! nothing of it is in the program. With it, a machine still behaves as in production unless its seed
//! was marked by [`Seed::with_buggify`](crate::rng::Seed::with_buggify).

#[cfg(feature = "buggify")]
use std::collections::BTreeMap;

#[cfg(feature = "buggify")]
use rand::Rng;
#[cfg(feature = "buggify")]
use rand_chacha::ChaCha8Rng;

use crate::rng::Seed;

/// One in so many sites is armed in a machine.
#[cfg(feature = "buggify")]
const ARMED_ONE_IN: u64 = 4;
/// An armed site fires once in so many times.
#[cfg(feature = "buggify")]
const FIRES_ONE_IN: u64 = 8;

/// A machine's armed sites.
#[derive(Clone, Debug, Default)]
pub struct Buggify {
    #[cfg(feature = "buggify")]
    armed: Option<Box<Armed>>,
}

#[cfg(feature = "buggify")]
#[derive(Clone, Debug)]
struct Armed {
    rng: ChaCha8Rng,
    sites: BTreeMap<&'static str, bool>,
}

impl Buggify {
    /// The sites of one machine.
    #[cfg(feature = "buggify")]
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        Self {
            armed: seed.is_buggified().then(|| {
                Box::new(Armed {
                    rng: seed.stream("buggify"),
                    sites: BTreeMap::new(),
                })
            }),
        }
    }

    /// The sites of one machine: none.
    #[cfg(not(feature = "buggify"))]
    #[must_use]
    pub const fn new(_seed: &Seed) -> Self {
        Self {}
    }

    /// Whether the site fires this time.
    #[cfg(feature = "buggify")]
    pub fn fires(&mut self, site: &'static str) -> bool {
        let Some(armed) = &mut self.armed else {
            return false;
        };
        let Armed { rng, sites } = armed.as_mut();
        let armed = *sites
            .entry(site)
            .or_insert_with(|| rng.next_u64().is_multiple_of(ARMED_ONE_IN));
        armed && rng.next_u64().is_multiple_of(FIRES_ONE_IN)
    }

    /// Whether the site fires this time: never.
    #[cfg(not(feature = "buggify"))]
    pub const fn fires(&mut self, _site: &'static str) -> bool {
        false
    }
}

/// Whether something rare but legal happens at this site now. `buggify!(self.buggify, "site")`.
#[macro_export]
macro_rules! buggify {
    ($buggify:expr, $site:literal) => {
        $buggify.fires($site)
    };
}

#[cfg(all(test, feature = "buggify"))]
mod tests {
    use super::*;

    #[test]
    fn an_unmarked_seed_arms_nothing_and_a_marked_one_repeats() {
        let plain = Seed::new([1; 32]);
        let mut quiet = Buggify::new(&plain);
        assert!(!(0..10_000).any(|_| buggify!(quiet, "site")));
        let fired = |seed: &Seed| {
            let mut buggify = Buggify::new(seed);
            (0..1000)
                .map(|_| buggify!(buggify, "a"))
                .collect::<Vec<_>>()
        };
        let marked: Vec<_> = (0..40)
            .map(|n| Seed::new([n; 32]).with_buggify().child("machine"))
            .collect();
        assert!(marked.iter().all(|seed| fired(seed) == fired(seed)));
        let armed = marked.iter().filter(|seed| fired(seed).contains(&true));
        assert!((1..40).contains(&armed.count()), "some runs arm the site");
    }
}
