//! The gateway's certificate authorities and long-lived keys, made on the first start and kept.
//!
//! Two authorities, so that neither kind of certificate can pass for the other: one signs devices
//! (client authentication only), one signs the gateway itself (server authentication, one fixed
//! name). Their names hold a random part: two authorities of one name would be told apart by a bad
//! signature only. The reset and token keys live with them: gateways that share them are one
//! deployment.
//!
//! # Invariants
//!
//! 1. An authority is there whole or not at all: it is made in a folder beside its own and renamed.
//! 2. One that is there is never written over, be it damaged, incomplete or unreadable.
//! 3. Of a device's request only its public key comes into the certificate.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_core::identity::{
    CERTIFICATE_BACKDATE, CERTIFICATE_LIFE, Fingerprint, GATEWAY_NAME, device_dns_name,
};
use mesh_core::ids::DeviceId;
use mesh_core::time::UnixMillis;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, PublicKeyData,
    SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use time::OffsetDateTime;

use crate::files;
use crate::tls::Identity;

/// An authority outlives every certificate that it signs.
const CA_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 60 * 60);
/// A gateway's certificate is made at each start and lives in memory only: longer than any process.
const GATEWAY_LIFE: Duration = Duration::from_secs(5 * 365 * 24 * 60 * 60);
/// No certificate request of ours is larger.
const CSR_BYTES_MAX: usize = 8 * 1024;

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is damaged.
    #[error(
        "{path} is damaged; restore it from a backup, or, to begin anew, move the folder away and run \
         `synesis admin adopt-ca` (every device must then enrol again)"
    )]
    Damaged {
        /// Which.
        path: PathBuf,
    },
    /// Some files of an authority are there and some are not.
    #[error(
        "{path} is missing beside the others; restore it from a backup, or, to begin anew, move the folder away and run \
         `synesis admin adopt-ca` (every device must then enrol again)"
    )]
    Incomplete {
        /// Which.
        path: PathBuf,
    },
    /// A key is another certificate's.
    #[error(
        "{path} does not belong to the certificate beside it; restore both from the same backup"
    )]
    Mismatched {
        /// The key.
        path: PathBuf,
    },
    /// The store's devices are those of other authorities.
    #[error(
        "{path} has other certificate authorities than the gateways of this store: devices that enrolled there \
         would be refused here; copy the folder of one of those gateways in its place, or, to begin anew with \
         these, stop every gateway and run `synesis admin adopt-ca` (every device must then enrol again)"
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
    /// The store has gateways with authorities, and this folder has none.
    #[error(
        "{path} has no certificate authorities, and the gateways of this store have some: copy the folder of \
         one of those gateways to this place, or restore it from a backup, or, to begin anew, stop every \
         gateway and run `synesis admin adopt-ca` (every device must then enrol again)"
    )]
    Absent {
        /// The folder.
        path: PathBuf,
    },
    /// The library will not make a certificate.
    #[error("a certificate could not be made: {0}")]
    Making(#[from] rcgen::Error),
}

/// Why a certificate request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrRefused {
    /// Too large.
    #[error("the certificate request is larger than {CSR_BYTES_MAX} bytes")]
    TooLarge,
    /// Not one, or its signature does not hold.
    #[error("the certificate request is damaged, or its signature does not hold")]
    Damaged,
    /// Another kind of key.
    #[error("the certificate request's key must be Ed25519")]
    NotEd25519,
    /// The library will not sign.
    #[error("the certificate could not be made")]
    Unsignable,
}

/// A device's certificate, just signed.
#[derive(Clone, Debug)]
pub struct Signed {
    /// PEM.
    pub pem: String,
    /// SHA-256 of its DER.
    pub fingerprint: Fingerprint,
    /// When it ends.
    pub not_after: UnixMillis,
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// See the module documentation. Its `Debug` shows no key.
pub struct CertificateAuthority {
    devices: Authority,
    servers: Authority,
    reset_key: [u8; 32],
    token_key: [u8; 32],
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateAuthority")
            .finish_non_exhaustive()
    }
}

const DEVICE_CA: [&str; 2] = ["device-ca.pem", "device-ca.key"];
const SERVER_CA: [&str; 2] = ["server-ca.pem", "server-ca.key"];
const SHARED_KEYS: &str = "shared.keys";

impl CertificateAuthority {
    /// Opens the authority in a folder, or makes it there if nothing of one is there yet.
    ///
    /// # Errors
    ///
    /// [`CaError`]; an authority that is there is never written over.
    pub fn open_or_make(folder: &Path, now: UnixMillis) -> Result<Self, CaError> {
        if Self::is_there(folder)? {
            return Self::open(folder);
        }
        let mut name = folder.file_name().unwrap_or_default().to_owned();
        let unique = Fingerprint(random_32()?).to_string();
        name.push(format!(".{}.new", &unique[..16]));
        let beside = folder.with_file_name(name);
        let made = Self::make(&beside, now)
            .and_then(|()| fs::rename(&beside, folder).map_err(|source| io(folder, source)));
        if let Err(error) = made {
            let _best_effort = fs::remove_dir_all(&beside);
            // Another process may have been faster.
            return if Self::is_there(folder)? {
                Self::open(folder)
            } else {
                Err(error)
            };
        }
        let parent = folder
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let flushed = fs::File::open(parent).and_then(|parent| parent.sync_all());
        flushed.map_err(|source| io(parent, source))?;
        Self::open(folder)
    }

    /// Whether a whole authority is there; an error if a part of one is.
    pub(super) fn is_there(folder: &Path) -> Result<bool, CaError> {
        // One listing, not a look at each name: another process may rename its own into place.
        let listed = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            listed => listed.map_err(|source| io(folder, source))?,
        };
        let mut missing = vec![
            DEVICE_CA[0],
            DEVICE_CA[1],
            SERVER_CA[0],
            SERVER_CA[1],
            SHARED_KEYS,
        ];
        let all = missing.len();
        for entry in listed {
            let name = entry.map_err(|source| io(folder, source))?.file_name();
            missing.retain(|known| name != *known);
        }
        match missing.first() {
            None => Ok(true),
            Some(_) if missing.len() == all => Ok(false),
            Some(name) => Err(CaError::Incomplete {
                path: folder.join(name),
            }),
        }
    }

    fn open(folder: &Path) -> Result<Self, CaError> {
        let path = folder.join(SHARED_KEYS);
        let keys = read(&path)?;
        let mut lines = keys.lines().map(Fingerprint::parse);
        let (Some(Some(reset)), Some(Some(token)), None) =
            (lines.next(), lines.next(), lines.next())
        else {
            return Err(CaError::Damaged { path });
        };
        Ok(Self {
            devices: open_authority(folder, DEVICE_CA)?,
            servers: open_authority(folder, SERVER_CA)?,
            reset_key: reset.0,
            token_key: token.0,
        })
    }

    fn make(folder: &Path, now: UnixMillis) -> Result<(), CaError> {
        files::make_private_dir(folder).map_err(|source| io(folder, source))?;
        make_authority(folder, DEVICE_CA, "devices", now)?;
        make_authority(folder, SERVER_CA, "gateways", now)?;
        // Hex of 32 bytes each, one a line.
        let [reset, token] = [random_32()?, random_32()?].map(Fingerprint);
        let path = folder.join(SHARED_KEYS);
        files::write_private(&path, format!("{reset}\n{token}\n")).map_err(|s| io(&path, s))
    }

    /// The CA that signs devices, PEM.
    #[must_use]
    pub fn device_ca(&self) -> &str {
        &self.devices.pem
    }

    /// The CA that signs gateways, PEM.
    #[must_use]
    pub fn server_ca(&self) -> &str {
        &self.servers.pem
    }

    /// The fingerprint that join lines pin.
    ///
    /// # Errors
    ///
    /// Never for an authority that was opened.
    pub fn server_ca_fingerprint(&self) -> Result<Fingerprint, CaError> {
        CertificateDer::from_pem_slice(self.servers.pem.as_bytes())
            .map(|der| Fingerprint::of(&der))
            .map_err(|_| CaError::Damaged {
                path: SERVER_CA[0].into(),
            })
    }

    /// What tells these two authorities from all others: SHA-256 over the DER of both certificates, the
    /// devices' first.
    ///
    /// # Errors
    ///
    /// Never for an authority that was opened.
    pub fn fingerprint(&self) -> Result<Fingerprint, CaError> {
        let mut both = Vec::new();
        for (pem, [name, _]) in [
            (&self.devices.pem, DEVICE_CA),
            (&self.servers.pem, SERVER_CA),
        ] {
            let der = CertificateDer::from_pem_slice(pem.as_bytes())
                .map_err(|_| CaError::Damaged { path: name.into() })?;
            both.extend_from_slice(&der);
        }
        Ok(Fingerprint::of(&both))
    }

    /// The key of stateless resets.
    #[must_use]
    pub const fn reset_key(&self) -> [u8; 32] {
        self.reset_key
    }

    /// The key of address tokens.
    #[must_use]
    pub const fn token_key(&self) -> [u8; 32] {
        self.token_key
    }

    /// A fresh certificate for a gateway, and its CA behind it.
    ///
    /// # Errors
    ///
    /// [`CaError::Making`].
    pub fn gateway_identity(&self, now: UnixMillis) -> Result<Identity, CaError> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let mut params = CertificateParams::new(vec![GATEWAY_NAME.to_owned()])?;
        params
            .distinguished_name
            .push(DnType::CommonName, GATEWAY_NAME);
        let usage = ExtendedKeyUsagePurpose::ServerAuth;
        leaf(&mut params, usage, now, GATEWAY_LIFE)?;
        let certificate = params.signed_by(&key, &self.servers.issuer)?;
        Ok(Identity {
            certificates: certificate.pem() + &self.servers.pem,
            key: key.serialize_pem(),
        })
    }

    /// Signs a device's key. Of the request only the key counts: the names are ours.
    ///
    /// # Errors
    ///
    /// [`CsrRefused`].
    pub fn sign_device(
        &self,
        csr_pem: &str,
        device: DeviceId,
        now: UnixMillis,
    ) -> Result<Signed, CsrRefused> {
        if csr_pem.len() > CSR_BYTES_MAX {
            return Err(CsrRefused::TooLarge);
        }
        let mut request =
            CertificateSigningRequestParams::from_pem(csr_pem).map_err(|_| CsrRefused::Damaged)?;
        let key = &request.public_key;
        if PublicKeyData::algorithm(key) != &PKCS_ED25519 {
            return Err(CsrRefused::NotEd25519);
        }
        let unsignable = |_| CsrRefused::Unsignable;
        let mut params =
            CertificateParams::new(vec![device_dns_name(device)]).map_err(unsignable)?;
        params
            .distinguished_name
            .push(DnType::CommonName, device.to_string());
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        leaf(&mut params, usage, now, CERTIFICATE_LIFE).map_err(|_| CsrRefused::Unsignable)?;
        request.params = params;
        let certificate = request
            .signed_by(&self.devices.issuer)
            .map_err(unsignable)?;
        Ok(Signed {
            pem: certificate.pem(),
            fingerprint: Fingerprint::of(certificate.der()),
            not_after: now.saturating_add(CERTIFICATE_LIFE),
        })
    }
}

fn io(path: &Path, source: io::Error) -> CaError {
    CaError::Io {
        path: path.to_owned(),
        source,
    }
}

fn read(path: &Path) -> Result<String, CaError> {
    files::read_private(path).map_err(|source| io(path, source))
}

fn open_authority(folder: &Path, names: [&str; 2]) -> Result<Authority, CaError> {
    let [pem_path, key_path] = names.map(|name| folder.join(name));
    let key = KeyPair::from_pem(&read(&key_path)?).map_err(|_| CaError::Damaged {
        path: key_path.clone(),
    })?;
    let pem = fs::read_to_string(&pem_path).map_err(|source| CaError::Io {
        path: pem_path.clone(),
        source,
    })?;
    let damaged = || CaError::Damaged {
        path: pem_path.clone(),
    };
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| damaged())?;
    let certificate = rustls::server::ParsedCertificate::try_from(&der).map_err(|_| damaged())?;
    if certificate.subject_public_key_info().as_ref()
        != PublicKeyData::subject_public_key_info(&key)
    {
        return Err(CaError::Mismatched { path: key_path });
    }
    let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|_| damaged())?;
    Ok(Authority { pem, issuer })
}

fn make_authority(
    folder: &Path,
    names: [&str; 2],
    whom: &str,
    now: UnixMillis,
) -> Result<(), CaError> {
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let unique = Fingerprint(random_32()?).to_string();
    params.distinguished_name.push(
        DnType::CommonName,
        format!("Synesis CA for {whom} {}", &unique[..16]),
    );
    params.not_before = moment(backdated(now));
    params.not_after = moment(now.saturating_add(CA_LIFE));
    let certificate = params.self_signed(&key)?;
    for (name, pem) in names.iter().zip([certificate.pem(), key.serialize_pem()]) {
        let path = folder.join(name);
        files::write_private(&path, pem).map_err(|source| CaError::Io { path, source })?;
    }
    Ok(())
}

fn leaf(
    params: &mut CertificateParams,
    usage: ExtendedKeyUsagePurpose,
    now: UnixMillis,
    life: Duration,
) -> Result<(), CaError> {
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.not_before = moment(backdated(now));
    params.not_after = moment(now.saturating_add(life));
    params.use_authority_key_identifier_extension = true;
    let mut serial = random_32()?[..16].to_vec();
    // Positive, as RFC 5280 §4.1.2.2 wants it.
    serial[0] &= 0x7F;
    params.serial_number = Some(SerialNumber::from(serial));
    Ok(())
}

/// For devices whose clock is late.
fn backdated(now: UnixMillis) -> UnixMillis {
    let back = u64::try_from(CERTIFICATE_BACKDATE.as_millis()).unwrap_or(u64::MAX);
    UnixMillis(now.0.saturating_sub(back))
}

fn moment(at: UnixMillis) -> OffsetDateTime {
    let seconds = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// From the operating system.
fn random_32() -> Result<[u8; 32], CaError> {
    let mut bytes = [0; 32];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| CaError::Io {
        path: "the system's random numbers".into(),
        source: io::ErrorKind::Other.into(),
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
