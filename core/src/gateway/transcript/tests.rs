use super::*;
use crate::billing::price::Price;
use crate::billing::tier::Tier;
use crate::error::ErrorCode;

const ID: RequestId = RequestId::from_u128(7);

fn charge() -> Charge {
    Charge {
        request: ID,
        body: [1; 32],
        model: "m".to_owned(),
        tokens: TokensUsed {
            prompt: 31,
            completion: 2,
            ..TokensUsed::default()
        },
        price: Price::CLAUDE_SONNET,
        tier: Tier::MANAGED,
        base: Nanos(10_500_000),
        charge: Nanos(10_815_000),
        overage: Nanos::ZERO,
        credits: Vec::new(),
        prepaid: Nanos::ZERO,
        month: None,
        device: None,
        project: None,
        guest: None,
        estimated: true,
    }
}

fn told(journal: &Journal, end: &End) -> (Journal, Message) {
    let transcript = Transcript::new(journal, end).unwrap();
    let kept = Transcript::from_bytes(Bytes::copy_from_slice(transcript.as_bytes()));
    kept.told(ID, &charge()).unwrap()
}

fn journal(pieces: &[&str]) -> Journal {
    let mut journal = Journal::new();
    for piece in pieces {
        journal.push(piece, None, false).unwrap();
    }
    journal
}

#[test]
fn a_streamed_answer_is_told_with_a_final_piece_and_the_money_of_the_ledger() {
    let end = End::Streamed {
        model: "sonnet".to_owned(),
        reason: FinishReason::Length,
        latency_ms: 5,
    };
    let (journal, word) = told(&journal(&["The ", "sky"]), &end);
    assert!(journal.is_complete());
    assert_eq!(journal.pieces(), 3);
    assert_eq!(journal.piece(1).unwrap().content, "sky");
    assert_eq!(journal.piece(2).unwrap().content, "");
    let Message::StreamEnd(end) = word else {
        panic!("{word:?}")
    };
    assert_eq!(
        (
            end.cost_nanos,
            end.base_nanos,
            end.cost_cents,
            end.estimated
        ),
        (Nanos(10_815_000), Nanos(10_500_000), 1, true)
    );
    assert_eq!((end.request_id, end.tokens_used.completion), (ID, 2));
    assert_eq!(
        (end.finish_reason, end.latency_ms),
        (FinishReason::Length, 5)
    );
}

#[test]
fn a_whole_answer_is_told_in_one_message_with_its_body() {
    let body = RawValue::from_string("{\"id\": 1}".to_owned()).unwrap();
    let end = End::Whole {
        content: "The sky\0 is".to_owned(),
        sources: vec!["a.txt".to_owned()],
        model: "sonnet".to_owned(),
        reason: FinishReason::Stop,
        latency_ms: 5,
        body: Some(body),
    };
    let (journal, word) = told(&Journal::new(), &end);
    assert_eq!((journal.pieces(), journal.is_complete()), (0, false));
    let Message::EscalationResponse(whole) = word else {
        panic!("{word:?}")
    };
    assert_eq!(
        (whole.content.as_str(), whole.sources.len()),
        ("The sky\0 is", 1)
    );
    assert_eq!(whole.body.unwrap().get(), "{\"id\": 1}");
    assert_eq!(whole.cost_nanos, Nanos(10_815_000));
}

#[test]
fn one_that_broke_off_is_told_with_its_error_and_the_charge() {
    let error = terms::stayed_away(ID);
    let (journal, word) = told(&journal(&["The "]), &End::Failed(error));
    assert_eq!((journal.pieces(), journal.is_complete()), (1, false));
    let Message::Error(error) = word else {
        panic!("{word:?}")
    };
    assert_eq!(error.code, ErrorCode::Expired);
    assert_eq!(error.details.unwrap()["cost_nanos"], 10_815_000);
}

#[test]
fn what_is_too_large_when_it_is_written_down_is_not_kept() {
    let end = End::Streamed {
        model: String::new(),
        reason: FinishReason::Stop,
        latency_ms: 0,
    };
    // Six bytes for each of these.
    let much = "\u{1}".repeat(8 * 1024 * 1024);
    assert!(Transcript::new(&journal(&[&much]), &end).is_none());
    let fits = "x".repeat(8 * 1024 * 1024);
    assert!(Transcript::new(&journal(&[&fits]), &end).is_some());
}

#[test]
fn what_is_no_transcript_is_not_told() {
    for bytes in [
        &b""[..],
        b"{}",
        b"\xff",
        br#"{"journal":{"text":"","ends":[],"complete":true},"end":{}}"#,
    ] {
        let transcript = Transcript::from_bytes(Bytes::copy_from_slice(bytes));
        assert!(transcript.told(ID, &charge()).is_none());
    }
}
