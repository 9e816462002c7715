//! Chance from the operating system, as the seeds that machines are given.

use std::sync::Arc;

use mesh_core::ids::RequestId;
use mesh_core::rng::Seed;
use rustls::crypto::CryptoProvider;

/// The operating system has no chance to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoChance;

/// The one provider of cryptography.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// 32 bytes of the operating system's chance.
///
/// # Errors
///
/// When the system has none to give.
pub fn seed() -> Result<Seed, NoChance> {
    let mut bytes = [0; 32];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| NoChance)?;
    Ok(Seed::new(bytes))
}

/// A fresh id for a question.
///
/// # Errors
///
/// As [`seed`].
pub fn request_id() -> Result<RequestId, NoChance> {
    Ok(RequestId::random(&mut seed()?.secret("request id")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_questions_have_the_same_id() {
        assert_ne!(request_id().unwrap(), request_id().unwrap());
    }
}
