//! Attempts that fail before the first piece: which are made again, when, and for nothing.

use super::*;

#[test]
fn transient_failures_before_the_first_piece_are_tried_three_times_and_charged_nothing() {
    let mut rig = Rig::calling(true);
    for attempt in 1..=3 {
        rig.head(500, None);
        rig.tell(Input::Ended(Ok(())));
        if attempt < 3 {
            assert_eq!(rig.releases(), 0);
            rig.pass_to_deadline();
        }
    }
    assert_eq!(
        (rig.calls(), rig.releases()),
        (2, 1),
        "the first call was before"
    );
    rig.tell(Input::Released(true));
    assert_eq!(rig.errors(), [ErrorCode::UpstreamError]);
    assert!(rig.settles().is_empty() && rig.over());
}

#[test]
fn the_next_attempts_come_after_a_quarter_and_half_a_second_or_not_past_the_deadline() {
    let mut rig = Rig::calling(true);
    for wait in [250, 500] {
        rig.head(500, None);
        rig.tell(Input::Ended(Ok(())));
        let rests = rig.answer.deadline().unwrap() - rig.now.instant;
        assert_eq!(rests, Duration::from_millis(wait));
        rig.pass_to_deadline();
    }
    // 30 s are allowed to the first piece: an attempt at their end comes too late.
    let mut rig = Rig::calling(true);
    rig.head(429, Some(Duration::from_secs(30)));
    rig.tell(Input::Ended(Ok(())));
    assert_eq!((rig.calls(), rig.releases()), (0, 1));
}

#[test]
fn an_upstream_that_fails_but_does_not_end_is_stopped_before_the_next_attempt() {
    let mut rig = Rig::calling(true);
    rig.head(200, None);
    rig.tell(Input::Body(
        b"data: {\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n\n",
    ));
    assert_eq!(rig.count(|output| matches!(output, Output::Abandon)), 1);
    rig.pass_to_deadline();
    assert_eq!((rig.calls(), rig.releases()), (1, 0));

    let mut rig = Rig::calling(true);
    rig.head(500, None);
    rig.tell(Input::Ended(Ok(())));
    assert_eq!(rig.count(|output| matches!(output, Output::Abandon)), 0);
}

#[test]
fn a_retry_after_is_honoured_and_one_past_the_deadline_fails_at_once() {
    let mut rig = Rig::calling(true);
    rig.head(429, Some(Duration::from_secs(5)));
    rig.tell(Input::Ended(Ok(())));
    let waits = rig.answer.deadline().unwrap() - rig.now.instant;
    assert_eq!(waits, Duration::from_secs(5));
    rig.pass_to_deadline();
    assert_eq!(rig.calls(), 1);
    rig.head(429, Some(Duration::from_secs(60)));
    rig.tell(Input::Ended(Ok(())));
    assert_eq!(rig.releases(), 1);
    rig.tell(Input::Released(true));
    let Some(Output::Send(Message::Error(error))) = rig.said.iter().rev().nth(1) else {
        panic!()
    };
    assert_eq!((error.retryable, error.retry_after_secs), (true, Some(60)));
}

#[test]
fn a_refused_key_is_final_and_tells_the_operator_to_act() {
    let mut rig = Rig::calling(true);
    rig.head(401, None);
    rig.tell(Input::Ended(Ok(())));
    rig.tell(Input::Released(true));
    let Some(Output::Send(Message::Error(error))) = rig.said.iter().rev().nth(1) else {
        panic!()
    };
    assert!(
        !error.retryable && error.message.contains("operator"),
        "{}",
        error.message
    );
}

#[test]
fn an_upstream_that_sends_nothing_is_stopped_at_the_deadline_and_free() {
    let mut rig = Rig::calling(true);
    rig.head(200, None);
    rig.pass(Duration::from_millis(29_999));
    assert_eq!(rig.count(|output| matches!(output, Output::Abandon)), 0);
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.count(|output| matches!(output, Output::Abandon)), 1);
    rig.tell(Input::Released(true));
    assert_eq!(rig.errors(), [ErrorCode::UpstreamTimeout]);
}
