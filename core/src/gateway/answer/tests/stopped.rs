//! Answers that are stopped: by their device, by its staying away, or because they are too much or too slow.

use super::*;

#[test]
fn a_cancel_stops_the_upstream_and_charges_what_was_produced() {
    let mut rig = Rig::calling(true);
    rig.head(200, None);
    rig.piece("12345678");
    rig.tell(Input::Cancelled);
    rig.tell(Input::Cancelled);
    assert_eq!(rig.count(|output| matches!(output, Output::Abandon)), 1);
    assert_eq!(rig.settles().len(), 1);
    rig.tell(Input::Settled(Some(settled(TokensUsed::default()))));
    let Some(Output::Send(Message::StreamEnd(end))) = rig.said.iter().rev().nth(1) else {
        panic!()
    };
    assert_eq!(end.finish_reason, FinishReason::Cancelled);
}

#[test]
fn a_cancel_before_the_first_piece_is_free() {
    for when in 0..2 {
        let mut rig = if when == 0 {
            Rig::new(true)
        } else {
            Rig::calling(true)
        };
        rig.tell(Input::Cancelled);
        if when == 0 {
            assert!(rig.said.is_empty(), "the hold may yet be granted");
            rig.tell(Input::Held(Some(Ok(()))));
            assert_eq!(rig.calls(), 0);
        }
        assert_eq!(rig.releases(), 1);
        rig.tell(Input::Released(true));
        let Some(Output::Send(Message::StreamEnd(end))) = rig.said.iter().rev().nth(1) else {
            panic!()
        };
        assert_eq!(
            (end.cost_nanos, end.finish_reason),
            (Nanos::ZERO, FinishReason::Cancelled)
        );
    }
}

#[test]
fn a_forsaken_answer_is_stopped_charged_by_estimate_and_says_so_and_free_before_the_first_piece() {
    let mut rig = Rig::calling(true);
    rig.head(200, None);
    rig.piece("12345678");
    rig.tell(Input::Forsaken);
    assert_eq!(rig.count(|output| matches!(output, Output::Abandon)), 1);
    let [(tokens, true)] = rig.settles()[..] else {
        panic!("{:?}", rig.said)
    };
    rig.tell(Input::Forsaken);
    rig.tell(Input::Settled(Some(settled(tokens))));
    assert_eq!((rig.errors(), rig.over()), (vec![ErrorCode::Expired], true));
    assert_eq!(rig.settles().len(), 1);

    let mut rig = Rig::calling(true);
    rig.tell(Input::Forsaken);
    rig.tell(Input::Released(true));
    assert_eq!((rig.releases(), rig.settles().len()), (1, 0));
    assert!(rig.over());
}

#[test]
fn what_cannot_be_kept_ends_as_too_large_also_when_the_end_had_come() {
    for late in [false, true] {
        let mut rig = Rig::calling(true);
        rig.head(200, None);
        rig.piece("12345678");
        if late {
            rig.end_with_usage();
        }
        rig.tell(Input::Crowded);
        let stopped = rig.count(|output| matches!(output, Output::Abandon));
        assert_eq!(stopped, usize::from(!late));
        assert_eq!(rig.settles().len(), 1);
        rig.tell(Input::Settled(Some(settled(TokensUsed::default()))));
        assert_eq!(rig.errors(), [ErrorCode::TooLarge]);
    }
}

#[test]
fn an_upstream_that_falls_silent_is_stopped_after_two_minutes_unless_it_is_not_read() {
    let mut rig = Rig::calling(true);
    rig.head(200, None);
    rig.piece("12345678");
    // What was read is not taken yet: the silence is ours.
    rig.now = rig.now.after(Duration::from_secs(200));
    rig.tell(Input::Timeout);
    assert!(rig.settles().is_empty());
    rig.tell(Input::Room(1));
    rig.now = rig.now.after(Duration::from_millis(119_999));
    rig.tell(Input::Timeout);
    assert!(rig.settles().is_empty());
    rig.now = rig.now.after(Duration::from_millis(1));
    rig.tell(Input::Timeout);
    assert_eq!(rig.settles().len(), 1);
    rig.tell(Input::Settled(Some(settled(TokensUsed::default()))));
    assert_eq!(rig.errors(), [ErrorCode::UpstreamTimeout]);
}

#[test]
fn an_answer_that_does_not_end_is_stopped_after_ten_minutes_and_charged() {
    let mut rig = Rig::calling(true);
    rig.head(200, None);
    rig.piece("12345678");
    rig.pass(Duration::from_millis(599_999));
    assert!(rig.settles().is_empty());
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.count(|output| matches!(output, Output::Abandon)), 1);
    let [(tokens, estimated)] = rig.settles()[..] else {
        panic!()
    };
    assert_eq!((tokens.completion, estimated), (2, true));
    rig.tell(Input::Settled(Some(settled(tokens))));
    assert_eq!(rig.errors(), [ErrorCode::UpstreamTimeout]);
}

#[test]
fn an_unstreamed_answer_of_a_mebibyte_passes_and_one_byte_more_is_cut_and_charged() {
    for streamed in [false, true] {
        let mut rig = Rig::calling(streamed);
        rig.head(200, None);
        for _ in 0..26 {
            rig.piece(&"x".repeat(40_000));
        }
        rig.piece(&"x".repeat(8_576));
        assert!(rig.settles().is_empty());
        rig.piece("x");
        if streamed {
            assert_eq!(rig.text().len(), 1_048_577);
            continue;
        }
        assert_eq!(rig.count(|output| matches!(output, Output::Abandon)), 1);
        let completion = rig.settles()[0].0.completion;
        assert_eq!(completion, 1024, "no more than was asked for");
        rig.tell(Input::Settled(Some(settled(TokensUsed::default()))));
        assert_eq!(rig.errors(), [ErrorCode::TooLarge]);
    }
}
