//! What counts as private, and where it stands in a text.
//!
//! | kind | what is found | checked by |
//! |---|---|---|
//! | private key | a PEM block, to its end or as far as it goes | its header |
//! | JWT | three parts of base64url, the first of JSON | form |
//! | keys of AWS, GitHub, Slack, Stripe, Anthropic, OpenAI, Google, Synesis | their prefixes | form |
//! | URL with credentials | `user:password` between `://` and `@` | form |
//! | card | 13 to 19 digits of a card network | Luhn (ISO/IEC 7812-1) |
//! | IBAN | its country's length | mod 97 (ISO 13616) |
//! | SSN | `123-45-6789` | areas never given out are none |
//! | e-mail, phone | addresses; US and international numbers | form |
//! | secret | what follows `password=`, `secret:`, `api_key =` … | the word before it |
//! | IPv4, IPv6, paths | only if strict: code is full of them | form |
//!
//! Finds that overlap become one, of the kind that stands first in [`Kind`].

use std::fmt;
use std::ops::Range;

use regex::bytes::{Regex, RegexBuilder};

use super::scan;
use crate::limits;

/// A kind of private data, in the order of precedence where finds overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A private key in PEM.
    PrivateKey,
    /// A JSON Web Token.
    Jwt,
    /// An access key of AWS.
    AwsKey,
    /// A token of GitHub.
    GithubToken,
    /// A token of Slack.
    SlackToken,
    /// A key of Stripe.
    StripeKey,
    /// A key of Anthropic.
    AnthropicKey,
    /// A key of OpenAI, or of who uses its form.
    OpenaiKey,
    /// A key of Google.
    GoogleKey,
    /// A key of a Synesis gateway.
    SynesisKey,
    /// User and password in a URL.
    UrlCredentials,
    /// A pattern of this device's own, by its place in the list.
    Custom(u8),
    /// A payment card.
    Card,
    /// An international bank account number.
    Iban,
    /// A US social security number.
    Ssn,
    /// An e-mail address.
    Email,
    /// A phone number.
    Phone,
    /// The value of something that is called a password, a secret or the like.
    Secret,
    /// An IPv6 address.
    Ipv6,
    /// An IPv4 address.
    Ipv4,
    /// A path of Windows.
    WindowsPath,
    /// A path of Unix.
    UnixPath,
}

impl Kind {
    /// As tokens spell it. Device's own patterns have names of their own: see [`Patterns::label`].
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PrivateKey => "PRIVATE_KEY",
            Self::Jwt => "JWT",
            Self::AwsKey => "AWS_KEY",
            Self::GithubToken => "GITHUB_TOKEN",
            Self::SlackToken => "SLACK_TOKEN",
            Self::StripeKey => "STRIPE_KEY",
            Self::AnthropicKey => "ANTHROPIC_KEY",
            Self::OpenaiKey => "OPENAI_KEY",
            Self::GoogleKey => "GOOGLE_KEY",
            Self::SynesisKey => "SYNESIS_KEY",
            Self::UrlCredentials => "URL_CREDENTIALS",
            Self::Custom(_) => "CUSTOM",
            Self::Card => "CARD",
            Self::Iban => "IBAN",
            Self::Ssn => "SSN",
            Self::Email => "EMAIL",
            Self::Phone => "PHONE",
            Self::Secret => "SECRET",
            Self::Ipv6 => "IPV6",
            Self::Ipv4 => "IPV4",
            Self::WindowsPath | Self::UnixPath => "PATH",
        }
    }
}

/// Where something private stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Find {
    /// Bytes of the text; never cuts a character.
    pub range: Range<usize>,
    /// What it is.
    pub kind: Kind,
}

/// A pattern of a device's own. Its classes (`\w`, `\d`) are ASCII's.
#[derive(Clone)]
pub struct Custom {
    name: String,
    regex: Regex,
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Custom({})", self.name)
    }
}

/// Why a pattern of a device's own cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// Its name could not stand in a token.
    #[error(
        "the pattern's name {0:?} must be 1 to {max} capital letters, digits and underscores, beginning with a letter",
        max = limits::PRIVACY_NAME_BYTES_MAX
    )]
    Name(String),
    /// It is no regular expression, or too large a one.
    #[error("the pattern {name} cannot be used: {reason}")]
    Regex {
        /// Whose.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// It would be found everywhere.
    #[error("the pattern {0} matches the empty text")]
    Empty(String),
    /// There are too many.
    #[error("there are more than {max} patterns", max = limits::PRIVACY_CUSTOM_MAX)]
    TooMany,
}

impl Custom {
    /// A pattern and the name that its tokens bear, `PROJECT` for `[PROJECT_1]`.
    ///
    /// # Errors
    ///
    /// [`BadPattern`].
    pub fn new(name: &str, pattern: &str) -> Result<Self, BadPattern> {
        let fine = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        let begins = name.bytes().next().is_some_and(|b| b.is_ascii_uppercase());
        if !begins || name.len() > limits::PRIVACY_NAME_BYTES_MAX || !name.bytes().all(fine) {
            return Err(BadPattern::Name(name.chars().take(64).collect()));
        }
        let regex = RegexBuilder::new(pattern)
            .unicode(false)
            .size_limit(limits::PRIVACY_REGEX_BYTES_MAX)
            .build()
            .map_err(|error| BadPattern::Regex {
                name: name.to_owned(),
                reason: error.to_string(),
            })?;
        if regex.is_match(b"") {
            return Err(BadPattern::Empty(name.to_owned()));
        }
        let name = name.to_owned();
        Ok(Self { name, regex })
    }
}

/// What counts as private on a device.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    strict: bool,
    custom: Vec<Custom>,
}

impl Patterns {
    /// The built-in ones, with addresses and paths if `strict`, and a device's own.
    ///
    /// # Errors
    ///
    /// [`BadPattern::TooMany`].
    pub fn new(strict: bool, custom: Vec<Custom>) -> Result<Self, BadPattern> {
        if custom.len() > limits::PRIVACY_CUSTOM_MAX {
            return Err(BadPattern::TooMany);
        }
        Ok(Self { strict, custom })
    }

    /// As tokens spell a kind.
    #[must_use]
    pub fn label(&self, kind: Kind) -> &str {
        match kind {
            Kind::Custom(at) => self
                .custom
                .get(usize::from(at))
                .map_or(kind.as_str(), |custom| custom.name.as_str()),
            Kind::PrivateKey
            | Kind::Jwt
            | Kind::AwsKey
            | Kind::GithubToken
            | Kind::SlackToken
            | Kind::StripeKey
            | Kind::AnthropicKey
            | Kind::OpenaiKey
            | Kind::GoogleKey
            | Kind::SynesisKey
            | Kind::UrlCredentials
            | Kind::Card
            | Kind::Iban
            | Kind::Ssn
            | Kind::Email
            | Kind::Phone
            | Kind::Secret
            | Kind::Ipv6
            | Kind::Ipv4
            | Kind::WindowsPath
            | Kind::UnixPath => kind.as_str(),
        }
    }

    /// Everything private in a text, in order, none touching another's bytes.
    #[must_use]
    pub fn find(&self, text: &str) -> Vec<Find> {
        let mut finds = scan::scan(text, self.strict);
        for (at, custom) in (0..=u8::MAX).zip(&self.custom) {
            for found in custom.regex.find_iter(text.as_bytes()) {
                let range = whole_characters(text, found.range());
                if !range.is_empty() {
                    let kind = Kind::Custom(at);
                    finds.push(Find { range, kind });
                }
            }
        }
        merged(finds)
    }
}

/// A pattern of bytes may begin or end inside of a character.
fn whole_characters(text: &str, range: Range<usize>) -> Range<usize> {
    text.floor_char_boundary(range.start)..text.ceil_char_boundary(range.end)
}

/// Makes one find of those that overlap.
fn merged(mut finds: Vec<Find>) -> Vec<Find> {
    finds.sort_by_key(|find| (find.range.start, find.range.end, find.kind));
    let mut merged: Vec<Find> = Vec::with_capacity(finds.len());
    for find in finds {
        match merged.last_mut() {
            Some(last) if find.range.start < last.range.end => {
                last.range.end = last.range.end.max(find.range.end);
                last.kind = last.kind.min(find.kind);
            }
            Some(_) | None => merged.push(find),
        }
    }
    merged
}

#[cfg(test)]
mod tests;
