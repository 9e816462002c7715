//! Seals: the heads of all chains under one signature, to be kept where the gateway's operator cannot
//! rewrite them unnoticed.
//!
//! A chain shows that nothing in it was altered; cut short, it is a chain still. A seal says how long
//! every chain was at a moment, and what its last hash was:
//!
//! ```text
//! root    = SHA-256( "synesis heads" ‖ version (1 byte) ‖ number of chains (8 bytes, big-endian)
//!                    ‖ for each, by account: account (16) ‖ entries (8) ‖ head (32) )
//! signed  = Ed25519( "synesis seal" ‖ version (1 byte) ‖ time in ms (8 bytes, big-endian) ‖ root )
//! ```

use std::collections::BTreeMap;

use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Hash, hex32};
use crate::ids::AccountId;
use crate::time::UnixMillis;

const HEADS_DOMAIN: &[u8] = b"synesis heads";
const SEAL_DOMAIN: &[u8] = b"synesis seal";
const VERSION: u8 = 1;

/// Where one account's chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// How many entries it has.
    pub entries: u64,
    /// The last one's hash.
    #[serde(with = "hash_hex")]
    pub hash: Hash,
}

/// Where every account's chain ended at a moment, signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// When.
    pub at: UnixMillis,
    /// The chains.
    pub heads: BTreeMap<AccountId, Head>,
    /// Their hash.
    #[serde(with = "hash_hex")]
    pub root: Hash,
    /// The Ed25519 public key, 32 bytes as hex.
    #[serde(with = "hex32")]
    pub key: [u8; 32],
    /// The signature, 64 bytes as hex.
    pub signature: String,
}

/// Why a seal says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSeal {
    /// The heads are not those that were hashed.
    #[error("its heads were altered: they do not have the hash that it names")]
    Altered,
    /// The signature is not one of the key's.
    #[error("its signature is not one of its key: it was altered, or is not a gateway's")]
    Unsigned,
    /// Signed with another key than the one that was expected.
    #[error("it was signed with another key than this gateway's")]
    Stranger,
}

impl Seal {
    /// Signs where the chains end.
    #[must_use]
    pub fn new(at: UnixMillis, heads: BTreeMap<AccountId, Head>, key: &SealKey) -> Self {
        let root = root(&heads);
        let signature = key.0.sign(&signed(at, root));
        Self {
            at,
            heads,
            root,
            key: key.public(),
            signature: hex(signature.as_ref()),
        }
    }

    /// Checks that it is whole; with `key`, also that it is that one's.
    ///
    /// # Errors
    ///
    /// [`BadSeal`].
    pub fn check(&self, key: Option<&[u8; 32]>) -> Result<(), BadSeal> {
        if key.is_some_and(|key| *key != self.key) {
            return Err(BadSeal::Stranger);
        }
        if root(&self.heads) != self.root {
            return Err(BadSeal::Altered);
        }
        let signature = unhex(&self.signature).ok_or(BadSeal::Unsigned)?;
        UnparsedPublicKey::new(&ED25519, self.key)
            .verify(&signed(self.at, self.root), &signature)
            .map_err(|_| BadSeal::Unsigned)
    }

    /// How many entries it covers.
    #[must_use]
    pub fn entries(&self) -> u64 {
        let each = self.heads.values().map(|head| head.entries);
        each.fold(0, u64::saturating_add)
    }
}

/// The key that seals are signed with.
pub struct SealKey(Ed25519KeyPair);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey(..)")
    }
}

impl SealKey {
    /// The key of a secret seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Option<Self> {
        Ed25519KeyPair::from_seed_unchecked(seed).ok().map(Self)
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        use ring::signature::KeyPair as _;
        let mut public = [0; 32];
        let bytes = self.0.public_key().as_ref();
        public
            .iter_mut()
            .zip(bytes)
            .for_each(|(to, from)| *to = *from);
        public
    }
}

fn root(heads: &BTreeMap<AccountId, Head>) -> Hash {
    let mut hash = Sha256::new();
    hash.update(HEADS_DOMAIN);
    hash.update([VERSION]);
    hash.update((heads.len() as u64).to_be_bytes());
    for (account, head) in heads {
        hash.update(account.as_u128().to_be_bytes());
        hash.update(head.entries.to_be_bytes());
        hash.update(head.hash.0);
    }
    Hash(hash.finalize().into())
}

fn signed(at: UnixMillis, root: Hash) -> Vec<u8> {
    [SEAL_DOMAIN, &[VERSION], &at.0.to_be_bytes(), &root.0].concat()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 128 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let pairs = text.as_bytes().chunks_exact(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect()
}

/// A [`Hash`] as lower-case hex.
mod hash_hex {
    use serde::{Deserializer, Serializer};

    use super::{Hash, hex32};

    pub(super) fn serialize<S: Serializer>(hash: &Hash, s: S) -> Result<S::Ok, S::Error> {
        hex32::serialize(&hash.0, s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Hash, D::Error> {
        hex32::deserialize(d).map(Hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "029a96b7239b2d5f2164193064f0de25da5d91710e092d81783eb62802d55c65";
    const KEY: &str = "ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c";
    const SIGNATURE: &str = concat!(
        "6376cd723f6cf6462eac29829e725e6b4da893e217ec7c92ca43272fd11d1a32",
        "2cd4b509c46ec6468c995a2590a19af508c2831e923176005b053d3a894cdb09",
    );

    fn heads() -> BTreeMap<AccountId, Head> {
        let head = |entries, byte| Head {
            entries,
            hash: Hash([byte; 32]),
        };
        [
            (AccountId::from_u128(1), head(3, 0xAA)),
            (AccountId::from_u128(2), head(1, 0xBB)),
        ]
        .into()
    }

    fn seal() -> Seal {
        let key = SealKey::from_seed(&[7; 32]).unwrap();
        Seal::new(UnixMillis(1_795_000_000_000), heads(), &key)
    }

    #[test]
    fn a_seal_is_what_another_program_computes() {
        // Python's hashlib over the bytes in the module's documentation, and `cryptography`'s Ed25519 with
        // the seed 32 × 0x07: its public key, and whether the signature verifies.
        let seal = seal();
        assert_eq!(seal.root.to_string(), ROOT);
        assert_eq!(hex(&seal.key), KEY);
        assert_eq!(seal.signature, SIGNATURE);
        assert_eq!(seal.check(None), Ok(()));
        assert_eq!(seal.entries(), 4);
    }

    #[test]
    fn whatever_is_altered_is_noticed() {
        let altered = |change: fn(&mut Seal)| {
            let mut seal = seal();
            change(&mut seal);
            seal.check(None)
        };
        let head = AccountId::from_u128(1);
        assert_eq!(
            altered(|seal| seal.heads = [].into()),
            Err(BadSeal::Altered)
        );
        let shorter = |seal: &mut Seal| seal.heads.values_mut().for_each(|head| head.entries -= 1);
        assert_eq!(altered(shorter), Err(BadSeal::Altered));
        assert_eq!(altered(|seal| seal.at.0 += 1), Err(BadSeal::Unsigned));
        let root = |seal: &mut Seal| {
            seal.heads.clear();
            seal.root = super::root(&seal.heads);
        };
        assert_eq!(altered(root), Err(BadSeal::Unsigned));
        assert_eq!(
            altered(|seal| seal.signature.clear()),
            Err(BadSeal::Unsigned)
        );
        assert_eq!(
            altered(|seal| seal.signature = "ä".repeat(64)),
            Err(BadSeal::Unsigned)
        );
        let other = SealKey::from_seed(&[8; 32]).unwrap();
        assert_eq!(seal().check(Some(&other.public())), Err(BadSeal::Stranger));
        assert!(seal().heads.contains_key(&head));
    }

    #[test]
    fn a_seal_reads_back_as_itself_and_shows_no_secret() {
        let text = serde_json::to_string(&seal()).unwrap();
        assert_eq!(serde_json::from_str::<Seal>(&text).unwrap(), seal());
        let key = SealKey::from_seed(&[7; 32]).unwrap();
        assert_eq!(format!("{key:?}"), "SealKey(..)");
    }
}
