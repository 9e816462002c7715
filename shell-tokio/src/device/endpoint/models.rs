//! The gateway's models, in the asker's dialect.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use mesh_core::error::ErrorCode;
use mesh_core::wire::message::DialectName;
use serde_json::{Value, json};

use super::refuse::Refuse;
use super::{Shared, other, speaks_anthropic};

/// `GET /v1/models`.
pub(super) async fn list(State(desk): State<Shared>, headers: HeaderMap) -> Response {
    let dialect = other(speaks_anthropic(&headers));
    let names = match desk.client.models().await {
        Ok(models) => models.names,
        Err(error) => return Refuse::from(error).into_response(dialect),
    };
    let data: Vec<Value> = names.iter().map(|name| described(dialect, name)).collect();
    let body = match dialect {
        DialectName::Openai => json!({"object": "list", "data": data}),
        DialectName::Anthropic => json!({
            "data": data, "has_more": false, "first_id": names.first(), "last_id": names.last(),
        }),
    };
    Json(body).into_response()
}

/// `GET /v1/models/NAME`.
pub(super) async fn one(
    State(desk): State<Shared>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    let dialect = other(speaks_anthropic(&headers));
    match desk.client.models().await {
        Ok(models) if models.names.contains(&name) => {
            Json(described(dialect, &name)).into_response()
        }
        Ok(_) => {
            let words = "the gateway has no model of this name; GET /v1/models lists them";
            Refuse::new(ErrorCode::NotFound, words).into_response(dialect)
        }
        Err(error) => Refuse::from(error).into_response(dialect),
    }
}

fn described(dialect: DialectName, name: &str) -> Value {
    match dialect {
        DialectName::Openai => {
            json!({"id": name, "object": "model", "created": 0, "owned_by": "synesis"})
        }
        DialectName::Anthropic => json!({
            "type": "model", "id": name, "display_name": name,
            "created_at": "1970-01-01T00:00:00Z",
        }),
    }
}
