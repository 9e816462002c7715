//! Private data: a text, as a question and inside of a chat body, is hidden and put back.
//!
//! What comes back is what went out, under every cut. Nothing hidden is left, no token was in the
//! text, a second look finds nothing more than tokens, and whatever a plain search finds of e-mail
//! addresses, card numbers and keys is gone. Memory is bounded by the text's length.

use std::sync::Arc;

use mesh_core::escalation::context::Question;
use mesh_core::ids::RequestId;
use mesh_core::privacy::restore::{Form, Restorer};
use mesh_core::privacy::{Mapping, Mode, Patterns, Policy, hide};
use mesh_core::wire::message::{Chat, DialectName};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::{cuts, memory};

const MEMORY_FIXED: usize = 64 * 1024;
/// A find of three bytes takes a token, two entries of maps and its value twice over.
const MEMORY_PER_BYTE: usize = 400;

/// See the module documentation.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for strict in [false, true] {
        let policy = Policy {
            mode: Mode::On,
            patterns: Patterns::new(strict, Vec::new()).unwrap_or_default(),
        };
        question(&policy, text);
        body(&policy, text);
    }
}

fn question(policy: &Policy, text: &str) {
    let mut request = Question::new(text).into_request(RequestId::from_u128(1));
    let (hidden, used) = memory::used(|| hide(policy, &mut request));
    let allowed = MEMORY_FIXED + MEMORY_PER_BYTE * text.len();
    assert!(used.peak <= allowed, "{used:?} for {} bytes", text.len());
    let mapping = Arc::new(hidden.unwrap_or_default());
    let query = request.query;
    for (token, value) in mapping.iter() {
        assert!(!text.contains(token), "a token that was there before");
        assert!(query.contains(token) && text.contains(value));
    }
    assert!(text.contains('@') || !query.contains("[EMAIL_") || text.contains("[EMAIL_"));
    for obvious in obvious(text) {
        let left = query.split_ascii_whitespace().any(|word| word == obvious);
        assert!(!left, "{obvious:?} is left");
    }
    comes_back(&mapping, &query, text);
}

/// What nobody would argue about, by splitting at white space.
fn obvious(text: &str) -> impl Iterator<Item = &str> {
    text.split_ascii_whitespace().filter(|word| {
        let letters = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
        let mail = word.split_once('@').is_some_and(|(local, domain)| {
            letters(local)
                && local.len() <= 60
                && domain.split_once('.').is_some_and(|(name, top)| {
                    letters(name) && letters(top) && top.len() > 1 && domain.len() < 200
                })
        });
        let key = word.strip_prefix("ghp_").is_some_and(|rest| {
            rest.len() >= 36
                && rest.bytes().all(|b| b.is_ascii_alphanumeric())
                && rest.bytes().any(|b| b.is_ascii_digit())
        });
        mail || key || is_card(word)
    })
}

/// Sixteen digits that begin with a 4, by Luhn's check as one learns it at school.
fn is_card(word: &str) -> bool {
    if word.len() != 16 || !word.starts_with('4') || !word.bytes().all(|b| b.is_ascii_digit()) {
        return false;
    }
    let mut sum = 0;
    for (at, digit) in word.bytes().map(|b| u32::from(b - b'0')).enumerate() {
        let doubled = if at % 2 == 0 { digit * 2 } else { digit };
        sum += doubled / 10 + doubled % 10;
    }
    sum % 10 == 0
}

fn comes_back(mapping: &Arc<Mapping>, hidden: &str, original: &str) {
    cuts::each(hidden.as_bytes(), |pieces| {
        let mut restorer = Restorer::new(Arc::clone(mapping), Form::Text);
        let mut back = String::new();
        // Cuts of bytes are moved to the next character's beginning.
        let (mut at, mut end) = (0, 0);
        for piece in pieces {
            end += piece.len();
            let to = hidden.ceil_char_boundary(end).max(at);
            back.push_str(&restorer.push(hidden[at..to].to_owned()));
            at = to;
        }
        back.push_str(&restorer.finish());
        assert!(back == original, "something else came back");
    });
}

/// The text as a string of a body, and as a body if it is JSON.
fn body(policy: &Policy, text: &str) {
    let wrapped = serde_json::json!({"messages": [{"content": text, "n": 1.5}]}).to_string();
    for json in [wrapped, text.to_owned()] {
        let Ok(raw) = RawValue::from_string(json) else {
            continue;
        };
        // Without the white space around it.
        let json = raw.get().to_owned();
        let mut request = Question::new("").into_request(RequestId::from_u128(1));
        request.chat = Some(Chat {
            dialect: DialectName::Openai,
            body: raw,
        });
        let Ok(mapping) = hide(policy, &mut request) else {
            continue;
        };
        let Some(chat) = request.chat else {
            continue;
        };
        let out = chat.body.get();
        if mapping.is_empty() {
            assert!(out == json, "changed without a reason");
            continue;
        }
        let back = Restorer::whole(&Arc::new(mapping), Form::Json, out.to_owned());
        let value = |text: &str| serde_json::from_str::<Value>(text).ok();
        assert!(value(out).is_some() == value(&json).is_some());
        assert!(value(&back) == value(&json), "another body came back");
    }
}
