//! Connections: accepted, bounded, ended with the endpoint.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use mesh_core::limits::{ENDPOINT_CONNECTIONS_MAX, HTTP_HEADER_BYTES_MAX, HTTP_HEADER_TIMEOUT};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use super::door::{Door, Guest};

/// After the system would not give a connection (no file descriptors left, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until dropped; with every place taken, newcomers wait in the listener's queue.
pub(super) async fn serve(door: Door, router: Router) {
    let mut guests = JoinSet::new();
    loop {
        while guests.len() >= ENDPOINT_CONNECTIONS_MAX {
            let _one_left = guests.join_next().await;
        }
        tokio::select! {
            Some(_one_left) = guests.join_next() => {}
            guest = door.next() => match guest {
                Ok(Guest::Port(stream)) => {
                    guests.spawn(converse(stream, router.clone()));
                }
                Ok(Guest::Socket(stream)) => {
                    guests.spawn(converse(stream, router.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "no connection to the endpoint could be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let service = TowerToHyperService::new(router);
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HTTP_HEADER_TIMEOUT)
        .max_buf_size(HTTP_HEADER_BYTES_MAX.max(64 * 1024))
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the endpoint broke");
    }
}
