#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test picks out the one output it looks for"
)]

use std::time::Duration;

use super::*;
use crate::billing::ledger::Charge;
use crate::billing::ledger::Loss;
use crate::billing::money::Nanos;
use crate::billing::price::Price;
use crate::billing::tier::Tier;
use crate::dialect::{self, Target};
use crate::error::ErrorCode;
use crate::escalation::context::Question;
use crate::time::{UnixMillis, origin};

const ID: RequestId = RequestId::from_u128(7);

struct Rig {
    answer: Answer,
    now: Now,
    said: Vec<Output>,
}

impl Rig {
    fn new(stream: bool) -> Self {
        let request = Question::new("Why?")
            .knowledge("a.txt", "text", 1.0)
            .knowledge("a.txt", "more", 1.0);
        let request = request.stream(stream).timeout_secs(30).into_request(ID);
        let target = Target::new(DialectName::Openai, "tiny");
        let call = dialect::build_request(&target, &request).unwrap();
        let now = Now {
            instant: origin(),
            wall: UnixMillis(1_795_000_000_000),
        };
        let answer = Answer::new(now, &request, DialectName::Openai, "p".to_owned(), call);
        let mut rig = Self {
            answer,
            now,
            said: Vec::new(),
        };
        rig.drain();
        assert!(matches!(rig.said[..], [Output::Hold]));
        rig.said.clear();
        rig
    }

    /// Held, and the model called.
    fn calling(stream: bool) -> Self {
        let mut rig = Self::new(stream);
        rig.tell(Input::Held(Some(Ok(()))));
        assert!(matches!(rig.said[..], [Output::Call(_), Output::Credit(_)]));
        rig.said.clear();
        rig
    }

    fn drain(&mut self) {
        while let Some(output) = self.answer.poll_output() {
            self.said.push(output);
        }
    }

    fn tell(&mut self, input: Input<'_>) {
        self.answer.handle_input(self.now, input);
        self.drain();
    }

    fn head(&mut self, status: u16, retry_after: Option<Duration>) {
        let content_type = if status == 200 {
            "text/event-stream"
        } else {
            "application/json"
        };
        self.tell(Input::Head(Head {
            status,
            content_type: Some(content_type.to_owned()),
            retry_after,
        }));
    }

    fn piece(&mut self, text: &str) {
        let event = format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{text:?}}}}}]}}\n\n"
        );
        self.tell(Input::Body(event.as_bytes()));
    }

    fn end_with_usage(&mut self) {
        let events = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
                      data: {\"choices\":[],\"usage\":{\"prompt_tokens\":31,\"completion_tokens\":2}}\n\n\
                      data: [DONE]\n\n";
        self.tell(Input::Body(events.as_bytes()));
        self.tell(Input::Ended(Ok(())));
    }

    fn pass_to_deadline(&mut self) {
        let at = self.answer.deadline().unwrap();
        self.now = self
            .now
            .after(at.saturating_duration_since(self.now.instant));
        self.tell(Input::Timeout);
    }

    /// Lets so much time pass, with every timeout that is due on the way.
    fn pass(&mut self, time: Duration) {
        let end = self.now.after(time);
        while let Some(due) = self.answer.deadline().filter(|due| *due <= end.instant) {
            let wait = due.saturating_duration_since(self.now.instant);
            self.now = self.now.after(wait);
            self.tell(Input::Timeout);
        }
        self.now = end;
    }

    fn settles(&self) -> Vec<(TokensUsed, bool)> {
        let settles = self.said.iter().filter_map(|output| match output {
            Output::Settle { tokens, estimated } => Some((*tokens, *estimated)),
            _ => None,
        });
        settles.collect()
    }

    fn text(&self) -> String {
        let chunks = self.said.iter().filter_map(|output| match output {
            Output::Send(Message::StreamChunk(chunk)) => Some(chunk.content.as_str()),
            _ => None,
        });
        chunks.collect()
    }

    fn errors(&self) -> Vec<ErrorCode> {
        let errors = self.said.iter().filter_map(|output| match output {
            Output::Send(Message::Error(error)) => Some(error.code),
            _ => None,
        });
        errors.collect()
    }

    fn count(&self, wanted: fn(&Output) -> bool) -> usize {
        self.said.iter().filter(|output| wanted(output)).count()
    }

    fn calls(&self) -> usize {
        self.count(|output| matches!(output, Output::Call(_)))
    }

    fn releases(&self) -> usize {
        self.count(|output| matches!(output, Output::Release))
    }

    fn over(&self) -> bool {
        self.count(|output| matches!(output, Output::Over)) == 1
    }
}

fn settled(tokens: TokensUsed) -> Settled {
    let charge = Charge {
        request: ID,
        body: [0; 32],
        model: "m".to_owned(),
        tokens,
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
        estimated: false,
    };
    Settled {
        charge: Box::new(charge),
        alert: None,
    }
}

#[test]
fn a_streamed_answer_is_passed_on_settled_and_then_reported() {
    let mut rig = Rig::calling(true);
    rig.head(200, None);
    rig.piece("The sky");
    rig.piece(" is");
    assert_eq!(rig.text(), "The sky is");
    rig.end_with_usage();
    let counted = TokensUsed {
        prompt: 31,
        completion: 2,
        ..TokensUsed::default()
    };
    assert_eq!(rig.settles(), [(counted, false)]);
    assert!(
        !rig.over(),
        "nothing is reported before the settle is written"
    );
    rig.tell(Input::Settled(Some(settled(counted))));
    let Some(Output::Send(Message::StreamEnd(end))) = rig.said.iter().rev().nth(1) else {
        panic!("{:?}", rig.said)
    };
    assert_eq!(
        (end.cost_nanos, end.base_nanos),
        (Nanos(10_815_000), Nanos(10_500_000))
    );
    assert_eq!((end.finish_reason, end.cost_cents), (FinishReason::Stop, 1));
    let finals =
        |output: &Output| matches!(output, Output::Send(Message::StreamChunk(c)) if c.is_final);
    assert_eq!(rig.count(finals), 1);
    assert!(rig.over());
}

#[test]
fn text_that_comes_together_with_the_end_is_sent_once() {
    let mut rig = Rig::calling(true);
    rig.head(200, None);
    let all = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"blue.\"}}]}\n\n\
               data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
               data: [DONE]\n\n";
    rig.tell(Input::Body(all.as_bytes()));
    assert_eq!(
        rig.text(),
        "blue.",
        "what there is does not wait for the money"
    );
    let (tokens, _) = rig.settles()[0];
    rig.tell(Input::Settled(Some(settled(tokens))));
    assert_eq!(rig.text(), "blue.");
}

#[test]
fn an_unstreamed_answer_comes_whole_with_its_sources_once_each() {
    let mut rig = Rig::calling(false);
    rig.head(200, None);
    rig.piece("The sky");
    rig.piece(" is");
    assert_eq!(rig.text(), "");
    rig.end_with_usage();
    rig.tell(Input::Settled(Some(settled(TokensUsed::default()))));
    let Some(Output::Send(Message::EscalationResponse(answer))) = rig.said.iter().rev().nth(1)
    else {
        panic!("{:?}", rig.said)
    };
    assert_eq!(
        (answer.content.as_str(), answer.sources.as_slice()),
        ("The sky is", &["a.txt".to_owned()][..])
    );
}

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
fn the_text_so_far_of_a_broken_unstreamed_answer_comes_before_its_error() {
    let mut rig = Rig::calling(false);
    rig.head(200, None);
    rig.piece("half");
    rig.tell(Input::Ended(Err(Broken::Reset)));
    rig.tell(Input::Settled(Some(settled(TokensUsed::default()))));
    assert_eq!(rig.text(), "half");
    assert_eq!(rig.errors().len(), 1);
}

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
fn the_upstream_is_read_only_as_far_as_the_device_takes_it() {
    let mut rig = Rig::calling(true);
    rig.head(200, None);
    assert!(!rig.answer.wants_room());
    rig.piece("12345678");
    assert!(rig.answer.wants_room());
    rig.tell(Input::Room(0));
    assert_eq!(rig.count(|output| matches!(output, Output::Credit(_))), 0);
    rig.tell(Input::Room(1));
    assert_eq!(rig.count(|output| matches!(output, Output::Credit(_))), 1);
    assert!(!rig.answer.wants_room());
}

#[test]
fn long_pieces_are_split_between_characters() {
    let mut rig = Rig::calling(true);
    rig.head(200, None);
    let long = "ä".repeat(40_000);
    rig.piece(&long);
    assert_eq!(rig.text(), long);
    let longest = rig.said.iter().filter_map(|output| match output {
        Output::Send(Message::StreamChunk(chunk)) => Some(chunk.content.len()),
        _ => None,
    });
    assert!(longest.max().unwrap() <= limits::CHUNK_TEXT_BYTES_MAX);
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

#[test]
fn its_debug_shows_nothing_of_the_question_or_the_answer() {
    let mut rig = Rig::calling(false);
    rig.head(200, None);
    rig.piece("canary");
    let shown = format!("{:?} {:?}", rig.answer, rig.said);
    assert!(
        !shown.contains("canary") && !shown.contains("Why?"),
        "{shown}"
    );
}
