//! `synesis cloud login|logout`: a key pair made here, a certificate from the gateway.

use std::io::{self, IsTerminal as _, Read as _};
use std::path::Path;

use mesh_core::identity::Fingerprint;
use mesh_core::identity::api_key::ApiKey;
use mesh_core::identity::join::JoinLine;

use super::args::Login;
use super::{Scene, Stop};
use crate::device::credentials::Credentials;
use crate::device::enrol::enrol;
use crate::error::Error;

/// Bytes of a key or join line read from a file or stdin; both are far shorter.
const SECRET_BYTES_MAX: u64 = 4096;

/// Enrols this device.
pub(super) async fn login(login: &Login, scene: &Scene) -> Result<(), Stop> {
    let output = scene.output;
    let folder = scene.paths.device();
    // With --force not even looked at: it is the way out of damaged ones.
    if !login.force
        && let Some(there) = Credentials::load(&folder)?
    {
        return Err(Stop::invalid(format!(
            "this device is enrolled already as {} with {}; use --force to enrol anew",
            there.device_id(),
            there.tunnel_address()
        )));
    }
    let join = resolve(login, scene)?;
    let spinner = output.spinner(&format!("enrolling with {}", join.url));
    let credentials = enrol(&join).await?;
    drop(spinner);
    credentials.save(&folder)?;
    output.note(&format!(
        "Enrolled as {} with {}.\nNext: synesis cloud ask \"…\", or synesis agent to keep the tunnel up.",
        credentials.device_id(),
        credentials.tunnel_address()
    ));
    Ok(())
}

/// Forgets the enrolment.
pub(super) fn logout(scene: &Scene) -> Result<(), Stop> {
    let folder = scene.paths.device();
    match Credentials::load(&folder)? {
        None => scene
            .output
            .note("This device is not enrolled; nothing to forget."),
        Some(credentials) => {
            let id = credentials.device_id();
            Credentials::delete(&folder)?;
            scene.output.note(&format!(
                "The key and certificate of {id} are deleted. On the gateway, revoke it too: synesis admin device revoke {id}"
            ));
        }
    }
    Ok(())
}

/// URL, key and fingerprint, from wherever they were given.
fn resolve(login: &Login, scene: &Scene) -> Result<JoinLine, Stop> {
    if let Some(line) = login.join.as_deref() {
        if line == "-" {
            let text = read_bounded(io::stdin().lock())
                .map_err(|error| Error::io("reading the join line from stdin", error))?;
            return text.parse().map_err(Stop::invalid);
        }
        return line.parse().map_err(Stop::invalid);
    }
    let url = login.gateway.clone().unwrap_or_default();
    if !(url.starts_with("https://") || url.starts_with("http://")) {
        // Not repeated: it may be a whole join line, key included.
        return Err(Stop::invalid(
            "--gateway takes an address, which begins with https://; a join line goes without it",
        ));
    }
    let ca = match login.ca_fingerprint.as_deref() {
        None => None,
        Some(hex) => Some(Fingerprint::parse(hex).ok_or_else(|| {
            Stop::invalid("the CA fingerprint is 64 hexadecimal digits (SHA-256)")
        })?),
    };
    let key = key(login, scene)?;
    Ok(JoinLine { url, key, ca })
}

fn key(login: &Login, scene: &Scene) -> Result<ApiKey, Stop> {
    let text = if let Some(path) = &login.api_key_file {
        read_file(path)?
    } else if let Some(key) = &login.api_key {
        key.clone()
    } else if io::stdin().is_terminal() {
        scene.output.note("The gateway's API key (not shown):");
        console::Term::stderr()
            .read_secure_line()
            .map_err(|error| Error::io("reading the API key", error))?
    } else {
        return Err(Stop::invalid(
            "no API key: give --api-key-file FILE, set SYNESIS_API_KEY, or run on a terminal to be asked",
        ));
    };
    // The parser's error says nothing of the text: it may be most of a key.
    text.trim().parse().map_err(Stop::invalid)
}

fn read_file(path: &Path) -> Result<String, Stop> {
    let refused = |error| {
        Stop::from(Error::io(
            format!("reading the API key from {}", path.display()),
            error,
        ))
    };
    let file = std::fs::File::open(path).map_err(refused)?;
    read_bounded(file).map_err(refused)
}

fn read_bounded(from: impl io::Read) -> io::Result<String> {
    let mut text = String::new();
    from.take(SECRET_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}
