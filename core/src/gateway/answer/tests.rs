//! How an answer is passed on and reported, and what the tests of it share.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test picks out the one output it looks for"
)]

mod attempts;
mod money;
mod stopped;

use std::time::Duration;

use super::*;
use crate::billing::ledger::Charge;
use crate::billing::ledger::Loss;
use crate::billing::money::Nanos;
use crate::billing::price::Price;
use crate::billing::tier::Tier;
use crate::dialect::exchange::{Broken, Head};
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
