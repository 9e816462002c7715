//! `POST /v2/webhooks/stripe`: something has changed at Stripe.
//!
//! ```text
//!   payments set up? ─▶ body ─▶ signature ─▶ an event? ─▶ asked and booked ─▶ 200
//!         404          400 413     400          400             503: Stripe repeats it
//! ```

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::StatusCode;
use axum::http::header::HeaderName;
use axum::response::{IntoResponse as _, Response};
use mesh_core::error::ErrorCode;
use mesh_core::limits::HTTP_BODY_TIMEOUT;

use super::{Api, Refusal};
use crate::gateway::payments::WebhookRefused;

const SIGNATURE: HeaderName = HeaderName::from_static("stripe-signature");

pub(super) async fn stripe(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<&'static str, Response> {
    let no = |code, words: &str| Refusal::new(code, words).into_response();
    let Some(payments) = &api.state.payments else {
        return Err(no(ErrorCode::NotFound, "this gateway takes no payments"));
    };
    let signature = request.headers().get(SIGNATURE).cloned();
    let read = tokio::time::timeout(HTTP_BODY_TIMEOUT, Bytes::from_request(request, &()));
    let body = match read.await {
        Ok(Ok(body)) => body,
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            return Err(no(ErrorCode::TooLarge, "the webhook's body is too large"));
        }
        Ok(Err(_)) | Err(_) => {
            return Err(no(
                ErrorCode::InvalidRequest,
                "the webhook's body broke off",
            ));
        }
    };
    let signature = signature
        .as_ref()
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let now = api.clock.now().wall;
    match payments.webhook(signature, &body, now).await {
        Ok(()) => Ok("ok\n"),
        Err(WebhookRefused::NotNow(error)) => {
            tracing::warn!(%error, "a webhook could not be booked; it will be repeated");
            let refusal = Refusal::new(ErrorCode::Internal, "not now; repeat it");
            Err((StatusCode::SERVICE_UNAVAILABLE, Json(refusal.0)).into_response())
        }
        Err(
            refused @ (WebhookRefused::NoSecret
            | WebhookRefused::Signature(_)
            | WebhookRefused::NotAnEvent(_)),
        ) => {
            tracing::warn!(%refused, "a webhook was refused");
            Err(no(ErrorCode::InvalidRequest, &refused.to_string()))
        }
    }
}
