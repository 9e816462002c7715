//! What is called a secret: the word before a colon or an equals sign, and the value after it.

use std::ops::Range;

use super::Scan;
use crate::privacy::patterns::Kind;

/// Ends of names whose values are secrets, in lower case and without dashes and underscores.
const NAMES: [&str; 20] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "secret",
    "secretkey",
    "apikey",
    "accesskey",
    "authkey",
    "privatekey",
    "signingkey",
    "encryptionkey",
    "accesstoken",
    "refreshtoken",
    "authtoken",
    "bearertoken",
    "apitoken",
    "sessiontoken",
    "credential",
];
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 48;
/// Bytes between a name, its sign and its value: quotes, spaces, a backslash of JSON in a string.
const GAP_BYTES_MAX: usize = 4;
/// A shorter value is a word of prose or of code.
const VALUE_BYTES_MIN: usize = 4;
/// What a program makes is longer.
const MADE_BYTES_MIN: usize = 8;
/// No value goes on longer.
const VALUE_BYTES_MAX: usize = 512;
/// Values that are words of code, in lower case.
const NOT_VALUES: [&str; 26] = [
    "null",
    "none",
    "nil",
    "true",
    "false",
    "undefined",
    "string",
    "str",
    "&str",
    "option",
    "optional",
    "required",
    "integer",
    "number",
    "boolean",
    "bool",
    "bytes",
    "char",
    "varchar",
    "text",
    "self",
    "this",
    "void",
    "object",
    "default",
    "enabled",
];

/// Whether something of this name with this value is a secret.
pub(in crate::privacy) fn is_secret(name: &str, value: &[u8]) -> bool {
    match sort(name) {
        Some(Sort::Chosen) => may_be_secret(value),
        Some(Sort::Made) => {
            value.len() >= MADE_BYTES_MIN
                && value.iter().any(u8::is_ascii_digit)
                && may_be_secret(value)
        }
        None => false,
    }
}

/// Where the values of a name come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// People choose them: anything goes.
    Chosen,
    /// Programs make them: long, and with digits.
    Made,
}

fn sort(name: &str) -> Option<Sort> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    if name.eq_ignore_ascii_case("token") || ends_as_word(name, "token") {
        return Some(Sort::Made);
    }
    let plain: String = name
        .chars()
        .filter(|c| !matches!(c, '_' | '-'))
        .map(|c| c.to_ascii_lowercase())
        .collect();
    // An end of many other words.
    let chosen = plain == "pw" || NAMES.iter().any(|secret| plain.ends_with(secret));
    chosen.then_some(Sort::Chosen)
}

/// Whether a name ends in a word of its own: `BOT_TOKEN`, `botToken`.
fn ends_as_word(name: &str, word: &str) -> bool {
    let Some(head) = name.len().checked_sub(word.len()) else {
        return false;
    };
    let Some((head, tail)) = name.split_at_checked(head) else {
        return false;
    };
    tail.eq_ignore_ascii_case(word)
        && (head.ends_with(['_', '-']) || tail.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// Whether a text can be a secret's value: no word of code, no place where one is to be put in.
fn may_be_secret(value: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(value) else {
        return false;
    };
    let lower = text.to_ascii_lowercase();
    value.len() >= VALUE_BYTES_MIN
        && value.len() <= VALUE_BYTES_MAX
        && !NOT_VALUES.contains(&lower.as_str())
        && !text.starts_with(['$', '{', '<', '[', '(', '%'])
        && !text.contains('(')
        && !text
            .bytes()
            .all(|b| matches!(b, b'*' | b'.' | b'x' | b'X' | b'-' | b'_'))
}

impl<'a> Scan<'a> {
    /// The value after the sign at `at`, if what stands before it names a secret.
    pub(super) fn secret(&mut self, at: usize) {
        // The second of `==` and `:=`.
        if at > 0 && matches!(self.before(at), Some(b'=' | b':')) {
            return;
        }
        let name = self.name_before(at);
        if sort(name).is_none() {
            return;
        }
        let mut place = at + 1;
        if matches!(self.byte(place), Some(b'=' | b'>')) {
            place += 1;
        }
        let gap_end = place + GAP_BYTES_MAX;
        while place < gap_end && matches!(self.byte(place), Some(b' ' | b'\t')) {
            place += 1;
        }
        let value = self.value(place);
        let bytes = self.bytes.get(value.clone()).unwrap_or_default();
        if is_secret(name, bytes) {
            self.found(value, Kind::Secret);
        }
    }

    /// The word before a sign, quotes and the like left out.
    fn name_before(&self, at: usize) -> &'a str {
        let mut end = at;
        while at - end < GAP_BYTES_MAX
            && matches!(
                self.before(end),
                Some(b' ' | b'"' | b'\'' | b'\\' | b']' | b'`' | b'*')
            )
        {
            end -= 1;
        }
        let head = self.bytes.get(..end).unwrap_or_default();
        let length = head
            .iter()
            .rev()
            .take(NAME_BYTES_MAX)
            .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
            .count();
        self.text.get(end - length..end).unwrap_or_default()
    }

    /// A value in quotes, or up to where one ends that is not.
    fn value(&self, at: usize) -> Range<usize> {
        let rest = self.bytes.get(at..).unwrap_or_default();
        let rest = rest.get(..rest.len().min(VALUE_BYTES_MAX)).unwrap_or(rest);
        let (open, closing): (usize, &[u8]) = match rest {
            [b'\\', b'"', ..] => (2, b"\\\""),
            [b'"', ..] => (1, b"\""),
            [b'\'', ..] => (1, b"'"),
            [b'`', ..] => (1, b"`"),
            _ => (0, b""),
        };
        let inside = rest.get(open..).unwrap_or_default();
        let line = inside.split(|&b| b == b'\n').next().unwrap_or_default();
        let quoted = (open > 0)
            .then(|| {
                line.windows(closing.len())
                    .position(|window| window == closing)
            })
            .flatten();
        let length = quoted.unwrap_or_else(|| {
            let ends = |b: &u8| b.is_ascii_whitespace() || b",;\"'`)]}<>|&\\".contains(b);
            let length = line.iter().position(ends).unwrap_or(line.len());
            let bare = line.get(..length).unwrap_or_default();
            let trailing = bare.iter().rev().take_while(|b| b".:".contains(b)).count();
            length - trailing
        });
        let start = at + open;
        let end = self.text.ceil_char_boundary(start + length);
        self.text.floor_char_boundary(start)..end
    }
}
