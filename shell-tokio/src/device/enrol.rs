//! Enrolment: a key pair made here, a certificate for it from the gateway.
//!
//! # Invariants
//!
//! 1. The private key never leaves the device; the request holds its public half.
//! 2. An API key goes over TLS or to this machine itself, and follows no redirect.
//! 3. What the gateway answers is believed only as far as it fits: the certificate is for this key
//!    and names the device, and a pinned CA is the one that the tunnel will trust.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use mesh_core::api::{Enrol, Enrolled};
use mesh_core::identity::Fingerprint;
use mesh_core::identity::join::JoinLine;
use mesh_core::wire::message::ErrorMessage;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use reqwest::{Client, StatusCode, Url};

use super::credentials::{Credentials, Parts};
use crate::error::Error;
use crate::tls::{self, Identity};

/// For the whole exchange, connecting included.
const PATIENCE: Duration = Duration::from_secs(10);
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
    let url = base.join("v2/devices").map_err(|_| bad_url())?;
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
    check(&enrolled, join.ca)?;
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

/// What [`Credentials::new`] does not check: the pin and the address.
fn check(enrolled: &Enrolled, pin: Option<Fingerprint>) -> Result<(), Error> {
    if let Some(pin) = pin {
        let authority = tls::certificates(&enrolled.gateway_ca, "gateway's CA certificate")?;
        if authority.len() != 1 || Fingerprint::of(&authority[0]) != pin {
            return Err(Error::Certificate(
                "the gateway names another CA than the join line; take a new join line from the \
                 gateway's machine"
                    .to_owned(),
            ));
        }
    }
    let port = enrolled
        .tunnel_address
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty());
    match port.map(|(_, port)| port.parse::<u16>()) {
        Some(Ok(1..)) => Ok(()),
        Some(Ok(0) | Err(_)) | None => Err(Error::protocol(
            "the gateway gives no address for its tunnel; set tunnel.public_address there",
        )),
    }
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
    let address = base.join("healthz").map_err(|_| bad_url())?;
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
    let url = Url::parse(&format!("{}/", text.trim_end_matches('/'))).map_err(|_| bad_url())?;
    let bare = url.username().is_empty() && url.password().is_none();
    if !bare || url.query().is_some() || url.fragment().is_some() {
        return Err(bad_url());
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => Err(Error::Validation(format!(
            "{url} is plain HTTP, and the key would travel readable; use https://"
        ))),
        _ => Err(bad_url()),
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
        let here: [SocketAddr; 2] = [
            (Ipv4Addr::LOCALHOST, 0).into(),
            (Ipv6Addr::LOCALHOST, 0).into(),
        ];
        builder = builder.no_proxy().resolve_to_addrs("localhost", &here);
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

/// Whether a URL's host is this machine by its very name; no resolver is asked.
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
    if is_certificate(error) {
        return Error::Certificate(format!(
            "{base} does not show the certificate that it should ({words}); take a new join line \
             from the gateway's machine, or give --ca-fingerprint"
        ));
    }
    Error::TunnelConnection(format!(
        "cannot reach {base} ({words}); is the gateway running, and the address right?"
    ))
}

/// Whether it is the other side's certificate that TLS will not have.
fn is_certificate(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| {
        let mut cause = cause;
        // What an `io::Error` wraps, maybe in several layers, is not its source.
        while let Some(inside) = cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            cause = inside;
        }
        let tls = cause.downcast_ref::<rustls::Error>();
        matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
    })
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |error| error.source())
}

/// The innermost cause, which says most.
fn cause(error: &reqwest::Error) -> String {
    causes(error)
        .last()
        .map(ToString::to_string)
        .unwrap_or_default()
}

/// Does not repeat the text: it may be a whole join line, key included.
fn bad_url() -> Error {
    Error::Validation(
        "the gateway's address is none; one is like https://gateway.example:4140".to_owned(),
    )
}

fn unmade(error: &rcgen::Error) -> Error {
    Error::Certificate(format!("a certificate request could not be made: {error}"))
}

#[cfg(test)]
mod tests;
