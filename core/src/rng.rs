//! Randomness from one seed, split into named streams.
//!
//! A machine is given 32 bytes when it is made. Each purpose draws from its own stream, so that a
//! new draw in one place disturbs no other. Anything secret comes from [`Seed::secret`], which only
//! a shell that took the seed from the operating system may rely on.

use rand_chacha::rand_core::SeedableRng;
use rand_chacha::{ChaCha8Rng, ChaCha20Rng};
use sha2::{Digest, Sha256};

/// The root of a machine's randomness. Printed never.
#[derive(Clone)]
pub struct Seed {
    bytes: [u8; 32],
    #[cfg(feature = "buggify")]
    buggified: bool,
    #[cfg(feature = "buggify")]
    unjittered: bool,
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(..)")
    }
}

impl Seed {
    /// Takes 32 bytes: from the operating system in production, from a number in a simulation.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self {
            bytes,
            #[cfg(feature = "buggify")]
            buggified: false,
            #[cfg(feature = "buggify")]
            unjittered: false,
        }
    }

    /// The same seed, for machines whose rare cases a simulation wants to see. See
    /// [`mod@crate::buggify`].
    #[cfg(feature = "buggify")]
    #[must_use]
    pub const fn with_buggify(mut self) -> Self {
        self.buggified = true;
        self
    }

    /// Whether rare cases are wanted.
    #[cfg(feature = "buggify")]
    #[must_use]
    pub(crate) const fn is_buggified(&self) -> bool {
        self.buggified
    }

    /// The same seed, for machines that wait their longest every time: what a fleet does without
    /// jitter, for a simulation that shows what the jitter is for.
    #[cfg(feature = "buggify")]
    #[must_use]
    pub const fn without_jitter(mut self) -> Self {
        self.unjittered = true;
        self
    }

    /// Whether waits are the longest instead of drawn.
    #[cfg(feature = "buggify")]
    #[must_use]
    pub(crate) const fn is_unjittered(&self) -> bool {
        self.unjittered
    }

    /// 32 secret bytes of a purpose of their own.
    #[must_use]
    pub fn secret_bytes(&self, name: &str) -> [u8; 32] {
        use rand_chacha::rand_core::Rng as _;
        let mut bytes = [0; 32];
        self.secret(name).fill_bytes(&mut bytes);
        bytes
    }

    /// A stream for jitter, sampling and other draws that need not be secret.
    #[must_use]
    pub fn stream(&self, name: &str) -> ChaCha8Rng {
        ChaCha8Rng::from_seed(self.derive(b"stream", name))
    }

    /// A stream for ids, tokens and keys.
    #[must_use]
    pub fn secret(&self, name: &str) -> ChaCha20Rng {
        ChaCha20Rng::from_seed(self.derive(b"secret", name))
    }

    /// A seed for a child machine.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Self {
            bytes: self.derive(b"child", name),
            #[cfg(feature = "buggify")]
            buggified: self.buggified,
            #[cfg(feature = "buggify")]
            unjittered: self.unjittered,
        }
    }

    /// 32 bytes bound to a purpose: SHA-256(`synesis seed` ‖ purpose ‖ 0 ‖ seed ‖ name).
    fn derive(&self, purpose: &[u8], name: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"synesis seed");
        hash.update(purpose);
        hash.update([0]);
        hash.update(self.bytes);
        hash.update(name.as_bytes());
        hash.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn streams_repeat_and_do_not_disturb_each_other() {
        let seed = Seed::new([7; 32]);
        assert_eq!(seed.stream("a").next_u64(), seed.stream("a").next_u64());
        assert_ne!(seed.stream("a").next_u64(), seed.stream("b").next_u64());
        assert_ne!(
            seed.stream("a").next_u64(),
            seed.child("a").stream("a").next_u64()
        );
        assert_ne!(seed.secret("a").next_u64(), seed.stream("a").next_u64());
    }

    #[test]
    fn a_seed_is_never_printed() {
        assert_eq!(format!("{:?}", Seed::new([0xAB; 32])), "Seed(..)");
    }
}
