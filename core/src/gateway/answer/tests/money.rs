//! What is held, written down on the way and charged, also by estimate, and by a store that stays away.

use super::*;

#[test]
fn a_denied_or_unanswered_hold_ends_it_before_anything_is_called() {
    let available = Nanos(5);
    let needed = Nanos(9);
    for (word, code) in [
        (
            Some(Err(Denied::Insufficient { needed, available })),
            ErrorCode::PaymentRequired,
        ),
        (Some(Err(Denied::Conflict)), ErrorCode::Conflict),
        (Some(Err(Denied::InProgress)), ErrorCode::InProgress),
        (None, ErrorCode::Internal),
    ] {
        let mut rig = Rig::new(true);
        rig.tell(Input::Held(word));
        assert_eq!(rig.errors(), [code]);
        assert!(rig.over() && rig.calls() == 0 && rig.releases() == 0);
    }
}

#[test]
fn what_was_used_is_written_down_once_a_second_when_there_is_news_and_the_store_keeps_up() {
    let mut rig = Rig::calling(true);
    rig.head(200, None);
    let checkpoints = |rig: &Rig| -> Vec<u64> {
        let tokens = rig.said.iter().filter_map(|output| match output {
            Output::Checkpoint(tokens) => Some(tokens.completion),
            _ => None,
        });
        tokens.collect()
    };
    rig.piece("12345678");
    rig.pass(Duration::from_millis(999));
    assert!(
        checkpoints(&rig).is_empty(),
        "most answers are over by then"
    );
    rig.pass(Duration::from_millis(1));
    assert_eq!(checkpoints(&rig), [2]);
    rig.piece("1234");
    rig.pass(Duration::from_secs(5));
    assert_eq!(checkpoints(&rig), [2], "the store has not answered");
    rig.tell(Input::Checkpointed(false));
    rig.pass(Duration::from_secs(5));
    assert_eq!(checkpoints(&rig), [2, 3]);
    rig.tell(Input::Checkpointed(false));
    rig.pass(Duration::from_secs(5));
    assert_eq!(
        checkpoints(&rig),
        [2, 3, 3],
        "what was not written is said again"
    );
    rig.tell(Input::Checkpointed(true));
    rig.pass(Duration::from_secs(5));
    assert_eq!(checkpoints(&rig).len(), 3, "no news after that");
    rig.end_with_usage();
    rig.pass(Duration::from_secs(5));
    assert_eq!(checkpoints(&rig).len(), 3);
}

#[test]
fn an_answer_that_was_given_up_for_lost_meanwhile_says_so_and_ends() {
    let mut rig = Rig::calling(true);
    rig.head(200, None);
    rig.piece("12345678");
    rig.end_with_usage();
    assert_eq!(rig.settles().len(), 1);
    let loss = Loss {
        request: rig.answer.request_id(),
        body: [0; 32],
        model: String::new(),
        tokens: TokensUsed::default(),
        price: Price::FREE,
        tier: Tier::MANAGED,
        base: Nanos::ZERO,
        device: None,
    };
    rig.tell(Input::SettleDenied(Denied::Interrupted {
        loss: Box::new(loss),
    }));
    assert_eq!(rig.errors(), [ErrorCode::Interrupted]);
    assert!(rig.over());
}

#[test]
fn a_break_after_the_first_piece_is_charged_by_estimate_and_never_tried_again() {
    let mut rig = Rig::calling(true);
    rig.head(200, None);
    rig.piece("12345678");
    rig.tell(Input::Ended(Err(Broken::Reset)));
    let [(tokens, estimated)] = rig.settles()[..] else {
        panic!()
    };
    // Eight bytes at four a token.
    assert_eq!((tokens.completion, estimated), (2, true));
    assert!(tokens.prompt > 0);
    rig.tell(Input::Settled(Some(settled(tokens))));
    assert_eq!((rig.calls(), rig.text().as_str()), (0, "12345678"));
    let Some(Output::Send(Message::Error(error))) = rig.said.iter().rev().nth(1) else {
        panic!()
    };
    assert_eq!(error.details.as_ref().unwrap()["cost_nanos"], 10_815_000);
}

#[test]
fn an_estimate_stays_within_the_answer_that_was_asked_for() {
    let mut rig = Rig::calling(true);
    rig.head(200, None);
    // 8 000 bytes would be 2 000 tokens; a question that says nothing asks for 1 024.
    rig.piece(&"x".repeat(8000));
    rig.tell(Input::Ended(Err(Broken::Reset)));
    let [(tokens, estimated)] = rig.settles()[..] else {
        panic!()
    };
    assert_eq!((tokens.completion, estimated), (1024, true));
}

#[test]
fn a_broken_answer_is_charged_what_was_counted_or_what_was_written_whichever_is_more() {
    let broken_after = |prompt: u64, completion: u64| {
        let mut rig = Rig::calling(true);
        rig.head(200, None);
        let usage = format!(
            "data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":{prompt},\"completion_tokens\":{completion}}}}}\n\n"
        );
        rig.tell(Input::Body(usage.as_bytes()));
        // 40 bytes make about ten tokens.
        rig.piece(&"x".repeat(40));
        rig.tell(Input::Ended(Err(Broken::Reset)));
        let [(tokens, estimated)] = rig.settles()[..] else {
            panic!()
        };
        assert!(estimated);
        let unknown = rig.answer.call.input_tokens_max.div_ceil(4);
        (tokens.prompt, tokens.completion, unknown)
    };
    let (prompt, completion, _) = broken_after(31, 2);
    assert_eq!((prompt, completion), (31, 10));
    let (prompt, completion, _) = broken_after(1, 12);
    assert_eq!((prompt, completion), (1, 12));
    let (prompt, completion, unknown) = broken_after(0, 2);
    assert_eq!((prompt, completion), (unknown, 10));
    assert!(unknown > 1);

    // What a model thought before it answered is written too, and nothing is tried again after it.
    let mut rig = Rig::calling(true);
    rig.head(200, None);
    for _ in 0..2 {
        let thought = r#"{"choices":[{"index":0,"delta":{"reasoning_content":"12345678"}}]}"#;
        rig.tell(Input::Body(format!("data: {thought}\n\n").as_bytes()));
    }
    rig.tell(Input::Ended(Err(Broken::Reset)));
    assert_eq!((rig.settles()[0].0.completion, rig.calls()), (4, 0));
}

#[test]
fn a_settle_and_a_release_repeat_until_the_store_is_back() {
    let mut rig = Rig::calling(true);
    rig.head(200, None);
    rig.piece("x");
    rig.end_with_usage();
    let mut waited = Duration::ZERO;
    for _ in 0..20 {
        rig.tell(Input::Settled(None));
        let wait = rig.answer.deadline().unwrap() - rig.now.instant;
        assert!(wait >= waited && wait <= limits::SETTLE_RETRY_MAX);
        waited = wait;
        rig.pass_to_deadline();
    }
    assert_eq!(rig.settles().len(), 21);
    rig.tell(Input::Settled(Some(settled(TokensUsed::default()))));
    assert!(rig.over());

    let mut rig = Rig::calling(true);
    rig.tell(Input::Cancelled);
    rig.tell(Input::Released(false));
    rig.pass_to_deadline();
    assert_eq!(rig.releases(), 2);
    rig.tell(Input::Released(true));
    assert!(rig.over());
}
