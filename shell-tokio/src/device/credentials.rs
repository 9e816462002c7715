//! What a device keeps of its enrolment: its key, its certificate, and where the gateway is.
//!
//! One private file, replaced whole: key and certificate always belong together.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_core::identity::Fingerprint;
use mesh_core::ids::DeviceId;
use mesh_core::time::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::files;
use crate::tls::{self, Identity};

/// Version of the file's format.
const VERSION: u32 = 1;

/// A device's enrolment. Its `Debug` shows no key.
#[derive(Clone, Serialize, Deserialize)]
pub struct Credentials {
    version: u32,
    device_id: DeviceId,
    tunnel_address: String,
    http_url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    http_ca: Option<String>,
    /// PEM, leaf first.
    certificates: String,
    /// PKCS#8, PEM.
    key: String,
    /// The CA of the gateway's own certificate, PEM.
    gateway_ca: String,
    not_after: UnixMillis,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("device_id", &self.device_id)
            .field("tunnel_address", &self.tunnel_address)
            .finish_non_exhaustive()
    }
}

/// What credentials are made of; see [`Credentials::new`].
#[derive(Clone, Debug)]
pub struct Parts {
    /// The id in the certificate.
    pub device_id: DeviceId,
    /// Where the tunnel goes, `host:port`.
    pub tunnel_address: String,
    /// Where the gateway was enrolled with.
    pub http_url: String,
    /// The CA of that address's certificate, if it was pinned.
    pub http_ca: Option<Fingerprint>,
    /// Certificate and key.
    pub identity: Identity,
    /// The CA of the gateway's own certificate, PEM.
    pub gateway_ca: String,
    /// When the certificate ends.
    pub not_after: UnixMillis,
}

impl Credentials {
    /// Puts them together, and checks that TLS can use them.
    ///
    /// # Errors
    ///
    /// [`Error::Tls`] for a damaged or mismatched certificate, key or CA.
    pub fn new(parts: Parts) -> Result<Self, Error> {
        let credentials = Self {
            version: VERSION,
            device_id: parts.device_id,
            tunnel_address: parts.tunnel_address,
            http_url: parts.http_url,
            http_ca: parts.http_ca.map(|ca| ca.to_string()),
            certificates: parts.identity.certificates,
            key: parts.identity.key,
            gateway_ca: parts.gateway_ca,
            not_after: parts.not_after,
        };
        credentials.tls()?;
        Ok(credentials)
    }

    /// Those kept in a folder; `None` if the device was never enrolled.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when they cannot be read or others may read them, [`Error::Certificate`] when
    /// they are damaged.
    pub fn load(folder: &Path) -> Result<Option<Self>, Error> {
        let path = file(folder);
        let text = match files::read_private(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file(&path, error)),
        };
        // The parser's error is left out: it may show a part of the key.
        match serde_json::from_str::<Self>(&text) {
            Ok(credentials) if credentials.version == VERSION => Ok(Some(credentials)),
            Ok(_) | Err(_) => Err(Error::Certificate(format!(
                "{} is damaged or from another version; enrol anew with `synesis cloud login --force`",
                path.display()
            ))),
        }
    }

    /// Keeps them in a folder, in the place of any that were there.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        let path = file(folder);
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::protocol(format!("credentials: {error}")))?;
        files::make_private_dir(folder).map_err(|error| Error::file(folder, error))?;
        files::write_private(&path, text).map_err(|error| Error::file(&path, error))
    }

    /// Forgets those kept in a folder.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn delete(folder: &Path) -> Result<(), Error> {
        let path = file(folder);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file(&path, error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The same device with its gateway elsewhere.
    #[must_use]
    pub fn at(mut self, tunnel_address: impl Into<String>) -> Self {
        self.tunnel_address = tunnel_address.into();
        self
    }

    /// The tunnel's TLS.
    ///
    /// # Errors
    ///
    /// [`Error::Tls`].
    pub fn tls(&self) -> Result<Arc<rustls::ClientConfig>, Error> {
        let identity = Identity {
            certificates: self.certificates.clone(),
            key: self.key.clone(),
        };
        Ok(tls::tunnel_client(&identity, &self.gateway_ca)?)
    }

    /// The id in the certificate.
    #[must_use]
    pub const fn device_id(&self) -> DeviceId {
        self.device_id
    }

    /// Where the tunnel goes, `host:port`.
    #[must_use]
    pub fn tunnel_address(&self) -> &str {
        &self.tunnel_address
    }

    /// The gateway's HTTP address.
    #[must_use]
    pub fn http_url(&self) -> &str {
        &self.http_url
    }

    /// The CA of that address's certificate, if it was pinned.
    #[must_use]
    pub fn http_ca(&self) -> Option<Fingerprint> {
        self.http_ca.as_deref().and_then(Fingerprint::parse)
    }

    /// The CA of the gateway's own certificate, PEM.
    #[must_use]
    pub fn gateway_ca(&self) -> &str {
        &self.gateway_ca
    }

    /// When the certificate ends.
    #[must_use]
    pub const fn not_after(&self) -> UnixMillis {
        self.not_after
    }
}

/// The device was never enrolled, or has forgotten it.
#[must_use]
pub fn not_enrolled() -> Error {
    Error::Auth(
        "this device is not enrolled; run `synesis cloud login` with the join line that `synesis \
         admin key create` prints on the gateway's machine"
            .to_owned(),
    )
}

fn file(folder: &Path) -> PathBuf {
    folder.join("credentials.json")
}
