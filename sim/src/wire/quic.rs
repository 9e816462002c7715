//! Real QUIC with mutual TLS 1.3, as in production but for the source of chance.

use std::sync::Arc;

use mesh_core::identity::GATEWAY_NAME;
use mesh_core::quic::{ClientConfig, Quic, ServerConfig};
use mesh_core::rng::Seed;
use mesh_core::wire::ALPN;
use rand::Rng as _;
use rustls::server::WebPkiClientVerifier;

use super::certificates::{Authority, Certificate};
use super::{Unbuildable, WallClock, Wire, provider};

impl Wire for Quic {
    const NAME: &'static str = "quic";
    const ORDERED: bool = false;

    fn device(
        authority: &Authority,
        own: &Certificate,
        clock: &WallClock,
        seed: &Seed,
    ) -> Result<Self, Unbuildable> {
        let provider = provider::deterministic(seed);
        let mut tls = rustls::ClientConfig::builder_with_details(provider, Arc::new(clock.clone()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(Unbuildable::new)?
            .with_root_certificates(authority.gateway_roots()?)
            .with_client_auth_cert(own.chain(), own.key())
            .map_err(Unbuildable::new)?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let config = ClientConfig {
            tls: Arc::new(tls),
            server_name: GATEWAY_NAME.to_owned(),
        };
        Self::client(config, seed).map_err(Unbuildable::new)
    }

    fn gateway(
        authority: &Authority,
        shard: u8,
        clock: &WallClock,
        seed: &Seed,
    ) -> Result<Self, Unbuildable> {
        let provider = provider::deterministic(seed);
        let verifier = WebPkiClientVerifier::builder_with_provider(
            authority.device_roots()?,
            Arc::clone(&provider),
        )
        .build()
        .map_err(Unbuildable::new)?;
        let own = authority.gateway()?;
        let mut tls = rustls::ServerConfig::builder_with_details(provider, Arc::new(clock.clone()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(Unbuildable::new)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(own.chain(), own.key())
            .map_err(Unbuildable::new)?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.send_tls13_tickets = 0;
        // One key each for the life of the deployment, so that a restarted gateway resets old
        // sessions at once.
        let mut keys = [[0; 32]; 2];
        let deployment = Seed::new([shard; 32]);
        for (key, name) in keys.iter_mut().zip(["reset", "token"]) {
            deployment.secret(name).fill_bytes(key);
        }
        let config = ServerConfig {
            tls: Arc::new(tls),
            reset_key: keys[0],
            token_key: keys[1],
            shard,
        };
        Self::server(config, seed).map_err(Unbuildable::new)
    }
}
