//! The device's side of a streamed answer: pieces in any order become text in order.
//!
//! ```text
//!            piece in order            final piece            StreamEnd
//!  Receiving ──────────────▶ Receiving ───────────▶ Complete ──────────▶ Ended
//!      │  piece ahead: waits in a bounded window, then Gap { missing }; rewind() drops what waits
//!      └─ StreamEnd without the final piece ─▶ Incomplete (the text so far stays)
//! ```
//!
//! # Invariants
//!
//! 1. What is released is a prefix of what was sent, each piece once.
//! 2. A repeat with equal content is dropped; a repeat with other content is an error, unless the
//!    piece came to an earlier process, which kept only how many there were.
//! 3. A piece after the final one is an error.
//! 4. What waits for a missing piece never exceeds the window's bounds.
//! 5. After an error the reassembly stays in error; only that too much waited is mended by asking
//!    for all of it again ([`Reassembly::rewind`]).

use std::collections::BTreeMap;
use std::ops::Bound;

use sha2::{Digest, Sha256};

use crate::limits;

/// How a stream of pieces broke its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// A sequence number came again with other content.
    #[error("piece {sequence} came twice with different content")]
    Contradiction {
        /// Which.
        sequence: u64,
    },
    /// A piece after the final one.
    #[error("piece {sequence} came after the final piece {last}")]
    AfterFinal {
        /// Which.
        sequence: u64,
        /// The final one.
        last: u64,
    },
    /// Too much waits for a missing piece.
    #[error("piece {missing} is missing and too much has come after it")]
    WindowFull {
        /// The piece that is missing.
        missing: u64,
    },
    /// `StreamEnd` came, the final piece did not.
    #[error("the answer ended without piece {missing}")]
    Incomplete {
        /// The first piece that is missing.
        missing: u64,
    },
}

/// What a piece led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It, and perhaps pieces that had waited for it, can be taken with [`Reassembly::take`].
    Released,
    /// It was here already.
    Repeat,
    /// It waits for `missing`.
    Gap {
        /// The first piece that is missing.
        missing: u64,
    },
}

/// A part of what was released.
#[derive(Clone, PartialEq, Eq)]
pub enum Released {
    /// Text.
    Text(String),
    /// What text cannot carry, JSON.
    Delta(String),
}

impl std::fmt::Debug for Released {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Delta(json) => write!(f, "Delta({} bytes)", json.len()),
        }
    }
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Reassembly {
    next: u64,
    /// The first piece that `seen` has the digest of.
    first_seen: u64,
    last: Option<u64>,
    /// Digests of what was released, 8 bytes a piece: enough to tell a repeat from a contradiction
    /// without keeping the text.
    seen: Vec<[u8; 8]>,
    waiting: BTreeMap<u64, Piece>,
    waiting_bytes: usize,
    released: String,
    /// What came beside text, and before which byte of `released`.
    deltas: Vec<(usize, String)>,
    error: Option<StreamError>,
}

#[derive(Debug, PartialEq, Eq)]
struct Piece {
    content: String,
    delta: Option<String>,
    is_final: bool,
}

impl Reassembly {
    /// A reassembly that waits for piece 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A reassembly that another process began: what came before `next` is known to have been released,
    /// not what it was.
    #[must_use]
    pub(crate) fn going_on(next: u64, whole: bool) -> Self {
        Self {
            next,
            first_seen: next,
            last: next.checked_sub(1).filter(|_| whole),
            ..Self::default()
        }
    }

    /// Takes a piece.
    ///
    /// # Errors
    ///
    /// [`StreamError`] when the piece breaks a rule; the same error for every piece after it.
    pub fn accept(
        &mut self,
        sequence: u64,
        content: &str,
        is_final: bool,
    ) -> Result<Accepted, StreamError> {
        self.accept_with(sequence, content, None, is_final)
    }

    /// Takes a piece with what its text cannot carry.
    ///
    /// # Errors
    ///
    /// As [`Self::accept`].
    pub(crate) fn accept_with(
        &mut self,
        sequence: u64,
        content: &str,
        delta: Option<&str>,
        is_final: bool,
    ) -> Result<Accepted, StreamError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let result = self.try_accept(sequence, content, delta, is_final);
        self.error = result.err();
        result
    }

    fn try_accept(
        &mut self,
        sequence: u64,
        content: &str,
        delta: Option<&str>,
        is_final: bool,
    ) -> Result<Accepted, StreamError> {
        if let Some(last) = self.last
            && (sequence > last || (is_final && sequence != last))
        {
            return Err(StreamError::AfterFinal { sequence, last });
        }
        if sequence < self.next {
            return self.repeat_of_released(sequence, content, delta, is_final);
        }
        if let Some(waiting) = self.waiting.get(&sequence) {
            return if waiting.content == content
                && waiting.delta.as_deref() == delta
                && waiting.is_final == is_final
            {
                Ok(Accepted::Repeat)
            } else {
                Err(StreamError::Contradiction { sequence })
            };
        }
        if is_final {
            let after = (Bound::Excluded(sequence), Bound::Unbounded);
            if let Some((&later, _)) = self.waiting.range(after).next() {
                return Err(StreamError::AfterFinal {
                    sequence: later,
                    last: sequence,
                });
            }
            self.last = Some(sequence);
        }
        if sequence > self.next {
            return self.wait(sequence, content, delta, is_final);
        }
        self.release(content, delta, is_final);
        while let Some(piece) = self.waiting.remove(&self.next) {
            self.waiting_bytes -= weight(&piece.content, piece.delta.as_deref());
            self.release(&piece.content, piece.delta.as_deref(), piece.is_final);
        }
        Ok(Accepted::Released)
    }

    fn repeat_of_released(
        &self,
        sequence: u64,
        content: &str,
        delta: Option<&str>,
        is_final: bool,
    ) -> Result<Accepted, StreamError> {
        let Some(at) = sequence.checked_sub(self.first_seen) else {
            return Ok(Accepted::Repeat);
        };
        let known = usize::try_from(at).ok().and_then(|at| self.seen.get(at));
        if known == Some(&digest(content, delta, is_final)) {
            Ok(Accepted::Repeat)
        } else {
            Err(StreamError::Contradiction { sequence })
        }
    }

    fn wait(
        &mut self,
        sequence: u64,
        content: &str,
        delta: Option<&str>,
        is_final: bool,
    ) -> Result<Accepted, StreamError> {
        let missing = self.next;
        let bytes = self.waiting_bytes + weight(content, delta);
        if self.waiting.len() >= limits::REASSEMBLY_WINDOW_CHUNKS_MAX
            || bytes > limits::REASSEMBLY_WINDOW_BYTES_MAX
        {
            return Err(StreamError::WindowFull { missing });
        }
        self.waiting_bytes = bytes;
        self.waiting.insert(
            sequence,
            Piece {
                content: content.to_owned(),
                delta: delta.map(str::to_owned),
                is_final,
            },
        );
        Ok(Accepted::Gap { missing })
    }

    fn release(&mut self, content: &str, delta: Option<&str>, is_final: bool) {
        self.seen.push(digest(content, delta, is_final));
        self.released.push_str(content);
        if let Some(delta) = delta {
            self.deltas.push((self.released.len(), delta.to_owned()));
        }
        self.next += 1;
    }

    /// The pieces from the next on will be sent again: those that wait are dropped.
    pub fn rewind(&mut self) {
        if let Some(StreamError::WindowFull { .. }) = self.error {
            self.error = None;
        }
        if self.waiting.keys().next_back().copied() == self.last {
            self.last = None;
        }
        self.waiting.clear();
        self.waiting_bytes = 0;
    }

    /// Text released since the last call, empty when there is none.
    pub fn take(&mut self) -> String {
        self.deltas.clear();
        std::mem::take(&mut self.released)
    }

    /// The same with what came beside text, each at its place.
    pub(crate) fn take_all(&mut self) -> Vec<Released> {
        let deltas = std::mem::take(&mut self.deltas);
        let text = self.take();
        let mut parts = Vec::with_capacity(2 * deltas.len() + 1);
        let mut taken = 0;
        let push = |from: usize, to: usize, parts: &mut Vec<Released>| {
            if let Some(part) = text.get(from..to).filter(|part| !part.is_empty()) {
                parts.push(Released::Text(part.to_owned()));
            }
        };
        for (at, delta) in deltas {
            push(taken, at, &mut parts);
            parts.push(Released::Delta(delta));
            taken = at;
        }
        push(taken, text.len(), &mut parts);
        parts
    }

    /// The first piece that has not come.
    #[must_use]
    pub const fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Whether every piece up to the final one has been released.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.last.is_some_and(|last| self.next > last)
    }

    /// `StreamEnd` has come.
    ///
    /// # Errors
    ///
    /// [`StreamError::Incomplete`] when pieces are missing; an earlier error if there was one.
    pub fn end(&mut self) -> Result<(), StreamError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.is_complete() {
            return Ok(());
        }
        let error = StreamError::Incomplete { missing: self.next };
        self.error = Some(error);
        Err(error)
    }
}

/// What a piece takes of the window.
fn weight(content: &str, delta: Option<&str>) -> usize {
    content.len() + delta.map_or(0, str::len)
}

fn digest(content: &str, delta: Option<&str>, is_final: bool) -> [u8; 8] {
    let mut hash = Sha256::new();
    hash.update([u8::from(is_final), u8::from(delta.is_some())]);
    hash.update((content.len() as u64).to_be_bytes());
    hash.update(content.as_bytes());
    hash.update(delta.unwrap_or_default().as_bytes());
    let full: [u8; 32] = hash.finalize().into();
    let mut short = [0; 8];
    short.copy_from_slice(&full[..8]);
    short
}

#[cfg(test)]
mod tests;
