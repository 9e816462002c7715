//! The certificate authorities of a deployment, and endpoints that trust them.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, time_provider::TimeProvider};

use super::super::{ClientConfig, Quic, ServerConfig};
use crate::identity::{GATEWAY_NAME, device_dns_name};
use crate::ids::DeviceId;
use crate::rng::Seed;
use crate::time::UnixMillis;
use crate::wire::ALPN;

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// 2026-11-18, within the validity of the certificates below.
pub(crate) const WALL: UnixMillis = UnixMillis(1_795_000_000_000);

#[derive(Debug)]
struct FixedTime;

impl TimeProvider for FixedTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(
            WALL.as_secs(),
        )))
    }
}

/// A name of its own for each: two CAs of one name are told apart by a bad signature only.
fn ca(name: &str) -> Issuer {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, key).unwrap()
}

pub(crate) struct Leaf {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Leaf {
    pub(super) fn copy(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

fn leaf(ca: &Issuer, name: &str, usage: ExtendedKeyUsagePurpose, last_year: i32) -> Leaf {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.extended_key_usages = vec![usage];
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(last_year, 1, 1);
    let certificate = params.signed_by(&key, ca).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    Leaf {
        chain: vec![certificate.der().clone()],
        key: key.into(),
    }
}

pub(super) fn roots(ca: &Issuer) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    Arc::new(roots)
}

/// The certificate authorities of one deployment, and endpoints that trust them.
pub(crate) struct World {
    pub(super) server_ca: Issuer,
    device_ca: Issuer,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::named("home")
    }

    pub(crate) fn named(name: &str) -> Self {
        let named = |kind: &str| ca(&format!("{name} {kind}"));
        Self {
            server_ca: named("server"),
            device_ca: named("device"),
        }
    }

    pub(super) fn server_leaf(&self) -> Leaf {
        let usage = ExtendedKeyUsagePurpose::ServerAuth;
        leaf(&self.server_ca, GATEWAY_NAME, usage, 2040)
    }

    pub(crate) fn server(&self, seed: u8) -> Quic {
        self.server_with(self.server_leaf(), seed)
    }

    pub(super) fn server_with(&self, own: Leaf, seed: u8) -> Quic {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots(&self.device_ca), provider.clone())
                .build()
                .unwrap();
        let mut tls = rustls::ServerConfig::builder_with_details(provider, Arc::new(FixedTime))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(own.chain, own.key)
            .unwrap();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.send_tls13_tickets = 0;
        let config = ServerConfig {
            tls: Arc::new(tls),
            reset_key: [1; 32],
            token_key: [2; 32],
            shard: 7,
        };
        Quic::server(config, &Seed::new([seed; 32])).unwrap()
    }

    pub(crate) fn device_leaf(&self, last_year: i32) -> Leaf {
        self.leaf_of(DeviceId::from_u128(1), last_year)
    }

    pub(crate) fn leaf_of(&self, device: DeviceId, last_year: i32) -> Leaf {
        let name = device_dns_name(device);
        leaf(
            &self.device_ca,
            &name,
            ExtendedKeyUsagePurpose::ClientAuth,
            last_year,
        )
    }

    pub(super) fn client(&self, own: Option<Leaf>) -> Quic {
        self.seeded_client(own, &Seed::new([9; 32]))
    }

    /// Two clients of one seed would choose the same connection ids.
    pub(crate) fn seeded_client(&self, own: Option<Leaf>, seed: &Seed) -> Quic {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_details(provider, Arc::new(FixedTime))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots(&self.server_ca));
        let mut tls = match own {
            Some(own) => builder.with_client_auth_cert(own.chain, own.key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let config = ClientConfig {
            tls: Arc::new(tls),
            server_name: GATEWAY_NAME.to_owned(),
        };
        Quic::client(config, seed).unwrap()
    }
}
