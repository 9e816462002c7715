//! The name of an order.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::billing::account::Month;
use crate::limits::REFERENCE_BYTES_MAX;

/// Names an order within its account: 1 to [`REFERENCE_BYTES_MAX`] of `A–Z a–z 0–9 . _ : -`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference(String);

/// Why a text is no reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a reference has 1 to {REFERENCE_BYTES_MAX} letters, digits or . _ : -")]
pub struct NotReference;

impl Reference {
    /// Checks a text.
    ///
    /// # Errors
    ///
    /// [`NotReference`].
    pub fn new(text: impl Into<String>) -> Result<Self, NotReference> {
        let text = text.into();
        let fits = (1..=REFERENCE_BYTES_MAX).contains(&text.len());
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        if fits && text.bytes().all(known) {
            Ok(Self(text))
        } else {
            Err(NotReference)
        }
    }

    /// The reference of a month's invoice: `invoice:2026-11`.
    #[must_use]
    pub fn of_invoice(month: Month) -> Self {
        Self(format!("invoice:{month}"))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Reference {
    type Error = NotReference;

    fn try_from(text: String) -> Result<Self, NotReference> {
        Self::new(text)
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.0
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
