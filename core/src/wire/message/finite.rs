//! Numbers of single precision as they are read: JSON can write `1e39`, a single cannot hold it, and
//! the infinity it would become cannot be written again.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

pub(super) fn single<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    finite(f32::deserialize(deserializer)?)
}

pub(super) fn optional<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<f32>, D::Error> {
    Option::deserialize(deserializer)?.map(finite).transpose()
}

fn finite<E: Error>(number: f32) -> Result<f32, E> {
    if number.is_finite() {
        Ok(number)
    } else {
        Err(E::custom("a number out of range"))
    }
}
