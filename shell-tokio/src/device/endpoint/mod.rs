//! The device's local endpoint: HTTP on loopback, for any program that speaks to OpenAI or Anthropic.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/chat/completions` | OpenAI's, streamed or whole |
//! | `POST /v1/messages` | Anthropic's, streamed or whole |
//! | `POST /v1/messages/count_tokens` | a count, from a server that has this question |
//! | `GET /v1/models`, `GET /v1/models/NAME` | the gateway's and this machine's models, in the asker's dialect |
//!
//! What a body becomes, who may ask and which way a question goes are core's rules
//! ([`mesh_core::device::endpoint`], [`mesh_core::device::route`]); here is only HTTP.
//!
//! # Invariants
//!
//! 1. It listens on loopback only, and knows every asker by a key; or on a Unix socket that only its
//!    user can open.
//! 2. A client that goes away cancels its answer, unless it asked for the contrary.
//! 3. Connections, bodies and waits are bounded (`ENDPOINT_…` in [`limits`]).

mod answer;
mod chat;
mod count;
mod door;
pub mod keys;
mod local;
mod models;
mod refuse;
mod serve;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use mesh_core::device::endpoint::{OWNER, admit};
use mesh_core::device::route::{self, Plan, Server};
use mesh_core::error::ErrorCode;
use mesh_core::limits;
use mesh_core::wire::message::DialectName;
use tokio::task::JoinHandle;

use self::door::{Door, SocketFile};
use self::keys::Keys;
use self::local::Local;
use self::refuse::{Refuse, dialect_of};
use super::client::Client;
use super::settings::Settings;
use crate::error::Error;
use crate::gateway::upstream::Listed;

/// What every request needs.
#[derive(Debug)]
struct Desk {
    client: Client,
    keys: Keys,
    /// This machine's own model server, if there is one.
    local: Option<Local>,
}

type Shared = Arc<Desk>;

/// A running endpoint; it stops when dropped, and answers under way are cancelled.
#[derive(Debug)]
pub struct Endpoint {
    address: Option<SocketAddr>,
    socket: Option<PathBuf>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Desk {
    /// Where a question for a model goes first.
    async fn plan(&self, model: &str) -> Plan {
        let Some(local) = &self.local else {
            return route::plan(model, Server::None, None, &self.client.vitals());
        };
        let listed = if route::may_be_local(model) {
            local.listed().await
        } else {
            Listed::Unlisted
        };
        let server = match &listed {
            Listed::Silent => Server::Silent,
            Listed::Unlisted => Server::There { models: None },
            Listed::Models(names) => Server::There {
                models: Some(names),
            },
        };
        route::plan(model, server, local.usual(), &self.client.vitals())
    }
}

impl Endpoint {
    /// Listens where the settings say.
    ///
    /// # Errors
    ///
    /// When the address is not loopback's, or taken, or the local server cannot be used as it is set up.
    pub fn start(settings: &Settings, client: Client, keys: Keys) -> Result<Self, Error> {
        let local = settings.local.as_ref().map(Local::new).transpose()?;
        let desk = Arc::new(Desk {
            client,
            keys,
            local,
        });
        let mut endpoint = Self {
            address: None,
            socket: None,
            tasks: Vec::new(),
        };
        if let Some(address) = settings.endpoint {
            let listener = listen(address)?;
            endpoint.address = listener.local_addr().ok();
            let router = router(Arc::clone(&desk))
                .layer(middleware::from_fn_with_state(Arc::clone(&desk), admitted));
            let task = tokio::spawn(serve::serve(Door::Port(listener), router));
            endpoint.tasks.push(task);
        }
        if let Some(path) = &settings.socket {
            let socket = SocketFile::bind(path)?;
            // Nobody but this user can open it, and no page in a browser.
            let router = router(desk).layer(Extension(OWNER));
            let task = tokio::spawn(serve::serve(Door::Socket(socket), router));
            endpoint.tasks.push(task);
            endpoint.socket = Some(path.clone());
        }
        Ok(endpoint)
    }

    /// The port of loopback, if there is one.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The Unix socket, if there is one.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }
}

fn listen(address: SocketAddr) -> Result<tokio::net::TcpListener, Error> {
    if !address.ip().is_loopback() {
        return Err(Error::Validation(format!(
            "the endpoint listens on loopback only, not at {address}"
        )));
    }
    let refused = |error| Error::io(format!("the endpoint cannot listen at {address}"), error);
    let listener = TcpListener::bind(address).map_err(refused)?;
    listener.set_nonblocking(true).map_err(refused)?;
    tokio::net::TcpListener::from_std(listener).map_err(refused)
}

fn router(desk: Shared) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat::openai))
        .route("/v1/messages", post(chat::anthropic))
        .route("/v1/messages/count_tokens", post(count::count))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*name}", get(models::one))
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
