//! A client's question, in either dialect, through the tunnel.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use hyper::body::Body as _;
use mesh_core::device::endpoint::{idempotent_id, request};
use mesh_core::dialect::chat::Facts;
use mesh_core::dialect::chat::reply::Heading;
use mesh_core::error::ErrorCode;
use mesh_core::ids::{KeyId, RequestId};
use mesh_core::limits::{ENDPOINT_BODY_BYTES_MAX, ENDPOINT_BODY_TIMEOUT};
use mesh_core::wire::message::{DialectName, EscalationRequest};

use super::answer::{Asked, streamed, whole};
use super::refuse::Refuse;
use super::{Shared, text};
use crate::random;

/// `POST /v1/chat/completions`.
pub(super) async fn openai(
    State(desk): State<Shared>,
    Extension(key): Extension<KeyId>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    ask(&desk, key, DialectName::Openai, &headers, body).await
}

/// `POST /v1/messages`.
pub(super) async fn anthropic(
    State(desk): State<Shared>,
    Extension(key): Extension<KeyId>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    ask(&desk, key, DialectName::Anthropic, &headers, body).await
}

async fn ask(
    desk: &Shared,
    key: KeyId,
    dialect: DialectName,
    headers: &HeaderMap,
    body: Body,
) -> Response {
    let (question, facts) = match read(key, dialect, headers, body).await {
        Ok(read) => read,
        Err(refuse) => return refuse.into_response(dialect),
    };
    let id = question.request_id;
    let heading = Heading {
        dialect,
        id: id.to_string(),
        created: seconds(),
        model: facts.model.clone(),
    };
    let answer = match desk.client.ask(question).await {
        Ok(answer) => answer,
        Err(error) => return Refuse::from(error).of(id).into_response(dialect),
    };
    let asked = Asked {
        answer,
        heading,
        id,
        detached: text(headers, "x-synesis-detach") == Some("true"),
    };
    if facts.stream {
        streamed(asked, facts.include_usage).await
    } else {
        whole(asked).await
    }
}

async fn read(
    key: KeyId,
    dialect: DialectName,
    headers: &HeaderMap,
    body: Body,
) -> Result<(EscalationRequest, Facts), Refuse> {
    let id = request_id(key, headers)?;
    let too_large = || {
        let words =
            format!("the body must be whole and have at most {ENDPOINT_BODY_BYTES_MAX} bytes");
        Refuse::new(ErrorCode::TooLarge, words).of(id)
    };
    // Said in the head: nothing of it needs to be read.
    if body.size_hint().lower() > ENDPOINT_BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let read = tokio::time::timeout(
        ENDPOINT_BODY_TIMEOUT,
        to_bytes(body, ENDPOINT_BODY_BYTES_MAX),
    );
    let bytes = match read.await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => return Err(too_large()),
        Err(_) => {
            let words = "the body did not come in time";
            return Err(Refuse::new(ErrorCode::InvalidRequest, words)
                .with_status(408)
                .of(id));
        }
    };
    let body = std::str::from_utf8(&bytes)
        .map_err(|_| Refuse::new(ErrorCode::InvalidRequest, "the body is not UTF-8").of(id))?;
    request(dialect, body, id).map_err(|bad| Refuse::field(&bad).of(id))
}

fn request_id(key: KeyId, headers: &HeaderMap) -> Result<RequestId, Refuse> {
    match text(headers, "idempotency-key") {
        Some(named) => idempotent_id(key, named).map_err(|bad| Refuse::field(&bad)),
        None => random::request_id().map_err(Refuse::from),
    }
}

/// The wall clock, seconds since 1970.
pub(super) fn seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
