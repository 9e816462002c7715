//! What belongs to a network or a file system: URLs with credentials and, if strict, addresses and
//! paths.

use std::net::Ipv6Addr;

use super::{Scan, is_word};
use crate::privacy::patterns::Kind;

/// Bytes of user and password in a URL.
const USERINFO_BYTES_MAX: usize = 512;
/// Bytes of an IPv6 address, with an IPv4 one at its end.
const IPV6_BYTES_MAX: usize = 45;

impl Scan<'_> {
    /// `scheme://user:password@host`: hides what stands before the `@`.
    pub(super) fn url(&mut self, at: usize) {
        if !self.starts_with(at, b"://")
            || !self.before(at).is_some_and(|b| b.is_ascii_alphanumeric())
        {
            return;
        }
        let start = at + 3;
        let rest = self.bytes.get(start..).unwrap_or_default();
        let rest = rest
            .get(..rest.len().min(USERINFO_BYTES_MAX))
            .unwrap_or(rest);
        let ends = |b: &u8| b.is_ascii_whitespace() || b"/?#\"'`<>\\".contains(b);
        let authority = rest.iter().position(ends).map_or(rest, |end| &rest[..end]);
        let Some(sign) = authority.iter().rposition(|&b| b == b'@') else {
            return;
        };
        let userinfo = &authority[..sign];
        let password = userinfo.iter().position(|&b| b == b':');
        if password.is_some_and(|colon| colon + 1 < userinfo.len()) {
            self.found(start..start + sign, Kind::UrlCredentials);
        }
    }

    /// Four numbers up to 255 with dots between.
    pub(super) fn ipv4(&mut self, at: usize) {
        if self.before(at) == Some(b'.') {
            return;
        }
        let mut place = at;
        for part in 0..4 {
            let end = self.run(place, |b| b.is_ascii_digit());
            let digits = self.text.get(place..end).unwrap_or_default();
            if digits.len() > 3 || digits.parse::<u8>().is_err() {
                return;
            }
            place = end;
            if part < 3 {
                if self.byte(place) != Some(b'.') {
                    return;
                }
                place += 1;
            }
        }
        let goes_on = self.byte(place) == Some(b'.')
            && self.byte(place + 1).is_some_and(|b| b.is_ascii_digit());
        if self.word_ends(place) && !goes_on {
            self.found(at..place, Kind::Ipv4);
        }
    }

    /// Groups of hexadecimal digits whose first colon is at `at`.
    pub(super) fn ipv6(&mut self, at: usize) {
        let head = self.bytes.get(at.saturating_sub(4)..at).unwrap_or_default();
        let first = head
            .iter()
            .rev()
            .take_while(|b| b.is_ascii_hexdigit())
            .count();
        let start = at - first;
        if self
            .before(start)
            .is_some_and(|b| is_word(b) || b == b':' || b == b'.')
        {
            return;
        }
        let rest = self.bytes.get(start..).unwrap_or_default();
        let rest = rest
            .get(..rest.len().min(IPV6_BYTES_MAX + 1))
            .unwrap_or(rest);
        let is_part = |b: &u8| b.is_ascii_hexdigit() || matches!(b, b':' | b'.');
        let length = rest.iter().take_while(|b| is_part(b)).count();
        let text = self.text.get(start..start + length).unwrap_or_default();
        let text = text.trim_end_matches('.');
        let text = match text.strip_suffix(':') {
            Some(shorter) if !text.ends_with("::") => shorter,
            Some(_) | None => text,
        };
        let end = start + text.len();
        // `::` alone is a word of many languages.
        if text.len() > 3 && text.parse::<Ipv6Addr>().is_ok() && self.word_ends(end) {
            self.found(start..end, Kind::Ipv6);
        }
    }

    /// Two names at least below the root or below a home.
    pub(super) fn unix_path(&mut self, at: usize) {
        let tilde = self.before(at) == Some(b'~');
        let start = if tilde { at - 1 } else { at };
        let begins = self
            .before(start)
            .is_none_or(|b| b.is_ascii_whitespace() || b"\"'`(=[{<>,;|".contains(&b));
        if !begins || start < self.paths_end {
            return;
        }
        let end = self.run(at, |b| {
            is_word(b) || b"/.-+@%~".contains(&b) || !b.is_ascii()
        });
        let path = self.text.get(at..end).unwrap_or_default();
        let path = path.trim_end_matches('.');
        let names = path.split('/').filter(|name| !name.is_empty()).count();
        if !path.starts_with("//") && names >= if tilde { 1 } else { 2 } {
            self.paths_end = end;
            self.found(start..at + path.len(), Kind::UnixPath);
        }
    }

    /// `C:\…`, or `\\server\…`.
    pub(super) fn windows_path(&mut self, at: usize) {
        let drive = at.checked_sub(2).filter(|&start| {
            self.before(at) == Some(b':')
                && self.byte(start).is_some_and(|b| b.is_ascii_alphabetic())
                && self.word_begins(start)
        });
        let share = self.before(at) != Some(b'\\')
            && self.byte(at + 1) == Some(b'\\')
            && self.byte(at + 2).is_some_and(is_word)
            && self.word_begins(at);
        let start = match drive {
            Some(start) => start,
            None if share => at,
            None => return,
        };
        if start < self.paths_end {
            return;
        }
        let end = self.run(at, |b| {
            !b.is_ascii_whitespace() && !b.is_ascii_control() && !b"\"'`<>|?*,;".contains(&b)
        });
        if end > at + 1 {
            self.paths_end = end;
            self.found(start..end, Kind::WindowsPath);
        }
    }
}
