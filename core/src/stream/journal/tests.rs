use proptest::prelude::*;

use super::*;

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

fn texts(journal: &Journal, from: u64) -> Vec<String> {
    let mut reader = Reader::from(from);
    std::iter::from_fn(|| reader.take(journal).map(|piece| piece.content.to_owned())).collect()
}

#[test]
fn a_reader_from_any_piece_gets_the_rest_as_it_was_pushed() {
    let mut journal = Journal::new();
    for text in ["The ", "", "sky ", "is blau-grün."] {
        journal.push(text, None, text.ends_with('.')).unwrap();
    }
    assert_eq!(texts(&journal, 0).concat(), "The sky is blau-grün.");
    assert_eq!(texts(&journal, 2), ["sky ", "is blau-grün."]);
    assert_eq!(texts(&journal, 4), [""; 0]);
    assert_eq!(texts(&journal, u64::MAX), [""; 0]);
    let last = journal.piece(3).unwrap();
    assert!(last.is_final && !journal.piece(2).unwrap().is_final);
    assert_eq!(journal.push("more", None, false), Err(Full));
}

#[test]
fn a_delta_stays_with_its_piece() {
    let mut journal = Journal::new();
    journal.push("a", None, false).unwrap();
    journal.push("", Some(raw("{\"tool\":1}")), false).unwrap();
    assert!(journal.piece(0).unwrap().delta.is_none());
    assert_eq!(
        journal.piece(1).unwrap().delta.unwrap().get(),
        "{\"tool\":1}"
    );
    let shown = format!("{journal:?} {:?}", journal.piece(1));
    assert!(!shown.contains("tool"), "{shown}");
}

#[test]
fn ten_mebibytes_fit_and_a_byte_more_is_refused_whole() {
    let mut journal = Journal::new();
    // 4 bytes of each piece are its place.
    let piece = "x".repeat(1024 * 1024 - 4);
    for _ in 0..10 {
        journal.push(&piece, None, false).unwrap();
    }
    assert_eq!(journal.bytes(), 10_485_760);
    assert_eq!(journal.push("x", None, false), Err(Full));
    assert_eq!(journal.push("", None, false), Err(Full));
    assert_eq!((journal.bytes(), journal.pieces()), (10_485_760, 10));
    assert!(!journal.is_complete());
    assert_eq!(journal.push("", None, true), Ok(()));
    assert!(journal.piece(10).unwrap().is_final);

    // There is no hole: what would fit after something that did not is refused too.
    let mut journal = Journal::new();
    let large = "x".repeat(10 * 1024 * 1024);
    assert_eq!(journal.push(&large, None, false), Err(Full));
    assert_eq!(journal.push("x", None, false), Err(Full));
}

#[test]
fn one_who_acknowledges_is_sent_no_more_than_the_window_and_one_who_does_not_is_not_held_up() {
    let mut journal = Journal::new();
    let piece = "x".repeat(32 * 1024);
    for _ in 0..40 {
        journal.push(&piece, None, false).unwrap();
    }
    let count = |reader: &mut Reader| std::iter::from_fn(|| reader.take(&journal)).count();
    let mut silent = Reader::from(0);
    assert_eq!(count(&mut silent), 40);

    let mut reader = Reader::from(0);
    reader.take(&journal).unwrap();
    reader.acknowledge(0).unwrap();
    // 512 KiB are 16 pieces.
    assert_eq!(count(&mut reader), 16);
    reader.acknowledge(3).unwrap();
    reader.acknowledge(1).unwrap();
    assert_eq!(count(&mut reader), 3);
    let never = NeverSent {
        received_through: 20,
    };
    assert_eq!(reader.acknowledge(20), Err(never));
    reader.acknowledge(19).unwrap();
    assert_eq!(count(&mut reader), 16);
    assert!(reader.acknowledge(u64::MAX).is_err());
}

#[derive(Clone, Debug)]
enum Deed {
    Push(String, bool, bool),
    Attach(u64),
    Take,
    Ack(u64),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => ("[a-zä]{0,9}", any::<bool>(), prop::bool::weighted(0.02))
            .prop_map(|(text, delta, last)| Deed::Push(text, delta, last)),
        1 => (0u64..30).prop_map(Deed::Attach),
        6 => Just(Deed::Take),
        2 => (0u64..30).prop_map(Deed::Ack),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Beside a list of pieces and a position in it.
    #[test]
    fn it_does_what_a_plain_list_does(deeds in prop::collection::vec(deed(), 0..120)) {
        let mut journal = Journal::new();
        let mut list: Vec<(String, bool, bool)> = Vec::new();
        let mut reader = Reader::from(0);
        let mut at: u64 = 0;
        for deed in deeds {
            match deed {
                Deed::Push(text, delta, last) => {
                    let over = list.last().is_some_and(|(_, _, last)| *last);
                    let pushed = journal.push(&text, delta.then(|| raw("1")), last);
                    prop_assert_eq!(pushed.is_err(), over);
                    if !over {
                        list.push((text, delta, last));
                    }
                }
                Deed::Attach(from) => {
                    reader = Reader::from(from);
                    at = from;
                }
                Deed::Take => {
                    let expected = list.get(usize::try_from(at).unwrap());
                    let taken = reader.take(&journal);
                    prop_assert_eq!(taken.is_some(), expected.is_some());
                    if let (Some(piece), Some((text, delta, last))) = (taken, expected) {
                        prop_assert_eq!((piece.sequence, piece.content), (at, text.as_str()));
                        prop_assert_eq!((piece.delta.is_some(), piece.is_final), (*delta, *last));
                        at += 1;
                    }
                }
                Deed::Ack(through) => {
                    prop_assert_eq!(reader.acknowledge(through).is_ok(), through < at);
                }
            }
            prop_assert_eq!(journal.pieces(), list.len() as u64);
            prop_assert_eq!(reader.has_all(&journal), at >= list.len() as u64);
            let text: usize = list.iter().map(|(text, ..)| text.len() + 4).sum();
            let deltas = list.iter().filter(|(_, delta, _)| *delta).count();
            prop_assert_eq!(journal.bytes(), text + deltas * 65);
        }
    }
}

#[test]
fn what_is_no_journal_is_not_read_back() {
    let fine = r#"{"text":"ab\u00e4","ends":[1,1,4],"deltas":{"1":{"tool":1}},"complete":true}"#;
    let read: Journal = serde_json::from_str(fine).unwrap();
    assert_eq!(texts(&read, 0), ["a", "", "b\u{e4}"]);
    assert_eq!(read.piece(1).unwrap().delta.unwrap().get(), r#"{"tool":1}"#);
    assert!(read.is_complete());
    for broken in [
        r#"{"text":"ab","ends":[3],"complete":false}"#,
        r#"{"text":"ab","ends":[2,1],"complete":false}"#,
        r#"{"text":"ab","ends":[1],"complete":false}"#,
        r#"{"text":"\u00e4","ends":[1,2],"complete":false}"#,
        r#"{"text":"a","ends":[1],"deltas":{"1":{}},"complete":false}"#,
        r#"{"text":"","ends":[],"complete":true}"#,
        r#"{"text":"","ends":[]}"#,
        r#"{"ends":[],"complete":false}"#,
        "[]",
        "",
    ] {
        assert!(serde_json::from_str::<Journal>(broken).is_err(), "{broken}");
    }
}

proptest! {
    #[test]
    fn a_journal_that_is_written_down_and_read_back_is_the_same(
        pieces in prop::collection::vec((".{0,6}", prop::option::of(0_u32..9)), 0..20),
        ends: bool,
    ) {
        let mut journal = Journal::new();
        for (text, delta) in &pieces {
            let delta = delta.map(|number| raw(&format!("{{\"n\":{number}}}")));
            journal.push(text, delta, false).unwrap();
        }
        if ends {
            journal.push("", None, true).unwrap();
        }
        let written = serde_json::to_string(&journal).unwrap();
        let read: Journal = serde_json::from_str(&written).unwrap();
        prop_assert_eq!(read.pieces(), journal.pieces());
        prop_assert_eq!(read.bytes(), journal.bytes());
        prop_assert_eq!(read.is_complete(), journal.is_complete());
        for at in 0..journal.pieces() {
            let (one, other) = (read.piece(at).unwrap(), journal.piece(at).unwrap());
            prop_assert_eq!(one.content, other.content);
            prop_assert_eq!(one.delta.map(RawValue::get), other.delta.map(RawValue::get));
            prop_assert_eq!(one.is_final, other.is_final);
        }
    }
}
