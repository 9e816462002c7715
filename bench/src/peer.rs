//! The peer of the tunnel: quinn, with our certificates, windows and socket buffers.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use mesh_core::identity::GATEWAY_NAME;
use mesh_core::ids::DeviceId;
use mesh_core::limits;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime};
use quinn::{TransportConfig, VarInt};

use crate::certs::{Certs, GatewayTls};

/// What our driver asks of the system, bytes.
const BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Our transport settings.
fn transport(streams: u32) -> Arc<TransportConfig> {
    let window = u64::from(limits::QUIC_STREAM_WINDOW) * u64::from(limits::QUIC_STREAMS_INITIAL);
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(IdleTimeout::try_from(limits::QUIC_IDLE_TIMEOUT).ok())
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(limits::QUIC_STREAM_WINDOW))
        .receive_window(VarInt::from_u64(window).unwrap_or(VarInt::MAX))
        .send_window(limits::QUIC_SEND_WINDOW);
    Arc::new(transport)
}

fn socket() -> Result<std::net::UdpSocket, Box<dyn Error>> {
    let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let socket = std::net::UdpSocket::bind(any)?;
    let options = socket2::SockRef::from(&socket);
    options.set_recv_buffer_size(BUFFER_BYTES)?;
    options.set_send_buffer_size(BUFFER_BYTES)?;
    Ok(socket)
}

/// A listening endpoint with quinn's own settings.
///
/// # Errors
///
/// When there is no socket or the certificates do not fit.
pub fn gateway_by_default(tls: &GatewayTls) -> Result<Endpoint, Box<dyn Error>> {
    listen(tls, Arc::new(TransportConfig::default()))
}

/// A listening endpoint with our settings.
///
/// # Errors
///
/// When there is no socket or the certificates do not fit.
pub fn gateway(tls: &GatewayTls) -> Result<Endpoint, Box<dyn Error>> {
    listen(tls, transport(limits::QUIC_STREAMS_INITIAL))
}

fn listen(tls: &GatewayTls, transport: Arc<TransportConfig>) -> Result<Endpoint, Box<dyn Error>> {
    let crypto = QuicServerConfig::try_from(tls.config()?)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport);
    let runtime = Arc::new(TokioRuntime);
    Ok(Endpoint::new(
        EndpointConfig::default(),
        Some(config),
        socket()?,
        runtime,
    )?)
}

/// A connecting endpoint.
///
/// # Errors
///
/// When there is no socket or the certificates do not fit.
pub fn device(tls: Arc<rustls::ClientConfig>) -> Result<Endpoint, Box<dyn Error>> {
    let crypto = QuicClientConfig::try_from(tls)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport(0));
    let runtime = Arc::new(TokioRuntime);
    let mut endpoint = Endpoint::new(EndpointConfig::default(), None, socket()?, runtime)?;
    endpoint.set_default_client_config(config);
    Ok(endpoint)
}

/// Sends so many bytes over one connection, in pieces; ends when they are acknowledged.
///
/// # Errors
///
/// When a socket, a certificate or a byte is missing.
pub async fn transfer(certs: &Certs, bytes: u64, piece: usize) -> Result<(), Box<dyn Error>> {
    let to = gateway(certs.gateway())?;
    let from = device(certs.device(DeviceId::from_u128(1))?)?;
    let addr = to.local_addr()?;
    let receiving = tokio::spawn(async move { receive(to).await.map_err(|e| e.to_string()) });
    let sending = tokio::spawn(async move {
        send(from, addr, bytes, piece)
            .await
            .map_err(|e| e.to_string())
    });
    sending.await??;
    let received = receiving.await??;
    if received == bytes {
        Ok(())
    } else {
        Err(format!("{received} of {bytes} bytes arrived").into())
    }
}

/// Takes everybody in, reads what comes, and keeps every connection.
///
/// # Errors
///
/// Never in practice: only when the endpoint is closed.
pub async fn keep_all(endpoint: Endpoint) -> Result<(), Box<dyn Error>> {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else {
                return;
            };
            let Ok((_send, mut stream)) = connection.accept_bi().await else {
                return;
            };
            while let Ok(Some(_chunk)) = stream.read_chunk(usize::MAX, true).await {}
        });
    }
    Ok(())
}

async fn receive(endpoint: Endpoint) -> Result<u64, Box<dyn Error>> {
    let connection = endpoint.accept().await.ok_or("nobody came")?.await?;
    let (_send, mut stream) = connection.accept_bi().await?;
    let mut received = 0;
    while let Some(chunk) = stream.read_chunk(usize::MAX, true).await? {
        received += chunk.bytes.len() as u64;
    }
    connection.closed().await;
    Ok(received)
}

async fn send(
    endpoint: Endpoint,
    to: SocketAddr,
    bytes: u64,
    piece: usize,
) -> Result<(), Box<dyn Error>> {
    let connection = endpoint.connect(to, GATEWAY_NAME)?.await?;
    let (mut stream, _receive) = connection.open_bi().await?;
    let data = vec![7; piece];
    let mut left = bytes;
    while left > 0 {
        let size = usize::try_from(left).map_or(piece, |n| n.min(piece));
        stream.write_all(&data[..size]).await?;
        left -= size as u64;
    }
    stream.finish()?;
    stream.stopped().await?;
    connection.close(VarInt::from_u32(0), b"done");
    Ok(())
}
