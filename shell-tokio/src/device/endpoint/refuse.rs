//! Refusals as HTTP responses, in the asker's dialect.

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use mesh_core::dialect::chat::fields::BadField;
use mesh_core::dialect::chat::refusal::Refusal;
use mesh_core::dialect::failure::UpstreamFailure;
use mesh_core::error::ErrorCode;
use mesh_core::ids::RequestId;
use mesh_core::wire::message::DialectName;

use super::{other, speaks_anthropic};
use crate::error::Error;

/// The dialect of a path, or of who asks at one that both have.
pub(super) fn dialect_of(path: &str, headers: &HeaderMap) -> DialectName {
    other(path.starts_with("/v1/messages") || speaks_anthropic(headers))
}

/// A refusal, and which request's.
#[derive(Debug)]
pub(super) struct Refuse {
    pub(super) refusal: Refusal,
    id: Option<RequestId>,
}

impl Refuse {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let refusal = Refusal::new(code, message);
        Self { refusal, id: None }
    }

    pub(super) fn field(bad: &BadField) -> Self {
        let mut refuse = Self::new(ErrorCode::InvalidRequest, bad.to_string());
        refuse.refusal.field = Some(bad.field().to_owned());
        refuse
    }

    /// There is no such model.
    pub(super) fn unknown_model(message: impl Into<String>) -> Self {
        let refusal = Refusal::unknown_model(message);
        Self { refusal, id: None }
    }

    /// This device's own server failed.
    pub(super) fn local(failure: &UpstreamFailure) -> Self {
        let refusal = Refusal::of_local(failure);
        Self { refusal, id: None }
    }

    pub(super) const fn with_status(mut self, status: u16) -> Self {
        self.refusal.status = status;
        self
    }

    pub(super) const fn of(mut self, id: RequestId) -> Self {
        self.id = Some(id);
        self
    }

    pub(super) fn into_response(self, dialect: DialectName) -> Response {
        let id = self.id.map(|id| id.to_string()).unwrap_or_default();
        let status =
            StatusCode::from_u16(self.refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = self.refusal.body(dialect, &id);
        let mut response = (status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        label(headers, &id);
        if !self.refusal.retryable {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if let Some(secs) = self.refusal.retry_after_secs {
            headers.insert("retry-after", HeaderValue::from(secs));
        }
        response
    }
}

/// The request's id where both dialects' clients look for it.
pub(super) fn label(headers: &mut HeaderMap, id: &str) {
    if let Ok(id) = HeaderValue::from_str(id)
        && !id.is_empty()
    {
        headers.insert("x-request-id", id.clone());
        headers.insert("request-id", id);
    }
}

impl From<Error> for Refuse {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let refusal = match error.of_gateway() {
            Some(said) => Refusal::of_gateway(said, message),
            None => Refusal::of_class(error.class(), message),
        };
        Self { refusal, id: None }
    }
}
