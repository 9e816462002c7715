//! A client's question, in either dialect, to this machine's own server or through the tunnel.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use hyper::body::Body as _;
use mesh_core::device::endpoint::{idempotent_id, request};
use mesh_core::device::route::{AUTO, Plan, after};
use mesh_core::dialect::chat::Facts;
use mesh_core::dialect::chat::reply::Heading;
use mesh_core::error::ErrorCode;
use mesh_core::ids::{KeyId, RequestId};
use mesh_core::limits::{ENDPOINT_BODY_BYTES_MAX, ENDPOINT_BODY_TIMEOUT};
use mesh_core::wire::message::{DialectName, EscalationRequest};

use super::answer::{Asked, Way, streamed, whole};
use super::refuse::Refuse;
use super::{Shared, text};
use crate::device::answer::Answer;
use crate::error::Error;
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
    let routed = match route(desk, question).await {
        Ok(routed) => routed,
        Err(refuse) => return refuse.of(id).into_response(dialect),
    };
    let heading = Heading {
        dialect,
        id: id.to_string(),
        created: seconds(),
        model: facts.model.clone(),
    };
    let asked = Asked {
        routed,
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

/// An answer that was begun, and the way it takes.
pub(super) struct Routed {
    pub(super) answer: Answer,
    pub(super) way: Way,
}

/// Asks this machine's server, or the gateway, or the one after the other.
async fn route(desk: &Shared, mut question: EscalationRequest) -> Result<Routed, Refuse> {
    let (model, why) = match desk.plan(&question.model).await {
        Plan::Unknown => return Err(unknown_here(&question.model)),
        Plan::Cloud { model, why } => (model, why),
        Plan::Local { model, or_cloud } => {
            let Some(local) = &desk.local else {
                return Err(unknown_here(&question.model));
            };
            match local.ask(&question, &model).await {
                Ok(answer) => {
                    let way = Way::LOCAL;
                    return Ok(Routed { answer, way });
                }
                Err(failed) if or_cloud => {
                    let why = after(&failed.failure());
                    tracing::info!(why = why.as_str(), "the local server gave no answer");
                    (AUTO.to_owned(), Some(why))
                }
                Err(failed) => return Err(failed.into()),
            }
        }
    };
    question.model = model;
    let answer = desk.client.ask(question).await?;
    let way = Way::cloud(why);
    Ok(Routed { answer, way })
}

/// A name of this device's that it does not have.
pub(super) fn unknown_here(model: &str) -> Refuse {
    Refuse::unknown_model(format!(
        "this device has no model {model:?}; GET /v1/models lists what there is"
    ))
}

async fn read(
    key: KeyId,
    dialect: DialectName,
    headers: &HeaderMap,
    body: Body,
) -> Result<(EscalationRequest, Facts), Refuse> {
    let id = request_id(key, headers)?;
    let body = whole_body(body, ENDPOINT_BODY_BYTES_MAX)
        .await
        .map_err(|refuse| refuse.of(id))?;
    request(dialect, &body, id).map_err(|bad| Refuse::field(&bad).of(id))
}

/// A body of at most `bytes_max`, as text.
pub(super) async fn whole_body(body: Body, bytes_max: usize) -> Result<String, Refuse> {
    let too_large = || {
        let words = format!("the body must be whole and have at most {bytes_max} bytes");
        Refuse::new(ErrorCode::TooLarge, words)
    };
    // Said in the head: nothing of it needs to be read.
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    let read = tokio::time::timeout(ENDPOINT_BODY_TIMEOUT, to_bytes(body, bytes_max));
    let bytes = match read.await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => return Err(too_large()),
        Err(_) => {
            let words = "the body did not come in time";
            return Err(Refuse::new(ErrorCode::InvalidRequest, words).with_status(408));
        }
    };
    String::from_utf8(bytes.into())
        .map_err(|_| Refuse::new(ErrorCode::InvalidRequest, "the body is not UTF-8"))
}

fn request_id(key: KeyId, headers: &HeaderMap) -> Result<RequestId, Refuse> {
    match text(headers, "idempotency-key") {
        Some(named) => idempotent_id(key, named).map_err(|bad| Refuse::field(&bad)),
        None => random::request_id().map_err(|none| Error::from(none).into()),
    }
}

/// The wall clock, seconds since 1970.
pub(super) fn seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
