//! A request's private data replaced by tokens, and what each token stands for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::json;
use super::patterns::{Kind, Patterns};
use super::{Mode, Policy, scan};
use crate::limits;
use crate::wire::message::EscalationRequest;

/// What the tokens of one request stand for. Never leaves the device; `Debug` shows how many.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Mapping {
    values: BTreeMap<String, String>,
    token_bytes_max: usize,
}

impl From<BTreeMap<String, String>> for Mapping {
    fn from(values: BTreeMap<String, String>) -> Self {
        let token_bytes_max = values.keys().map(String::len).max().unwrap_or(0);
        Self {
            values,
            token_bytes_max,
        }
    }
}

impl From<Mapping> for BTreeMap<String, String> {
    fn from(mapping: Mapping) -> Self {
        mapping.values
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({} values)", self.values.len())
    }
}

impl Mapping {
    /// Whether nothing was hidden.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// How many different values were hidden.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Each token with what it stands for.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.values.iter();
        pairs.map(|(token, value)| (token.as_str(), value.as_str()))
    }

    /// What a token stands for.
    #[must_use]
    pub fn value(&self, token: &str) -> Option<&str> {
        self.values.get(token).map(String::as_str)
    }

    /// Bytes of the longest token.
    #[must_use]
    pub const fn token_bytes_max(&self) -> usize {
        self.token_bytes_max
    }

    /// Whether a token begins with `text` and goes on after it.
    #[must_use]
    pub(crate) fn begins_token(&self, text: &str) -> bool {
        let from = (Bound::Included(text), Bound::Unbounded);
        let next = self.values.range::<str, _>(from).next();
        next.is_some_and(|(token, _)| token.len() > text.len() && token.starts_with(text))
    }

    fn insert(&mut self, token: String, value: String) {
        self.token_bytes_max = self.token_bytes_max.max(token.len());
        self.values.insert(token, value);
    }

    /// How often each kind is among the tokens, in words: `2 EMAIL, 1 CARD`.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for token in self.values.keys() {
            let label = token.trim_start_matches('[').rsplit_once('_');
            *counts
                .entry(label.map_or("", |(label, _)| label))
                .or_default() += 1;
        }
        let words: Vec<String> = counts
            .into_iter()
            .map(|(label, count)| format!("{count} {label}"))
            .collect();
        words.join(", ")
    }
}

/// Why a request stays on the device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// It has private data, and the policy is to send none.
    #[error(
        "not sent: it has private data ({found}); take it out, or set privacy to `on` to have it replaced by tokens"
    )]
    Private {
        /// How much of what kind.
        found: String,
    },
    /// Its body is not text.
    #[error("not sent: {0}")]
    Unreadable(#[from] json::HalfCharacter),
}

/// Hides what is private in everything of a request that people, files and programs wrote.
///
/// # Errors
///
/// [`NotSent`]; the request is not to be used then.
pub fn hide(policy: &Policy, request: &mut EscalationRequest) -> Result<Mapping, NotSent> {
    if policy.mode == Mode::Off {
        return Ok(Mapping::default());
    }
    let mut redactor = Redactor::new(&policy.patterns);
    each_text(request, |text| redactor.note_tokens(text));
    if let Some(chat) = &request.chat {
        redactor.note_tokens_of_json(chat.body.get())?;
    }
    each_text(request, |text| {
        if let Some(hidden) = redactor.hide(text) {
            *text = hidden;
        }
    });
    if let Some(chat) = &mut request.chat
        && let Some(hidden) = redactor.hide_in_json(chat.body.get())?
        // What is put in is escaped, so the body stays what it was.
        && let Ok(body) = RawValue::from_string(hidden)
    {
        chat.body = body;
    }
    let mapping = redactor.into_mapping();
    if policy.mode == Mode::Block && !mapping.is_empty() {
        let found = mapping.summary();
        return Err(NotSent::Private { found });
    }
    Ok(mapping)
}

/// The same for a client's body that asks no question.
///
/// # Errors
///
/// [`NotSent`]; the body is not to be used then.
pub(crate) fn hide_in_body(policy: &Policy, body: &mut Box<RawValue>) -> Result<(), NotSent> {
    if policy.mode == Mode::Off {
        return Ok(());
    }
    let mut redactor = Redactor::new(&policy.patterns);
    redactor.note_tokens_of_json(body.get())?;
    if let Some(hidden) = redactor.hide_in_json(body.get())? {
        if policy.mode == Mode::Block {
            let found = redactor.into_mapping().summary();
            return Err(NotSent::Private { found });
        }
        // What is put in is escaped, so the body stays what it was.
        if let Ok(hidden) = RawValue::from_string(hidden) {
            *body = hidden;
        }
    }
    Ok(())
}

/// Every text of a request outside of its chat body, in the order in which a conversation grows.
fn each_text(request: &mut EscalationRequest, mut each: impl FnMut(&mut String)) {
    let context = &mut request.context;
    request.system.iter_mut().for_each(&mut each);
    each(&mut context.pathos_framing);
    context.constraints.iter_mut().for_each(&mut each);
    for turn in &mut context.conversation_history {
        each(&mut turn.content);
    }
    for passage in &mut context.local_knowledge {
        each(&mut passage.source);
        each(&mut passage.content);
    }
    each(&mut request.query);
}

/// Hides what is private in texts that belong together: the same value is always the same token.
pub struct Redactor<'a> {
    patterns: &'a Patterns,
    /// Tokens that a person wrote.
    taken: BTreeSet<String>,
    /// The token of each value of a kind.
    tokens: BTreeMap<(String, String), String>,
    numbers: BTreeMap<String, u64>,
    mapping: Mapping,
}

impl fmt::Debug for Redactor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor")
            .field("mapping", &self.mapping)
            .finish_non_exhaustive()
    }
}

impl<'a> Redactor<'a> {
    /// For texts in which no token has been noted yet.
    #[must_use]
    pub fn new(patterns: &'a Patterns) -> Self {
        Self {
            patterns,
            taken: BTreeSet::new(),
            tokens: BTreeMap::new(),
            numbers: BTreeMap::new(),
            mapping: Mapping::default(),
        }
    }

    /// Remembers what looks like a token in a text. To be called with all texts before any is
    /// hidden.
    pub fn note_tokens(&mut self, text: &str) {
        let mut rest = text;
        while let Some(at) = rest.find('[') {
            rest = rest.get(at + 1..).unwrap_or_default();
            let window = rest.get(..rest.floor_char_boundary(limits::PRIVACY_TOKEN_BYTES_MAX));
            let inside = window
                .and_then(|window| window.split_once(']'))
                .map(|(inside, _)| inside);
            if let Some((_, number)) = inside.and_then(|inside| inside.rsplit_once('_'))
                && !number.is_empty()
                && number.bytes().all(|byte| byte.is_ascii_digit())
            {
                let inside = inside.unwrap_or_default();
                self.taken.insert(format!("[{inside}]"));
            }
        }
    }

    /// The same for the strings of a JSON text.
    ///
    /// # Errors
    ///
    /// [`json::HalfCharacter`].
    pub fn note_tokens_of_json(&mut self, json: &str) -> Result<(), json::HalfCharacter> {
        json::rewrite(json, |literal| {
            self.note_tokens(&literal.text);
            None
        })
        .map(|_| ())
    }

    /// A text without what is private in it; `None` when nothing is.
    pub fn hide(&mut self, text: &str) -> Option<String> {
        let finds = self.patterns.find(text);
        if finds.is_empty() {
            return None;
        }
        let mut out = String::with_capacity(text.len());
        let mut copied = 0;
        for find in finds {
            out.push_str(text.get(copied..find.range.start).unwrap_or_default());
            let value = text.get(find.range.clone()).unwrap_or_default();
            out.push_str(&self.token(find.kind, value));
            copied = find.range.end;
        }
        out.push_str(text.get(copied..).unwrap_or_default());
        Some(out)
    }

    /// A JSON text whose strings are without what is private in them; `None` when nothing is.
    ///
    /// # Errors
    ///
    /// [`json::HalfCharacter`].
    pub fn hide_in_json(&mut self, json: &str) -> Result<Option<String>, json::HalfCharacter> {
        json::rewrite(json, |literal| {
            if json::is_media(literal) {
                return None;
            }
            let value = literal.text.as_bytes();
            if literal.of.is_some_and(|name| scan::is_secret(name, value)) {
                return Some(self.token(Kind::Secret, &literal.text));
            }
            self.hide(&literal.text)
        })
    }

    /// What every token stands for.
    #[must_use]
    pub fn into_mapping(self) -> Mapping {
        self.mapping
    }

    fn token(&mut self, kind: Kind, value: &str) -> String {
        let label = self.patterns.label(kind);
        let key = (label.to_owned(), value.to_owned());
        if let Some(token) = self.tokens.get(&key) {
            return token.clone();
        }
        let number = self.numbers.entry(label.to_owned()).or_default();
        let token = loop {
            *number += 1;
            let token = format!("[{label}_{number}]");
            if !self.taken.contains(&token) {
                break token;
            }
        };
        self.mapping.insert(token.clone(), value.to_owned());
        self.tokens.insert(key, token.clone());
        token
    }
}

#[cfg(test)]
mod tests;
