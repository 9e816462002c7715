use proptest::prelude::*;

use super::*;

#[test]
fn pieces_in_order_are_released_at_once_and_the_end_is_clean() {
    let mut stream = Reassembly::new();
    assert_eq!(stream.accept(0, "The ", false), Ok(Accepted::Released));
    assert_eq!(stream.take(), "The ");
    assert_eq!(stream.accept(1, "sky", true), Ok(Accepted::Released));
    assert_eq!(stream.take(), "sky");
    assert!(stream.is_complete());
    assert_eq!(stream.end(), Ok(()));
}

#[test]
fn a_gap_waits_and_is_named() {
    let mut stream = Reassembly::new();
    assert_eq!(
        stream.accept(1, "b", false),
        Ok(Accepted::Gap { missing: 0 })
    );
    assert_eq!(stream.accept(1, "b", false), Ok(Accepted::Repeat));
    assert_eq!(stream.take(), "");
    assert_eq!(stream.accept(0, "a", false), Ok(Accepted::Released));
    assert_eq!(stream.take(), "ab");
    assert_eq!(stream.end(), Err(StreamError::Incomplete { missing: 2 }));
}

#[test]
fn an_equal_repeat_is_dropped_and_a_different_one_is_an_error_for_good() {
    let mut stream = Reassembly::new();
    stream.accept(0, "a", false).unwrap();
    assert_eq!(stream.accept(0, "a", false), Ok(Accepted::Repeat));
    let error = StreamError::Contradiction { sequence: 0 };
    assert_eq!(stream.accept(0, "A", false), Err(error));
    assert_eq!(stream.accept(1, "b", true), Err(error));
    assert_eq!(stream.end(), Err(error));
}

#[test]
fn nothing_comes_after_the_final_piece() {
    let mut stream = Reassembly::new();
    stream.accept(0, "a", true).unwrap();
    let after = StreamError::AfterFinal {
        sequence: 1,
        last: 0,
    };
    assert_eq!(stream.accept(1, "b", false), Err(after));

    let mut stream = Reassembly::new();
    stream.accept(2, "c", false).unwrap();
    let after = StreamError::AfterFinal {
        sequence: 2,
        last: 1,
    };
    assert_eq!(stream.accept(1, "b", true), Err(after));

    let mut stream = Reassembly::new();
    stream.accept(3, "d", true).unwrap();
    let two_finals = StreamError::AfterFinal {
        sequence: 1,
        last: 3,
    };
    assert_eq!(stream.accept(1, "b", true), Err(two_finals));
}

#[test]
fn the_last_number_there_is_can_be_the_final_one() {
    let mut stream = Reassembly::new();
    stream.accept(1, "b", false).unwrap();
    let gap = Accepted::Gap { missing: 0 };
    assert_eq!(stream.accept(u64::MAX, "z", true), Ok(gap));
}

#[test]
fn the_window_is_bounded_in_pieces_and_in_bytes() {
    let mut stream = Reassembly::new();
    for sequence in 1..=256 {
        assert!(stream.accept(sequence, "x", false).is_ok());
    }
    assert_eq!(
        stream.accept(257, "x", false),
        Err(StreamError::WindowFull { missing: 0 })
    );

    let mut stream = Reassembly::new();
    let half = "x".repeat(512 * 1024);
    assert!(stream.accept(1, &half, false).is_ok());
    assert!(stream.accept(2, &half, false).is_ok());
    assert_eq!(
        stream.accept(3, "x", false),
        Err(StreamError::WindowFull { missing: 0 })
    );
}

#[test]
fn what_is_released_makes_room_for_what_waits_next() {
    let mut stream = Reassembly::new();
    let half = "x".repeat(512 * 1024);
    for pair in 0..5 {
        let ahead = stream.accept(2 * pair + 1, &half, false);
        assert_eq!(ahead, Ok(Accepted::Gap { missing: 2 * pair }));
        let fills = stream.accept(2 * pair, "", false);
        assert_eq!(fills, Ok(Accepted::Released));
        assert_eq!(stream.take().len(), 512 * 1024);
    }
}

proptest! {
    #[test]
    fn any_order_with_repeats_gives_the_text_once(
        pieces in prop::collection::vec("[a-zä ]{0,6}", 1..40),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..120),
    ) {
        let last = pieces.len() - 1;
        let mut stream = Reassembly::new();
        let mut text = String::new();
        let picks = order.iter().map(|i| i.index(pieces.len())).chain(0..pieces.len());
        for at in picks {
            let fed = stream.accept(at as u64, &pieces[at], at == last);
            prop_assert!(fed.is_ok());
            text.push_str(&stream.take());
            prop_assert!(pieces.concat().starts_with(&text));
        }
        prop_assert_eq!(stream.end(), Ok(()));
        prop_assert_eq!(text, pieces.concat());
    }
}

/// What may come over a stream.
#[derive(Clone, Debug)]
enum Deed {
    /// The next piece that is missing.
    Next,
    /// A piece of the answer, wherever it belongs, new or again.
    Piece(u64),
    /// Many pieces in a row, from the far end to the near one.
    Burst {
        from: u64,
        count: u64,
        bytes: usize,
    },
    /// A piece that says something else than it did, or should.
    Lie {
        sequence: u64,
        is_final: bool,
    },
    /// The last piece, said to be the last.
    Final,
    End,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        12 => Just(Deed::Next),
        8 => (0u64..40).prop_map(Deed::Piece),
        2 => (0u64..60, 0u64..270, prop_oneof![Just(0usize), 0..9_000usize])
            .prop_map(|(from, count, bytes)| Deed::Burst { from, count, bytes }),
        1 => (0u64..40, any::<bool>())
            .prop_map(|(sequence, is_final)| Deed::Lie { sequence, is_final }),
        1 => Just(Deed::Final),
        1 => Just(Deed::End),
    ];
    prop::collection::vec(deed, 1..40)
}

/// The rules again, for who has room to keep everything: all pieces that were ever taken, in one
/// map, and every answer found by looking through it. Its bounds are written out.
#[derive(Debug, Default)]
struct Keeper {
    kept: BTreeMap<u64, (String, bool)>,
    told: Option<StreamError>,
}

impl Keeper {
    /// How many pieces from the first on there are without a gap.
    fn unbroken(&self) -> u64 {
        let gap = self.kept.keys().zip(0..).find(|(at, count)| *at != count);
        gap.map_or(self.kept.len() as u64, |(_, count)| count)
    }

    fn text(&self) -> String {
        let whole = self.kept.iter().zip(0..);
        let whole = whole.take_while(|((at, _), count)| *at == count);
        whole.map(|((_, (text, _)), _)| text.as_str()).collect()
    }

    fn final_piece(&self) -> Option<u64> {
        let mut finals = self.kept.iter().filter(|(_, (_, is_final))| *is_final);
        finals.next().map(|(&at, _)| at)
    }

    fn take(&mut self, sequence: u64, text: &str, is_final: bool) -> Result<Accepted, StreamError> {
        if let Some(error) = self.told {
            return Err(error);
        }
        let judged = self.judge(sequence, text, is_final);
        match judged {
            Err(error) => self.told = Some(error),
            Ok(Accepted::Repeat) => {}
            Ok(Accepted::Released | Accepted::Gap { .. }) => {
                self.kept.insert(sequence, (text.to_owned(), is_final));
            }
        }
        judged
    }

    fn judge(&self, sequence: u64, text: &str, is_final: bool) -> Result<Accepted, StreamError> {
        let missing = self.unbroken();
        let beyond = |last, at| StreamError::AfterFinal { sequence: at, last };
        match self.final_piece() {
            Some(last) if sequence > last => return Err(beyond(last, sequence)),
            Some(last) if is_final && last != sequence => return Err(beyond(last, sequence)),
            Some(_) | None => {}
        }
        if let Some((known, was_final)) = self.kept.get(&sequence) {
            return if (known.as_str(), *was_final) == (text, is_final) {
                Ok(Accepted::Repeat)
            } else {
                Err(StreamError::Contradiction { sequence })
            };
        }
        if let Some(&later) = self.kept.keys().find(|&&at| at > sequence)
            && is_final
        {
            return Err(beyond(sequence, later));
        }
        if sequence == missing {
            return Ok(Accepted::Released);
        }
        let waiting: Vec<usize> = self
            .kept
            .iter()
            .filter(|&(&at, _)| at > missing)
            .map(|(_, (text, _))| text.len())
            .collect();
        let bytes = waiting.iter().sum::<usize>() + text.len();
        if waiting.len() == 256 || bytes > 1_048_576 {
            Err(StreamError::WindowFull { missing })
        } else {
            Ok(Accepted::Gap { missing })
        }
    }

    fn end(&mut self) -> Result<(), StreamError> {
        let missing = self.unbroken();
        let whole = self.final_piece().is_some_and(|last| last < missing);
        if !whole {
            self.told.get_or_insert(StreamError::Incomplete { missing });
        }
        self.told.map_or(Ok(()), Err)
    }
}

#[derive(Default)]
struct Comparison {
    stream: Reassembly,
    keeper: Keeper,
    text: String,
}

impl Comparison {
    fn piece(&mut self, sequence: u64, text: &str, is_final: bool) {
        let expected = self.keeper.take(sequence, text, is_final);
        assert_eq!(self.stream.accept(sequence, text, is_final), expected);
        self.text.push_str(&self.stream.take());
        // Comparing all of the text after every piece of a burst would take its square.
        assert_eq!(self.stream.next_sequence(), self.keeper.unbroken());
    }

    /// The piece as it was taken, or as an honest sender would make it.
    fn honest(&mut self, sequence: u64) {
        let known = self.keeper.kept.get(&sequence).cloned();
        let (text, is_final) = known.unwrap_or_else(|| (format!("{sequence}, "), false));
        self.piece(sequence, &text, is_final);
    }

    fn deed(&mut self, deed: &Deed) {
        match *deed {
            Deed::Next => self.honest(self.keeper.unbroken()),
            Deed::Piece(sequence) => self.honest(sequence),
            Deed::Burst { from, count, bytes } => {
                for sequence in (from..from + count).rev() {
                    if !self.keeper.kept.contains_key(&sequence) {
                        self.piece(sequence, &"x".repeat(bytes), false);
                    }
                }
            }
            Deed::Lie { sequence, is_final } => self.piece(sequence, "a lie", is_final),
            Deed::Final => {
                let after = self.keeper.kept.keys().last().map_or(0, |at| at + 1);
                self.piece(after, ".", true);
            }
            Deed::End => assert_eq!(self.stream.end(), self.keeper.end()),
        }
        assert_eq!(self.text, self.keeper.text());
        let last = self.keeper.final_piece();
        let whole = last.is_some_and(|last| last < self.keeper.unbroken());
        assert_eq!(self.stream.is_complete(), whole);
    }
}

proptest! {
    #[test]
    fn it_says_and_releases_what_a_keeper_of_everything_would(deeds in deeds()) {
        let mut both = Comparison::default();
        for deed in &deeds {
            both.deed(deed);
        }
    }
}
