//! What a device keeps of its enrolment: its key, its certificate, and where the gateway is.
//!
//! One private file, replaced whole: key and certificate always belong together.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_core::identity::Fingerprint;
use mesh_core::identity::enrolment::{self, ENROL_ANEW, Enrolment, NOT_ENROLLED, Unfit, VERSION};
use mesh_core::ids::DeviceId;
use mesh_core::time::UnixMillis;

use crate::error::Error;
use crate::files;
use crate::tls::{self, Identity};

/// A device's enrolment. Its `Debug` shows no key.
#[derive(Clone, Debug)]
pub struct Credentials(Enrolment);

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
    /// Puts them together, and checks that they belong together.
    ///
    /// # Errors
    ///
    /// [`Error::Tls`] for a damaged certificate, key or CA or a key that is another certificate's;
    /// [`Error::Certificate`] for another device's.
    pub fn new(parts: Parts) -> Result<Self, Error> {
        let enrolment = Enrolment {
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
        enrolment
            .fit(tls::provider())
            .map_err(|unfit| match unfit {
                Unfit::Tls(error) => Error::Tls(error),
                Unfit::Damaged | Unfit::AnotherDevice => Error::Certificate(unfit.to_string()),
            })?;
        Ok(Self(enrolment))
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
        let read = Enrolment::parse(&text, tls::provider());
        read.map(|enrolment| Some(Self(enrolment)))
            .map_err(|unfit| {
                let path = path.display();
                Error::Certificate(format!("{path}: {unfit}; {ENROL_ANEW}"))
            })
    }

    /// Whether they can still be used.
    ///
    /// # Errors
    ///
    /// [`Error::Certificate`] when the certificate has ended.
    pub fn check(&self, now: UnixMillis) -> Result<(), Error> {
        self.0
            .check(now)
            .map_err(|ended| Error::Certificate(ended.to_string()))
    }

    /// Keeps them in a folder, in the place of any that were there.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        let path = file(folder);
        let text = serde_json::to_vec_pretty(&self.0)
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
        self.0.tunnel_address = tunnel_address.into();
        self
    }

    /// The tunnel's TLS.
    ///
    /// # Errors
    ///
    /// [`Error::Tls`].
    pub fn tls(&self) -> Result<Arc<rustls::ClientConfig>, Error> {
        Ok(self.0.tls(tls::provider())?)
    }

    /// The id in the certificate.
    #[must_use]
    pub const fn device_id(&self) -> DeviceId {
        self.0.device_id
    }

    /// Where the tunnel goes, `host:port`.
    #[must_use]
    pub fn tunnel_address(&self) -> &str {
        &self.0.tunnel_address
    }

    /// The gateway's HTTP address.
    #[must_use]
    pub fn http_url(&self) -> &str {
        &self.0.http_url
    }

    /// The CA of that address's certificate, if it was pinned.
    #[must_use]
    pub fn http_ca(&self) -> Option<Fingerprint> {
        self.0.http_ca.as_deref().and_then(Fingerprint::parse)
    }

    /// The CA of the gateway's own certificate, PEM.
    #[must_use]
    pub fn gateway_ca(&self) -> &str {
        &self.0.gateway_ca
    }

    /// When the certificate ends.
    #[must_use]
    pub const fn not_after(&self) -> UnixMillis {
        self.0.not_after
    }
}

/// The device was never enrolled, or has forgotten it.
#[must_use]
pub fn not_enrolled() -> Error {
    Error::Auth(NOT_ENROLLED.to_owned())
}

fn file(folder: &Path) -> PathBuf {
    folder.join(enrolment::FILE)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use mesh_core::error::ErrorClass;
    use mesh_core::identity::device_dns_name;
    use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};

    use super::*;

    const DEVICE: DeviceId = DeviceId::from_u128(5);
    const END: UnixMillis = UnixMillis(1_795_000_000_000);

    fn identity(device: DeviceId) -> Identity {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let params = CertificateParams::new(vec![device_dns_name(device)]).unwrap();
        Identity {
            certificates: params.self_signed(&key).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    fn parts(identity: Identity) -> Parts {
        Parts {
            device_id: DEVICE,
            tunnel_address: "gw.example:4141".to_owned(),
            http_url: "https://gw.example:4140".to_owned(),
            http_ca: Some(Fingerprint([7; 32])),
            gateway_ca: identity.certificates.clone(),
            identity,
            not_after: END,
        }
    }

    /// A folder with credentials in it, and their file.
    fn kept() -> (tempfile::TempDir, PathBuf, Credentials) {
        let root = tempfile::tempdir().unwrap();
        let credentials = Credentials::new(parts(identity(DEVICE))).unwrap();
        let folder = root.path().join("device");
        credentials.save(&folder).unwrap();
        (root, folder, credentials)
    }

    fn refused(folder: &Path) -> String {
        let error = Credentials::load(folder).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Certificate, "{error}");
        let words = error.to_string();
        assert!(words.contains("synesis cloud login --force"), "{words}");
        words
    }

    #[test]
    fn they_are_kept_privately_read_back_and_forgotten() {
        let (_root, folder, credentials) = kept();
        let mode = fs::metadata(file(&folder)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = Credentials::load(&folder).unwrap().unwrap();
        assert_eq!(read.0.key, credentials.0.key);
        assert_eq!(read.http_ca(), Some(Fingerprint([7; 32])));
        assert_eq!((read.device_id(), read.not_after()), (DEVICE, END));
        Credentials::delete(&folder).unwrap();
        Credentials::delete(&folder).unwrap();
        assert!(Credentials::load(&folder).unwrap().is_none());
    }

    #[test]
    fn they_are_refused_where_others_may_read_them() {
        let (_root, folder, _) = kept();
        fs::set_permissions(file(&folder), fs::Permissions::from_mode(0o640)).unwrap();
        let error = Credentials::load(&folder).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Io);
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_file_cut_off_anywhere_is_damaged_and_shows_nothing_of_the_key() {
        let (_root, folder, credentials) = kept();
        let whole = fs::read_to_string(file(&folder)).unwrap();
        let secret = credentials.0.key.lines().nth(1).unwrap();
        for length in (0..whole.len()).step_by(37) {
            files::write_private(&file(&folder), &whole[..length]).unwrap();
            assert!(!refused(&folder).contains(secret));
        }
        let newer = whole.replace("\"version\": 1", "\"version\": 2");
        files::write_private(&file(&folder), newer).unwrap();
        refused(&folder);
    }

    #[test]
    fn parts_that_do_not_belong_together_are_refused() {
        let (_root, folder, good) = kept();
        let other = identity(DEVICE);
        let foreign = identity(DeviceId::from_u128(6));
        let cut = good.0.certificates[..good.0.certificates.len() / 2].to_owned();
        for odd in [
            Enrolment {
                key: other.key,
                ..good.0.clone()
            },
            Enrolment {
                key: "rubbish".to_owned(),
                ..good.0.clone()
            },
            Enrolment {
                certificates: cut,
                ..good.0.clone()
            },
            Enrolment {
                gateway_ca: String::new(),
                ..good.0.clone()
            },
            Enrolment {
                certificates: foreign.certificates.clone(),
                key: foreign.key.clone(),
                ..good.0.clone()
            },
        ] {
            Credentials(odd).save(&folder).unwrap();
            refused(&folder);
        }
        assert!(Credentials::new(parts(foreign)).is_err());
    }

    #[test]
    fn an_ended_certificate_says_since_when_and_what_to_do() {
        let (_root, _folder, credentials) = kept();
        assert!(credentials.check(UnixMillis(END.0 - 1)).is_ok());
        let error = credentials
            .check(END.saturating_add(Duration::from_secs(3 * 24 * 60 * 60)))
            .unwrap_err();
        assert_eq!(error.class(), ErrorClass::Certificate);
        let words = error.to_string();
        assert!(
            words.contains("3 days") && words.contains("synesis cloud login"),
            "{words}"
        );
    }

    #[test]
    fn debug_shows_no_key() {
        let (_root, _folder, credentials) = kept();
        let shown = format!("{credentials:?} {:?}", parts(identity(DEVICE)));
        assert!(!shown.contains("PRIVATE"), "{shown}");
    }
}
