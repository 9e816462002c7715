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
//!
//! [tunnel]
//! silence_secs = 20       # of a gateway that does not answer, until a new connection is tried
//!
//! [answers]
//! idle_secs = 150         # of an answer that has begun, until it is given up with what there is
//! ```
//!
//! `SYNESIS_PRIVACY`, `SYNESIS_ENDPOINT`, `SYNESIS_TUNNEL_SILENCE` and `SYNESIS_ANSWER_IDLE` in the
//! environment count before the file.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use mesh_core::device::Terms;
use mesh_core::device::endpoint::PORT;
use mesh_core::privacy::{Custom, Mode, Patterns, Policy};
use serde::Deserialize;

use crate::error::Error;

/// The file, in the device's folder.
pub const FILE: &str = "synesis.toml";
/// The mode, before the file's.
const PRIVACY_VARIABLE: &str = "SYNESIS_PRIVACY";
/// Where the endpoint listens, before the file's word.
const ENDPOINT_VARIABLE: &str = "SYNESIS_ENDPOINT";

/// See the module documentation.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What of a question stays on this machine.
    pub privacy: Policy,
    /// Where the local endpoint listens, if it does.
    pub endpoint: Option<SocketAddr>,
    /// How patient it is.
    pub terms: Terms,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    privacy: Privacy,
    endpoint: Endpoint,
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

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Endpoint {
    listen: Option<String>,
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
        })
    }
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
