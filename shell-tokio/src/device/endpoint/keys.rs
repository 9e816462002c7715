//! Keys of the local endpoint: one 0600 file in the device's folder.
//!
//! The first key is made by itself and kept in the clear, so that `synesis env` can print it; of the
//! others only the hash is kept.

use std::io;
use std::path::{Path, PathBuf};

use mesh_core::identity::api_key::{ApiKey, KeyHash};
use mesh_core::ids::KeyId;
use mesh_core::limits::ENDPOINT_KEYS_MAX;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::{files, random};

/// The file, in the device's folder.
const FILE: &str = "endpoint-keys.json";

/// One key, as it is kept. `Debug` shows nothing of it.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    id: KeyId,
    label: String,
    hash: KeyHash,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

/// The keys of one device.
#[derive(Clone)]
pub struct Keys {
    path: PathBuf,
    kept: Vec<Kept>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.kept.len())
    }
}

impl Keys {
    /// The keys of a device's folder; the first is made if there is none.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or others may read it.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let kept: Vec<Kept> = match files::read_private(&path) {
            Ok(text) => serde_json::from_str(&text)
                .map_err(|error| Error::protocol(format!("{}: {error}", path.display())))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Error::file(&path, error)),
        };
        let mut keys = Self { path, kept };
        if keys.first().is_none() {
            files::make_private_dir(folder).map_err(|error| Error::file(folder, error))?;
            keys.make("first", true)?;
        }
        Ok(keys)
    }

    /// The key that is made by itself.
    #[must_use]
    pub fn first(&self) -> Option<&str> {
        self.kept.iter().find_map(|kept| kept.key.as_deref())
    }

    /// A new key, shown once.
    ///
    /// # Errors
    ///
    /// When there are too many, or the file cannot be written.
    pub fn create(&mut self, label: &str) -> Result<ApiKey, Error> {
        self.make(label, false)
    }

    /// Whose key this is.
    #[must_use]
    pub fn find(&self, shown: &str) -> Option<KeyId> {
        // The hash is compared, so the time that it takes tells nothing of a key.
        let hash = shown.parse::<ApiKey>().ok()?.hash();
        self.kept
            .iter()
            .find(|kept| kept.hash == hash)
            .map(|kept| kept.id)
    }

    fn make(&mut self, label: &str, in_the_clear: bool) -> Result<ApiKey, Error> {
        if self.kept.len() >= ENDPOINT_KEYS_MAX {
            return Err(Error::Validation(format!(
                "there are {ENDPOINT_KEYS_MAX} keys already; remove some from {}",
                self.path.display()
            )));
        }
        let seed = random::seed()?;
        let key = ApiKey::random(&mut seed.secret("key"));
        self.kept.push(Kept {
            id: KeyId::random(&mut seed.secret("key id")),
            label: label.to_owned(),
            hash: key.hash(),
            key: in_the_clear.then(|| key.reveal().to_owned()),
        });
        let written = serde_json::to_vec(&self.kept).map_err(io::Error::other);
        written
            .and_then(|bytes| files::write_private(&self.path, bytes))
            .map_err(|error| Error::file(&self.path, error))?;
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_is_made_once_and_every_key_is_known_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut keys = Keys::open(folder.path()).unwrap();
        let first = keys.first().unwrap().to_owned();
        let made = keys.create("editor").unwrap();
        let again = Keys::open(folder.path()).unwrap();
        assert_eq!(again.first(), Some(first.as_str()));
        let ids = [&first, made.reveal()].map(|key| again.find(key).unwrap());
        assert_ne!(ids[0], ids[1]);
        assert_eq!(again.find("si_live_"), None);
        let other = ApiKey::random(&mut random::seed().unwrap().secret("x"));
        assert_eq!(again.find(other.reveal()), None);
        let text = files::read_private(&folder.path().join(FILE)).unwrap();
        assert!(text.contains(&first) && !text.contains(made.reveal()));
        assert!(!format!("{again:?}").contains(&first));
    }
}
