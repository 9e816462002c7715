//! Keys of the gateway's own for its books: what accounts' provider keys are sealed with at rest, and
//! what seals over the ledger are signed with. Made once, kept in one private file beside the
//! authorities', and shared by all gateways of a deployment.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

use mesh_core::billing::ledger::seal::SealKey;
use mesh_core::ids::AccountId;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};

use super::upstream::ProviderKey;
use crate::error::Error;
use crate::{files, random};

/// The file's name.
const FILE: &str = "books.json";
/// What is sealed is bound to this, the account and the provider: moved to another row it is void.
const DOMAIN: &[u8] = b"synesis provider key";

/// The file's contents, each 32 bytes as hex.
#[derive(Serialize, Deserialize)]
struct Kept {
    provider_keys: String,
    seals: String,
}

/// See the module documentation.
pub struct Keys {
    vault: LessSafeKey,
    seals: SealKey,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

impl Keys {
    /// Reads the keys. Makes nothing.
    ///
    /// # Errors
    ///
    /// [`Error`] with what is missing, or when the file cannot be read or holds something else.
    pub fn open_existing(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let text = files::read_private(&path).map_err(|error| {
            let missing = error.kind() == ErrorKind::NotFound;
            Error::file(&path, if missing { no_keys() } else { error })
        })?;
        Self::understood(&path, &text)
    }

    /// Reads the keys, or makes them where there are none.
    ///
    /// # Errors
    ///
    /// [`Error`] when the file cannot be read or written, or holds something else.
    pub fn open_or_make(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let text = match files::read_private(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let kept = Kept {
                    provider_keys: hex(&random::seed()?.secret_bytes("provider keys")),
                    seals: hex(&random::seed()?.secret_bytes("seals")),
                };
                let text = serde_json::to_string_pretty(&kept)
                    .map_err(|error| Error::Api(error.to_string()))?;
                files::make_private_dir(folder).map_err(|error| Error::file(folder, error))?;
                files::write_private(&path, &text).map_err(|error| Error::file(&path, error))?;
                text
            }
            Err(error) => return Err(Error::file(&path, error)),
        };
        Self::understood(&path, &text)
    }

    fn understood(path: &Path, text: &str) -> Result<Self, Error> {
        Self::read(text).ok_or_else(|| {
            let broken = std::io::Error::new(
                ErrorKind::InvalidData,
                "not the keys of the books; restore the file from a backup: without it, accounts \
                 must give their provider keys again",
            );
            Error::file(path, broken)
        })
    }

    fn read(text: &str) -> Option<Self> {
        let kept: Kept = serde_json::from_str(text).ok()?;
        let vault = UnboundKey::new(&CHACHA20_POLY1305, &unhex(&kept.provider_keys)?).ok()?;
        Some(Self {
            vault: LessSafeKey::new(vault),
            seals: SealKey::from_seed(&unhex(&kept.seals)?)?,
        })
    }

    /// What seals over the ledger are signed with.
    #[must_use]
    pub const fn seals(&self) -> &SealKey {
        &self.seals
    }

    /// Seals a provider's key: a fresh nonce, then the key under ChaCha20-Poly1305 (RFC 8439).
    ///
    /// # Errors
    ///
    /// When the system has no random numbers to give.
    pub fn seal(
        &self,
        account: AccountId,
        provider: &str,
        key: &ProviderKey,
    ) -> Result<Vec<u8>, Error> {
        let mut nonce = [0; NONCE_LEN];
        let bytes = random::seed()?.secret_bytes("nonce");
        nonce
            .iter_mut()
            .zip(bytes)
            .for_each(|(to, from)| *to = from);
        let mut sealed = key.secret().as_bytes().to_vec();
        self.vault
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(bound_to(account, provider)),
                &mut sealed,
            )
            .map_err(|_| Error::Api("a provider's key could not be sealed".to_owned()))?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Reads a key that was sealed for this account and provider; `None` of anything else.
    #[must_use]
    pub fn open(&self, account: AccountId, provider: &str, sealed: &[u8]) -> Option<ProviderKey> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut rest = rest.to_vec();
        let opened = self.vault.open_in_place(
            Nonce::assume_unique_for_key(*nonce),
            Aad::from(bound_to(account, provider)),
            &mut rest,
        );
        ProviderKey::new(std::str::from_utf8(opened.ok()?).ok()?)
    }
}

fn no_keys() -> std::io::Error {
    std::io::Error::new(
        ErrorKind::NotFound,
        "the gateway's own keys, which seals are signed with, are missing here; run this in the gateway's \
         data folder, or copy its `ca` folder, which is secret",
    )
}

fn bound_to(account: AccountId, provider: &str) -> Vec<u8> {
    let account = account.as_u128().to_be_bytes();
    [DOMAIN, &account, provider.as_bytes()].concat()
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: AccountId = AccountId::from_u128(1);

    fn key() -> ProviderKey {
        ProviderKey::new("sk-canary-5e1f").unwrap()
    }

    #[test]
    fn a_key_is_read_by_its_own_account_and_provider_only() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::open_or_make(folder.path()).unwrap();
        let sealed = keys.seal(ACCOUNT, "anthropic", &key()).unwrap();
        assert!(!String::from_utf8_lossy(&sealed).contains("canary"));
        assert_ne!(sealed, keys.seal(ACCOUNT, "anthropic", &key()).unwrap());
        // Another process with the same folder reads it.
        let again = Keys::open_or_make(folder.path()).unwrap();
        assert_eq!(again.open(ACCOUNT, "anthropic", &sealed), Some(key()));
        assert_eq!(again.open(ACCOUNT, "openai", &sealed), None);
        assert_eq!(
            again.open(AccountId::from_u128(2), "anthropic", &sealed),
            None
        );
        for cut in [0, 5, NONCE_LEN, sealed.len() - 1] {
            assert_eq!(again.open(ACCOUNT, "anthropic", &sealed[..cut]), None);
        }
        let mut altered = sealed;
        altered[NONCE_LEN] ^= 1;
        assert_eq!(again.open(ACCOUNT, "anthropic", &altered), None);
        assert_eq!(format!("{keys:?}"), "Keys(..)");
    }

    #[test]
    fn who_only_reads_makes_nothing_and_is_told_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("ca");
        let refused = Keys::open_existing(&own).unwrap_err().to_string();
        assert!(
            refused.contains("books.json") && refused.contains("`ca`"),
            "{refused}"
        );
        assert!(!own.exists());
        let made = Keys::open_or_make(&own).unwrap();
        let read = Keys::open_existing(&own).unwrap();
        assert_eq!(read.seals().public(), made.seals().public());
    }

    #[test]
    fn a_file_of_something_else_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        for text in ["", "{}", r#"{"provider_keys":"00","seals":"00"}"#] {
            files::write_private(&path, text).unwrap();
            let refused = Keys::open_or_make(folder.path()).unwrap_err().to_string();
            assert!(refused.contains("restore the file"), "{refused}");
            let refused = Keys::open_existing(folder.path()).unwrap_err().to_string();
            assert!(refused.contains("restore the file"), "{refused}");
            assert_eq!(files::read_private(&path).unwrap(), text);
        }
    }
}
