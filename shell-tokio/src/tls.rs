//! TLS configurations: the tunnel's two sides, the gateway's HTTPS, and the pin of a join line.
//!
//! TLS 1.3 only in the tunnel, by ring, with no process-wide default.

use std::sync::Arc;

pub use mesh_core::identity::tls::{Identity, TlsError, certificates};
use mesh_core::identity::tls::{key, roots};
use mesh_core::identity::{Fingerprint, GATEWAY_NAME};
use mesh_core::wire::ALPN;
pub(crate) use mesh_shell::random::provider;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
};

/// The device's side of the tunnel.
///
/// # Errors
///
/// [`TlsError`] for a damaged or mismatched certificate, key or CA.
pub fn tunnel_client(own: &Identity, server_ca: &str) -> Result<Arc<ClientConfig>, TlsError> {
    mesh_core::identity::tls::tunnel_client(own, server_ca, provider())
}

/// The gateway's side of the tunnel: a device's certificate is demanded.
///
/// # Errors
///
/// [`TlsError`] for a damaged or mismatched certificate, key or CA.
pub fn tunnel_server(own: &Identity, device_ca: &str) -> Result<Arc<ServerConfig>, TlsError> {
    let unusable = |source| TlsError::Unusable {
        what: "gateway certificate",
        source,
    };
    let devices = roots(device_ca, "device CA certificate")?;
    let verifier = WebPkiClientVerifier::builder_with_provider(devices, provider())
        .build()
        .map_err(|_| TlsError::Damaged {
            what: "device CA certificate",
        })?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            certificates(&own.certificates, "gateway certificate")?,
            key(&own.key, "gateway key")?,
        )
        .map_err(unusable)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// The gateway's HTTPS.
///
/// # Errors
///
/// [`TlsError`] for a damaged or mismatched certificate or key.
pub fn https_server(own: &Identity) -> Result<Arc<ServerConfig>, TlsError> {
    let unusable = |source| TlsError::Unusable {
        what: "HTTPS certificate",
        source,
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(
            certificates(&own.certificates, "HTTPS certificate")?,
            key(&own.key, "HTTPS key")?,
        )
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// HTTPS to a gateway of which only its CA's fingerprint is known.
///
/// # Errors
///
/// [`TlsError::Unusable`] when TLS itself cannot be set up.
pub fn pinned_client(ca: Fingerprint) -> Result<ClientConfig, TlsError> {
    let verifier = Arc::new(Pinned {
        ca,
        algorithms: provider().signature_verification_algorithms,
    });
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Unusable {
            what: "TLS",
            source,
        })?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(config)
}

/// Accepts a chain that the pinned CA signed, for the gateway's one name. The CA must be in the
/// chain, since its fingerprint is all that is known of it.
#[derive(Debug)]
struct Pinned {
    ca: Fingerprint,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = intermediates
            .iter()
            .find(|certificate| Fingerprint::of(certificate) == self.ca)
            .ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &roots,
            &[],
            now,
            self.algorithms.all,
        )?;
        let name =
            ServerName::try_from(GATEWAY_NAME).map_err(|_| CertificateError::NotValidForName)?;
        rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, &name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
