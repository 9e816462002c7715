//! Private data stays on the device: found in what goes out, replaced by tokens, put back into what
//! comes in.
//!
//! ```text
//!   request ── patterns ──▶ finds ── redact ──▶ request with [EMAIL_1] …  ──▶ gateway
//!                                      │
//!                                   Mapping (stays here)
//!                                      ▼
//!   answer  ◀── restore (streaming, a token's first part held back) ◀── answer with [EMAIL_1] …
//! ```
//!
//! * [`patterns`]: what counts as private, and where it stands in a text.
//! * [`redact`]: a whole request, ready-made chat bodies included, and its [`Mapping`].
//! * [`restore`]: the way back, piece by piece.
//!
//! # Invariants
//!
//! 1. Of what a pattern finds not a byte is left in the request: finds that overlap are hidden
//!    together.
//! 2. A restored answer is the answer with every token of the mapping replaced, however it was cut.
//! 3. A token that a person wrote is no token: those of a mapping appear nowhere in its request.
//! 4. The same request gives the same tokens, and a longer conversation the same ones for its
//!    beginning (unless a token is written out in what was added).
//! 5. Work is linear in the text. No value of a mapping is in any `Debug` or error.

pub mod json;
pub mod patterns;
pub mod redact;
pub mod restore;

mod scan;
mod validate;

use std::fmt;
use std::str::FromStr;

pub use self::patterns::{BadPattern, Custom, Kind, Patterns};
pub(crate) use self::redact::hide_in_body;
pub use self::redact::{Mapping, NotSent, hide};

/// What to do with private data in what goes out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Replace it by tokens.
    #[default]
    On,
    /// Send nothing that has any.
    Block,
    /// Send it as it is.
    Off,
}

impl Mode {
    /// The mode's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Block => "block",
            Self::Off => "off",
        }
    }
}

/// Not the name of a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("privacy is `on`, `block` or `off`")]
pub struct NotAMode;

impl FromStr for Mode {
    type Err = NotAMode;

    fn from_str(name: &str) -> Result<Self, NotAMode> {
        [Self::On, Self::Block, Self::Off]
            .into_iter()
            .find(|mode| mode.as_str() == name)
            .ok_or(NotAMode)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What counts as private on this device, and what is done with it.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// What is done.
    pub mode: Mode,
    /// What counts.
    pub patterns: Patterns,
}
