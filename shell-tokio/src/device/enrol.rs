//! Enrolment: a key pair made here, a certificate for it from the gateway.
//!
//! The key never leaves the device; the request holds its public half. An API key goes to the
//! gateway over TLS only, or over loopback.

use std::time::{Duration, SystemTime};

use mesh_core::api::{Enrol, Enrolled};
use mesh_core::identity::join::JoinLine;
use mesh_core::identity::{Fingerprint, device_id_of};
use mesh_core::wire::message::ErrorMessage;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use reqwest::{Client, StatusCode, Url};

use super::credentials::{Credentials, Parts};
use crate::error::Error;
use crate::tls::{self, Identity};

/// For the whole exchange, connecting included.
const PATIENCE: Duration = Duration::from_secs(15);
/// Certificates and addresses; anything larger is no answer to an enrolment.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Enrols this machine with the gateway of a join line.
///
/// # Errors
///
/// [`Error::Auth`] for a key that the gateway will not have, [`Error::Certificate`] when the
/// gateway is not the one that the join line means, [`Error::TunnelConnection`] when it cannot be
/// reached, [`Error::Validation`] for an address that would give the key away.
pub async fn enrol(join: &JoinLine) -> Result<Credentials, Error> {
    let base = base_url(&join.url)?;
    let key = KeyPair::generate_for(&PKCS_ED25519).map_err(|error| unmade(&error))?;
    // The gateway chooses the name; a request has to have one, and none says least.
    let csr = CertificateParams::new(Vec::new())
        .and_then(|params| params.serialize_request(&key))
        .and_then(|request| request.pem())
        .map_err(|error| unmade(&error))?;
    let url = base.join("v2/devices").map_err(|_| bad_url(&join.url))?;
    let response = client(&base, join.ca)?
        .post(url)
        .bearer_auth(join.key.reveal())
        .json(&Enrol { csr })
        .send()
        .await
        .map_err(|error| unreachable(&base, &error))?;
    let status = response.status();
    let body = bounded(response, &base).await?;
    if !status.is_success() {
        return Err(refusal(status, &body));
    }
    let enrolled: Enrolled = serde_json::from_slice(&body)
        .map_err(|_| Error::protocol(format!("{base} did not answer as a gateway does")))?;
    let chain = tls::certificates(&enrolled.certificate, "device certificate")?;
    let named = chain.first().and_then(|leaf| device_id_of(leaf).ok());
    if named != Some(enrolled.device_id) {
        return Err(Error::Certificate(
            "the gateway's certificate names another device".to_owned(),
        ));
    }
    Credentials::new(Parts {
        device_id: enrolled.device_id,
        tunnel_address: enrolled.tunnel_address,
        http_url: join.url.clone(),
        http_ca: join.ca,
        identity: Identity {
            certificates: enrolled.certificate,
            key: key.serialize_pem(),
        },
        gateway_ca: enrolled.gateway_ca,
        not_after: enrolled.not_after,
    })
}

/// What a look at a gateway's HTTP side shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Its clock, from the `Date` header: whole seconds.
    pub clock: Option<SystemTime>,
    /// How long the answer took, connecting included.
    pub took: Duration,
}

/// Asks a gateway's HTTP side whether it lives.
///
/// # Errors
///
/// As [`enrol`].
pub async fn health(url: &str, ca: Option<Fingerprint>) -> Result<Health, Error> {
    let base = base_url(url)?;
    let asked = std::time::Instant::now();
    let address = base.join("healthz").map_err(|_| bad_url(url))?;
    let response = client(&base, ca)?
        .get(address)
        .send()
        .await
        .map_err(|error| unreachable(&base, &error))?;
    let took = asked.elapsed();
    if !response.status().is_success() {
        return Err(Error::Api(format!(
            "{base} answers {} to /healthz",
            response.status()
        )));
    }
    let date = response.headers().get(reqwest::header::DATE);
    let clock = date
        .and_then(|date| date.to_str().ok())
        .and_then(|d| httpdate::parse_http_date(d).ok());
    Ok(Health { clock, took })
}

/// An address that a key may be sent to, with a slash at its end.
fn base_url(text: &str) -> Result<Url, Error> {
    let url = Url::parse(&format!("{}/", text.trim_end_matches('/'))).map_err(|_| bad_url(text))?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => Err(Error::Validation(format!(
            "{text} is plain HTTP, and the key would travel readable; use https://"
        ))),
        _ => Err(bad_url(text)),
    }
}

fn client(base: &Url, ca: Option<Fingerprint>) -> Result<Client, Error> {
    // Another part of the process may have installed the same one before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .timeout(PATIENCE)
        // A redirect could carry the key to somebody else.
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("synesis/", env!("CARGO_PKG_VERSION")));
    if is_loopback(base) {
        builder = builder.no_proxy();
    }
    builder = match ca {
        Some(ca) => builder.tls_backend_preconfigured(tls::pinned_client(ca)?),
        None if base.scheme() == "http" => builder.tls_certs_only([]),
        None => builder,
    };
    builder
        .build()
        .map_err(|error| Error::Api(format!("no HTTP client: {}", cause(&error))))
}

/// Whether a URL's host is this machine by its very name, without asking any resolver.
fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || literal
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback())
    })
}

async fn bounded(mut response: reqwest::Response, base: &Url) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    while let Some(piece) = response
        .chunk()
        .await
        .map_err(|error| unreachable(base, &error))?
    {
        if body.len() + piece.len() > ANSWER_BYTES_MAX {
            return Err(Error::protocol(format!(
                "{base} sends more than a gateway would"
            )));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// The gateway's own words if it has any.
fn refusal(status: StatusCode, body: &[u8]) -> Error {
    match serde_json::from_slice::<ErrorMessage>(body) {
        Ok(message) => message.into(),
        Err(_) => Error::Api(format!(
            "the address answers HTTP {status}, but not as a gateway does; is it the gateway's?"
        )),
    }
}

fn unreachable(base: &Url, error: &reqwest::Error) -> Error {
    let words = cause(error);
    if error.is_timeout() {
        return Error::Timeout {
            doing: format!("reaching the gateway at {base}"),
            secs: PATIENCE.as_secs(),
        };
    }
    if words.contains("certificate") || words.contains("UnknownIssuer") {
        return Error::Certificate(format!(
            "{base} does not show the certificate that it should ({words}); take a new join line \
             from the gateway's machine, or give --ca-fingerprint"
        ));
    }
    Error::TunnelConnection(format!(
        "cannot reach {base} ({words}); is the gateway running, and the address right?"
    ))
}

/// The innermost cause, which says most.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn bad_url(text: &str) -> Error {
    Error::Validation(format!(
        "{text:?} is not an address; one is like https://gateway.example:4140"
    ))
}

fn unmade(error: &rcgen::Error) -> Error {
    Error::Certificate(format!("a certificate request could not be made: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_goes_over_tls_or_loopback_only() {
        for fine in [
            "https://gateway.example:4140",
            "http://127.0.0.1:4140/",
            "http://[::1]:1",
        ] {
            assert!(base_url(fine).is_ok(), "{fine}");
        }
        for refused in [
            "http://10.0.0.5:4140",
            "http://localhost.example",
            "ftp://x",
            "gateway",
        ] {
            let error = base_url(refused).unwrap_err();
            assert_eq!(
                error.class(),
                mesh_core::error::ErrorClass::Validation,
                "{refused}"
            );
        }
    }

    #[test]
    fn a_refusal_is_the_gateways_word_where_it_has_one() {
        let body =
            br#"{"code":"UNAUTHORIZED","message":"the API key was revoked","retryable":false}"#;
        let error = refusal(StatusCode::UNAUTHORIZED, body);
        assert_eq!(error.to_string(), "the API key was revoked");
        assert_eq!(error.class(), mesh_core::error::ErrorClass::Auth);
        assert!(
            refusal(StatusCode::BAD_GATEWAY, b"<html>")
                .to_string()
                .contains("502")
        );
    }
}
