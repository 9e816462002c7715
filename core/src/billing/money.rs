//! Nano-dollars.

use serde::{Deserialize, Serialize};

/// Nano-dollars (10⁻⁹ USD).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Nanos(pub i64);
