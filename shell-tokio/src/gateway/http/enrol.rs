//! `POST /v2/devices`: a key that may write, and a certificate request, for a certificate.
//!
//! ```text
//!   address shut out? ─▶ key known? ─▶ may write? ─▶ body ─▶ sign ─▶ on disk ─▶ 201
//!        429               401            403       400 413   400      403 500
//! ```
//!
//! The certificate leaves only when the device is on disk: one that the store does not know is
//! refused by the tunnel.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use mesh_core::api::{Enrol, Enrolled};
use mesh_core::error::ErrorCode;
use mesh_core::identity::api_key::{ApiKey, Scope};
use mesh_core::ids::DeviceId;
use mesh_core::limits::HTTP_BODY_TIMEOUT;

use super::{Api, Peer, Refusal};
use crate::gateway::ca::CsrRefused;
use crate::gateway::store::{KeyRow, NewDevice, StoreError};
use crate::random;

pub(super) async fn enrol(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<(StatusCode, Json<Enrolled>), Refusal> {
    let peer = request.extensions().get::<Peer>().copied();
    let peer = peer
        .ok_or_else(|| internal("a request without a connection"))?
        .0;
    let key = authorized(&api, peer.ip(), request.headers()).await?;
    let wish = body(request).await?;
    let now = api.clock.now().wall;
    let seed = random::seed().map_err(|error| internal(&error.to_string()))?;
    let device = DeviceId::random(&mut seed.secret("device id"));
    let signed = api
        .state
        .ca
        .sign_device(&wish.csr, device, now)
        .map_err(unsigned)?;
    let new = NewDevice {
        id: device,
        key: key.id,
        certificate: signed.fingerprint,
        not_after: signed.not_after,
    };
    let account = api
        .state
        .store
        .enrol(new, now)
        .await
        .map_err(|error| refused(&error))?;
    tracing::info!(%device, %account, key = %key.id, %peer, "a device was enrolled");
    let enrolled = Enrolled {
        device_id: device,
        certificate: signed.pem,
        not_after: signed.not_after,
        gateway_ca: api.state.ca.server_ca().to_owned(),
        tunnel_address: api.state.tunnel_address.clone(),
    };
    Ok((StatusCode::CREATED, Json(enrolled)))
}

/// The key that is asked with, if it may write.
async fn authorized(api: &Api, peer: IpAddr, headers: &HeaderMap) -> Result<KeyRow, Refusal> {
    let now = api.clock.now().instant;
    let wait = api
        .bad_keys
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .wait(peer, now);
    if let Some(wait) = wait {
        let secs = u32::try_from(wait.as_secs())
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        let words = format!("too many bad API keys from this address; try again in {secs} s");
        return Err(Refusal::new(ErrorCode::RateLimited, words).after(secs));
    }
    let found = match shown(headers) {
        Some(key) => api.state.store.key(key.hash()).await,
        None => Err(StoreError::UnknownKey),
    };
    let row = found.map_err(|error| {
        if !error.is_unavailable() {
            tracing::warn!(%peer, %error, "a bad API key");
            api.bad_keys
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .count(peer, now);
        }
        refused(&error)
    })?;
    if !row.scopes.allow(Scope::Write) {
        tracing::warn!(%peer, key = %row.id, "an API key that may not enrol");
        let words = format!(
            "this API key may not enrol devices: it has {}, and that takes write",
            row.scopes
        );
        return Err(Refusal::new(ErrorCode::Forbidden, words));
    }
    Ok(row)
}

/// RFC 6750 §2.1; the scheme's case does not count (RFC 9110 §11.1).
fn shown(headers: &HeaderMap) -> Option<ApiKey> {
    let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    key.trim().parse().ok()
}

async fn body(request: Request) -> Result<Enrol, Refusal> {
    let invalid = |words: String| Refusal::new(ErrorCode::InvalidRequest, words);
    let read = tokio::time::timeout(HTTP_BODY_TIMEOUT, Bytes::from_request(request, &()));
    let bytes = match read.await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            return Err(Refusal::new(
                ErrorCode::TooLarge,
                "the request's body is too large",
            ));
        }
        Ok(Err(_)) => return Err(invalid("the request's body broke off".to_owned())),
        Err(_) => return Err(invalid("the request's body took too long".to_owned())),
    };
    // The parser's words may quote what it read; where it stopped is enough.
    serde_json::from_slice(&bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        invalid(format!(
            "the body must be JSON like {{\"csr\": \"PEM\"}}; it is not at line {line}, column {column}"
        ))
    })
}

fn unsigned(refused: CsrRefused) -> Refusal {
    let code = match refused {
        CsrRefused::TooLarge => ErrorCode::TooLarge,
        CsrRefused::Damaged | CsrRefused::NotEd25519 => ErrorCode::InvalidRequest,
        CsrRefused::Unsignable => ErrorCode::Internal,
    };
    Refusal::new(code, refused.to_string())
}

fn refused(error: &StoreError) -> Refusal {
    match error {
        StoreError::UnknownKey => Refusal::new(
            ErrorCode::Unauthorized,
            "the gateway does not know this API key; \
             make one on its machine with `synesis admin key create`",
        ),
        StoreError::KeyRevoked => Refusal::new(
            ErrorCode::Unauthorized,
            "this API key was revoked; \
             make another on the gateway's machine with `synesis admin key create`",
        ),
        StoreError::TooManyDevices => Refusal::new(ErrorCode::Forbidden, error.to_string()),
        StoreError::Denied(_)
        | StoreError::Refused(_)
        | StoreError::NotAdmitted(_)
        | StoreError::UnknownAccount
        | StoreError::UnknownDevice
        | StoreError::NameTaken
        | StoreError::BadName
        | StoreError::DeviceTaken
        | StoreError::NotTheGateway
        | StoreError::Busy
        | StoreError::Closed
        | StoreError::Full
        | StoreError::Locked
        | StoreError::Unreachable(_)
        | StoreError::Damaged(_)
        | StoreError::Failed(_) => {
            tracing::error!(%error, "a device could not be enrolled");
            Refusal::new(
                ErrorCode::Internal,
                "the gateway's store failed; try again shortly",
            )
        }
    }
}

fn internal(what: &str) -> Refusal {
    tracing::error!(what, "a device could not be enrolled");
    Refusal::new(ErrorCode::Internal, "the gateway failed; try again shortly")
}
