//! Who is who: device certificates, API keys, join lines.
//!
//! A device's certificate is made by the gateway's device CA: common name `device-{uuid}`, client
//! authentication only, and the same id as a DNS name under [`DEVICE_DOMAIN`], which is where it is
//! read from. The gateway's own certificate comes from a separate CA with one fixed name,
//! [`GATEWAY_NAME`], so neither kind can pass for the other.

pub mod api_key;
pub mod enrolment;
pub mod join;
pub mod tls;

use std::fmt;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use webpki::EndEntityCert;

use crate::ids::DeviceId;
use crate::time::UnixMillis;

/// The one name in every gateway's certificate; `internal` is reserved for private use.
pub const GATEWAY_NAME: &str = "gateway.synesis.internal";
/// Device certificates carry `{uuid}.` and this as a DNS name.
pub const DEVICE_DOMAIN: &str = "device.synesis.internal";
/// How long a device's certificate is valid.
pub const CERTIFICATE_LIFE: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// How far `NotBefore` lies in the past, for devices whose clock is late.
pub const CERTIFICATE_BACKDATE: Duration = Duration::from_secs(5 * 60);

/// SHA-256 of a certificate's DER.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// Reads 64 hex digits, of either case.
    #[must_use]
    pub fn parse(hex: &str) -> Option<Self> {
        if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A certificate that names no device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate does not name exactly one device")]
pub struct NotADevice;

/// The device that a certificate is for. Whether the certificate is genuine is TLS's business.
///
/// # Errors
///
/// [`NotADevice`] when it cannot be read, or has not exactly one name under [`DEVICE_DOMAIN`].
pub fn device_id_of(certificate_der: &[u8]) -> Result<DeviceId, NotADevice> {
    let der = CertificateDer::from(certificate_der);
    let certificate = EndEntityCert::try_from(&der).map_err(|_| NotADevice)?;
    let mut devices = certificate.valid_dns_names().filter_map(device_of_name);
    match (devices.next(), devices.next()) {
        (Some(device), None) => Ok(device),
        _ => Err(NotADevice),
    }
}

fn device_of_name(name: &str) -> Option<DeviceId> {
    let uuid = name.strip_suffix(DEVICE_DOMAIN)?.strip_suffix('.')?;
    format!("device-{uuid}").parse().ok()
}

/// The DNS name that a device's certificate carries.
#[must_use]
pub fn device_dns_name(device: DeviceId) -> String {
    let id = device.to_string();
    format!("{}.{DEVICE_DOMAIN}", id.trim_start_matches("device-"))
}

/// When a certificate should be renewed: at 80 % of its life.
#[must_use]
pub fn renew_at(not_before: UnixMillis, not_after: UnixMillis) -> UnixMillis {
    let life = not_after.saturating_since(not_before);
    not_before.saturating_add(life * 4 / 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str]) -> Vec<u8> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let params = rcgen::CertificateParams::new(names).unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_names_its_device() {
        let device = DeviceId::from_u128(0xAB);
        let name = device_dns_name(device);
        assert_eq!(
            name,
            "00000000-0000-0000-0000-0000000000ab.device.synesis.internal"
        );
        assert_eq!(device_id_of(&certificate(&[&name])), Ok(device));
    }

    #[test]
    fn a_certificate_that_names_no_device_or_two_is_refused() {
        let one = device_dns_name(DeviceId::from_u128(1));
        let two = device_dns_name(DeviceId::from_u128(2));
        for names in [
            &[one.as_str(), two.as_str()][..],
            &[GATEWAY_NAME],
            &["device.synesis.internal"],
            &["x.device.synesis.internal"],
            &[],
        ] {
            assert_eq!(
                device_id_of(&certificate(names)),
                Err(NotADevice),
                "{names:?}"
            );
        }
        assert_eq!(device_id_of(b"garbage"), Err(NotADevice));
        assert_eq!(device_id_of(&[]), Err(NotADevice));
    }

    #[test]
    fn a_certificate_is_renewed_at_four_fifths_of_its_life() {
        assert_eq!(
            renew_at(UnixMillis(1000), UnixMillis(11_000)),
            UnixMillis(9000)
        );
        assert_eq!(renew_at(UnixMillis(9), UnixMillis(3)), UnixMillis(9));
    }

    #[test]
    fn a_fingerprint_is_the_sha256_of_the_der() {
        // printf abc | sha256sum
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Fingerprint::of(b"abc").to_string(), expected);
        assert_eq!(Fingerprint::parse(expected), Some(Fingerprint::of(b"abc")));
        assert_eq!(
            Fingerprint::parse(&expected.to_uppercase()),
            Some(Fingerprint::of(b"abc"))
        );
        assert_eq!(Fingerprint::parse(&expected[1..]), None);
        assert_eq!(Fingerprint::parse(&expected.replace('b', "x")), None);
    }
}
