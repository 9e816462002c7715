//! Real captures, however they are cut, and what the tests of an exchange share.

mod failing;
mod tools;
mod usage;

use proptest::prelude::*;

use super::*;
use crate::dialect::chat::Delta;

const OPENAI_STREAM: &[u8] = include_bytes!("../testdata/openai-stream.sse");
const OPENAI_WHOLE: &[u8] = include_bytes!("../testdata/openai-response.json");
const ANTHROPIC_STREAM: &[u8] = include_bytes!("../testdata/anthropic-stream.sse");
const ANTHROPIC_WHOLE: &[u8] = include_bytes!("../testdata/anthropic-response.json");

/// What came of an exchange, with the pieces of text joined.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    model: String,
    text: String,
    reasoning: String,
    signature: String,
    calls: Vec<(u32, String, String)>,
    keep_alives: usize,
    terminal: Option<Output>,
}

impl Seen {
    fn drain(&mut self, exchange: &mut Exchange) {
        while let Some(output) = exchange.poll() {
            assert_eq!(self.terminal, None, "nothing follows the terminal output");
            match output {
                Output::Piece(Piece::Model(name)) => self.model = name,
                Output::Piece(Piece::Text(text)) => self.text.push_str(&text),
                Output::Piece(Piece::Delta(delta)) => self.delta(delta),
                Output::Piece(Piece::KeepAlive) => self.keep_alives += 1,
                Output::Piece(Piece::Usage(_)) => {}
                terminal @ (Output::Finished { .. } | Output::Failed(_)) => {
                    self.terminal = Some(terminal);
                }
            }
        }
    }

    fn delta(&mut self, delta: Delta) {
        match delta {
            Delta::Reasoning(text) => self.reasoning.push_str(&text),
            Delta::Signature(text) => self.signature.push_str(&text),
            Delta::ToolCall { index, id, name } => {
                self.calls
                    .push((index, format!("{id} {name}"), String::new()));
            }
            Delta::Arguments { index, json } => self.calls[index as usize].2.push_str(&json),
        }
    }

    fn failure(&self) -> FailureKind {
        match &self.terminal {
            Some(Output::Failed(failure)) => failure.kind,
            other => panic!("{other:?}"),
        }
    }
}

fn head(status: u16, content_type: &str) -> Head {
    Head {
        status,
        content_type: Some(content_type.to_owned()),
        retry_after: Some(Duration::from_secs(3)),
    }
}

fn run(dialect: DialectName, head: &Head, pieces: &[&[u8]], end: Result<(), Broken>) -> Seen {
    let mut exchange = Exchange::new(dialect);
    let mut seen = Seen::default();
    exchange.handle_head(head);
    for piece in pieces {
        exchange.handle_body(piece);
        seen.drain(&mut exchange);
    }
    exchange.handle_end(end);
    seen.drain(&mut exchange);
    assert!(seen.terminal.is_some() && exchange.is_done());
    seen
}

fn stream(dialect: DialectName, body: &str) -> Seen {
    run(
        dialect,
        &head(200, "text/event-stream"),
        &[body.as_bytes()],
        Ok(()),
    )
}

fn as_events(data: &[&str]) -> String {
    let event = |data: &&str| format!("data: {}\n\n", data.replace('\n', "\ndata: "));
    data.iter().map(event).collect()
}

fn openai(events: &[&str]) -> Seen {
    stream(DialectName::Openai, &as_events(events))
}

fn anthropic(events: &[&str]) -> Seen {
    stream(DialectName::Anthropic, &as_events(events))
}

fn finished(reason: FinishReason, prompt: u64, completion: u64, cache_read: u64) -> Output {
    let usage = Some(TokensUsed {
        prompt,
        completion,
        cache_read,
        ..TokensUsed::default()
    });
    Output::Finished { reason, usage }
}

// The expected texts and counts are read off the captures of a real server by hand.
#[test]
fn real_streams_of_both_formats_give_their_text_and_usage() {
    let seen = run(
        DialectName::Openai,
        &head(200, "text/event-stream"),
        &[OPENAI_STREAM],
        Ok(()),
    );
    assert_eq!(seen.model, "tiny");
    assert_eq!(
        seen.text,
        " over mean end help help help help help help help help help"
    );
    assert_eq!(
        seen.terminal,
        Some(finished(FinishReason::Length, 51, 12, 0))
    );

    let seen = run(
        DialectName::Anthropic,
        &head(200, "text/event-stream"),
        &[ANTHROPIC_STREAM],
        Ok(()),
    );
    assert_eq!(seen.model, "tiny");
    assert_eq!(
        seen.text,
        " over does before long air each a give add line get will"
    );
    assert_eq!(
        seen.terminal,
        Some(finished(FinishReason::Length, 51, 12, 50))
    );
}

#[test]
fn real_whole_answers_of_both_formats_give_their_text_and_usage() {
    let json = head(200, "application/json; charset=utf-8");
    let seen = run(DialectName::Openai, &json, &[OPENAI_WHOLE], Ok(()));
    assert_eq!(
        seen.text,
        " over many who him by what she his she his who each"
    );
    assert_eq!(
        seen.terminal,
        Some(finished(FinishReason::Length, 31, 12, 0))
    );

    let seen = run(DialectName::Anthropic, &json, &[ANTHROPIC_WHOLE], Ok(()));
    assert_eq!(
        seen.text,
        " over does would know first which say over does before every or"
    );
    assert_eq!(
        seen.terminal,
        Some(finished(FinishReason::Length, 31, 12, 30))
    );
}

#[test]
fn keep_alives_show_that_the_server_lives_and_are_no_text() {
    let mut exchange = Exchange::new(DialectName::Openai);
    exchange.handle_head(&head(200, "text/event-stream"));
    exchange.handle_body(b": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n");
    assert_eq!(exchange.poll(), Some(Output::Piece(Piece::KeepAlive)));
    assert_eq!(exchange.poll(), None);
    let mut exchange = Exchange::new(DialectName::Anthropic);
    exchange.handle_head(&head(200, "text/event-stream"));
    exchange.handle_body(b"event: ping\ndata: {\"type\": \"ping\"}\n\n");
    assert_eq!(exchange.poll(), Some(Output::Piece(Piece::KeepAlive)));
}

fn cut(bytes: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2)
        .map(|w| bytes[w[0]..w[1]].to_vec())
        .collect()
}

proptest! {
    #[test]
    fn any_cut_of_the_captures_gives_the_same_answer(
        cuts in prop::collection::vec(0_usize..10_000, 0..20),
        crlf in any::<bool>(),
    ) {
        for (dialect, body) in [
            (DialectName::Openai, OPENAI_STREAM), (DialectName::Openai, OPENAI_WHOLE),
            (DialectName::Anthropic, ANTHROPIC_STREAM), (DialectName::Anthropic, ANTHROPIC_WHOLE),
        ] {
            let body = String::from_utf8_lossy(body).replace(" over", " \u{1F600}v\u{e9}r");
            let body = if crlf { body.replace('\n', "\r\n") } else { body };
            let head = head(200, "");
            let whole = run(dialect, &head, &[body.as_bytes()], Ok(()));
            let pieces = cut(body.as_bytes(), &cuts);
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(&run(dialect, &head, &pieces, Ok(())), &whole);
            let finished = matches!(whole.terminal, Some(Output::Finished { .. }));
            prop_assert!(finished);
        }
    }

    #[test]
    fn hostile_bytes_give_exactly_one_terminal_and_no_panic(
        body in prop::collection::vec(prop_oneof![
            Just(b"data: ".to_vec()), Just(b"\n\n".to_vec()), Just(b"{\"choices\":[".to_vec()),
            Just(b"{\"type\":\"message_start\",\"message\":{".to_vec()), Just(b"}]}".to_vec()),
            prop::collection::vec(any::<u8>(), 0..40),
        ], 0..20),
        status in prop_oneof![Just(200_u16), any::<u16>()],
        anthropic in any::<bool>(),
    ) {
        let dialect = if anthropic { DialectName::Anthropic } else { DialectName::Openai };
        let pieces: Vec<&[u8]> = body.iter().map(Vec::as_slice).collect();
        let joined = body.concat();
        let cut = run(dialect, &head(status, ""), &pieces, Ok(()));
        let whole = run(dialect, &head(status, ""), &[&joined], Ok(()));
        prop_assert_eq!(cut.terminal, whole.terminal);
    }
}

#[test]
fn a_head_is_read_from_its_fields() {
    let wall = UnixMillis(0);
    let fields = [("content-type", "text/event-stream"), ("retry-after", "2")];
    let field = |name: &str| {
        fields
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| *value)
    };
    let head = Head::from_fields(429, field, wall);
    assert_eq!(head.status, 429);
    assert_eq!(head.content_type.as_deref(), Some("text/event-stream"));
    assert_eq!(head.retry_after, Some(Duration::from_secs(2)));
    let exact = Head::from_fields(
        429,
        |name| {
            if name == "retry-after-ms" {
                Some("1500")
            } else {
                field(name)
            }
        },
        wall,
    );
    assert_eq!(exact.retry_after, Some(Duration::from_millis(1500)));
    assert_eq!(Head::from_fields(200, |_| None, wall).retry_after, None);
}
