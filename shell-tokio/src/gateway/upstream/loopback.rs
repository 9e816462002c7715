//! The built-in echo model: answers when no model server is configured, and says so plainly.
//!
//! It takes the same request and sends the same bytes as a model server that speaks OpenAI's
//! format, so that a question to it goes the whole way that a real one goes. One word is one token.
//! The same request always gets the same answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mesh_core::dialect::ModelRequest;
use mesh_core::dialect::exchange::{Broken, Head};
use serde::{Deserialize, Deserializer};
use serde_json::json;

use super::{News, Outlet};

/// What the echo model calls itself.
pub const MODEL: &str = "synesis-echo";

#[derive(Deserialize)]
struct Body {
    messages: Vec<Message>,
    #[serde(alias = "max_completion_tokens")]
    max_tokens: usize,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    #[serde(default, deserialize_with = "text_of")]
    content: String,
}

/// A string, or the texts of its parts; pictures and calls have none.
fn text_of<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Content {
        Text(String),
        Parts(Vec<Part>),
    }
    #[derive(Deserialize)]
    struct Part {
        #[serde(default)]
        text: String,
    }
    let content: Option<Content> = Option::deserialize(deserializer)?;
    Ok(match content {
        Some(Content::Text(text)) => text,
        Some(Content::Parts(parts)) => {
            let texts: Vec<String> = parts.into_iter().map(|part| part.text).collect();
            texts.join("\n")
        }
        None => String::new(),
    })
}

/// An answer as the events of its stream.
#[derive(Debug)]
pub struct Echo {
    words: std::vec::IntoIter<String>,
    prompt_tokens: usize,
    completion_tokens: usize,
    finish_reason: &'static str,
    last: std::array::IntoIter<Last, 3>,
}

/// What follows the words.
#[derive(Clone, Copy, Debug)]
enum Last {
    FinishReason,
    Usage,
    Done,
}

impl Echo {
    /// Answers the body of an OpenAI request; `None` when it is none.
    #[must_use]
    pub fn new(body: &[u8]) -> Option<Self> {
        let body: Body = serde_json::from_slice(body).ok()?;
        let count = |text: &str| text.split_whitespace().count();
        let prompt_tokens = body.messages.iter().map(|m| count(&m.content)).sum();
        // The white space behind a word stays with it, so that the text keeps its lines.
        let mut words: Vec<String> = split_words(&answer(&body.messages)).collect();
        let finish_reason = if words.len() > body.max_tokens {
            "length"
        } else {
            "stop"
        };
        words.truncate(body.max_tokens);
        Some(Self {
            completion_tokens: words.len(),
            words: words.into_iter(),
            prompt_tokens,
            finish_reason,
            last: [Last::FinishReason, Last::Usage, Last::Done].into_iter(),
        })
    }

    fn chunk(choices: &serde_json::Value, usage: &serde_json::Value) -> Bytes {
        let chunk = json!({
            "id": "echo",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": MODEL,
            "choices": choices,
            "usage": usage,
        });
        format!("data: {chunk}\n\n").into()
    }
}

impl Iterator for Echo {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let choice = |delta: serde_json::Value, finish_reason: Option<&str>| {
            let choice = json!({"index": 0, "delta": delta, "finish_reason": finish_reason});
            Self::chunk(&json!([choice]), &serde_json::Value::Null)
        };
        if let Some(word) = self.words.next() {
            return Some(choice(json!({"content": word}), None));
        }
        Some(match self.last.next()? {
            Last::FinishReason => choice(json!({}), Some(self.finish_reason)),
            Last::Usage => {
                let usage = json!({
                    "prompt_tokens": self.prompt_tokens,
                    "completion_tokens": self.completion_tokens,
                    "total_tokens": self.prompt_tokens + self.completion_tokens,
                });
                Self::chunk(&json!([]), &usage)
            }
            Last::Done => Bytes::from_static(b"data: [DONE]\n\n"),
        })
    }
}

/// Words with the white space that follows them.
fn split_words(text: &str) -> impl Iterator<Item = String> + '_ {
    let mut rest = text;
    std::iter::from_fn(move || {
        let word = rest.find(|c: char| !c.is_whitespace())?;
        let gap = rest[word..]
            .find(char::is_whitespace)
            .map_or(rest.len(), |at| word + at);
        let next = rest[gap..]
            .find(|c: char| !c.is_whitespace())
            .map_or(rest.len(), |at| gap + at);
        let (head, tail) = rest.split_at(next);
        rest = tail;
        Some(head.to_owned())
    })
}

fn answer(messages: &[Message]) -> String {
    let (question, before) = messages
        .split_last()
        .map_or(("", messages), |(last, before)| {
            (last.content.as_str(), before)
        });
    let system: Vec<&str> = before
        .iter()
        .filter(|m| m.role == "system")
        .map(|m| m.content.as_str())
        .collect();
    let turns = before.len() - system.len();
    let mut text = "This is the echo model built into Synesis: no model server is configured, \
                    so nobody has thought about your question. It arrived whole, though.\n\n\
                    You asked:\n"
        .to_owned();
    text.push_str(question);
    if !system.is_empty() {
        text.push_str("\n\nWith it came these instructions:\n");
        text.push_str(&system.join("\n\n"));
    }
    if turns > 0 {
        text.push_str(&format!(
            "\n\nBefore it, {turns} turns of the conversation came."
        ));
    }
    text.push_str(
        "\n\nFor real answers start Ollama, llama.cpp or vLLM on this machine, \
         or give the gateway a provider's key.",
    );
    text
}

/// Carries the echo's bytes as if they came from a server.
pub(super) async fn carry<T, F: Fn(News) -> T>(
    request: ModelRequest,
    pace: Duration,
    outlet: Arc<Outlet<T, F>>,
) -> Result<(), Broken> {
    let echo = Echo::new(&request.body);
    let head = Head {
        status: if echo.is_some() { 200 } else { 400 },
        content_type: Some("text/event-stream".to_owned()),
        retry_after: None,
    };
    let unread = |_| Broken::Reset;
    outlet.send(News::Head(head)).await.map_err(unread)?;
    for event in echo.into_iter().flatten() {
        if !pace.is_zero() {
            tokio::time::sleep(pace).await;
        }
        outlet.body(event).await.map_err(unread)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mesh_core::dialect::exchange::{Exchange, Output};
    use mesh_core::dialect::neutral::Piece;
    use mesh_core::dialect::{Target, build_request};
    use mesh_core::escalation::context::Question;
    use mesh_core::ids::RequestId;
    use mesh_core::wire::message::{DialectName, FinishReason, TokensUsed};

    use super::*;

    /// Asks the echo the way the gateway does: the text, why it ended, what was counted.
    fn ask(question: Question) -> (String, FinishReason, TokensUsed) {
        let request = question.into_request(RequestId::from_u128(1));
        let target = Target::new(DialectName::Openai, MODEL);
        let body = build_request(&target, &request).unwrap().body;
        let mut exchange = Exchange::new(DialectName::Openai);
        exchange.handle_head(&Head {
            status: 200,
            content_type: None,
            retry_after: None,
        });
        let mut text = String::new();
        for event in Echo::new(&body).unwrap() {
            exchange.handle_body(&event);
            while let Some(output) = exchange.poll() {
                match output {
                    Output::Piece(Piece::Text(piece)) => text.push_str(&piece),
                    Output::Piece(Piece::Model(name)) => assert_eq!(name, MODEL),
                    Output::Piece(Piece::Usage(_)) => {}
                    Output::Finished { reason, usage } => return (text, reason, usage.unwrap()),
                    Output::Piece(_) | Output::Failed(_) => panic!("the echo does not fail"),
                }
            }
        }
        panic!("no end")
    }

    #[test]
    fn the_echo_says_what_it_is_and_repeats_what_arrived() {
        let question = Question::new("Why is\nthe sky blue?")
            .system("Be brief.")
            .knowledge("sky.txt", "Rayleigh scattering.", 1.0);
        let (text, reason, _) = ask(question.clone());
        assert!(text.starts_with("This is the echo model built into Synesis"));
        for part in [
            "Why is\nthe sky blue?",
            "Be brief.",
            "sky.txt",
            "Rayleigh scattering.",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(reason, FinishReason::Stop);
        assert_eq!(ask(question).0, text);
    }

    #[test]
    fn one_word_is_one_token_and_the_longest_answer_is_kept_to() {
        let (text, reason, usage) = ask(Question::new("one two three").max_tokens(5));
        assert_eq!(text, "This is the echo model ");
        assert_eq!(reason, FinishReason::Length);
        // Three words of the question, five of "Write in a professional tone."
        assert_eq!((usage.prompt, usage.completion), (8, 5));
    }

    #[test]
    fn what_is_no_request_has_no_echo() {
        for body in [&b""[..], b"{}", b"[]", br#"{"messages":[]}"#] {
            assert!(Echo::new(body).is_none());
        }
        assert!(Echo::new(br#"{"messages":[],"max_tokens":3}"#).is_some());
    }
}
