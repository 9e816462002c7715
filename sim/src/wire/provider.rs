//! A crypto provider whose every draw comes from a seed, so that TLS repeats bit for bit.
//!
//! Ring's ciphers, hashes and Ed25519 are deterministic as they are; its randomness and its key
//! exchange are not, and are replaced. This lives in the simulator, behind a type that the product
//! cannot name: a handshake with it is worth nothing against an attacker.

use std::sync::{Arc, Mutex, PoisonError};

use mesh_core::rng::Seed;
use rand::Rng as _;
use rand_chacha::ChaCha20Rng;
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret,
    SupportedKxGroup,
};
use rustls::{Error, NamedGroup, PeerMisbehaved};
use x25519_dalek::{PublicKey, StaticSecret};

/// The provider of one endpoint. rustls wants its parts for ever, so each endpoint of a world leaks a
/// few hundred bytes.
pub(super) fn deterministic(seed: &Seed) -> Arc<CryptoProvider> {
    let random: &'static Draws = Box::leak(Box::new(Draws::new(seed, "tls random")));
    let exchange: &'static X25519 =
        Box::leak(Box::new(X25519(Draws::new(seed, "tls key exchange"))));
    let mut provider = rustls::crypto::ring::default_provider();
    provider.secure_random = random;
    provider.kx_groups = vec![exchange];
    Arc::new(provider)
}

/// A stream that rustls can draw from through a shared reference.
struct Draws(Mutex<ChaCha20Rng>);

impl Draws {
    fn new(seed: &Seed, name: &str) -> Self {
        Self(Mutex::new(seed.secret(name)))
    }
}

impl std::fmt::Debug for Draws {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Draws(..)")
    }
}

impl SecureRandom for Draws {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        let mut rng = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rng.fill_bytes(bytes);
        Ok(())
    }
}

/// X25519 (RFC 7748) with seeded keys.
#[derive(Debug)]
struct X25519(Draws);

impl SupportedKxGroup for X25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut bytes = [0; 32];
        self.0.fill(&mut bytes)?;
        let secret = StaticSecret::from(bytes);
        let public = PublicKey::from(&secret);
        Ok(Box::new(Exchange { secret, public }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct Exchange {
    secret: StaticSecret,
    public: PublicKey,
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let invalid = || Error::from(PeerMisbehaved::InvalidKeyShare);
        let peer: [u8; 32] = peer.try_into().map_err(|_| invalid())?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(peer));
        // RFC 8446 §7.4.2: an all-zero result is refused.
        if !shared.was_contributory() {
            return Err(invalid());
        }
        Ok(SharedSecret::from(&shared.as_bytes()[..]))
    }

    fn pub_key(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exchange_agrees_with_another_implementation() {
        let ours = X25519(Draws::new(&Seed::new([1; 32]), "x"))
            .start()
            .unwrap();
        let ring = rustls::crypto::ring::kx_group::X25519;
        let theirs = ring.start_and_complete(ours.pub_key()).unwrap();
        let secret = ours.complete(&theirs.pub_key).unwrap();
        assert_eq!(secret.secret_bytes(), theirs.secret.secret_bytes());
    }

    #[test]
    fn a_key_share_of_no_order_or_of_another_length_is_refused() {
        let group = X25519(Draws::new(&Seed::new([1; 32]), "x"));
        assert!(group.start().unwrap().complete(&[0; 32]).is_err());
        assert!(group.start().unwrap().complete(&[1; 31]).is_err());
    }

    #[test]
    fn the_same_seed_draws_the_same_keys() {
        let key = |n| {
            let group = X25519(Draws::new(&Seed::new([n; 32]), "x"));
            group.start().unwrap().pub_key().to_vec()
        };
        assert_eq!(key(1), key(1));
        assert_ne!(key(1), key(2));
    }
}
