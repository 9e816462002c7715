//! TLS of the tunnel's device side, from PEM texts. The provider of cryptography, and with it the
//! source of chance, is the caller's.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::wire::ALPN;

/// What is wrong with a certificate or key that was handed in.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM, cut off, or of another kind.
    #[error("the {what} is damaged or not PEM")]
    Damaged {
        /// Which.
        what: &'static str,
    },
    /// TLS will not have it.
    #[error("the {what} cannot be used: {source}")]
    Unusable {
        /// Which.
        what: &'static str,
        /// Why.
        source: rustls::Error,
    },
}

/// A certificate chain and its key, PEM. Its `Debug` does not show the key.
#[derive(Clone)]
pub struct Identity {
    /// Leaf first.
    pub certificates: String,
    /// PKCS#8.
    pub key: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(..)")
    }
}

/// Every certificate of a PEM text, at least one.
///
/// # Errors
///
/// [`TlsError::Damaged`].
pub fn certificates(
    pem: &str,
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) | Err(_) => Err(TlsError::Damaged { what }),
    }
}

/// The key of a PEM text.
///
/// # Errors
///
/// [`TlsError::Damaged`].
pub fn key(pem: &str, what: &'static str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| TlsError::Damaged { what })
}

/// The authorities of a PEM text.
///
/// # Errors
///
/// [`TlsError`].
pub fn roots(ca: &str, what: &'static str) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca, what)? {
        roots
            .add(certificate)
            .map_err(|source| TlsError::Unusable { what, source })?;
    }
    Ok(Arc::new(roots))
}

/// The device's side of the tunnel: TLS 1.3 only, no early data, no session tickets.
///
/// # Errors
///
/// [`TlsError`] for a damaged or mismatched certificate, key or CA.
pub fn tunnel_client(
    own: &Identity,
    server_ca: &str,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let unusable = |source| TlsError::Unusable {
        what: "device certificate",
        source,
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_root_certificates(roots(server_ca, "gateway's CA certificate")?)
        .with_client_auth_cert(
            certificates(&own.certificates, "device certificate")?,
            key(&own.key, "device key")?,
        )
        .map_err(unusable)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_early_data = false;
    // A session ticket would let a revoked device back in without showing its certificate.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}
