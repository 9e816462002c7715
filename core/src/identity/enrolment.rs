//! What a device keeps of its enrolment: its key, its certificate, and where the gateway is; and
//! the rules that such a file must keep. Every shell reads the same file.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use serde::{Deserialize, Serialize};

use super::device_id_of;
use super::tls::{self, Identity, TlsError};
use crate::ids::DeviceId;
use crate::time::UnixMillis;

/// The file, in the device's folder.
pub const FILE: &str = "credentials.json";
/// Version of the file's format.
pub const VERSION: u32 = 1;
/// What to do about a file that cannot be used.
pub const ENROL_ANEW: &str = "enrol anew with `synesis cloud login --force`";
/// What to tell a device without the file.
pub const NOT_ENROLLED: &str = "this device is not enrolled; run `synesis cloud login` with the \
     join line that `synesis admin key create` prints on the gateway's machine";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The file's content. Its `Debug` shows no key.
#[derive(Clone, Serialize, Deserialize)]
pub struct Enrolment {
    /// [`VERSION`].
    pub version: u32,
    /// The id in the certificate.
    pub device_id: DeviceId,
    /// Where the tunnel goes, `host:port`.
    pub tunnel_address: String,
    /// Where the gateway was enrolled with.
    pub http_url: String,
    /// The fingerprint of that address's CA, if it was pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_ca: Option<String>,
    /// PEM, leaf first.
    pub certificates: String,
    /// PKCS#8, PEM.
    pub key: String,
    /// The CA of the gateway's own certificate, PEM.
    pub gateway_ca: String,
    /// When the certificate ends.
    pub not_after: UnixMillis,
}

impl fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enrolment")
            .field("device_id", &self.device_id)
            .field("tunnel_address", &self.tunnel_address)
            .finish_non_exhaustive()
    }
}

/// Why an enrolment cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Not the file's format. The parser's words are left out: they may show a part of the key.
    #[error("it is damaged or from another version")]
    Damaged,
    /// A damaged certificate, key or CA, or a key that is another certificate's.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The certificate names another device.
    #[error("the certificate is another device's")]
    AnotherDevice,
}

/// The certificate has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this device's certificate ended {days} days ago; {ENROL_ANEW}, or set this machine's clock if \
     it is wrong"
)]
pub struct Ended {
    /// Whole days since then.
    pub days: u64,
}

impl Enrolment {
    /// Reads the file's text, and checks that its parts belong together.
    ///
    /// # Errors
    ///
    /// [`Unfit`]; its words show nothing of the key.
    pub fn parse(text: &str, provider: Arc<CryptoProvider>) -> Result<Self, Unfit> {
        let read = serde_json::from_str::<Self>(text).ok();
        let enrolment = read
            .filter(|read| read.version == VERSION)
            .ok_or(Unfit::Damaged)?;
        enrolment.fit(provider)?;
        Ok(enrolment)
    }

    /// Whether certificate, key, CA and id belong together.
    ///
    /// # Errors
    ///
    /// [`Unfit`].
    pub fn fit(&self, provider: Arc<CryptoProvider>) -> Result<(), Unfit> {
        self.tls(provider)?;
        let chain = tls::certificates(&self.certificates, "device certificate")?;
        if chain.first().and_then(|leaf| device_id_of(leaf).ok()) == Some(self.device_id) {
            Ok(())
        } else {
            Err(Unfit::AnotherDevice)
        }
    }

    /// The tunnel's TLS.
    ///
    /// # Errors
    ///
    /// [`TlsError`].
    pub fn tls(&self, provider: Arc<CryptoProvider>) -> Result<Arc<ClientConfig>, TlsError> {
        let identity = Identity {
            certificates: self.certificates.clone(),
            key: self.key.clone(),
        };
        tls::tunnel_client(&identity, &self.gateway_ca, provider)
    }

    /// Whether it can still be used.
    ///
    /// # Errors
    ///
    /// [`Ended`].
    pub fn check(&self, now: UnixMillis) -> Result<(), Ended> {
        if now < self.not_after {
            return Ok(());
        }
        let days = now.saturating_since(self.not_after).as_secs() / DAY.as_secs();
        Err(Ended { days })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};

    use super::*;
    use crate::identity::device_dns_name;

    const DEVICE: DeviceId = DeviceId::from_u128(5);
    const END: UnixMillis = UnixMillis(1_795_000_000_000);

    fn provider() -> Arc<CryptoProvider> {
        Arc::new(rustls::crypto::ring::default_provider())
    }

    fn of(device: DeviceId) -> Enrolment {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let params = CertificateParams::new(vec![device_dns_name(device)]).unwrap();
        let certificates = params.self_signed(&key).unwrap().pem();
        Enrolment {
            version: VERSION,
            device_id: device,
            tunnel_address: "gw.example:4141".to_owned(),
            http_url: "https://gw.example:4140".to_owned(),
            http_ca: None,
            gateway_ca: certificates.clone(),
            certificates,
            key: key.serialize_pem(),
            not_after: END,
        }
    }

    fn reads(enrolment: &Enrolment) -> Result<Enrolment, Unfit> {
        Enrolment::parse(&serde_json::to_string(enrolment).unwrap(), provider())
    }

    #[test]
    fn a_whole_enrolment_is_read_and_one_of_another_version_is_not() {
        let good = of(DEVICE);
        assert_eq!(reads(&good).unwrap().key, good.key);
        let newer = Enrolment { version: 2, ..good };
        assert!(matches!(reads(&newer), Err(Unfit::Damaged)));
        assert!(matches!(
            Enrolment::parse("{", provider()),
            Err(Unfit::Damaged)
        ));
    }

    #[test]
    fn parts_that_do_not_belong_together_are_refused() {
        let (good, other) = (of(DEVICE), of(DEVICE));
        let swapped = Enrolment {
            key: other.key,
            ..good.clone()
        };
        assert!(matches!(reads(&swapped), Err(Unfit::Tls(_))));
        let foreign = Enrolment {
            device_id: DeviceId::from_u128(6),
            ..good.clone()
        };
        assert!(matches!(reads(&foreign), Err(Unfit::AnotherDevice)));
        let without = Enrolment {
            gateway_ca: String::new(),
            ..good
        };
        assert!(matches!(reads(&without), Err(Unfit::Tls(_))));
    }

    #[test]
    fn a_certificate_that_has_ended_says_since_when() {
        let good = of(DEVICE);
        assert_eq!(good.check(UnixMillis(END.0 - 1)), Ok(()));
        assert_eq!(good.check(END), Err(Ended { days: 0 }));
        let ended = good.check(END.saturating_add(3 * DAY)).unwrap_err();
        assert!(ended.to_string().contains("3 days ago"), "{ended}");
    }

    #[test]
    fn debug_shows_no_key() {
        assert!(!format!("{:?}", of(DEVICE)).contains("PRIVATE"));
    }
}
