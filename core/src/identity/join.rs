//! The join line: everything a device needs to enrol, in one text to copy.
//!
//! ```text
//! synesis-join:https://gateway.example:4140#si_live_…#sha256:9f86d081…
//! ```
//!
//! The fingerprint is that of the gateway's own CA; without one (plain HTTP on loopback, or a public
//! certificate) the last part is left out.

use std::fmt;
use std::str::FromStr;

use super::Fingerprint;
use super::api_key::ApiKey;

const PREFIX: &str = "synesis-join:";
const PIN: &str = "sha256:";

/// See the module documentation. Its `Debug` does not show the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinLine {
    /// The gateway's HTTP address.
    pub url: String,
    /// A key that may enrol devices.
    pub key: ApiKey,
    /// The CA that the gateway's HTTP certificate must come from.
    pub ca: Option<Fingerprint>,
}

/// Not a join line. Says nothing of what it was: it may hold a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAJoinLine {
    /// It does not begin as one.
    #[error("a join line begins with {PREFIX}; copy it whole, in quotes")]
    Prefix,
    /// The address is none.
    #[error("the join line's address must begin with https:// or http://")]
    Url,
    /// The key is none.
    #[error("the join line's API key is damaged; copy the line whole, in quotes")]
    Key,
    /// The fingerprint is none.
    #[error("the join line's CA fingerprint is damaged; copy the line whole, in quotes")]
    Fingerprint,
}

impl JoinLine {
    /// The line, key included: to be shown once.
    #[must_use]
    pub fn reveal(&self) -> String {
        let mut line = format!("{PREFIX}{}#{}", self.url, self.key.reveal());
        if let Some(ca) = self.ca {
            line.push_str(&format!("#{PIN}{ca}"));
        }
        line
    }
}

impl FromStr for JoinLine {
    type Err = NotAJoinLine;

    fn from_str(text: &str) -> Result<Self, NotAJoinLine> {
        let rest = text
            .trim()
            .strip_prefix(PREFIX)
            .ok_or(NotAJoinLine::Prefix)?;
        let mut parts = rest.split('#');
        let url = parts.next().unwrap_or_default();
        let host = url
            .strip_prefix("https://")
            .or_else(|| url.strip_prefix("http://"));
        if host.is_none_or(|host| host.is_empty() || host.contains(char::is_whitespace)) {
            return Err(NotAJoinLine::Url);
        }
        let key = parts
            .next()
            .unwrap_or_default()
            .parse()
            .map_err(|_| NotAJoinLine::Key)?;
        let ca = match parts.next() {
            None => None,
            Some(pin) => {
                let hex = pin.strip_prefix(PIN).ok_or(NotAJoinLine::Fingerprint)?;
                Some(Fingerprint::parse(hex).ok_or(NotAJoinLine::Fingerprint)?)
            }
        };
        if parts.next().is_some() {
            return Err(NotAJoinLine::Fingerprint);
        }
        Ok(Self {
            url: url.to_owned(),
            key,
            ca,
        })
    }
}

impl fmt::Display for JoinLine {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "join line for {}", self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Seed;

    fn line(ca: Option<Fingerprint>) -> JoinLine {
        let key = ApiKey::random(&mut Seed::new([1; 32]).secret("key"));
        JoinLine {
            url: "https://gw.example:4140".to_owned(),
            key,
            ca,
        }
    }

    #[test]
    fn a_line_reads_back_and_its_key_is_not_printed() {
        for ca in [None, Some(Fingerprint([0xAB; 32]))] {
            let line = line(ca);
            assert_eq!(line.reveal().parse(), Ok(line.clone()));
            assert_eq!(format!(" {}\n", line.reveal()).parse(), Ok(line.clone()));
            let shown = format!("{line} {line:?}");
            assert!(!shown.contains(line.key.reveal()));
        }
    }

    #[test]
    fn a_damaged_line_says_which_part() {
        let whole = line(Some(Fingerprint([0xAB; 32]))).reveal();
        let key = line(None).key.reveal().to_owned();
        for (text, expected) in [
            (String::new(), NotAJoinLine::Prefix),
            ("https://gw.example".to_owned(), NotAJoinLine::Prefix),
            (format!("synesis-join:ftp://gw#{key}"), NotAJoinLine::Url),
            (format!("synesis-join:https://#{key}"), NotAJoinLine::Url),
            (format!("synesis-join:https://a b#{key}"), NotAJoinLine::Url),
            ("synesis-join:https://gw".to_owned(), NotAJoinLine::Key),
            (whole[..60].to_owned(), NotAJoinLine::Key),
            (
                whole[..whole.len() - 1].to_owned(),
                NotAJoinLine::Fingerprint,
            ),
            (format!("{whole}#more"), NotAJoinLine::Fingerprint),
        ] {
            assert_eq!(text.parse::<JoinLine>(), Err(expected), "{text}");
        }
    }
}
