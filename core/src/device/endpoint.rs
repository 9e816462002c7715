//! The rules of the device's local HTTP endpoint: who may use it, and what a client's body becomes.
//!
//! Every page in a browser can send requests to loopback, and a name of its own can be made to lead
//! there. So the `Host` must be loopback's own name, and a request that a browser sends for a page
//! from elsewhere is refused before its key is looked at.

use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::dialect::chat::Facts;
use crate::dialect::chat::fields::BadField;
use crate::escalation::context::Question;
use crate::ids::{KeyId, RequestId};
use crate::limits;
use crate::wire::message::{Chat, DialectName, EscalationRequest};

/// The default port, on 127.0.0.1.
pub const PORT: u16 = 4141;
/// Names that a client may call loopback by.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Why a request is not listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    /// `Host` is missing or names another place.
    #[error(
        "the Host header must be localhost, 127.0.0.1 or [::1]: this endpoint is for programs on this machine"
    )]
    Host,
    /// A page from elsewhere.
    #[error("pages from elsewhere cannot use this endpoint: it is for programs on this machine")]
    Page,
}

/// Looks at the headers that a browser sets and a page cannot.
///
/// # Errors
///
/// [`Stranger`].
pub fn admit(
    host: Option<&str>,
    origin: Option<&str>,
    fetch_site: Option<&str>,
) -> Result<(), Stranger> {
    if !host.is_some_and(is_loopback) {
        return Err(Stranger::Host);
    }
    let elsewhere = |origin: &str| {
        let authority = ["http://", "https://"]
            .iter()
            .find_map(|scheme| origin.strip_prefix(scheme));
        !authority.is_some_and(is_loopback)
    };
    let cross = |site: &str| !matches!(site, "same-origin" | "none");
    if origin.is_some_and(elsewhere) || fetch_site.is_some_and(cross) {
        return Err(Stranger::Page);
    }
    Ok(())
}

/// A loopback name, with a port or without.
fn is_loopback(authority: &str) -> bool {
    LOOPBACK.iter().any(|name| {
        let head = authority.get(..name.len());
        let rest = authority.get(name.len()..).unwrap_or_default();
        let port = rest.strip_prefix(':').unwrap_or_default();
        let is_port = (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit());
        head.is_some_and(|head| head.eq_ignore_ascii_case(name)) && (rest.is_empty() || is_port)
    })
}

/// Who asks over the endpoint's Unix socket: the device's user, who needs no key.
pub const OWNER: KeyId = KeyId::from_u128(0);

/// The request id of an `Idempotency-Key`: the same for the same local key, and no other's.
///
/// # Errors
///
/// When it is empty or too long.
pub fn idempotent_id(key: KeyId, idempotency_key: &str) -> Result<RequestId, BadField> {
    let length = idempotency_key.len();
    if !(1..=limits::IDEMPOTENCY_KEY_BYTES_MAX).contains(&length) {
        let why = format!("must have 1 to {} bytes", limits::IDEMPOTENCY_KEY_BYTES_MAX);
        return Err(BadField::new("Idempotency-Key", why));
    }
    let mut hash = Sha256::new();
    hash.update(key.to_string().as_bytes());
    hash.update([0]);
    hash.update(idempotency_key.as_bytes());
    let hash: [u8; 32] = hash.finalize().into();
    let mut short = [0; 16];
    short.copy_from_slice(&hash[..16]);
    Ok(RequestId::from_u128(u128::from_be_bytes(short)))
}

/// A client's body as a question, and what its answer must look like. The model is as the client named
/// it: which way it leads is [`super::route`]'s to say.
///
/// # Errors
///
/// What is wrong with the body, by the field's name.
pub fn request(
    dialect: DialectName,
    body: &str,
    id: RequestId,
) -> Result<(EscalationRequest, Facts), BadField> {
    let facts = Facts::read(dialect, body)?;
    let body = RawValue::from_string(body.to_owned())
        .map_err(|_| BadField::new("the body", "must be a JSON object"))?;
    let mut request = Question::new("")
        .model(&facts.model)
        .max_tokens(facts.max_tokens)
        .session("endpoint")
        .timeout_secs(limits::ENDPOINT_TIMEOUT_SECS)
        .into_request(id);
    request.chat = Some(Chat { dialect, body });
    Ok((request, facts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::escalation::request::validate;

    #[test]
    fn programs_of_this_machine_are_admitted_and_pages_from_elsewhere_are_not() {
        for host in [
            "localhost",
            "LOCALHOST:4141",
            "127.0.0.1:4141",
            "[::1]:80",
            "[::1]",
        ] {
            assert_eq!(admit(Some(host), None, None), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.nip.io:4141",
            "127.0.0.2",
            "",
            "localhost:",
            "localhost:123456",
            "localhost:80@evil",
            "localhost:8o",
            "::1",
            "[::1]x",
        ] {
            assert_eq!(admit(Some(host), None, None), Err(Stranger::Host), "{host}");
        }
        assert_eq!(admit(None, None, None), Err(Stranger::Host));
        let page = |origin| admit(Some("localhost:4141"), Some(origin), None);
        for origin in [
            "http://localhost:3000",
            "http://127.0.0.1",
            "https://[::1]:8443",
        ] {
            assert_eq!(page(origin), Ok(()), "{origin}");
        }
        for origin in [
            "https://evil.example",
            "null",
            "",
            "http://localhost.evil.example",
            "file://",
            "http://localhost:3000/path",
            "ftp://localhost",
        ] {
            assert_eq!(page(origin), Err(Stranger::Page), "{origin}");
        }
        for (site, fine) in [
            ("none", true),
            ("same-origin", true),
            ("same-site", false),
            ("cross-site", false),
        ] {
            let admitted = admit(Some("localhost"), None, Some(site));
            assert_eq!(admitted.is_ok(), fine, "{site}");
        }
    }

    #[test]
    fn an_idempotency_key_names_one_request_of_one_local_key() {
        let id = |key: u128, text: &str| idempotent_id(KeyId::from_u128(key), text).unwrap();
        assert_eq!(id(1, "a"), id(1, "a"));
        assert_ne!(id(1, "a"), id(1, "b"));
        assert_ne!(id(1, "a"), id(2, "a"));
        // printf 'key_00000000000000000000000000000001\0a' | sha256sum
        assert_eq!(
            id(1, "a").to_string(),
            "req_67543f1b13d313a0a93234d4134eb173"
        );
        assert!(idempotent_id(KeyId::from_u128(1), "").is_err());
        assert!(idempotent_id(KeyId::from_u128(1), &"x".repeat(257)).is_err());
    }

    #[test]
    fn a_body_becomes_a_question_that_carries_it_whole() {
        let body = r#"{"model":"cloud/claude","messages":[],"max_tokens":7,"x":1.50}"#;
        let id = RequestId::from_u128(3);
        let (request, facts) = request(DialectName::Anthropic, body, id).unwrap();
        assert_eq!(validate(&request), Ok(()));
        assert_eq!(request.model, "cloud/claude");
        assert_eq!(request.max_tokens, 7);
        assert_eq!(facts.model, "cloud/claude");
        assert_eq!(request.chat.unwrap().body.get(), body);
    }
}
