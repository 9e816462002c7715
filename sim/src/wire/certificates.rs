//! The certificates of a simulated deployment: Ed25519 only, every key from the seed.

use mesh_core::identity::{Fingerprint, GATEWAY_NAME, device_dns_name};
use mesh_core::ids::DeviceId;
use mesh_core::rng::Seed;
use rand::Rng as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, PKCS_ED25519, SerialNumber,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::Arc;

use super::Unbuildable;

/// What stands before the 32 bytes of an Ed25519 key in PKCS#8 (RFC 8410 §7).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// A certificate and its key.
#[derive(Debug)]
pub struct Certificate {
    chain: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    not_after_ms: u64,
}

impl Certificate {
    /// The certificate, DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.chain
    }

    /// The end of its validity, milliseconds since 1970.
    #[must_use]
    pub const fn not_after_ms(&self) -> u64 {
        self.not_after_ms
    }

    /// What the store knows it by.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.chain)
    }

    pub(super) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.chain.clone()]
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }
}

fn key_of(seed: &Seed, name: &str) -> Result<(KeyPair, PrivatePkcs8KeyDer<'static>), Unbuildable> {
    let mut secret = [0; 32];
    seed.secret(name).fill_bytes(&mut secret);
    let der = PrivatePkcs8KeyDer::from([&PKCS8_PREFIX[..], &secret[..]].concat());
    let pair =
        KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519).map_err(Unbuildable::new)?;
    Ok((pair, der))
}

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority(seed: &Seed, name: &str) -> Result<Issuer, Unbuildable> {
    let (key, _) = key_of(seed, name)?;
    let mut params = CertificateParams::new(Vec::new()).map_err(Unbuildable::new)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.serial_number = Some(SerialNumber::from(1));
    CertifiedIssuer::self_signed(params, key).map_err(Unbuildable::new)
}

/// The two authorities of one deployment.
pub struct Authority {
    seed: Seed,
    gateways: Issuer,
    devices: Issuer,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(..)")
    }
}

impl Authority {
    /// The authorities of the world that `seed` stands for.
    ///
    /// # Errors
    ///
    /// [`Unbuildable`] when the certificate library will not have it.
    pub fn new(seed: &Seed) -> Result<Self, Unbuildable> {
        Ok(Self {
            gateways: authority(seed, "gateways")?,
            devices: authority(seed, "devices")?,
            seed: seed.clone(),
        })
    }

    fn leaf(
        &self,
        issuer: &Issuer,
        name: &str,
        serial: u64,
        usage: ExtendedKeyUsagePurpose,
        last_year: i32,
    ) -> Result<Certificate, Unbuildable> {
        let (pair, key) = key_of(&self.seed, &format!("{name} {serial}"))?;
        let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(Unbuildable::new)?;
        params.extended_key_usages = vec![usage];
        params.serial_number = Some(SerialNumber::from(serial));
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(last_year, 1, 1);
        let signed = params.signed_by(&pair, issuer).map_err(Unbuildable::new)?;
        Ok(Certificate {
            chain: signed.der().clone(),
            key,
            not_after_ms: u64::try_from(params.not_after.unix_timestamp()).unwrap_or_default()
                * 1000,
        })
    }

    /// A gateway's certificate.
    ///
    /// # Errors
    ///
    /// [`Unbuildable`].
    pub fn gateway(&self) -> Result<Certificate, Unbuildable> {
        let usage = ExtendedKeyUsagePurpose::ServerAuth;
        self.leaf(&self.gateways, GATEWAY_NAME, 1, usage, 2100)
    }

    /// A device's certificate, valid until the first day of `last_year`; each `serial` has a key of
    /// its own.
    ///
    /// # Errors
    ///
    /// [`Unbuildable`].
    pub fn device(
        &self,
        device: DeviceId,
        serial: u64,
        last_year: i32,
    ) -> Result<Certificate, Unbuildable> {
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        let name = device_dns_name(device);
        self.leaf(&self.devices, &name, serial, usage, last_year)
    }

    pub(super) fn gateway_roots(&self) -> Result<Arc<RootCertStore>, Unbuildable> {
        roots(&self.gateways)
    }

    pub(super) fn device_roots(&self) -> Result<Arc<RootCertStore>, Unbuildable> {
        roots(&self.devices)
    }
}

fn roots(issuer: &Issuer) -> Result<Arc<RootCertStore>, Unbuildable> {
    let mut roots = RootCertStore::empty();
    roots.add(issuer.der().clone()).map_err(Unbuildable::new)?;
    Ok(Arc::new(roots))
}
