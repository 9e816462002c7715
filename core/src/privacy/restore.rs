//! Tokens in an answer become what they stand for, while the answer streams.
//!
//! ```text
//!   "…write to [EMA" ──▶ "…write to "          (held back: "[EMA", it may become a token)
//!   "IL_1] today"    ──▶ "ada@example.com today"
//! ```
//!
//! # Invariants
//!
//! 1. What is held back is a proper beginning of a token of the mapping, and the shortest such: a
//!    word that is complete is never delayed.
//! 2. All outputs together are the same however the input was cut.
//! 3. What is put in is not read again: a value that looks like a token stays.

use std::fmt;
use std::sync::Arc;

use super::redact::Mapping;

/// How what is put in is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Text,
    /// Inside of a JSON string, with its escapes.
    Json,
}

/// See the module documentation.
#[derive(Clone)]
pub struct Restorer {
    mapping: Arc<Mapping>,
    form: Form,
    held: String,
}

impl fmt::Debug for Restorer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Restorer")
            .field("mapping", &self.mapping)
            .field("held_bytes", &self.held.len())
            .finish_non_exhaustive()
    }
}

impl Restorer {
    /// At the beginning of a text.
    #[must_use]
    pub const fn new(mapping: Arc<Mapping>, form: Form) -> Self {
        Self {
            mapping,
            form,
            held: String::new(),
        }
    }

    /// In the middle of a text, with what was held back of it.
    #[must_use]
    pub(crate) const fn going_on(mapping: Arc<Mapping>, form: Form, held: String) -> Self {
        Self {
            mapping,
            form,
            held,
        }
    }

    /// What is held back because it may become a token.
    #[must_use]
    pub fn held(&self) -> &str {
        &self.held
    }

    /// The next piece, restored as far as it can be told.
    pub fn push(&mut self, piece: String) -> String {
        if self.mapping.is_empty() || (self.held.is_empty() && !piece.contains('[')) {
            return piece;
        }
        let mut text = std::mem::take(&mut self.held);
        text.push_str(&piece);
        let mut out = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(at) = rest.find('[') {
            let (before, from) = rest.split_at(at);
            out.push_str(before);
            // No token has a bracket inside, and none is longer than the mapping's longest.
            let window = from.get(..from.floor_char_boundary(self.mapping.token_bytes_max()));
            let window = window.unwrap_or(from);
            let token = window.find(']').and_then(|end| window.get(..=end));
            match token.and_then(|token| Some((token, self.mapping.value(token)?))) {
                Some((token, value)) => {
                    self.write(value, &mut out);
                    rest = from.get(token.len()..).unwrap_or_default();
                }
                None if self.mapping.begins_token(from) => {
                    self.held = from.to_owned();
                    return out;
                }
                None => {
                    out.push('[');
                    rest = from.get(1..).unwrap_or_default();
                }
            }
        }
        out.push_str(rest);
        out
    }

    /// The text is over: what was held back was no token.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// A whole text at once.
    #[must_use]
    pub fn whole(mapping: &Arc<Mapping>, form: Form, text: String) -> String {
        let mut restorer = Self::new(Arc::clone(mapping), form);
        let mut whole = restorer.push(text);
        whole.push_str(&restorer.finish());
        whole
    }

    fn write(&self, value: &str, out: &mut String) {
        match self.form {
            Form::Text => out.push_str(value),
            Form::Json => out.push_str(&super::json::escaped(value)),
        }
    }
}

#[cfg(test)]
mod tests;
