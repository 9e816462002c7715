//! What the owner of a device has decided for it: `synesis.toml` in the device's folder, if there is
//! one.
//!
//! ```toml
//! [privacy]
//! mode = "on"             # "block" refuses to send what is private, "off" sends it as it is
//! strict = false          # hide IP addresses and paths too
//!
//! [[privacy.pattern]]     # found besides: becomes [PROJECT_1]
//! name = "PROJECT"
//! regex = '\bproject-[a-z]+\b'
//!
//! [endpoint]
//! listen = "127.0.0.1:4141"  # or "off"
//! socket = "endpoint.sock"   # besides: a Unix socket of mode 0600 in this folder; needs no key
//!
//! [local]                     # this machine's own model server, asked first by `auto`
//! base_url = "http://127.0.0.1:11434/v1"  # Ollama; llama.cpp: port 8080, vLLM: port 8000
//! dialect = "openai"      # or "anthropic", whose URL has no /v1
//! model = "llama3"        # what `auto` means; otherwise the first of the server's list
//! timeout_secs = 30       # to the first piece; then `auto` asks the cloud
//! # api_key_env = "NAME"  # or api_key_file = "PATH", if the server wants a key
//!
//! [tunnel]
//! silence_secs = 20       # of a gateway that does not answer, until a new connection is tried
//!
//! [answers]
//! idle_secs = 150         # of an answer that has begun, until it is given up with what there is
//! ```
//!
//! `SYNESIS_PRIVACY`, `SYNESIS_ENDPOINT`, `SYNESIS_ENDPOINT_SOCKET`, `SYNESIS_TUNNEL_SILENCE` and
//! `SYNESIS_ANSWER_IDLE` in the environment count before the file.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use std::time::Duration;

use mesh_core::device::Terms;
use mesh_core::device::endpoint::PORT;
use mesh_core::limits::{ESCALATION_TIMEOUT_SECS_MAX, NAME_CHARS_MAX};
use mesh_core::privacy::{Custom, Mode, Patterns, Policy};
use mesh_core::wire::message::DialectName;
use serde::Deserialize;

use crate::error::Error;
use crate::files;
use crate::gateway::upstream::{ProviderConfig, ProviderKey, is_loopback_url};

/// The file, in the device's folder.
pub const FILE: &str = "synesis.toml";
/// The mode, before the file's.
const PRIVACY_VARIABLE: &str = "SYNESIS_PRIVACY";
/// Where the endpoint listens, before the file's word.
const ENDPOINT_VARIABLE: &str = "SYNESIS_ENDPOINT";
/// Its Unix socket, before the file's word.
const SOCKET_VARIABLE: &str = "SYNESIS_ENDPOINT_SOCKET";
/// To the local server's first piece, where the file does not say.
const LOCAL_PATIENCE_SECS: u32 = 30;

/// See the module documentation.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What of a question stays on this machine.
    pub privacy: Policy,
    /// Where the local endpoint listens, if it does.
    pub endpoint: Option<SocketAddr>,
    /// How patient it is.
    pub terms: Terms,
    /// Its Unix socket, if it has one.
    pub socket: Option<PathBuf>,
    /// This machine's own model server, if there is one.
    pub local: Option<LocalServer>,
}

/// This machine's own model server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalServer {
    /// Where it is, and what it speaks.
    pub provider: ProviderConfig,
    /// What `auto` means; otherwise the first of its list.
    pub model: Option<String>,
    /// To its first piece.
    pub patience: Duration,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    privacy: Privacy,
    endpoint: Endpoint,
    local: Option<Local>,
    tunnel: Tunnel,
    answers: Answers,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Answers {
    idle_secs: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Tunnel {
    silence_secs: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Local {
    base_url: String,
    dialect: Option<DialectName>,
    model: Option<String>,
    timeout_secs: Option<u32>,
    api_key_env: Option<String>,
    api_key_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Endpoint {
    listen: Option<String>,
    socket: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Privacy {
    mode: Option<String>,
    strict: bool,
    pattern: Vec<Pattern>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pattern {
    name: String,
    regex: String,
}

impl Settings {
    /// The settings of a device; the defaults where there is no file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or says what cannot be: nothing is sent on a guess.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Error::file(&path, error)),
        };
        let mode = std::env::var(PRIVACY_VARIABLE).ok();
        let listen = std::env::var(ENDPOINT_VARIABLE).ok();
        let invalid = |what| Error::Validation(format!("{}: {what}", path.display()));
        let mut settings =
            Self::read(&text, mode.as_deref(), listen.as_deref()).map_err(invalid)?;
        settings.terms = settings
            .terms
            .with_environment(|name| std::env::var(name).ok())
            .map_err(|bad| Error::Validation(bad.to_string()))?;
        if let Some(socket) = std::env::var_os(SOCKET_VARIABLE) {
            settings.socket = Some(socket.into());
        }
        // A relative one is of the device's folder.
        settings.socket = settings.socket.map(|socket| folder.join(socket));
        Ok(settings)
    }

    fn read(text: &str, mode: Option<&str>, listen: Option<&str>) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        let words = |error: mesh_core::privacy::BadPattern| error.to_string();
        let mode = match mode.or(file.privacy.mode.as_deref()) {
            Some(name) => name
                .parse()
                .map_err(|error| format!("{error}, not {name:?}"))?,
            None => Mode::default(),
        };
        let mut custom = Vec::new();
        for pattern in &file.privacy.pattern {
            custom.push(Custom::new(&pattern.name, &pattern.regex).map_err(words)?);
        }
        let patterns = Patterns::new(file.privacy.strict, custom).map_err(words)?;
        let endpoint = match listen.or(file.endpoint.listen.as_deref()) {
            None => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))),
            Some("off") => None,
            Some(address) => {
                let address = address
                    .parse()
                    .ok()
                    .filter(|a: &SocketAddr| a.ip().is_loopback());
                Some(address.ok_or(
                    "the endpoint listens at an address of loopback, 127.0.0.1:4141, or is `off`",
                )?)
            }
        };
        let mut terms = Terms::default();
        if let Some(secs) = file.tunnel.silence_secs {
            terms.set_silence(secs).map_err(|bad| bad.to_string())?;
        }
        if let Some(secs) = file.answers.idle_secs {
            terms.set_idle(secs).map_err(|bad| bad.to_string())?;
        }
        Ok(Self {
            privacy: Policy { mode, patterns },
            endpoint,
            terms,
            socket: file.endpoint.socket,
            local: file.local.map(local).transpose()?,
        })
    }
}

fn local(file: Local) -> Result<LocalServer, String> {
    // What is asked for here is said to stay here.
    if !is_loopback_url(&file.base_url) {
        return Err("local.base_url is an http:// URL of this machine".to_owned());
    }
    let key = match (&file.api_key_env, &file.api_key_file) {
        (Some(_), Some(_)) => {
            return Err("local: api_key_env and api_key_file, take one of them".to_owned());
        }
        (Some(variable), None) => Some(
            std::env::var(variable)
                .map_err(|_| format!("local: the environment has no {variable}"))?,
        ),
        (None, Some(path)) => Some(
            files::read_private(path)
                .map_err(|error| format!("local: {}: {error}", path.display()))?,
        ),
        (None, None) => None,
    };
    let secs = file.timeout_secs.unwrap_or(LOCAL_PATIENCE_SECS);
    if !(1..=ESCALATION_TIMEOUT_SECS_MAX).contains(&secs) {
        return Err(format!(
            "local.timeout_secs is from 1 to {ESCALATION_TIMEOUT_SECS_MAX}"
        ));
    }
    let named = |name: &String| (1..=NAME_CHARS_MAX).contains(&name.chars().count());
    if !file.model.as_ref().is_none_or(named) {
        return Err("local.model is no name of a model".to_owned());
    }
    let dialect = file.dialect.unwrap_or(DialectName::Openai);
    let key = key.as_deref().and_then(ProviderKey::new);
    Ok(LocalServer {
        provider: ProviderConfig::new("local", dialect, file.base_url, key),
        model: file.model,
        patience: Duration::from_secs(secs.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privacy_is_on_unless_the_file_or_the_environment_says_otherwise() {
        let mode = |text: &str, variable: Option<&str>| {
            Settings::read(text, variable, None).map(|settings| settings.privacy.mode)
        };
        assert_eq!(mode("", None), Ok(Mode::On));
        assert_eq!(mode("[privacy]\nmode = \"block\"", None), Ok(Mode::Block));
        assert_eq!(
            mode("[privacy]\nmode = \"block\"", Some("off")),
            Ok(Mode::Off)
        );
        for (text, variable) in [
            ("[privacy]\nmode = \"of\"", None),
            ("", Some("yes")),
            ("[privcy]", None),
            ("[[privacy.pattern]]\nname = \"A\"\nregex = \"(\"", None),
            ("[[privacy.pattern]]\nname = \"a\"\nregex = \"x\"", None),
        ] {
            assert!(mode(text, variable).is_err(), "{text} {variable:?}");
        }
    }

    #[test]
    fn the_endpoint_listens_on_loopback_or_not_at_all() {
        let listens = |text: &str, variable: Option<&str>| {
            Settings::read(text, None, variable).map(|settings| settings.endpoint)
        };
        let at = |address: &str| Ok(Some(address.parse().unwrap()));
        assert_eq!(listens("", None), at("127.0.0.1:4141"));
        assert_eq!(
            listens("[endpoint]\nlisten = \"[::1]:1\"", None),
            at("[::1]:1")
        );
        assert_eq!(
            listens("[endpoint]\nlisten = \"[::1]:1\"", Some("off")),
            Ok(None)
        );
        for address in ["0.0.0.0:4141", "192.168.0.1:80", "localhost:4141", ""] {
            assert!(listens("", Some(address)).is_err(), "{address}");
        }
    }

    #[test]
    fn how_patient_a_device_is_is_what_the_file_says() {
        let silence = |text: &str| {
            Settings::read(text, None, None).map(|settings| settings.terms.silence.as_secs())
        };
        assert_eq!(silence(""), Ok(20));
        assert_eq!(silence("[tunnel]\nsilence_secs = 3"), Ok(3));
        for bad in ["0", "601", "-1", "\"3\""] {
            assert!(silence(&format!("[tunnel]\nsilence_secs = {bad}")).is_err());
            assert!(silence(&format!("[answers]\nidle_secs = {bad}")).is_err());
        }
        let idle = Settings::read("[answers]\nidle_secs = 7", None, None).map(|s| s.terms.idle);
        assert_eq!(idle, Ok(std::time::Duration::from_secs(7)));
    }

    #[test]
    fn a_local_server_is_on_this_machine_and_speaks_either_dialect() {
        let read = |text: &str| {
            Settings::read(&format!("[local]\n{text}"), None, None).map(|settings| settings.local)
        };
        let url = "base_url = \"http://127.0.0.1:8080/v1\"\n";
        let server = read(url).unwrap().unwrap();
        assert_eq!(server.provider.dialect, DialectName::Openai);
        assert_eq!(server.patience, Duration::from_secs(30));
        let more = "dialect = \"anthropic\"\nmodel = \"tiny\"\ntimeout_secs = 1";
        let server = read(&format!("{url}{more}")).unwrap().unwrap();
        assert_eq!(server.provider.dialect, DialectName::Anthropic);
        assert_eq!(server.model.as_deref(), Some("tiny"));
        for bad in [
            "",
            "base_url = \"http://192.168.0.7:8080/v1\"",
            "base_url = \"http://localhost.evil.example/v1\"",
            "base_url = \"127.0.0.1:8080\"",
            "base_url = \"\"",
            &format!("{url}timeout_secs = 0"),
            &format!("{url}timeout_secs = 601"),
            &format!("{url}dialect = \"ollama\""),
            &format!("{url}model = \"\""),
            &format!("{url}api_key = \"x\""),
            &format!("{url}api_key_env = \"A\"\napi_key_file = \"b\""),
            &format!("{url}api_key_file = \"/nowhere/at/all\""),
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_devices_own_patterns_and_strictness_count() {
        let text = "[privacy]\nstrict = true\n[[privacy.pattern]]\nname = \"PROJECT\"\nregex = 'falcon-\\d+'";
        let patterns = Settings::read(text, None, None).unwrap().privacy.patterns;
        let found = patterns.find("falcon-7 at 10.0.0.1");
        let labels: Vec<_> = found.iter().map(|find| patterns.label(find.kind)).collect();
        assert_eq!(labels, ["PROJECT", "IPV4"]);
    }

    #[test]
    fn the_example_in_the_documentation_is_one() {
        let example: String = include_str!("settings.rs")
            .lines()
            .skip_while(|line| *line != "//! ```toml")
            .skip(1)
            .take_while(|line| *line != "//! ```")
            .map(|line| line.trim_start_matches("//!").to_owned() + "\n")
            .collect();
        assert!(Settings::read(&example, None, None).is_ok(), "{example}");
    }
}
