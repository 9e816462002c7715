//! `POST /v1/messages/count_tokens`: a count, asked of a server whose format has this question.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use mesh_core::api::CountTokens;
use mesh_core::device::route::{AUTO, Plan, after};
use mesh_core::dialect::chat::fields::BadField;
use mesh_core::dialect::chat::tokens;
use mesh_core::error::ErrorCode;
use mesh_core::limits::{COUNT_BODY_BYTES_MAX, ENDPOINT_BODY_BYTES_MAX};
use mesh_core::wire::message::DialectName;
use serde_json::json;
use serde_json::value::RawValue;

use super::Shared;
use super::answer::Way;
use super::chat::{unknown_here, whole_body};
use super::refuse::Refuse;

/// The handler.
pub(super) async fn count(State(desk): State<Shared>, body: Body) -> Response {
    match counted(&desk, body).await {
        Ok((tokens, way)) => {
            let mut response = Json(json!({"input_tokens": tokens})).into_response();
            way.say(response.headers_mut());
            response
        }
        Err(refuse) => refuse.into_response(DialectName::Anthropic),
    }
}

async fn counted(desk: &Shared, body: Body) -> Result<(u64, Way), Refuse> {
    let body = whole_body(body, ENDPOINT_BODY_BYTES_MAX).await?;
    let named = tokens::model(&body).map_err(|bad| Refuse::field(&bad))?;
    let (model, why) = match desk.plan(&named).await {
        Plan::Unknown => return Err(unknown_here(&named)),
        Plan::Cloud { model, why } => (model, why),
        Plan::Local { model, or_cloud } => {
            let Some(local) = &desk.local else {
                return Err(unknown_here(&named));
            };
            match local.count(&model, &body).await {
                Ok(tokens) => return Ok((tokens, Way::LOCAL)),
                Err(failed) if or_cloud => (AUTO.to_owned(), Some(after(&failed.failure()))),
                Err(failed) => return Err(failed.into()),
            }
        }
    };
    if body.len() > COUNT_BODY_BYTES_MAX {
        let words = format!(
            "to be counted in the cloud a body has at most {COUNT_BODY_BYTES_MAX} bytes, which this one is \
             over; asked as a question it may have {ENDPOINT_BODY_BYTES_MAX}"
        );
        return Err(Refuse::new(ErrorCode::TooLarge, words));
    }
    let body = RawValue::from_string(body)
        .map_err(|_| Refuse::field(&BadField::new("the body", "must be a JSON object")))?;
    let counted = desk
        .client
        .count_tokens(&CountTokens { model, body })
        .await?;
    Ok((counted.input_tokens, Way::cloud(why)))
}
