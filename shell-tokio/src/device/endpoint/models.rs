//! The gateway's models and this machine's own, in the asker's dialect.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use mesh_core::device::route::LOCAL;
use mesh_core::wire::message::DialectName;
use serde_json::{Value, json};

use super::refuse::Refuse;
use super::{Shared, other, speaks_anthropic};
use crate::gateway::upstream::Listed;

/// `GET /v1/models`.
pub(super) async fn list(State(desk): State<Shared>, headers: HeaderMap) -> Response {
    let dialect = other(speaks_anthropic(&headers));
    let names = match names(&desk).await {
        Ok(names) => names,
        Err(refuse) => return refuse.into_response(dialect),
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

/// `GET /v1/models/NAME`; names of this device have a slash in them.
pub(super) async fn one(
    State(desk): State<Shared>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    let dialect = other(speaks_anthropic(&headers));
    match names(&desk).await {
        Ok(names) if names.contains(&name) => Json(described(dialect, &name)).into_response(),
        Ok(_) => {
            let words = "there is no model of this name; GET /v1/models lists what there is";
            Refuse::unknown_model(words).into_response(dialect)
        }
        Err(refuse) => refuse.into_response(dialect),
    }
}

/// What may be asked for: the gateway's names, `auto` first, then `local/…`. Without a tunnel, what
/// there is here.
async fn names(desk: &Shared) -> Result<Vec<String>, Refuse> {
    let here = async {
        match &desk.local {
            Some(local) => match local.listed().await {
                Listed::Models(names) => names,
                Listed::Silent | Listed::Unlisted => Vec::new(),
            },
            None => Vec::new(),
        }
    };
    let (cloud, here) = tokio::join!(desk.client.models(), here);
    let here = here.into_iter().map(|name| format!("{LOCAL}{name}"));
    match cloud {
        Ok(models) => Ok(models.names.into_iter().chain(here).collect()),
        Err(error) => {
            let here: Vec<String> = here.collect();
            if here.is_empty() {
                return Err(error.into());
            }
            Ok(std::iter::once("auto".to_owned()).chain(here).collect())
        }
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
