//! Chance from one number: a stream of its own for each entity and purpose, so that one more device
//! or one more draw disturbs nobody else's.

use mesh_core::rng::Seed;
use rand::{Rng, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Parts in a million: the unit of every probability in a plan.
pub const MILLION: u32 = 1_000_000;

/// The 32-byte seed of one entity of the world that `seed` stands for.
#[must_use]
pub fn seed_of(seed: u64, entity: &str) -> Seed {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    Seed::new(bytes).child(entity)
}

/// One stream of draws.
#[derive(Clone, Debug)]
pub struct Chance(ChaCha8Rng);

impl Chance {
    /// The stream of `purpose` of `entity` in the world that `seed` stands for.
    #[must_use]
    pub fn of(seed: u64, entity: &str, purpose: &str) -> Self {
        Self(seed_of(seed, entity).stream(purpose))
    }

    /// A stream that stands for itself.
    #[must_use]
    pub fn from_number(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Whether something of this probability happens. Draws nothing for the certain and the
    /// impossible.
    pub fn happens(&mut self, parts_per_million: u32) -> bool {
        match parts_per_million {
            0 => false,
            MILLION.. => true,
            likely => self.0.next_u32() % MILLION < likely,
        }
    }

    /// A number below `end`, or zero.
    pub fn below(&mut self, end: u64) -> u64 {
        if end < 2 {
            return 0;
        }
        let product = u128::from(self.0.next_u64()) * u128::from(end);
        u64::try_from(product >> 64).unwrap_or_default()
    }

    /// A number from `least` to `most`, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most.saturating_sub(least).saturating_add(1))
    }

    /// One of several, or `None` of none.
    pub fn one_of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        let at = self.below(all.len() as u64);
        all.get(usize::try_from(at).unwrap_or_default())
    }

    /// A span about the mean `mean`, exponentially distributed, at most eight times the mean: what a
    /// queue somewhere on the way adds.
    pub fn exponential(&mut self, mean: u64) -> u64 {
        if mean == 0 {
            return 0;
        }
        // −ln(u) by table: 64 steps are as good as a float for a delay, and the same everywhere.
        let step = usize::try_from(self.below(64)).unwrap_or_default();
        mean * NEGATIVE_LOG_HUNDREDTHS[step] / 100
    }

    /// A random 32 bytes.
    pub fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}

/// −ln((n + ½) / 64) in hundredths, n = 0…63. Their mean is 99.5.
const NEGATIVE_LOG_HUNDREDTHS: [u64; 64] = [
    485, 375, 324, 291, 265, 245, 229, 214, 202, 191, 181, 172, 163, 156, 148, 142, 136, 130, 124,
    119, 114, 109, 105, 100, 96, 92, 88, 84, 81, 77, 74, 71, 68, 65, 62, 59, 56, 53, 51, 48, 46,
    43, 41, 39, 36, 34, 32, 30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 11, 9, 7, 6, 4, 2, 1,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_do_not_disturb_each_other() {
        let draw = |entity, purpose| Chance::of(1, entity, purpose).number();
        assert_eq!(draw("a", "x"), draw("a", "x"));
        assert_ne!(draw("a", "x"), draw("a", "y"));
        assert_ne!(draw("a", "x"), draw("b", "x"));
    }

    #[test]
    fn draws_keep_to_their_bounds_and_their_mean() {
        let mut chance = Chance::from_number(1);
        let hits = (0..100_000).filter(|_| chance.happens(250_000)).count();
        assert!((24_000..26_000).contains(&hits), "{hits}");
        assert!((0..1000).all(|_| (3..=5).contains(&chance.between(3, 5))));
        let sum: u64 = (0..100_000).map(|_| chance.exponential(1000)).sum();
        assert!((950..1050).contains(&(sum / 100_000)), "{sum}");
        assert!(!chance.happens(0) && chance.happens(MILLION));
    }
}
