//! The transport's settings, and every source of chance or time that quinn would take for itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, InvalidCid, TimeSource,
    TransportConfig, VarInt,
};
use rand::Rng;
use rand_chacha::ChaCha20Rng;
use ring::{hkdf, hmac};
use sha2::{Digest, Sha256};

use super::window::{Liftable, Window};
use crate::limits;
use crate::rng::Seed;
use crate::time::UnixMillis;
use crate::wire::ALPN;

/// What a device needs to connect.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// TLS 1.3 with ALPN `synesis/1` and the device's certificate.
    pub tls: Arc<rustls::ClientConfig>,
    /// The name in the gateway's certificate.
    pub server_name: String,
}

/// What a gateway needs to take devices in. Its `Debug` shows no key.
#[derive(Clone)]
pub struct ServerConfig {
    /// TLS 1.3 with ALPN `synesis/1` that demands a device's certificate.
    pub tls: Arc<rustls::ServerConfig>,
    /// Kept across restarts, so that a restarted gateway resets old sessions at once
    /// (RFC 9000 §10.3).
    pub reset_key: [u8; 32],
    /// Kept across restarts: seals the tokens of Retry (RFC 9000 §8.1.2).
    pub token_key: [u8; 32],
    /// This machine's number, the first byte of the connection ids it hands out.
    pub shard: u8,
}

impl std::fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerConfig")
            .field("shard", &self.shard)
            .finish_non_exhaustive()
    }
}

/// A TLS configuration that cannot carry the tunnel. TLS 1.3 is the only version QUIC offers
/// (RFC 9001 §4.2), whatever else the configuration allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTls {
    /// Initial packets are sealed with this suite.
    #[error("the TLS configuration has no cipher suite for QUIC (TLS13_AES_128_GCM_SHA256)")]
    NoInitialSuite,
    /// Another protocol's name, or none.
    #[error("the TLS configuration must offer exactly the protocol `synesis/1` (ALPN)")]
    OtherProtocol,
}

fn check_alpn(offered: &[Vec<u8>]) -> Result<(), BadTls> {
    let only = matches!(offered, [protocol] if protocol == ALPN);
    only.then_some(()).ok_or(BadTls::OtherProtocol)
}

/// What an endpoint shares with its connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared {
    pub(super) wall: Wall,
    pub(super) window: Window,
}

/// The wall clock as the last step saw it, for quinn's address tokens.
#[derive(Clone, Debug, Default)]
pub(super) struct Wall(Arc<AtomicU64>);

impl Wall {
    pub(super) fn set(&self, wall: UnixMillis) {
        self.0.store(wall.0, Ordering::Relaxed);
    }
}

impl TimeSource for Wall {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// Bytes of a connection id: a shard, and 56 random bits.
const CID_BYTES: usize = 8;

/// Hands out connection ids from a stream of its own.
#[derive(Clone)]
struct Cids {
    rng: ChaCha20Rng,
    shard: u8,
}

impl ConnectionIdGenerator for Cids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; CID_BYTES];
        self.rng.fill_bytes(&mut id);
        id[0] = self.shard;
        ConnectionId::new(&id)
    }

    /// A datagram for another shard has strayed: it is passed on or dropped, never answered with a
    /// reset of a connection that lives.
    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        match id.first() {
            Some(&shard) if shard == self.shard => Ok(()),
            Some(_) | None => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        CID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

pub(super) fn endpoint(
    seed: &Seed,
    reset_key: Option<&[u8; 32]>,
    shard: u8,
) -> Arc<EndpointConfig> {
    let mut drawn = [0; 32];
    seed.secret("quic reset key").fill_bytes(&mut drawn);
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, reset_key.unwrap_or(&drawn));
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    let mut chance = [0; 32];
    seed.secret("quic endpoint").fill_bytes(&mut chance);
    config.rng_seed(Some(chance));
    let cids = Cids {
        rng: seed.secret("quic connection ids"),
        shard,
    };
    config.cid_generator(move || Box::new(cids.clone()));
    Arc::new(config)
}

pub(super) fn client(
    config: ClientConfig,
    shared: &Shared,
    seed: &Seed,
) -> Result<quinn_proto::ClientConfig, BadTls> {
    check_alpn(&config.tls.alpn_protocols)?;
    let crypto = QuicClientConfig::try_from(config.tls).map_err(|_| BadTls::NoInitialSuite)?;
    let mut client = quinn_proto::ClientConfig::new(Arc::new(crypto));
    let mut key = [0; 32];
    seed.secret("quic first destination").fill_bytes(&mut key);
    let count = AtomicU64::new(0);
    client.initial_dst_cid_provider(Arc::new(move || {
        let mut hash = Sha256::new();
        hash.update(key);
        hash.update(count.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        ConnectionId::new(&hash.finalize()[..CID_BYTES])
    }));
    let mut transport = transport(shared);
    transport.max_concurrent_bidi_streams(VarInt::from_u32(0));
    transport.keep_alive_interval(Some(limits::QUIC_KEEP_ALIVE));
    client.transport_config(Arc::new(transport));
    Ok(client)
}

pub(super) fn server(
    config: ServerConfig,
    shared: &Shared,
) -> Result<quinn_proto::ServerConfig, BadTls> {
    check_alpn(&config.tls.alpn_protocols)?;
    let crypto = QuicServerConfig::try_from(config.tls).map_err(|_| BadTls::NoInitialSuite)?;
    let token_key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&config.token_key);
    let mut server = quinn_proto::ServerConfig::new(Arc::new(crypto), Arc::new(token_key));
    server.time_source(Arc::new(shared.wall.clone()));
    server.max_incoming(limits::HANDSHAKES_MAX);
    server.incoming_buffer_size(limits::QUIC_INCOMING_BYTES_MAX);
    server.incoming_buffer_size_total(limits::QUIC_INCOMING_TOTAL_BYTES_MAX);
    let mut transport = transport(shared);
    transport.max_concurrent_bidi_streams(VarInt::from_u32(limits::QUIC_STREAMS_INITIAL));
    server.transport_config(Arc::new(transport));
    Ok(server)
}

/// Room for every stream to be unread at once, so that none of them can stand before another.
pub(super) fn receive_window(streams: u64) -> VarInt {
    VarInt::from_u64(streams.saturating_mul(limits::QUIC_STREAM_WINDOW.into()))
        .unwrap_or(VarInt::MAX)
}

/// What both sides have in common. Few streams: their limit sizes maps that every idle connection
/// carries.
fn transport(shared: &Shared) -> TransportConfig {
    let mut transport = TransportConfig::default();
    // 120 s fits the encoding of an idle timeout, milliseconds in 62 bits.
    transport.max_idle_timeout(IdleTimeout::try_from(limits::QUIC_IDLE_TIMEOUT).ok());
    transport.max_concurrent_uni_streams(VarInt::from_u32(0));
    transport.datagram_receive_buffer_size(None);
    transport.stream_receive_window(VarInt::from_u32(limits::QUIC_STREAM_WINDOW));
    transport.receive_window(receive_window(limits::QUIC_STREAMS_INITIAL.into()));
    transport.send_window(limits::QUIC_SEND_WINDOW);
    let inner = Arc::new(quinn_proto::congestion::CubicConfig::default());
    let window = shared.window.clone();
    transport.congestion_controller_factory(Arc::new(Liftable { window, inner }));
    transport
}
