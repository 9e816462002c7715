use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn mapping(pairs: &[(&str, &str)]) -> Arc<Mapping> {
    let pairs = pairs
        .iter()
        .map(|(t, v)| ((*t).to_owned(), (*v).to_owned()));
    Arc::new(Mapping::from(pairs.collect::<BTreeMap<_, _>>()))
}

fn restored(mapping: &Arc<Mapping>, pieces: &[&str]) -> String {
    let mut restorer = Restorer::new(Arc::clone(mapping), Form::Text);
    let mut out = String::new();
    for piece in pieces {
        out.push_str(&restorer.push((*piece).to_owned()));
    }
    out.push_str(&restorer.finish());
    out
}

#[test]
fn a_token_is_put_back_however_it_is_cut() {
    let mapping = mapping(&[("[EMAIL_1]", "ada@example.com"), ("[EMAIL_10]", "b@c.de")]);
    let text = "To [EMAIL_1] and [EMAIL_10], [EMAIL_2], [[EMAIL_1]]; a[1] [EMAIL_1";
    let expected = "To ada@example.com and b@c.de, [EMAIL_2], [ada@example.com]; a[1] [EMAIL_1";
    for first in 0..=text.len() {
        for second in first..=text.len() {
            let pieces = [&text[..first], &text[first..second], &text[second..]];
            assert_eq!(restored(&mapping, &pieces), expected);
        }
    }
}

#[test]
fn only_the_beginning_of_a_token_is_held_back_and_no_finished_word() {
    let mapping = mapping(&[("[EMAIL_1]", "ada@example.com")]);
    let mut restorer = Restorer::new(mapping, Form::Text);
    let mut push = |piece: &str| restorer.push(piece.to_owned());
    assert_eq!(push("Dear "), "Dear ");
    assert_eq!(push("friend [EMA"), "friend ");
    assert_eq!(push("IL_"), "");
    assert_eq!(push("2] and"), "[EMAIL_2] and");
    assert_eq!(push(" a list [x"), " a list [x");
    assert_eq!(push("[EMAIL_1"), "");
    assert_eq!(push("["), "[EMAIL_1");
    assert_eq!(push("EMAIL_1]!"), "ada@example.com!");
    assert_eq!(push("[E"), "");
    assert_eq!(restorer.finish(), "[E");
    assert_eq!(restorer.finish(), "");
}

#[test]
fn a_value_is_put_in_as_it_is_and_into_json_with_escapes() {
    let values = mapping(&[("[SECRET_1]", "a\"b\\c\n[SECRET_2]"), ("[SECRET_2]", "x")]);
    let text = Restorer::whole(&values, Form::Text, "<[SECRET_1]>".to_owned());
    assert_eq!(text, "<a\"b\\c\n[SECRET_2]>");
    let json = Restorer::whole(&values, Form::Json, "{\"k\":\"[SECRET_1]\"}".to_owned());
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["k"], "a\"b\\c\n[SECRET_2]");
}

#[test]
fn neither_mapping_nor_restorer_prints_a_value() {
    let mapping = mapping(&[("[SECRET_1]", "canary")]);
    let mut restorer = Restorer::new(Arc::clone(&mapping), Form::Text);
    assert_eq!(restorer.push("[SECRET".to_owned()), "");
    let printed = format!("{mapping:?} {restorer:?} {:#?}", restorer);
    assert!(
        !printed.contains("canary") && !printed.contains("SECRET"),
        "{printed}"
    );
}

proptest! {
    #[test]
    fn any_cut_gives_the_whole_with_every_token_replaced(
        parts in prop::collection::vec(prop_oneof![
            Just("[EMAIL_1]"), Just("[EMAIL_11]"), Just("[CARD_1]"), Just("[EMAIL_1"), Just("["),
            Just("]"), Just("é"), Just("word "), Just("[CARD_2]"), Just("[EM"), Just("AIL_1]"),
        ], 0..24),
        cuts in prop::collection::vec(0_usize..200, 0..12),
    ) {
        let mapping = mapping(&[
            ("[EMAIL_1]", "ada@example.com"), ("[EMAIL_11]", "[CARD_1]"), ("[CARD_1]", "4242"),
        ]);
        let text = parts.concat();
        // Replaced from the left, by plain search.
        let mut expected = String::new();
        let mut rest = text.as_str();
        'next: while let Some(c) = rest.chars().next() {
            for (token, value) in mapping.iter() {
                if let Some(after) = rest.strip_prefix(token) {
                    expected.push_str(value);
                    rest = after;
                    continue 'next;
                }
            }
            expected.push(c);
            rest = &rest[c.len_utf8()..];
        }
        let mut cuts: Vec<usize> = cuts.into_iter()
            .map(|cut| text.floor_char_boundary(cut % (text.len() + 1))).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&str> = cuts.windows(2).map(|w| &text[w[0]..w[1]]).collect();
        prop_assert_eq!(restored(&mapping, &pieces), expected);
    }
}
