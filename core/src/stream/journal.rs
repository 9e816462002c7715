//! The gateway's side of a streamed answer: its pieces, whole until it expires, and how far a reader
//! has come in them.
//!
//! ```text
//!  upstream ─▶ push ─▶ [ 0 | 1 | 2 | … | final ] ─▶ Reader from any piece ─▶ a stream
//!                                                      ▲ acknowledge (flow control; frees nothing)
//! ```
//!
//! # Invariants
//!
//! 1. Pieces never change: a reader from any sequence gets what every other reader got.
//! 2. A journal never holds more than [`limits::JOURNAL_BYTES_MAX`] and an empty final piece; what
//!    does not fit is refused whole, and so is everything after it.
//! 3. Nothing follows the final piece.
//! 4. Written down and read back it is the same, and nothing else is read back.
//! 5. Of a reader that acknowledges, at most [`limits::ANSWER_UNACKED_BYTES_MAX`] and one piece are
//!    under way.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::limits;

/// What a piece costs beyond its text.
const PIECE_OVERHEAD_BYTES: usize = size_of::<u32>();
/// What a piece with a delta costs beyond both.
const DELTA_OVERHEAD_BYTES: usize = 64;

/// The piece does not fit, or the final one was there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal takes no more")]
pub struct Full;

/// A device acknowledged what it was never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("piece {received_through} was acknowledged but never sent")]
pub struct NeverSent {
    /// What it said it had received.
    pub received_through: u64,
}

/// One piece, as it was pushed.
#[derive(Clone, Copy)]
pub struct Piece<'a> {
    /// Its number.
    pub sequence: u64,
    /// Its text.
    pub content: &'a str,
    /// What text cannot carry.
    pub delta: Option<&'a RawValue>,
    /// Whether it is the last.
    pub is_final: bool,
}

impl std::fmt::Debug for Piece<'_> {
    /// Shows nothing of the answer.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Piece")
            .field("sequence", &self.sequence)
            .field("bytes", &self.content.len())
            .field("is_final", &self.is_final)
            .finish_non_exhaustive()
    }
}

/// See the module documentation. Written down it is one text and where its pieces end in it; what is read
/// back has been checked.
#[derive(Default, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Journal {
    /// All texts in a row: a piece costs four bytes beside its own.
    text: String,
    /// Where each piece ends in `text`.
    ends: Vec<u32>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    deltas: BTreeMap<u64, Box<RawValue>>,
    #[serde(skip)]
    delta_bytes: usize,
    complete: bool,
    /// A piece did not fit.
    #[serde(skip)]
    closed: bool,
}

/// A journal as it was written down, by whoever wrote it.
#[derive(Deserialize)]
struct Written {
    text: String,
    ends: Vec<u32>,
    #[serde(default)]
    deltas: BTreeMap<u64, Box<RawValue>>,
    complete: bool,
}

/// What was written down is no journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its pieces do not lie within its text")]
struct NoJournal;

impl TryFrom<Written> for Journal {
    type Error = NoJournal;

    fn try_from(written: Written) -> Result<Self, NoJournal> {
        let mut deltas = written.deltas;
        let mut journal = Self::default();
        let (mut start, last) = (0, written.ends.len().checked_sub(1));
        for (at, &end) in written.ends.iter().enumerate() {
            let end = usize::try_from(end).map_err(|_| NoJournal)?;
            let content = written.text.get(start..end).ok_or(NoJournal)?;
            let delta = deltas.remove(&journal.pieces());
            let is_final = written.complete && Some(at) == last;
            journal
                .push(content, delta, is_final)
                .map_err(|_| NoJournal)?;
            start = end;
        }
        let whole = start == written.text.len() && deltas.is_empty();
        let ended = journal.complete == written.complete;
        (whole && ended).then_some(journal).ok_or(NoJournal)
    }
}

impl std::fmt::Debug for Journal {
    /// Shows nothing of the answer.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("pieces", &self.ends.len())
            .field("bytes", &self.bytes())
            .field("complete", &self.complete)
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// One without pieces.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps the next piece. An empty final one always fits. Once one did not, none does: there are
    /// no holes.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn push(
        &mut self,
        content: &str,
        delta: Option<Box<RawValue>>,
        is_final: bool,
    ) -> Result<(), Full> {
        let more_for_delta = delta
            .as_ref()
            .map_or(0, |delta| delta.get().len() + DELTA_OVERHEAD_BYTES);
        let bytes = self.bytes() + content.len() + PIECE_OVERHEAD_BYTES + more_for_delta;
        let ends = is_final && content.is_empty() && more_for_delta == 0;
        self.closed |= bytes > limits::JOURNAL_BYTES_MAX;
        if self.complete || (self.closed && !ends) {
            return Err(Full);
        }
        let end = u32::try_from(self.text.len() + content.len()).map_err(|_| Full)?;
        if let Some(delta) = delta {
            self.deltas.insert(self.pieces(), delta);
        }
        self.delta_bytes += more_for_delta;
        self.text.push_str(content);
        self.ends.push(end);
        self.complete = is_final;
        Ok(())
    }

    /// How many pieces there are: the number of the next.
    #[must_use]
    pub const fn pieces(&self) -> u64 {
        self.ends.len() as u64
    }

    /// Whether the final piece is there.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// What it holds. (The memory behind it may be up to twice as much while it grows.)
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.text.len() + self.ends.len() * PIECE_OVERHEAD_BYTES + self.delta_bytes
    }

    /// A piece by its number.
    #[must_use]
    pub fn piece(&self, sequence: u64) -> Option<Piece<'_>> {
        let at = usize::try_from(sequence).ok()?;
        let end = *self.ends.get(at)?;
        let content = self.text.get(self.start_of(at)..end as usize)?;
        Some(Piece {
            sequence,
            content,
            delta: self.deltas.get(&sequence).map(AsRef::as_ref),
            is_final: self.complete && at + 1 == self.ends.len(),
        })
    }

    fn start_of(&self, piece: usize) -> usize {
        let before = piece.checked_sub(1).and_then(|at| self.ends.get(at));
        before.map_or(0, |&end| end as usize)
    }

    /// Bytes of text from one piece to before another.
    fn text_between(&self, from: u64, to: u64) -> usize {
        let start = |piece: u64| {
            let piece = usize::try_from(piece).unwrap_or(usize::MAX);
            self.start_of(piece.min(self.ends.len()))
        };
        start(to).saturating_sub(start(from))
    }
}

/// How far one stream has come in a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    next: u64,
    /// The first piece not acknowledged, once the device has shown that it acknowledges.
    unacked: Option<u64>,
}

impl Reader {
    /// One that begins at a piece.
    #[must_use]
    pub const fn from(sequence: u64) -> Self {
        Self {
            next: sequence,
            unacked: None,
        }
    }

    /// The next piece to send, or `None` when there is none now or too much is under way.
    pub fn take<'j>(&mut self, journal: &'j Journal) -> Option<Piece<'j>> {
        let under_way = self
            .unacked
            .map_or(0, |unacked| journal.text_between(unacked, self.next));
        if under_way >= limits::ANSWER_UNACKED_BYTES_MAX {
            return None;
        }
        let piece = journal.piece(self.next)?;
        self.next += 1;
        Some(piece)
    }

    /// The first piece that has not been sent.
    #[must_use]
    pub const fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Whether every piece there is has been sent.
    #[must_use]
    pub(crate) const fn has_all(&self, journal: &Journal) -> bool {
        self.next >= journal.pieces()
    }

    /// The device has everything up to and with this piece. Late and repeated words are harmless.
    ///
    /// # Errors
    ///
    /// [`NeverSent`] when it cannot have.
    pub fn acknowledge(&mut self, received_through: u64) -> Result<(), NeverSent> {
        if received_through >= self.next {
            return Err(NeverSent { received_through });
        }
        self.unacked = self.unacked.max(Some(received_through + 1));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
