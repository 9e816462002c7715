//! What happened, in order: a digest of all of it, the last of it in words, and the whole of it when
//! somebody wants to read it.
//!
//! The digest is taken over every datagram sent (time, ends, bytes) and every note. Two runs of one
//! plan have equal digests, whatever the process, the profile or the machine.

use std::collections::VecDeque;

use crate::queue::Micros;

/// Notes kept for a failure's report.
const LAST_NOTES: usize = 60;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// When, virtual µs.
    pub at: Micros,
    /// To whom: `device 3`, `gateway 1`, `store`.
    pub who: String,
    /// What.
    pub what: String,
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seconds, micros) = (self.at / 1_000_000, self.at % 1_000_000);
        write!(f, "{seconds:>8}.{micros:06} {:<11} {}", self.who, self.what)
    }
}

/// See the module documentation.
#[derive(Debug)]
pub struct Trace {
    lanes: [u64; 2],
    last: VecDeque<Note>,
    whole: Option<Vec<Note>>,
}

impl Trace {
    /// An empty trace that keeps every note if `whole`.
    #[must_use]
    pub fn new(whole: bool) -> Self {
        Self {
            lanes: [0x9E37_79B9_7F4A_7C15, 0xC2B2_AE3D_27D4_EB4F],
            last: VecDeque::new(),
            whole: whole.then(Vec::new),
        }
    }

    /// Mixes eight bytes into both lanes: a multiplication folded, as wyhash does. Not for secrets;
    /// only to tell two histories apart.
    fn mix(&mut self, word: u64) {
        let fold = |state: u64, key: u64| {
            let product = u128::from(state ^ word) * u128::from(key);
            u64::try_from(product & u128::from(u64::MAX)).unwrap_or_default()
                ^ u64::try_from(product >> 64).unwrap_or_default()
        };
        self.lanes = [
            fold(self.lanes[0], 0xA076_1D64_78BD_642F).wrapping_add(word),
            fold(self.lanes[1], 0xE703_7ED1_A0B4_28DB) ^ self.lanes[0].rotate_left(17),
        ];
    }

    fn mix_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
        self.mix(bytes.len() as u64);
    }

    /// A datagram was sent.
    pub fn datagram(&mut self, at: Micros, from: u64, to: u64, bytes: &[u8]) {
        self.mix(at);
        self.mix(from << 32 | to);
        self.mix_bytes(bytes);
    }

    /// Something happened that has words.
    pub fn note(&mut self, at: Micros, who: impl Into<String>, what: impl Into<String>) {
        let (who, what) = (who.into(), what.into());
        self.mix(at);
        self.mix_bytes(who.as_bytes());
        self.mix_bytes(what.as_bytes());
        let note = Note { at, who, what };
        if let Some(whole) = &mut self.whole {
            whole.push(note.clone());
        }
        if self.last.len() == LAST_NOTES {
            self.last.pop_front();
        }
        self.last.push_back(note);
    }

    /// The digest of everything so far.
    #[must_use]
    pub fn digest(&self) -> String {
        format!("{:016x}{:016x}", self.lanes[0], self.lanes[1])
    }

    /// The last notes, oldest first.
    pub fn last(&self) -> impl Iterator<Item = &Note> {
        self.last.iter()
    }

    /// Every note, if they were kept.
    #[must_use]
    pub fn whole(&self) -> &[Note] {
        self.whole.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_difference_shows_in_the_digest() {
        let digest = |at, to, bytes: &[u8]| {
            let mut trace = Trace::new(false);
            trace.datagram(at, 1, to, bytes);
            trace.digest()
        };
        let one = digest(5, 2, b"hello");
        assert_eq!(one, digest(5, 2, b"hello"));
        for other in [
            digest(6, 2, b"hello"),
            digest(5, 3, b"hello"),
            digest(5, 2, b"hellp"),
            digest(5, 2, b"hello\0"),
        ] {
            assert_ne!(one, other);
        }
    }
}
