//! The members of a body, each raw JSON, and the refusal that names one.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A field that is missing, wrong, or cannot be carried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {why}")]
pub struct BadField {
    field: String,
    why: Cow<'static, str>,
}

impl BadField {
    /// A field and what is wrong with it: `must be …`, `cannot be …`.
    pub fn new(field: impl Into<String>, why: impl Into<Cow<'static, str>>) -> Self {
        Self {
            field: field.into(),
            why: why.into(),
        }
    }

    pub(super) fn not_carried(field: impl Into<String>) -> Self {
        Self::new(
            field,
            "cannot be carried to this model's server; leave it out",
        )
    }

    /// The field's name, as clients are told it.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }
}

/// A body's members. `null` counts as absent.
pub struct Fields<'a>(BTreeMap<Cow<'a, str>, &'a RawValue>);

impl std::fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A name that is borrowed where it has no escapes.
#[derive(PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Fields<'a> {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// When it is no JSON object.
    pub fn read(body: &'a str) -> Result<Self, BadField> {
        let members: BTreeMap<Name<'a>, &'a RawValue> = serde_json::from_str(body)
            .map_err(|_| BadField::new("the body", "must be a JSON object"))?;
        let present = members.into_iter().filter(|(_, raw)| raw.get() != "null");
        Ok(Self(present.map(|(name, raw)| (name.0, raw)).collect()))
    }

    /// A member, if it is there.
    ///
    /// # Errors
    ///
    /// When it is of another type.
    pub fn optional<T: Deserialize<'a>>(&self, name: &str) -> Result<Option<T>, BadField> {
        self.0
            .get(name)
            .map(|raw| serde_json::from_str(raw.get()))
            .transpose()
            .map_err(|_| BadField::new(name, "is not of the right type"))
    }

    /// A member that must be there.
    ///
    /// # Errors
    ///
    /// When it is not, or of another type.
    pub fn required<T: Deserialize<'a>>(&self, name: &str) -> Result<T, BadField> {
        self.optional(name)?
            .ok_or_else(|| BadField::new(name, "is required"))
    }

    /// The names of all members.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(AsRef::as_ref)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub(super) fn set(&mut self, name: &'static str, raw: &'a RawValue) {
        self.0.insert(Cow::Borrowed(name), raw);
    }

    pub(super) fn write(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&self.0)
    }
}
