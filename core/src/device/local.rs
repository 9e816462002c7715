//! An answer of this device's own model server, as the reader of an answer is given it.
//!
//! ```text
//!   Head, Body …, Ended ──▶ LocalAnswer ──▶ Part …, then Ended or Failed
//!                              └ dialect::exchange
//! ```
//!
//! # Invariants
//!
//! 1. Whatever enters, exactly one of [`Output::Ended`] and [`Output::Failed`] leaves, last.
//! 2. It is charged nothing, and says so.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use super::control::Part;
use super::route::Route;
use crate::billing::money::Nanos;
use crate::dialect::chat::Delta;
use crate::dialect::exchange::{self, Broken, Exchange, Head};
use crate::dialect::failure::{FailureKind, UpstreamFailure};
use crate::dialect::neutral::Piece;
use crate::ids::RequestId;
use crate::limits;
use crate::machine::Machine;
use crate::time::Now;
use crate::wire::message::{DialectName, StreamEnd, TokensUsed};

/// What comes of the local server.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// The response's head.
    Head(&'a Head),
    /// The next bytes of its body.
    Body(&'a [u8]),
    /// Its end.
    Ended(Result<(), Broken>),
    /// [`Machine::poll_timeout`] is due.
    Timeout,
}

/// What leaves.
#[derive(Clone, Debug)]
pub enum Output {
    /// The next of the answer.
    Part(Part),
    /// It is whole. Last.
    Ended(Box<StreamEnd>),
    /// It is not, and there is no more. Last.
    Failed(UpstreamFailure),
}

/// See the module documentation. `Debug` shows nothing of the answer.
pub struct LocalAnswer {
    id: RequestId,
    exchange: Exchange,
    asked: Instant,
    deadline: Instant,
    total: Instant,
    begun: bool,
    over: bool,
    written_bytes: u64,
    model: String,
    outputs: VecDeque<Output>,
}

impl std::fmt::Debug for LocalAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalAnswer")
            .field("id", &self.id)
            .field("begun", &self.begun)
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}

impl LocalAnswer {
    /// A question that was just sent to a server that speaks `dialect`; its first piece may take
    /// `patience`.
    #[must_use]
    pub fn new(now: Now, id: RequestId, dialect: DialectName, patience: Duration) -> Self {
        let total = now.instant + limits::ESCALATION_TOTAL;
        Self {
            id,
            exchange: Exchange::new(dialect),
            asked: now.instant,
            deadline: total.min(now.instant + patience),
            total,
            begun: false,
            over: false,
            written_bytes: 0,
            model: String::new(),
            outputs: VecDeque::new(),
        }
    }

    fn pieces(&mut self, now: Now) {
        while let Some(output) = self.exchange.poll() {
            match output {
                exchange::Output::Piece(piece) => self.piece(now, piece),
                exchange::Output::Finished { reason, usage } => {
                    let latency = now.instant.saturating_duration_since(self.asked);
                    let end = StreamEnd {
                        request_id: self.id,
                        tokens_used: usage.unwrap_or(TokensUsed {
                            completion: self.written_bytes.div_ceil(limits::BYTES_PER_TOKEN),
                            ..TokensUsed::default()
                        }),
                        cost_cents: 0,
                        cost_nanos: Nanos(0),
                        base_nanos: Nanos(0),
                        model_used: std::mem::take(&mut self.model),
                        finish_reason: reason,
                        latency_ms: u64::try_from(latency.as_millis()).unwrap_or(u64::MAX),
                        estimated: usage.is_none(),
                        hidden: 0,
                        route: Route::Local,
                        notice: None,
                    };
                    self.last(Output::Ended(Box::new(end)));
                }
                exchange::Output::Failed(failure) => self.last(Output::Failed(failure)),
            }
        }
    }

    fn piece(&mut self, now: Now, piece: Piece) {
        let part = match piece {
            Piece::Text(text) => {
                self.written_bytes += text.len() as u64;
                Part::Text(text)
            }
            Piece::Delta(delta) => self.delta(delta),
            Piece::Model(name) => {
                self.model = name;
                return;
            }
            Piece::Usage(_) => return,
            Piece::KeepAlive => {
                self.heard(now);
                return;
            }
        };
        self.begun = true;
        self.heard(now);
        if self.written_bytes > limits::WHOLE_ANSWER_BYTES_MAX as u64 {
            return self.last(Output::Failed(FailureKind::TooLarge.into()));
        }
        if !self.over {
            self.outputs.push_back(Output::Part(part));
        }
    }

    fn delta(&mut self, delta: Delta) -> Part {
        self.written_bytes += delta.written_bytes();
        Part::Delta(delta)
    }

    /// A sign of life counts once the answer has begun.
    fn heard(&mut self, now: Now) {
        if self.begun {
            self.deadline = self.total.min(now.instant + limits::UPSTREAM_IDLE);
        }
    }

    fn last(&mut self, output: Output) {
        if !std::mem::replace(&mut self.over, true) {
            self.outputs.push_back(output);
        }
    }
}

impl Machine for LocalAnswer {
    type Input<'a> = Input<'a>;
    type Output = Output;
    type Rejected = Infallible;

    fn handle_input(&mut self, now: Now, input: Input<'_>) -> Result<(), Infallible> {
        if self.over {
            return Ok(());
        }
        match input {
            Input::Head(head) => self.exchange.handle_head(head),
            Input::Body(bytes) => self.exchange.handle_body(bytes),
            Input::Ended(end) => self.exchange.handle_end(end),
            Input::Timeout => {}
        }
        self.pieces(now);
        if now.instant >= self.deadline {
            self.last(Output::Failed(FailureKind::Timeout.into()));
        }
        Ok(())
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let why = match self.begun {
            true => "the next of a local answer",
            false => "the first of a local answer",
        };
        (!self.over).then_some((self.deadline, why))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use super::*;
    use crate::machine::properties;
    use crate::time::{UnixMillis, origin};

    const SERVED: &str = include_str!("../dialect/testdata/openai-stream.sse");

    static ORIGIN: OnceLock<Instant> = OnceLock::new();

    fn at(ms: u64) -> Now {
        Now {
            instant: *ORIGIN.get_or_init(origin) + Duration::from_millis(ms),
            wall: UnixMillis(0),
        }
    }

    fn answer() -> LocalAnswer {
        let id = RequestId::from_u128(1);
        LocalAnswer::new(at(0), id, DialectName::Openai, Duration::from_secs(2))
    }

    fn head(status: u16) -> Head {
        Head {
            status,
            content_type: None,
            retry_after: None,
        }
    }

    fn feed(answer: &mut LocalAnswer, now: Now, input: Input<'_>) -> Vec<Output> {
        let Ok(()) = answer.handle_input(now, input);
        std::iter::from_fn(|| answer.poll_output()).collect()
    }

    struct Played;

    /// `None` is the end of the body.
    type Step = Option<&'static str>;

    impl properties::Subject for Played {
        type Machine = LocalAnswer;
        type Step = Step;

        fn make(&self) -> LocalAnswer {
            let mut answer = answer();
            let Ok(()) = answer.handle_input(at(0), Input::Head(&head(200)));
            answer
        }

        fn apply(&self, answer: &mut LocalAnswer, now: Now, step: &Step) -> Result<(), Infallible> {
            let input = step.map_or(Input::Ended(Ok(())), |text| Input::Body(text.as_bytes()));
            answer.handle_input(now, input)
        }

        fn timeout(&self, answer: &mut LocalAnswer, now: Now) {
            let Ok(()) = answer.handle_input(now, Input::Timeout);
        }

        fn digest(&self, answer: &LocalAnswer) -> String {
            format!("{answer:?} {} {:?}", answer.written_bytes, answer.deadline)
        }
    }

    #[test]
    fn it_is_a_machine_like_the_others() {
        let step = |ms, text| (Duration::from_millis(ms), text);
        let whole = [step(5, Some(SERVED)), step(5, None)];
        let late = [step(3000, Some(SERVED))];
        let broken = [
            step(5, Some("data: {")),
            step(5, None),
            step(5, Some(SERVED)),
        ];
        for script in [&whole[..], &late, &broken] {
            properties::check(&Played, at(0), script);
        }
    }

    #[test]
    fn an_answer_comes_in_pieces_and_ends_uncharged_however_it_is_cut() {
        for length in [1, 7, 4096] {
            let mut answer = answer();
            assert!(feed(&mut answer, at(1), Input::Head(&head(200))).is_empty());
            let mut outputs = Vec::new();
            for part in SERVED.as_bytes().chunks(length) {
                outputs.extend(feed(&mut answer, at(1500), Input::Body(part)));
            }
            let Some(Output::Ended(end)) = outputs.pop() else {
                panic!("no end: {outputs:?}");
            };
            assert_eq!((end.cost_nanos, end.route), (Nanos(0), Route::Local));
            assert_eq!((end.tokens_used.completion, end.estimated), (12, false));
            assert_eq!(end.latency_ms, 1500);
            let text: String = outputs
                .iter()
                .filter_map(|output| match output {
                    Output::Part(Part::Text(text)) => Some(text.as_str()),
                    Output::Part(_) | Output::Ended(_) | Output::Failed(_) => None,
                })
                .collect();
            assert!(text.starts_with(" over"), "{text}");
            assert_eq!(answer.poll_timeout(), None);
            assert!(feed(&mut answer, at(1600), Input::Ended(Ok(()))).is_empty());
        }
    }

    #[test]
    fn a_first_piece_that_does_not_come_in_time_is_a_failure_and_signs_of_life_do_not_count() {
        let mut answer = answer();
        assert!(feed(&mut answer, at(1), Input::Head(&head(200))).is_empty());
        assert!(feed(&mut answer, at(1999), Input::Body(b": keep-alive\n\n")).is_empty());
        assert_eq!(
            answer.poll_timeout().map(|due| due.0),
            Some(at(2000).instant)
        );
        let outputs = feed(&mut answer, at(2000), Input::Timeout);
        assert!(
            matches!(&outputs[..], [Output::Failed(failure)] if failure.kind == FailureKind::Timeout)
        );
    }

    #[test]
    fn silence_after_the_first_piece_has_its_own_limit() {
        let mut answer = answer();
        let piece = b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
        feed(&mut answer, at(1), Input::Head(&head(200)));
        assert_eq!(feed(&mut answer, at(1000), Input::Body(piece)).len(), 1);
        assert!(feed(&mut answer, at(2500), Input::Timeout).is_empty());
        let idle = limits::UPSTREAM_IDLE.as_millis() as u64;
        assert!(feed(&mut answer, at(999 + idle), Input::Body(b": \n\n")).is_empty());
        assert!(feed(&mut answer, at(1000 + idle), Input::Timeout).is_empty());
        let outputs = feed(&mut answer, at(999 + 2 * idle), Input::Timeout);
        assert!(matches!(&outputs[..], [Output::Failed(_)]));
    }

    #[test]
    fn whatever_a_server_says_there_is_one_last_word() {
        for (status, body, kind) in [
            (500, "{}", FailureKind::Server { status: 500 }),
            (404, "no such model", FailureKind::Rejected { status: 404 }),
            (200, "<html>", FailureKind::Truncated),
            (200, "{\"choices\":", FailureKind::Malformed),
            (200, "", FailureKind::Truncated),
        ] {
            let mut answer = answer();
            feed(&mut answer, at(1), Input::Head(&head(status)));
            let mut outputs = feed(&mut answer, at(2), Input::Body(body.as_bytes()));
            outputs.extend(feed(&mut answer, at(3), Input::Ended(Ok(()))));
            assert!(
                matches!(&outputs[..], [Output::Failed(failure)] if failure.kind == kind),
                "{status} {body}: {outputs:?}"
            );
        }
    }

    #[test]
    fn an_answer_without_an_end_is_cut_off_at_the_bound() {
        let mut answer = answer();
        feed(&mut answer, at(1), Input::Head(&head(200)));
        let text = "x".repeat(60_000);
        let piece = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
        let mut seen = 0;
        loop {
            match feed(&mut answer, at(2), Input::Body(piece.as_bytes())).pop() {
                Some(Output::Part(Part::Text(text))) => seen += text.len(),
                Some(Output::Failed(failure)) => {
                    assert_eq!(failure.kind, FailureKind::TooLarge);
                    break;
                }
                Some(Output::Part(_) | Output::Ended(_)) | None => panic!("no piece, no failure"),
            }
        }
        assert!(seen <= limits::WHOLE_ANSWER_BYTES_MAX);
    }
}
