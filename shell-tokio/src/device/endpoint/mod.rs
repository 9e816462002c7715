//! The device's local endpoint: HTTP on loopback, for any program that speaks to OpenAI or Anthropic.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/chat/completions` | OpenAI's, streamed or whole |
//! | `POST /v1/messages` | Anthropic's, streamed or whole |
//! | `GET /v1/models`, `GET /v1/models/NAME` | the gateway's models, in the asker's dialect |
//!
//! What a body becomes and who may ask are core's rules ([`mesh_core::device::endpoint`]); here is
//! only HTTP.
//!
//! # Invariants
//!
//! 1. It listens on loopback only, and knows every asker by a key.
//! 2. A client that goes away cancels its answer, unless it asked for the contrary.
//! 3. Connections, bodies and waits are bounded (`ENDPOINT_…` in [`limits`]).

mod answer;
mod chat;
pub mod keys;
mod models;
mod refuse;
mod serve;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use mesh_core::device::endpoint::admit;
use mesh_core::error::ErrorCode;
use mesh_core::limits;
use mesh_core::wire::message::DialectName;
use tokio::task::JoinHandle;

use self::keys::Keys;
use self::refuse::{Refuse, dialect_of};
use super::client::Client;
use crate::error::Error;

/// What every request needs.
#[derive(Debug)]
struct Desk {
    client: Client,
    keys: Keys,
}

type Shared = Arc<Desk>;

/// A running endpoint; it stops when dropped, and answers under way are cancelled.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Endpoint {
    /// Listens at a loopback address and serves programs with one of the keys.
    ///
    /// # Errors
    ///
    /// When the address is not loopback's, or taken.
    pub fn start(address: SocketAddr, client: Client, keys: Keys) -> Result<Self, Error> {
        if !address.ip().is_loopback() {
            return Err(Error::Validation(format!(
                "the endpoint listens on loopback only, not at {address}"
            )));
        }
        let refused = |error| Error::io(format!("the endpoint cannot listen at {address}"), error);
        let listener = TcpListener::bind(address).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(refused)?;
        let router = router(Arc::new(Desk { client, keys }));
        let task = tokio::spawn(serve::serve(listener, router));
        Ok(Self { address, task })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

fn router(desk: Shared) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat::openai))
        .route("/v1/messages", post(chat::anthropic))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{name}", get(models::one))
        .method_not_allowed_fallback(async |request: Request| {
            let dialect = dialect_of(request.uri().path(), request.headers());
            Refuse::new(ErrorCode::InvalidRequest, "this path takes another method")
                .with_status(405)
                .into_response(dialect)
        })
        .fallback(async |request: Request| {
            let dialect = dialect_of(request.uri().path(), request.headers());
            Refuse::new(ErrorCode::NotFound, "there is nothing at this path").into_response(dialect)
        })
        .layer(DefaultBodyLimit::max(limits::ENDPOINT_BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&desk), admitted))
        .with_state(desk)
}

/// Lets programs of this machine with a key through.
async fn admitted(State(desk): State<Shared>, mut request: Request, next: Next) -> Response {
    let dialect = dialect_of(request.uri().path(), request.headers());
    let headers = request.headers();
    let host = text(headers, HOST.as_str());
    let origin = text(headers, ORIGIN.as_str());
    if let Err(stranger) = admit(host, origin, text(headers, "sec-fetch-site")) {
        return Refuse::new(ErrorCode::Forbidden, stranger.to_string()).into_response(dialect);
    }
    let Some(key) = shown_key(headers).and_then(|key| desk.keys.find(key)) else {
        let words = "no key of this endpoint; `synesis env` prints one";
        return Refuse::new(ErrorCode::Unauthorized, words).into_response(dialect);
    };
    request.extensions_mut().insert(key);
    next.run(request).await
}

/// As either dialect's clients show it.
fn shown_key(headers: &HeaderMap) -> Option<&str> {
    let bearer = text(headers, AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    bearer.or_else(|| text(headers, "x-api-key"))
}

/// A header's text; what is no text is as if it were empty, not as if it were absent.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get(name)
        .map(|value| value.to_str().unwrap_or_default())
}

/// The dialect that Anthropic's clients say they speak.
fn speaks_anthropic(headers: &HeaderMap) -> bool {
    headers.contains_key("anthropic-version")
}

const fn other(anthropic: bool) -> DialectName {
    if anthropic {
        DialectName::Anthropic
    } else {
        DialectName::Openai
    }
}
