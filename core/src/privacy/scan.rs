//! One walk over a text that finds what the built-in patterns name.
//!
//! Most bytes of prose begin nothing private. The walk stops at the few that every pattern has (an
//! `@`, a digit, a colon, the `z` of `AIza` …) and looks around there, no further than a fixed
//! distance, or over bytes that it has not looked at before: so its work is linear.

mod network;
mod number;
mod secret;

use std::ops::Range;

pub(super) use self::secret::is_secret;
use super::patterns::{Find, Kind};

/// Bytes at which the walk looks around.
const TRIGGERS: [u8; 19] = *b"@-_zKSJ:=0123456789";
/// The same, when addresses and paths count too.
const TRIGGERS_STRICT: [u8; 21] = *b"@-_zKSJ:=0123456789/\\";

const fn table(triggers: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut at = 0;
    while at < triggers.len() {
        table[triggers[at] as usize] = true;
        at += 1;
    }
    table
}

static STOPS: [bool; 256] = table(&TRIGGERS);
static STOPS_STRICT: [bool; 256] = table(&TRIGGERS_STRICT);

/// Bytes of a PEM block at most; what is longer is hidden as far as it looks like one.
const PEM_BYTES_MAX: usize = 32 * 1024;
/// Bytes of a PEM header's name (`OPENSSH PRIVATE KEY`).
const PEM_NAME_BYTES_MAX: usize = 48;

/// A key that begins with words of its own.
struct Prefix {
    text: &'static [u8],
    kind: Kind,
    /// Bytes after the prefix.
    rest_min: usize,
}

const fn prefix(text: &'static str, kind: Kind, rest_min: usize) -> Prefix {
    Prefix {
        text: text.as_bytes(),
        kind,
        rest_min,
    }
}

/// Every one ends in a byte at which the walk stops.
static PREFIXES: [Prefix; 24] = [
    prefix("ghp_", Kind::GithubToken, 20),
    prefix("gho_", Kind::GithubToken, 20),
    prefix("ghu_", Kind::GithubToken, 20),
    prefix("ghs_", Kind::GithubToken, 20),
    prefix("ghr_", Kind::GithubToken, 20),
    prefix("github_pat_", Kind::GithubToken, 20),
    prefix("xoxb-", Kind::SlackToken, 10),
    prefix("xoxp-", Kind::SlackToken, 10),
    prefix("xoxa-", Kind::SlackToken, 10),
    prefix("xoxr-", Kind::SlackToken, 10),
    prefix("xoxs-", Kind::SlackToken, 10),
    prefix("xoxe-", Kind::SlackToken, 10),
    prefix("xapp-", Kind::SlackToken, 10),
    prefix("sk_live_", Kind::StripeKey, 10),
    prefix("sk_test_", Kind::StripeKey, 10),
    prefix("rk_live_", Kind::StripeKey, 10),
    prefix("rk_test_", Kind::StripeKey, 10),
    prefix("pk_live_", Kind::StripeKey, 10),
    prefix("pk_test_", Kind::StripeKey, 10),
    prefix("whsec_", Kind::StripeKey, 16),
    prefix("si_live_", Kind::SynesisKey, 20),
    prefix("si_test_", Kind::SynesisKey, 20),
    prefix("sk-ant-", Kind::AnthropicKey, 16),
    prefix("sk-", Kind::OpenaiKey, 20),
];

/// Everything that the built-in patterns find, in no particular order, overlaps and all.
pub(super) fn scan(text: &str, strict: bool) -> Vec<Find> {
    walk(text, strict).finds
}

/// How many bytes the walk looks at, times at which it stops aside: every other look is over a fixed
/// number of bytes.
#[cfg(test)]
pub(super) fn looked_at(text: &str, strict: bool) -> usize {
    walk(text, strict).looked.get()
}

fn walk(text: &str, strict: bool) -> Scan<'_> {
    let stops = if strict { &STOPS_STRICT } else { &STOPS };
    let mut scan = Scan {
        text,
        bytes: text.as_bytes(),
        strict,
        finds: Vec::new(),
        keys_end: 0,
        no_keys_end: 0,
        paths_end: 0,
        pem_end: None,
        #[cfg(test)]
        looked: std::cell::Cell::new(0),
    };
    for (at, &byte) in text.as_bytes().iter().enumerate() {
        if stops[usize::from(byte)] {
            scan.look_around(at, byte);
        }
    }
    scan
}

struct Scan<'a> {
    text: &'a str,
    bytes: &'a [u8],
    strict: bool,
    finds: Vec<Find>,
    /// Up to here keys have been found.
    keys_end: usize,
    /// Up to here no key begins.
    no_keys_end: usize,
    /// Up to here paths have been found.
    paths_end: usize,
    /// Where the next end of a PEM block stands, as far as one has been looked for.
    pem_end: Option<(usize, Option<usize>)>,
    /// Bytes looked at where there may be any number of them.
    #[cfg(test)]
    looked: std::cell::Cell<usize>,
}

impl Scan<'_> {
    fn look_around(&mut self, at: usize, byte: u8) {
        match byte {
            b'@' => self.email(at),
            b'-' => {
                self.pem(at);
                self.prefixed(at);
            }
            b'_' => self.prefixed(at),
            b'z' => self.fixed(at, b"AIza", Kind::GoogleKey, 35, is_url_safe),
            b'K' => self.fixed(at, b"AKIA", Kind::AwsKey, 16, is_upper_or_digit),
            b'S' => self.fixed(at, b"ASIA", Kind::AwsKey, 16, is_upper_or_digit),
            b'J' => self.jwt(at),
            b':' => {
                self.url(at);
                self.secret(at);
                if self.strict {
                    self.ipv6(at);
                }
            }
            b'=' => self.secret(at),
            b'0'..=b'9' => self.number(at),
            b'/' => self.unix_path(at),
            b'\\' => self.windows_path(at),
            _ => {}
        }
    }

    /// Counts what was looked at, for the proof that the work is linear.
    #[inline]
    #[cfg_attr(
        not(test),
        expect(clippy::unused_self, reason = "there is a count in tests only")
    )]
    fn looked(&self, _bytes: usize) {
        #[cfg(test)]
        self.looked.set(self.looked.get() + _bytes);
    }

    fn found(&mut self, range: Range<usize>, kind: Kind) {
        self.finds.push(Find { range, kind });
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    fn before(&self, at: usize) -> Option<u8> {
        self.byte(at.checked_sub(1)?)
    }

    fn starts_with(&self, at: usize, what: &[u8]) -> bool {
        let rest = self.bytes.get(at..);
        rest.is_some_and(|rest| rest.starts_with(what))
    }

    /// Whether no word goes on before `start`.
    fn word_begins(&self, start: usize) -> bool {
        !self.before(start).is_some_and(is_word)
    }

    /// Whether no word goes on at `end`.
    fn word_ends(&self, end: usize) -> bool {
        !self.byte(end).is_some_and(is_word)
    }

    /// The end of the run of such bytes from `start`.
    fn run(&self, start: usize, is: impl Fn(u8) -> bool) -> usize {
        let rest = self.bytes.get(start..).unwrap_or_default();
        let length = rest.iter().position(|&byte| !is(byte));
        let length = length.unwrap_or(rest.len());
        self.looked(length + 1);
        start + length
    }

    /// An address: what may stand before the `@`, and after it labels with a dot between.
    fn email(&mut self, at: usize) {
        const LOCAL_CHARS_MAX: usize = 64;
        const DOMAIN_BYTES_MAX: usize = 253;
        let head = self.text.get(..at).unwrap_or_default();
        let local = head
            .char_indices()
            .rev()
            .take(LOCAL_CHARS_MAX)
            .take_while(|(_, c)| c.is_alphanumeric() || "._%+-'".contains(*c))
            .last()
            .map_or(at, |(start, _)| start);
        let trimmed = head.get(local..).unwrap_or_default();
        let trimmed = trimmed.trim_start_matches(|c: char| !c.is_alphanumeric() && c != '_');
        let start = at - trimmed.len();
        let tail = self.text.get(at + 1..).unwrap_or_default();
        let tail = tail
            .get(..tail.floor_char_boundary(DOMAIN_BYTES_MAX))
            .unwrap_or_default();
        let length = tail
            .find(|c: char| !c.is_alphanumeric() && c != '-' && c != '.')
            .unwrap_or(tail.len());
        let domain = tail.get(..length).unwrap_or_default();
        if start < at
            && let Some(bytes) = domain_bytes(domain)
        {
            self.found(start..at + 1 + bytes, Kind::Email);
        }
    }

    /// A private key: `-----BEGIN … PRIVATE KEY-----` to the end of its block.
    fn pem(&mut self, at: usize) {
        const BEGIN: &[u8] = b"-----BEGIN ";
        if self.before(at) == Some(b'-') || !self.starts_with(at, BEGIN) {
            return;
        }
        let name = at + BEGIN.len();
        let name_end = self.run(name, |b| {
            b.is_ascii_uppercase() || b.is_ascii_digit() || b == b' '
        });
        let words = self.bytes.get(name..name_end).unwrap_or_default();
        let is_private = words.ends_with(b"PRIVATE KEY") || words.ends_with(b"PRIVATE KEY BLOCK");
        if !is_private || words.len() > PEM_NAME_BYTES_MAX || !self.starts_with(name_end, b"-----")
        {
            return;
        }
        let body = name_end + 5;
        let end = match self.next_pem_end(body) {
            Some(end) if end - body <= PEM_BYTES_MAX => end,
            // No end in sight: as far as it looks like the inside of one.
            Some(_) | None => self.run(body, |b| {
                b.is_ascii_alphanumeric() || b"+/=\r\n\t \\:,".contains(&b)
            }),
        };
        self.found(at..end, Kind::PrivateKey);
    }

    /// Behind the first line that ends a block, at or after `from`. No byte is searched twice.
    fn next_pem_end(&mut self, from: usize) -> Option<usize> {
        if let Some((searched_from, found)) = self.pem_end
            && searched_from <= from
            && found.is_none_or(|end| end > from)
        {
            return found;
        }
        let rest = self.text.get(from..).unwrap_or_default();
        let line = rest.find("-----END ");
        self.looked(line.unwrap_or(rest.len()));
        let found = line.map(|line| {
            let name = from + line + 9;
            let end = self.run(name, |b| {
                b.is_ascii_uppercase() || b.is_ascii_digit() || b == b' '
            });
            self.run(end, |b| b == b'-')
        });
        self.pem_end = Some((from, found));
        found
    }

    /// A key of [`PREFIXES`] whose prefix ends at `at`.
    fn prefixed(&mut self, at: usize) {
        let head = self.bytes.get(..=at).unwrap_or_default();
        for prefix in &PREFIXES {
            if !head.ends_with(prefix.text) {
                continue;
            }
            let (start, rest) = (at + 1 - prefix.text.len(), at + 1);
            if start < self.keys_end.max(self.no_keys_end) || !self.word_begins(start) {
                continue;
            }
            // Anthropic's begin as OpenAI's do.
            if prefix.kind == Kind::OpenaiKey && self.starts_with(rest, b"ant-") {
                continue;
            }
            let end = self.run(rest, is_url_safe);
            let random = self.bytes.get(rest..end).unwrap_or_default();
            // What has no digit to its end has none after a later beginning either.
            if !random.iter().any(u8::is_ascii_digit) {
                self.no_keys_end = end;
            } else if random.len() >= prefix.rest_min {
                self.keys_end = end;
                self.found(start..end, prefix.kind);
            }
        }
    }

    /// A key of a fixed length whose prefix has `at` as its second or third letter.
    fn fixed(&mut self, at: usize, prefix: &[u8], kind: Kind, length: usize, is: fn(u8) -> bool) {
        let offset = prefix.iter().position(|&b| Some(b) == self.byte(at));
        let Some(start) = offset.and_then(|offset| at.checked_sub(offset)) else {
            return;
        };
        if !self.starts_with(start, prefix) || !self.word_begins(start) || start < self.keys_end {
            return;
        }
        let rest = start + prefix.len();
        let end = self.run(rest, is);
        if end - rest >= length {
            self.keys_end = end;
            self.found(start..end, kind);
        }
    }

    /// Parts of base64url with dots between; `eyJ` is `{"` in it.
    fn jwt(&mut self, at: usize) {
        const PART_BYTES_MIN: usize = 10;
        let Some(start) = at.checked_sub(2) else {
            return;
        };
        let begins = self.word_begins(start) && self.before(start) != Some(b'-');
        if !self.starts_with(start, b"eyJ") || start < self.keys_end || !begins {
            return;
        }
        let mut end = self.run(start, is_url_safe);
        let mut parts = usize::from(end - start >= PART_BYTES_MIN);
        while self.byte(end) == Some(b'.') {
            let part = self.run(end + 1, is_url_safe);
            if part == end + 1 || (parts < 2 && part - end <= PART_BYTES_MIN) {
                break;
            }
            parts += 1;
            end = part;
        }
        // The signature may be empty.
        if parts >= 2 {
            self.keys_end = end;
            self.found(start..end, Kind::Jwt);
        }
    }
}

/// How much of a text is a domain: labels with single dots between, the last of letters and longer
/// than one; what follows that one is the sentence's.
fn domain_bytes(text: &str) -> Option<usize> {
    let mut domain = text.split("..").next().unwrap_or_default();
    loop {
        domain = domain.trim_end_matches(['.', '-']);
        let (head, top) = domain.rsplit_once('.')?;
        if top.chars().count() >= 2 && top.chars().any(char::is_alphabetic) {
            return (!domain.starts_with(['.', '-'])).then_some(domain.len());
        }
        domain = head;
    }
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

const fn is_url_safe(byte: u8) -> bool {
    is_word(byte) || byte == b'-'
}

const fn is_upper_or_digit(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}
