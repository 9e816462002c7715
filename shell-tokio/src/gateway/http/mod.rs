//! The gateway's HTTP side: enrolment and health.
//!
//! | request | answer |
//! |---|---|
//! | `GET /healthz` | 200: the process lives |
//! | `GET /readyz` | 200 when the store answers, else 503; 503 while the gateway goes away |
//! | `GET /v2/payments/paid`, `…/cancelled` | 200: where people are sent who come from Stripe |
//! | `POST /v2/webhooks/stripe` | 200 when what has happened is booked, see `webhook` |
//! | `POST /v2/devices` | 201 with an [`Enrolled`](mesh_core::api::Enrolled), see `enrol` |
//!
//! Every refusal has an [`ErrorMessage`] as its JSON body, and its code's status; but 405 (the method)
//! and 503 (not ready, not now) say more than their codes' own would.
//!
//! # Invariants
//!
//! 1. An API key is in no log line, no error and no answer.
//! 2. Connections, headers, bodies and every wait are bounded (`HTTP_…` in
//!    [`limits`](mesh_core::limits)); a slow peer costs its own connection, never the accepting.
//! 3. Who shows too many bad keys is not listened to for a while, whatever it shows next.

mod enrol;
mod serve;
mod throttle;
mod webhook;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::DefaultBodyLimit;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use mesh_core::api;
use mesh_core::error::ErrorCode;
use mesh_core::limits::{HTTP_BODY_BYTES_MAX, STORE_TIMEOUT, WEBHOOK_BODY_BYTES_MAX};
use mesh_core::wire::message::ErrorMessage;

pub use self::serve::{Serving, bind, serve};
use self::throttle::BadKeys;
use super::ca::CertificateAuthority;
use super::payments::Payments;
use super::store::{Store, StoreError};
use crate::driver::Clock;

/// What the HTTP side works with.
#[derive(Clone, Debug)]
pub struct State {
    /// Knows the keys, keeps the devices.
    pub store: Store,
    /// Takes payments, if that was set up.
    pub payments: Option<Payments>,
    /// Signs the devices.
    pub ca: Arc<CertificateAuthority>,
    /// Where enrolled devices find the tunnel, `host:port`.
    pub tunnel_address: String,
    /// Whether the gateway goes away: it is not ready then.
    pub going: Arc<AtomicBool>,
}

/// The state, and what lasts from request to request.
#[derive(Debug)]
struct Api {
    state: State,
    clock: Clock,
    bad_keys: Mutex<BadKeys>,
}

/// The other end of the connection that a request came by.
#[derive(Clone, Copy, Debug)]
struct Peer(SocketAddr);

/// What people read who come back from paying.
const PAID: &str = "Thank you. What you paid is credited in a moment; you can close this page.\n";
const CANCELLED: &str = "Nothing was paid; you can close this page.\n";

fn router(state: State) -> Router {
    let api = Api {
        state,
        clock: Clock::new(),
        bad_keys: Mutex::default(),
    };
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/v2/devices", post(enrol::enrol))
        .route("/v2/payments/paid", get(async || PAID))
        .route("/v2/payments/cancelled", get(async || CANCELLED))
        .route(
            "/v2/webhooks/stripe",
            post(webhook::stripe).layer(DefaultBodyLimit::max(WEBHOOK_BODY_BYTES_MAX)),
        )
        .method_not_allowed_fallback(async || not_allowed())
        .fallback(async || {
            Refusal::new(
                ErrorCode::NotFound,
                "there is nothing at this path; devices enrol at POST /v2/devices",
            )
        })
        .layer(DefaultBodyLimit::max(HTTP_BODY_BYTES_MAX))
        .with_state(Arc::new(api))
}

async fn ready(axum::extract::State(api): axum::extract::State<Arc<Api>>) -> Response {
    if api.state.going.load(Ordering::Relaxed) {
        let refusal = Refusal::new(ErrorCode::ShuttingDown, "not ready: the gateway goes away");
        return (StatusCode::SERVICE_UNAVAILABLE, Json(refusal.0)).into_response();
    }
    let answer = tokio::time::timeout(STORE_TIMEOUT, api.state.store.last_revocation()).await;
    readiness(answer.unwrap_or(Err(StoreError::Busy)))
}

fn readiness(answer: Result<u64, StoreError>) -> Response {
    match answer {
        Ok(_) => "ready\n".into_response(),
        Err(error) => {
            tracing::warn!(%error, "not ready: the store does not answer");
            let refusal = Refusal::new(ErrorCode::Internal, format!("not ready: {error}"));
            (StatusCode::SERVICE_UNAVAILABLE, Json(refusal.0)).into_response()
        }
    }
}

fn not_allowed() -> Response {
    let refusal = Refusal::new(ErrorCode::InvalidRequest, "this path takes another method");
    (StatusCode::METHOD_NOT_ALLOWED, Json(refusal.0)).into_response()
}

/// An answer that says no.
#[derive(Debug, PartialEq)]
struct Refusal(ErrorMessage);

impl Refusal {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self(api::refusal(code, message))
    }

    fn after(mut self, secs: u32) -> Self {
        self.0.retry_after_secs = Some(secs);
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.code.http_status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.0.retry_after_secs.map(HeaderValue::from);
        let mut response = (status, Json(self.0)).into_response();
        if let Some(secs) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, secs);
        }
        response
    }
}

#[cfg(test)]
mod tests;
