//! One set of certificates and TLS settings for all contenders.

use std::error::Error;
use std::sync::Arc;

use mesh_core::identity::{GATEWAY_NAME, device_dns_name};
use mesh_core::ids::DeviceId;
use mesh_core::wire::ALPN;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, PKCS_ED25519,
};
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring::default_provider;
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SignatureScheme};

/// A CA and the key that all its devices share: Ed25519, both sides authenticated, as the tunnel has
/// it.
#[derive(Debug)]
pub struct Certs {
    ca: CertifiedIssuer<'static, KeyPair>,
    key: KeyPair,
    gateway: GatewayTls,
}

/// TLS for a gateway; crosses to another process as a line.
#[derive(Debug)]
pub struct GatewayTls {
    ca: CertificateDer<'static>,
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Certs {
    /// Fresh ones.
    ///
    /// # Errors
    ///
    /// When a certificate cannot be made.
    pub fn new() -> Result<Self, Box<dyn Error>> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "bench CA");
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate_for(&PKCS_ED25519)?)?;
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let gateway = GatewayTls {
            ca: ca.der().clone(),
            certificate: leaf(&ca, &key, GATEWAY_NAME, ExtendedKeyUsagePurpose::ServerAuth)?,
            key: key.serialize_der(),
        };
        Ok(Self { ca, key, gateway })
    }

    /// The gateway's side.
    #[must_use]
    pub const fn gateway(&self) -> &GatewayTls {
        &self.gateway
    }

    /// The side of one device.
    ///
    /// # Errors
    ///
    /// When the certificate cannot be made or rustls refuses it.
    pub fn device(&self, id: DeviceId) -> Result<Arc<rustls::ClientConfig>, Box<dyn Error>> {
        self.devices(Arc::new(Always(Arc::new(self.device_key(id)?))))
    }

    /// The side of devices whose certificate `resolver` chooses for each handshake.
    ///
    /// # Errors
    ///
    /// When rustls refuses the CA.
    pub fn devices(
        &self,
        resolver: Arc<dyn ResolvesClientCert>,
    ) -> Result<Arc<rustls::ClientConfig>, Box<dyn Error>> {
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots(self.ca.der())?)
            .with_client_cert_resolver(resolver);
        tls.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Arc::new(tls))
    }

    /// A device's certificate with its key.
    ///
    /// # Errors
    ///
    /// When the certificate cannot be made.
    pub fn device_key(&self, id: DeviceId) -> Result<CertifiedKey, Box<dyn Error>> {
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        let certificate = leaf(&self.ca, &self.key, &device_dns_name(id), usage)?;
        let key = any_eddsa_type(&PrivatePkcs8KeyDer::from(self.key.serialize_der()))?;
        Ok(CertifiedKey::new(vec![certificate], key))
    }
}

/// The same certificate for every handshake.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesClientCert for Always {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl GatewayTls {
    /// Demands a device's certificate, gives no tickets.
    ///
    /// # Errors
    ///
    /// When rustls refuses the certificates.
    pub fn config(&self) -> Result<Arc<rustls::ServerConfig>, Box<dyn Error>> {
        let provider = Arc::new(default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots(&self.ca)?),
            provider.clone(),
        )
        .build()?;
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![self.certificate.clone()],
                PrivatePkcs8KeyDer::from(self.key.clone()).into(),
            )?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.send_tls13_tickets = 0;
        Ok(Arc::new(tls))
    }

    /// As one line for another process of this benchmark.
    #[must_use]
    pub fn to_line(&self) -> String {
        let parts: [&[u8]; 3] = [&self.ca, &self.certificate, &self.key];
        parts.map(hex).join(" ")
    }

    /// From that line.
    ///
    /// # Errors
    ///
    /// When it is no such line.
    pub fn from_line(line: &str) -> Result<Self, Box<dyn Error>> {
        let mut parts = line.split_whitespace().map(unhex);
        let mut next = || parts.next().flatten().ok_or("no line of certificates");
        Ok(Self {
            ca: next()?.into(),
            certificate: next()?.into(),
            key: next()?,
        })
    }
}

fn leaf(
    ca: &CertifiedIssuer<'_, KeyPair>,
    key: &KeyPair,
    name: &str,
    usage: ExtendedKeyUsagePurpose,
) -> Result<CertificateDer<'static>, rcgen::Error> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.extended_key_usages = vec![usage];
    Ok(params.signed_by(key, ca)?.der().clone())
}

fn roots(ca: &CertificateDer<'static>) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone())?;
    Ok(roots)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect();
    let pairs = digits?;
    Some(
        pairs
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |n, d| n << 4 | d))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_cross_to_another_process_as_a_line() {
        let certs = Certs::new().unwrap();
        let line = certs.gateway().to_line();
        let there = GatewayTls::from_line(&line).unwrap();
        assert_eq!(there.to_line(), line);
        assert!(there.config().is_ok());
        assert!(certs.device(DeviceId::from_u128(1)).is_ok());
        assert!(GatewayTls::from_line("zz").is_err());
    }
}
