//! Reassembly: pieces of an answer in any order, against a model that keeps everything.

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use mesh_core::stream::reassembly::{Accepted, Reassembly, StreamError};

use crate::{memory, steps};

/// Pieces that may wait for a missing one, and their bytes.
const WAITING_MAX: usize = 256;
const WAITING_BYTES_MAX: usize = 1_048_576;

#[derive(Debug, Arbitrary)]
enum Step {
    /// A piece of few words.
    Piece {
        sequence: u8,
        words: [u8; 2],
        is_final: bool,
    },
    /// The next pieces in order.
    Run {
        pieces: u8,
    },
    /// Pieces after one that is missing.
    Ahead {
        from: u8,
        pieces: u8,
    },
    /// A piece that fills the window: so many times 64 KiB.
    Large {
        sequence: u8,
        size: u8,
    },
    /// A number that no answer reaches.
    Far {
        sequence: u64,
        is_final: bool,
    },
    Take,
    End,
}

#[derive(Default)]
struct Model {
    pieces: BTreeMap<u64, (String, bool)>,
    /// The first number that has not come.
    next: u64,
    /// The final one, if it has come.
    last: Option<u64>,
    taken: usize,
    error: Option<StreamError>,
    /// Of all that was ever handed in.
    bytes: usize,
}

impl Model {
    fn text(&self) -> String {
        let released = self.pieces.range(..self.next);
        released.map(|(_, (text, _))| text.as_str()).collect()
    }

    fn accept(
        &mut self,
        sequence: u64,
        text: &str,
        is_final: bool,
    ) -> Result<Accepted, StreamError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let result = self.judge(sequence, text, is_final);
        self.error = result.err();
        if result.is_ok() {
            self.pieces.insert(sequence, (text.to_owned(), is_final));
            self.last = self.last.or(is_final.then_some(sequence));
            while self.pieces.contains_key(&self.next) {
                self.next += 1;
            }
        }
        result
    }

    fn judge(&self, sequence: u64, text: &str, is_final: bool) -> Result<Accepted, StreamError> {
        let missing = self.next;
        if let Some(last) = self.last
            && (sequence > last || is_final && sequence < last)
        {
            return Err(StreamError::AfterFinal { sequence, last });
        }
        match self.pieces.get(&sequence) {
            Some((known, known_final)) if known == text && *known_final == is_final => {
                return Ok(Accepted::Repeat);
            }
            Some(_) => return Err(StreamError::Contradiction { sequence }),
            None => {}
        }
        if is_final && let Some((later, _)) = self.pieces.range(sequence..).next() {
            return Err(StreamError::AfterFinal {
                sequence: *later,
                last: sequence,
            });
        }
        if sequence == missing {
            return Ok(Accepted::Released);
        }
        let waiting = self.pieces.range(missing..);
        let (count, bytes) = waiting.fold((0, 0), |(count, bytes), (_, (text, _))| {
            (count + 1, bytes + text.len())
        });
        if count + 1 > WAITING_MAX || bytes + text.len() > WAITING_BYTES_MAX {
            return Err(StreamError::WindowFull { missing });
        }
        Ok(Accepted::Gap { missing })
    }

    fn end(&mut self) -> Result<(), StreamError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let missing = self.next;
        if self.last.is_some_and(|last| missing > last) {
            return Ok(());
        }
        self.error = Some(StreamError::Incomplete { missing });
        self.error.map_or(Ok(()), Err)
    }
}

struct Pair {
    real: Reassembly,
    model: Model,
    given: usize,
}

impl Pair {
    fn piece(&mut self, sequence: u64, text: &str, is_final: bool) {
        let expected = self.model.accept(sequence, text, is_final);
        let (found, used) = memory::used(|| self.real.accept(sequence, text, is_final));
        assert_eq!(found, expected, "piece {sequence}, {} bytes", text.len());
        // Its own copy, the answer so far while it grows, and the list of digests while it grows.
        self.model.bytes += text.len();
        self.given += 1;
        assert!(
            used.peak <= 4096 + 4 * self.model.bytes + 64 * self.given,
            "{used:?}"
        );
        assert_eq!(self.real.next_sequence(), self.model.next);
        let complete = self.model.last.is_some_and(|last| self.model.next > last);
        assert_eq!(self.real.is_complete(), complete);
    }

    fn take(&mut self) {
        let text = self.model.text();
        assert!(self.real.take() == text[self.model.taken..], "other text");
        self.model.taken = text.len();
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Piece {
                sequence,
                words,
                is_final,
            } => {
                let text = ["", "a", "ä", " sky"].map(str::to_owned);
                let text = words
                    .map(|word| text[usize::from(word % 4)].as_str())
                    .concat();
                self.piece(u64::from(*sequence), &text, *is_final);
            }
            Step::Run { pieces } => {
                for _ in 0..*pieces {
                    self.piece(self.model.next, "x", false);
                }
            }
            Step::Ahead { from, pieces } => {
                let from = self.model.next + u64::from(*from);
                for sequence in from..from + 2 * u64::from(*pieces) {
                    self.piece(sequence, "y", false);
                }
            }
            Step::Large { sequence, size } => {
                let text = "z".repeat(usize::from(size % 18) * 65_536);
                self.piece(u64::from(*sequence), &text, false);
            }
            Step::Far { sequence, is_final } => self.piece(*sequence, "far", *is_final),
            Step::Take => self.take(),
            Step::End => assert_eq!(self.real.end(), self.model.end()),
        }
    }
}

/// See the module documentation.
pub fn run(data: &[u8]) {
    let Some(((), steps)) = steps::script::<(), Step>(data) else {
        return;
    };
    let mut pair = Pair {
        real: Reassembly::new(),
        model: Model::default(),
        given: 0,
    };
    // Each may be megabytes, and the model is quadratic: a few say everything.
    for step in steps.iter().take(40) {
        pair.step(step);
    }
    pair.take();
    assert_eq!(pair.real.end(), pair.model.end());
}
