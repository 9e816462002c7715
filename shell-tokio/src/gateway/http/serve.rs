//! Connections: accepted, bounded, ended.
//!
//! ```text
//!   accept ──▶ a task each: TLS handshake ──▶ requests ──▶ (told to stop, or old) ──▶ last answer
//!   (a free place first)    (bounded)         (headers bounded)                      (bounded)
//! ```
//!
//! With every place taken, newcomers wait in the listener's queue, where the system bounds them.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::server::conn::http1;
use hyper::service::Service as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use mesh_core::limits::{
    HTTP_CONNECTION_LIFE, HTTP_CONNECTIONS_MAX, HTTP_HEADER_BYTES_MAX, HTTP_HEADER_TIMEOUT,
    HTTP_LAST_ANSWER_TIMEOUT, HTTP_TLS_TIMEOUT,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::{Peer, State, router};
use crate::error::Error;

/// After the system would not give a connection (no file descriptors left, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long one connection may take for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) tls: Duration,
    pub(super) header: Duration,
    pub(super) life: Duration,
    pub(super) last_answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            tls: HTTP_TLS_TIMEOUT,
            header: HTTP_HEADER_TIMEOUT,
            life: HTTP_CONNECTION_LIFE,
            last_answer: HTTP_LAST_ANSWER_TIMEOUT,
        }
    }
}

/// A running HTTP side. Dropped, it stops as well, but nobody waits for the last answers.
#[derive(Debug)]
pub struct Serving {
    local_addr: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Serving {
    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Takes no more connections, and waits until what is under way is answered.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the HTTP side failed");
        }
    }
}

/// Binds a TCP address.
///
/// # Errors
///
/// [`Error::Io`] with the address.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| Error::io(format!("cannot bind TCP {address}"), error))
}

/// Serves on a listener; with `tls` as HTTPS.
///
/// # Errors
///
/// [`Error::Io`] when the listener is not one.
pub fn serve(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    state: State,
) -> Result<Serving, Error> {
    serve_with(listener, tls, state, Patience::default())
}

pub(super) fn serve_with(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    state: State,
    patience: Patience,
) -> Result<Serving, Error> {
    let local_addr = listener
        .local_addr()
        .map_err(|error| Error::io("the HTTP listener", error))?;
    let (stop, stopped) = watch::channel(false);
    let guest = Guest {
        tls: tls.map(TlsAcceptor::from),
        router: router(state),
        patience,
        stopped,
    };
    let task = tokio::spawn(accept(listener, guest));
    Ok(Serving {
        local_addr,
        stop,
        task,
    })
}

/// What each connection gets.
#[derive(Clone)]
struct Guest {
    tls: Option<TlsAcceptor>,
    router: Router,
    patience: Patience,
    stopped: watch::Receiver<bool>,
}

async fn accept(listener: TcpListener, guest: Guest) {
    let mut stopped = guest.stopped.clone();
    let mut guests = JoinSet::new();
    loop {
        while guests.len() >= HTTP_CONNECTIONS_MAX {
            tokio::select! {
                _one_left = guests.join_next() => {}
                () = told_to_stop(&mut stopped) => break,
            }
        }
        tokio::select! {
            biased;
            () = told_to_stop(&mut stopped) => break,
            Some(_one_left) = guests.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    guests.spawn(guest.clone().receive(stream, peer));
                }
                Err(error) => {
                    tracing::warn!(%error, "no HTTP connection could be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    // Each ends by itself within the last answer's time.
    while guests.join_next().await.is_some() {}
}

/// Returns when told, and when nobody is left to tell.
async fn told_to_stop(stopped: &mut watch::Receiver<bool>) {
    let _nobody_left = stopped.wait_for(|&stopped| stopped).await;
}

impl Guest {
    async fn receive(mut self, stream: TcpStream, peer: SocketAddr) {
        let Some(acceptor) = self.tls.take() else {
            return self.converse(stream, peer).await;
        };
        let mut stopped = self.stopped.clone();
        let handshake = tokio::time::timeout(self.patience.tls, acceptor.accept(stream));
        let shaken = tokio::select! {
            shaken = handshake => shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            () = told_to_stop(&mut stopped) => return,
        };
        match shaken {
            Ok(stream) => self.converse(stream, peer).await,
            Err(error) => tracing::debug!(%peer, %error, "no TLS handshake"),
        }
    }

    async fn converse(mut self, stream: impl AsyncRead + AsyncWrite + Unpin, peer: SocketAddr) {
        let router = TowerToHyperService::new(self.router);
        let service = hyper::service::service_fn(move |request: hyper::Request<_>| {
            let mut request: Request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(Peer(peer));
            router.call(request)
        });
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.patience.header)
            .max_buf_size(HTTP_HEADER_BYTES_MAX);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = either(told_to_stop(&mut self.stopped), tokio::time::sleep(self.patience.life)) => {
                connection.as_mut().graceful_shutdown();
                let last = tokio::time::timeout(self.patience.last_answer, connection).await;
                last.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "an HTTP connection broke");
        }
    }
}

async fn either(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    tokio::select! {
        () = one => {}
        () = other => {}
    }
}
