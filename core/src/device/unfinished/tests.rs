use std::collections::BTreeMap;

use super::*;
use crate::billing::money::Nanos;
use crate::error::ErrorClass;
use crate::escalation::context::Question;
use crate::wire::message::{FinishReason, TokensUsed};

pub(super) const DEVICE: DeviceId = DeviceId::from_u128(7);

fn end(id: RequestId) -> StreamEnd {
    StreamEnd {
        request_id: id,
        tokens_used: TokensUsed::default(),
        cost_cents: 0,
        cost_nanos: Nanos(5),
        base_nanos: Nanos(4),
        model_used: "m".to_owned(),
        finish_reason: FinishReason::Stop,
        latency_ms: 3,
        estimated: false,
        hidden: 0,
        route: crate::device::route::Route::Cloud,
        notice: None,
    }
}

/// A question in the middle of its answer.
fn kept(number: u128) -> Kept {
    let id = RequestId::from_u128(number);
    let values = [("[EMAIL_1]".to_owned(), "ada@example.com".to_owned())];
    Kept {
        id,
        wire_id: id,
        title: "Why is the sky blue?".to_owned(),
        body: u64::MAX,
        sent_at: UnixMillis(1_795_000_000_000),
        request: None,
        asked_anew: false,
        cancelled: false,
        next_sequence: 3,
        whole: false,
        said: vec![
            Said::Reasoning("hm".to_owned()),
            Said::Text("to ada@example.com\u{0}\n\u{1F680}".to_owned()),
        ],
        open: Open::Arguments(2),
        held: "[EMA".to_owned(),
        hidden: Mapping::from(BTreeMap::from(values)),
        end: None,
    }
}

fn asked(number: u128) -> Kept {
    let request = Question::new("Why?").into_request(RequestId::from_u128(number));
    Kept {
        request: Some(Box::new(request)),
        next_sequence: 0,
        said: Vec::new(),
        held: String::new(),
        open: Open::Text,
        ..kept(number)
    }
}

pub(super) fn some() -> Unfinished {
    let mut ended = kept(3);
    ended.end = Some(End::Ended(end(ended.id)));
    let mut failed = kept(4);
    failed.end = Some(End::Failed(Failure::new(ErrorClass::Timeout, "late")));
    let mut anew = kept(5);
    anew.wire_id = RequestId::from_u128(50);
    anew.asked_anew = true;
    Unfinished {
        questions: vec![kept(1), asked(2), ended, failed, anew],
    }
}

/// The same content under a header that fits it.
fn under_header(body: &str, version: u32) -> Vec<u8> {
    let sum = checksum(body.as_bytes());
    let head = format!(
        "{{\"format\":\"synesis-unfinished\",\"version\":{version},\"device\":\"{DEVICE}\",\"sha256\":\"{sum}\"}}\n"
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

#[test]
fn what_is_written_is_read_again() {
    let bytes = some().encode(DEVICE).unwrap();
    assert_eq!(Unfinished::decode(&bytes, DEVICE), Ok(some()));
    assert_eq!(bytes, some().encode(DEVICE).unwrap());
    let nothing = Unfinished::default().encode(DEVICE).unwrap();
    assert!(Unfinished::decode(&nothing, DEVICE).unwrap().is_empty());
}

#[test]
fn a_part_of_a_file_is_none_of_it() {
    let bytes = some().encode(DEVICE).unwrap();
    for length in 0..bytes.len() {
        let cut = Unfinished::decode(&bytes[..length], DEVICE);
        assert_eq!(cut, Err(Unreadable::Damaged), "{length}");
    }
}

#[test]
fn a_flipped_bit_is_noticed() {
    let bytes = some().encode(DEVICE).unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let read = Unfinished::decode(&changed, DEVICE);
        assert!(read.is_err(), "{at}: {read:?}");
    }
}

#[test]
fn a_later_versions_file_and_another_devices_are_called_that() {
    let newer = under_header("{\"what\":\"nobody knows\"}", 9);
    assert_eq!(
        Unfinished::decode(&newer, DEVICE),
        Err(Unreadable::Newer(9))
    );
    let bytes = some().encode(DeviceId::from_u128(8)).unwrap();
    assert_eq!(Unfinished::decode(&bytes, DEVICE), Err(Unreadable::Foreign));
    for foreign in [&b"\n[]"[..], b"{}\n[]", b"\xff\n\xff", b"{\"format\":1}\n"] {
        assert_eq!(
            Unfinished::decode(foreign, DEVICE),
            Err(Unreadable::Damaged)
        );
    }
}

#[test]
fn what_does_not_belong_together_is_not_believed() {
    let refused = |change: &dyn Fn(&mut Kept)| {
        let mut question = asked(1);
        change(&mut question);
        let body = serde_json::to_string(&[question]).unwrap();
        Unfinished::decode(&under_header(&body, VERSION), DEVICE) == Err(Unreadable::Damaged)
    };
    assert!(!refused(&|_| ()));
    assert!(refused(&|kept| kept.wire_id = RequestId::from_u128(9)));
    assert!(refused(&|kept| kept.whole = true));
    assert!(refused(&|kept| kept.said.push(Said::Text("x".to_owned()))));
    assert!(refused(&|kept| {
        if let Some(request) = &mut kept.request {
            request.max_tokens = 0;
        }
    }));
    assert!(refused(&|kept| {
        kept.request = None;
        kept.wire_id = RequestId::from_u128(9);
    }));
}

#[test]
fn nothing_of_it_is_shown() {
    let mut unfinished = some();
    unfinished.questions[1].title = "secret title".to_owned();
    let shown = format!("{unfinished:?}");
    for secret in ["ada@", "sky", "secret", "Why", "[EMA", "rocket"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    for error in [
        Unreadable::Damaged,
        Unreadable::Newer(2),
        Unreadable::Foreign,
    ] {
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn what_was_given_out_is_merged_and_comes_again_in_parts() {
    let mut transcript = Transcript::default();
    let long = "ä".repeat(limits::UNFINISHED_PIECE_BYTES);
    for said in [
        Said::Text("a".to_owned()),
        Said::Text(long.clone()),
        Said::Arguments {
            index: 0,
            json: "{".to_owned(),
        },
        Said::Arguments {
            index: 1,
            json: "{".to_owned(),
        },
        Said::Arguments {
            index: 1,
            json: "}".to_owned(),
        },
    ] {
        transcript.push(said);
    }
    assert_eq!(transcript.parts.len(), 3);
    assert_eq!(transcript.bytes, 1 + long.len() + 3);
    assert_eq!(
        Transcript::of(transcript.parts.clone()).bytes,
        transcript.bytes
    );
    let again: String = transcript.parts[0]
        .events()
        .iter()
        .filter_map(Said::of)
        .map(|said| match said {
            Said::Text(text) => text,
            other @ (Said::Reasoning(_)
            | Said::Signature(_)
            | Said::ToolCall { .. }
            | Said::Arguments { .. }) => panic!("{} bytes", other.bytes()),
        })
        .collect();
    assert_eq!(again, format!("a{long}"));
}

#[test]
fn two_processes_files_are_put_together_and_an_id_counts_once() {
    let mut first = Unfinished {
        questions: vec![kept(1), kept(2)],
    };
    let mut other = kept(2);
    other.next_sequence = 99;
    first.add(Unfinished {
        questions: vec![other, kept(3)],
    });
    let ids: Vec<_> = first.ids().collect();
    assert_eq!(ids, [1, 2, 3].map(RequestId::from_u128));
    assert_eq!(first.questions[1].next_sequence, 3);
}

#[test]
fn a_title_is_one_line_of_the_questions_own_words() {
    let request = Question::new("  Mail\n[EMAIL_1]  now ".to_owned() + &"x".repeat(100));
    let request = request.into_request(RequestId::from_u128(1));
    let title = title(&request, &kept(1).hidden);
    assert!(title.starts_with("Mail ada@example.com now xxx"), "{title}");
    assert_eq!(title.chars().count(), TITLE_CHARS);
}

#[test]
fn the_only_one_goes_on_and_of_several_one_has_to_be_named() {
    let listed = |number: u128| kept(number).listed();
    let id = RequestId::from_u128;
    assert_eq!(choose(None, &[]), Err(NotChosen::Nothing));
    assert_eq!(choose(None, &[listed(1)]), Ok(id(1)));
    let two = [listed(1), listed(2)];
    assert_eq!(choose(None, &two), Err(NotChosen::Several(2)));
    assert_eq!(choose(Some(id(2)), &two), Ok(id(2)));
    assert_eq!(choose(Some(id(3)), &two), Err(NotChosen::Unknown(id(3))));
    assert_eq!(
        listed(1).line(),
        "req_00000000000000000000000000000001  26 bytes so far  Why is the sky blue?"
    );
}
