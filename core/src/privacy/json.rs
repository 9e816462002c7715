//! The strings of a JSON text, found and rewritten in place: what does not change stays byte for
//! byte, numbers and spaces too.

use std::borrow::Cow;
use std::ops::Range;

use crate::limits;

/// A string holds an escape that stands for no character (half of a surrogate pair).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a string of the body holds half a character (a lone surrogate)")]
pub struct HalfCharacter;

/// One string of a JSON text.
#[derive(Debug)]
pub struct Literal<'a> {
    /// Without quotes and escapes.
    pub text: Cow<'a, str>,
    /// Whether it names a member.
    pub is_name: bool,
    /// The name of the member whose value it is, if it is one's whole value; with its escapes.
    pub of: Option<&'a str>,
}

/// Calls `each` with every string of `json`, which is well formed, and puts in what it returns.
/// `None` when nothing was put in.
///
/// # Errors
///
/// [`HalfCharacter`].
pub fn rewrite(
    json: &str,
    mut each: impl FnMut(&Literal<'_>) -> Option<String>,
) -> Result<Option<String>, HalfCharacter> {
    let mut out = String::new();
    let mut copied = 0;
    for token in Tokens::new(json) {
        let literal = Literal {
            text: unescaped(json, &token.inside)?,
            is_name: token.is_name,
            of: token.of.and_then(|of| json.get(of)),
        };
        if let Some(new) = each(&literal) {
            out.push_str(json.get(copied..token.inside.start).unwrap_or_default());
            out.push_str(&escaped(&new));
            copied = token.inside.end;
        }
    }
    if copied == 0 {
        return Ok(None);
    }
    out.push_str(json.get(copied..).unwrap_or_default());
    Ok(Some(out))
}

/// A text as the inside of a JSON string.
#[must_use]
pub fn escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    let end = quoted.len().saturating_sub(1);
    quoted.get(1..end).unwrap_or_default().to_owned()
}

/// A picture, a sound or a file in base64: long, and nothing that a person wrote.
pub(crate) fn is_media(literal: &Literal<'_>) -> bool {
    let base64 = |text: &str| {
        let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
        text.len() >= limits::PRIVACY_MEDIA_BYTES_MIN && text.bytes().all(fine)
    };
    let text: &Cow<'_, str> = &literal.text;
    match text.strip_prefix("data:") {
        Some(url) => url
            .split_once(";base64,")
            .is_some_and(|(kind, data)| kind.len() <= limits::NAME_CHARS_MAX && base64(data)),
        None => literal.of == Some("data") && base64(text),
    }
}

fn unescaped<'a>(json: &'a str, inside: &Range<usize>) -> Result<Cow<'a, str>, HalfCharacter> {
    let raw = json.get(inside.clone()).unwrap_or_default();
    if !raw.contains('\\') {
        return Ok(Cow::Borrowed(raw));
    }
    let quoted = json.get(inside.start - 1..=inside.end).unwrap_or_default();
    serde_json::from_str(quoted)
        .map(Cow::Owned)
        .map_err(|_| HalfCharacter)
}

/// A string's place.
struct Token {
    inside: Range<usize>,
    is_name: bool,
    of: Option<Range<usize>>,
}

/// The strings of a JSON text, in order.
struct Tokens<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The name whose value comes next.
    name: Option<Range<usize>>,
}

impl<'a> Tokens<'a> {
    const fn new(json: &'a str) -> Self {
        Self {
            bytes: json.as_bytes(),
            at: 0,
            name: None,
        }
    }

    /// From behind a quote to the one that ends the string.
    fn string_end(&self, mut at: usize) -> usize {
        while let Some(&byte) = self.bytes.get(at) {
            match byte {
                b'"' => return at,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        self.bytes.len()
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            match byte {
                b'"' => break,
                b' ' | b'\t' | b'\r' | b'\n' | b':' => {}
                // Whatever else stands behind a name is its value, and no string.
                _ => self.name = None,
            }
        }
        let inside = self.at..self.string_end(self.at);
        self.at = inside.end + 1;
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let is_name = rest.trim_ascii_start().first() == Some(&b':');
        let of = self.name.take();
        if is_name {
            self.name = Some(inside.clone());
        }
        Some(Token {
            inside,
            is_name,
            of,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(json: &str) -> Vec<(String, bool, Option<String>)> {
        let mut found = Vec::new();
        let unchanged = rewrite(json, |literal| {
            let of = literal.of.map(str::to_owned);
            found.push((literal.text.clone().into_owned(), literal.is_name, of));
            None
        });
        assert_eq!(unchanged, Ok(None));
        found
    }

    #[test]
    fn every_string_is_found_with_the_name_it_belongs_to() {
        let json = r#" {"a" : "x", "b":[ "y",1,"z"],"c":{"d":null},"e\"":"\u00e9\n"} "#;
        let name = |text: &str| (text.to_owned(), true, None);
        let value = |text: &str, of: Option<&str>| (text.to_owned(), false, of.map(str::to_owned));
        assert_eq!(
            strings(json),
            [
                name("a"),
                value("x", Some("a")),
                name("b"),
                value("y", None),
                value("z", None),
                name("c"),
                name("d"),
                name("e\""),
                value("é\n", Some("e\\\"")),
            ]
        );
    }

    #[test]
    fn what_is_put_in_is_escaped_and_the_rest_stays_byte_for_byte() {
        let json = "{ \"a\":\"1\\u0041\" ,\"b\" : 1.50e2,\"c\":[\"1\"]}";
        let put = rewrite(json, |literal| {
            (literal.text == "1A").then(|| "\"\\\n".to_owned())
        });
        let expected = "{ \"a\":\"\\\"\\\\\\n\" ,\"b\" : 1.50e2,\"c\":[\"1\"]}";
        assert_eq!(put, Ok(Some(expected.to_owned())));
    }

    #[test]
    fn half_a_character_is_refused() {
        assert_eq!(rewrite(r#"["\ud83d\ude00"]"#, |_| None), Ok(None));
        for lone in [r#"["\ud83d"]"#, r#"["\ude00x"]"#] {
            assert_eq!(rewrite(lone, |_| None), Err(HalfCharacter), "{lone}");
        }
    }
}
