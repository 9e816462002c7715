//! An answer of a model server, in both formats: bytes to pieces, under every kind of cut, against
//! a reader that has the whole body and looks things up in a tree.
//!
//! An input is one control byte and the response's body. The control byte's low three bits say with
//! which status the response comes and how its body ends.

use mesh_core::dialect::chat::Delta;
use mesh_core::dialect::exchange::{Broken, Exchange, Head, Output};
use mesh_core::dialect::neutral::Piece;
use mesh_core::wire::message::{DialectName, FinishReason, TokensUsed};
use serde_json::Value;

use crate::{cuts, memory, sse};

/// Text of one piece, so that it fits a stream chunk however it is escaped.
const PIECE_BYTES_MAX: usize = 32 * 1024;
/// Characters of a provider's own words in a failure, beside ours.
const MESSAGE_CHARS_MAX: usize = 300 + 100;
/// More tokens than this are not believed; the parts of a prompt may add up.
const TOKENS_MAX: u64 = 3 * 100_000_000;
/// Bytes of one event that are looked at.
const EVENT_BYTES_MAX: usize = 1024 * 1024;

const MEMORY_FIXED: usize = 64 * 1024;
/// The body in the decoder, the piece it becomes, and each of them while it grows. An error's
/// `code` is a tree whatever it is.
const MEMORY_PER_BYTE: usize = 128;

/// What came of a body, whatever the cuts: text that came together taken together.
#[derive(Debug, PartialEq)]
struct Outcome {
    pieces: Vec<Piece>,
    end: Output,
}

struct Response<'a> {
    head: Head,
    body: &'a [u8],
    end: Result<(), Broken>,
}

fn response(data: &[u8]) -> Option<Response<'_>> {
    let (control, body) = data.split_first()?;
    let (status, html, end) = match control % 8 {
        0 => (200, false, Ok(())),
        1 => (200, false, Err(Broken::Reset)),
        2 => (200, false, Err(Broken::Timeout)),
        3 => (429, false, Ok(())),
        4 => (500, false, Err(Broken::Reset)),
        5 => (401, false, Ok(())),
        6 => (200, true, Ok(())),
        _ => (529, false, Ok(())),
    };
    let content_type = if html {
        "text/html"
    } else {
        "text/event-stream"
    };
    Some(Response {
        head: Head {
            status,
            content_type: Some(content_type.to_owned()),
            retry_after: None,
        },
        body,
        end,
    })
}

fn push(pieces: &mut Vec<Piece>, piece: Piece) {
    match (pieces.last_mut(), piece) {
        // When it is said depends on what has been taken already.
        (_, Piece::KeepAlive) => {}
        (Some(Piece::Text(last)), Piece::Text(text))
        | (Some(Piece::Delta(Delta::Reasoning(last))), Piece::Delta(Delta::Reasoning(text))) => {
            last.push_str(&text);
        }
        (
            Some(Piece::Delta(Delta::Arguments { index, json })),
            Piece::Delta(Delta::Arguments {
                index: same,
                json: more,
            }),
        ) if *index == same => {
            json.push_str(&more);
        }
        (_, piece) => pieces.push(piece),
    }
}

fn drain(exchange: &mut Exchange, pieces: &mut Vec<Piece>, end: &mut Option<Output>) {
    while let Some(output) = exchange.poll() {
        assert!(end.is_none(), "something after the terminal output");
        match output {
            Output::Piece(piece) => {
                if let Piece::Text(text) | Piece::Delta(Delta::Reasoning(text)) = &piece {
                    assert!((1..=PIECE_BYTES_MAX).contains(&text.len()), "{piece:?}");
                }
                push(pieces, piece);
            }
            Output::Finished { .. } | Output::Failed(_) => {
                assert!(exchange.is_done());
                *end = Some(output);
            }
        }
    }
}

fn exchange(dialect: DialectName, response: &Response<'_>, cuts: &[&[u8]], late: bool) -> Outcome {
    let mut exchange = Exchange::new(dialect);
    let (mut pieces, mut end) = (Vec::new(), None);
    exchange.handle_head(&response.head);
    for piece in cuts {
        exchange.handle_body(piece);
        if !late {
            drain(&mut exchange, &mut pieces, &mut end);
        }
    }
    exchange.handle_end(response.end);
    drain(&mut exchange, &mut pieces, &mut end);
    // What comes after the end is ignored.
    exchange.handle_body(b"data: {}\n\n");
    exchange.handle_end(Ok(()));
    drain(&mut exchange, &mut pieces, &mut end);
    let Some(end) = end else {
        unreachable!("an exchange without an end");
    };
    Outcome { pieces, end }
}

fn check(dialect: DialectName, data: &[u8]) {
    let Some(response) = response(data) else {
        return;
    };
    let body = response.body;
    let (outcome, used) = memory::used(|| exchange(dialect, &response, &[body], false));
    let allowed = MEMORY_FIXED + MEMORY_PER_BYTE * body.len();
    assert!(
        used.peak <= allowed && used.total <= 2 * allowed,
        "{used:?} for {} bytes",
        body.len()
    );
    assert_eq!(exchange(dialect, &response, &[body], true), outcome);
    cuts::each(body, |cuts| {
        assert_eq!(exchange(dialect, &response, cuts, false), outcome);
    });
    judge(dialect, &response, &outcome);
}

fn judge(dialect: DialectName, response: &Response<'_>, outcome: &Outcome) {
    let written: usize = outcome.pieces.iter().map(written).sum();
    let growth = if std::str::from_utf8(response.body).is_ok() {
        1
    } else {
        // Each byte that is no UTF-8 becomes U+FFFD.
        3
    };
    assert!(written <= growth * response.body.len(), "text from nowhere");
    let counted = outcome.pieces.iter().filter_map(|piece| match piece {
        Piece::Usage(usage) => Some(usage),
        Piece::Model(_) | Piece::Text(_) | Piece::Delta(_) | Piece::KeepAlive => None,
    });
    counted.for_each(believable);
    match &outcome.end {
        Output::Finished { reason, usage } => {
            assert_eq!(response.head.status, 200);
            assert!(!matches!(
                reason,
                FinishReason::Cancelled | FinishReason::Error
            ));
            usage.iter().for_each(believable);
            if let Some((text, reasoning)) = whole(dialect, response.body) {
                assert!(said(outcome, false) == text, "other text than in the tree");
                assert!(said(outcome, true) == reasoning, "other reasoning");
            }
        }
        Output::Failed(failure) => {
            let message = &failure.message;
            assert!(message.chars().count() <= MESSAGE_CHARS_MAX, "{message}");
            assert!(!message.contains(char::is_control), "{message:?}");
            let shown = format!("{failure:?} {failure}");
            assert!(shown.len() <= 2 * MESSAGE_CHARS_MAX);
        }
        Output::Piece(_) => unreachable!("a piece is no end"),
    }
}

fn written(piece: &Piece) -> usize {
    match piece {
        Piece::Text(text) | Piece::Model(text) => text.len(),
        Piece::Delta(
            Delta::Reasoning(text)
            | Delta::Signature(text)
            | Delta::Arguments { json: text, .. }
            | Delta::ToolCall { name: text, .. },
        ) => text.len(),
        Piece::Usage(_) | Piece::KeepAlive => 0,
    }
}

fn said(outcome: &Outcome, reasoning: bool) -> String {
    let parts = outcome.pieces.iter().map(|piece| match piece {
        Piece::Text(text) if !reasoning => text.as_str(),
        Piece::Delta(Delta::Reasoning(text)) if reasoning => text.as_str(),
        Piece::Model(_) | Piece::Text(_) | Piece::Delta(_) | Piece::Usage(_) | Piece::KeepAlive => {
            ""
        }
    });
    parts.collect()
}

fn believable(usage: &TokensUsed) {
    assert!(usage.prompt <= TOKENS_MAX && usage.completion <= TOKENS_MAX);
    assert!(usage.cache_read.saturating_add(usage.cache_write) <= usage.prompt);
    assert!(usage.reasoning <= usage.completion);
}

/// Text and reasoning of an answer that is understood, looked up in whole trees. `None` where a
/// tree tells less than the parser knows (an object written as an array).
fn whole(dialect: DialectName, body: &[u8]) -> Option<(String, String)> {
    let body = body.trim_ascii_start();
    let documents: Vec<Value> = if body.first() == Some(&b'{') {
        vec![serde_json::from_slice(body).ok()?]
    } else {
        let (items, over) = sse::naive(body, EVENT_BYTES_MAX);
        if over {
            return None;
        }
        let mut documents = Vec::new();
        for (_, data) in items.into_iter().flatten() {
            if dialect == DialectName::Openai && data.trim() == "[DONE]" {
                break;
            }
            let document: Value = serde_json::from_str(&data).ok()?;
            let last = document["type"] == "message_stop" && dialect == DialectName::Anthropic;
            documents.push(document);
            if last {
                break;
            }
        }
        documents
    };
    let mut said = (String::new(), String::new());
    for document in &documents {
        match dialect {
            DialectName::Openai => openai_said(document, &mut said)?,
            DialectName::Anthropic => anthropic_said(document, &mut said)?,
        }
    }
    Some(said)
}

fn openai_said(document: &Value, said: &mut (String, String)) -> Option<()> {
    for choice in document["choices"].as_array().into_iter().flatten() {
        if !choice.is_object() {
            return None;
        }
        if choice["index"].as_u64().unwrap_or(0) != 0 {
            continue;
        }
        let part = [&choice["delta"], &choice["message"]]
            .into_iter()
            .find(|part| !part.is_null());
        let Some(part) = part else { continue };
        if !part.is_object() {
            return None;
        }
        let reasoning = part["reasoning_content"].as_str();
        said.1 += reasoning.or(part["reasoning"].as_str()).unwrap_or_default();
        said.0 += part["content"].as_str().unwrap_or_default();
        said.0 += part["refusal"].as_str().unwrap_or_default();
    }
    Some(())
}

fn anthropic_said(document: &Value, said: &mut (String, String)) -> Option<()> {
    let mut block = |block: &Value| {
        said.1 += block["thinking"].as_str().unwrap_or_default();
        said.0 += block["text"].as_str().unwrap_or_default();
        (block.is_object() || block.is_null()).then_some(())
    };
    match document["type"].as_str() {
        Some("message_start") => {
            let message = &document["message"];
            for part in message["content"].as_array().into_iter().flatten() {
                block(part)?;
            }
            message.is_object().then_some(())
        }
        Some("content_block_start") => block(&document["content_block"]),
        Some("content_block_delta") => block(&document["delta"]),
        // A whole answer: its type is `message`.
        _ => {
            for part in document["content"].as_array().into_iter().flatten() {
                block(part)?;
            }
            Some(())
        }
    }
}

/// OpenAI Chat Completions.
pub mod openai {
    use super::{DialectName, check};

    /// See the module documentation above.
    pub fn run(data: &[u8]) {
        check(DialectName::Openai, data);
    }
}

/// Anthropic Messages.
pub mod anthropic {
    use super::{DialectName, check};

    /// See the module documentation above.
    pub fn run(data: &[u8]) {
        check(DialectName::Anthropic, data);
    }
}
