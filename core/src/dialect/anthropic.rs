//! Anthropic Messages, version 2023-06-01.
//!
//! Usage: `input_tokens` *excludes* what was read from the cache (`cache_read_input_tokens`) and
//! written to it (`cache_creation_input_tokens`); `message_start` has the counts of the prompt,
//! `message_delta` has cumulative ones. `output_tokens` includes
//! thinking and does not tell it apart.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Target;
use super::count::Count;
use super::failure::{FailureKind, ProviderError, UpstreamFailure};
use super::neutral::{Answer, Flow, Prompt};
use crate::wire::message::{FinishReason, Role, TokensUsed};

/// The base URL has no version: `https://api.anthropic.com`.
pub(super) const PATH: &str = "/v1/messages";
pub(super) const HEADERS: &[(&str, &str)] = &[
    ("content-type", "application/json"),
    ("accept", "text/event-stream"),
    ("anthropic-version", "2023-06-01"),
];

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<&'a str>,
    messages: Vec<BodyMessage<'a>>,
    max_tokens: u32,
    stream: bool,
}

#[derive(Serialize)]
struct BodyMessage<'a> {
    role: &'static str,
    content: &'a str,
}

pub(super) fn body(target: &Target<'_>, prompt: &Prompt<'_>) -> serde_json::Result<Vec<u8>> {
    let turns = prompt.messages.iter().map(|message| BodyMessage {
        role: match message.role {
            Role::User => "user",
            Role::Assistant => "assistant",
        },
        content: &message.content,
    });
    serde_json::to_vec(&Body {
        model: target.model,
        system: prompt.system.as_deref(),
        messages: turns.collect(),
        max_tokens: prompt.max_tokens,
        stream: true,
    })
}

/// One event, with the fields of all types side by side. An unknown type is skipped: new ones may
/// be added within the version.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    /// Of a block.
    #[serde(default)]
    index: Option<u64>,
    #[serde(borrow, default)]
    message: Option<Message<'a>>,
    #[serde(borrow, default)]
    content_block: Option<Block<'a>>,
    #[serde(borrow, default)]
    delta: Option<Block<'a>>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    error: Option<ProviderError>,
}

/// A whole answer, or the head of a streamed one.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    model: Option<Text<'a>>,
    #[serde(borrow, default)]
    content: Vec<Block<'a>>,
    #[serde(borrow, default)]
    stop_reason: Option<Text<'a>>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    error: Option<ProviderError>,
}

/// A content block or a change to one; `message_delta` has its stop reason in the same place.
#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, default)]
    text: Option<Text<'a>>,
    #[serde(borrow, default)]
    thinking: Option<Text<'a>>,
    #[serde(borrow, default)]
    signature: Option<Text<'a>>,
    /// `tool_use` is the one that matters.
    #[serde(rename = "type", borrow, default)]
    kind: Option<Text<'a>>,
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    /// Whole, in an answer that is not streamed.
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    partial_json: Option<Text<'a>>,
    #[serde(borrow, default)]
    stop_reason: Option<Text<'a>>,
}

/// Text that is borrowed from the event where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct Usage {
    #[serde(default)]
    input_tokens: Count,
    #[serde(default)]
    output_tokens: Count,
    #[serde(default)]
    cache_read_input_tokens: Count,
    #[serde(default)]
    cache_creation_input_tokens: Count,
}

impl Usage {
    /// Takes over each count that `later` has. They are cumulative, so none goes down: servers that
    /// send zeros where they know nothing take nothing back.
    fn update(&mut self, later: Self) {
        let newer = |old: &mut Count, new: Count| *old = Count(new.0.max(old.0));
        newer(&mut self.input_tokens, later.input_tokens);
        newer(&mut self.output_tokens, later.output_tokens);
        newer(
            &mut self.cache_read_input_tokens,
            later.cache_read_input_tokens,
        );
        newer(
            &mut self.cache_creation_input_tokens,
            later.cache_creation_input_tokens,
        );
    }

    /// `None` until both totals are known.
    fn tokens(&self) -> Option<TokensUsed> {
        let fresh = self.input_tokens.0?;
        let completion = self.output_tokens.0?;
        let cache_read = self.cache_read_input_tokens.0.unwrap_or(0);
        let cache_write = self.cache_creation_input_tokens.0.unwrap_or(0);
        Some(TokensUsed {
            prompt: fresh.saturating_add(cache_read).saturating_add(cache_write),
            completion,
            cache_read,
            cache_write,
            reasoning: 0,
        })
    }
}

/// What must be remembered between the events of one answer.
#[derive(Debug, Default)]
pub(super) struct Parser {
    usage: Usage,
}

impl Parser {
    /// Takes in the data of one event.
    pub(super) fn handle_event(
        &mut self,
        data: &str,
        answer: &mut Answer,
    ) -> Result<Flow, UpstreamFailure> {
        let event: Event<'_> =
            super::from_json_object(data.as_bytes()).ok_or(FailureKind::Malformed)?;
        if let Some(error) = event.error {
            return Err(error.into_failure(None, None));
        }
        match event.kind.as_ref() {
            "message_start" => {
                let message = event.message.ok_or(FailureKind::Malformed)?;
                // Its count of what will be written is a placeholder: `message_delta` has the last
                // word.
                self.message(message, answer, Answer::usage_at_first)?;
            }
            "content_block_start" => block(event.index, event.content_block, answer)?,
            "content_block_delta" => block(event.index, event.delta, answer)?,
            "message_delta" => {
                self.counted(event.usage, answer, Answer::usage);
                stopped(event.delta.and_then(|delta| delta.stop_reason), answer);
            }
            "message_stop" => return Ok(Flow::Done),
            "ping" => answer.keep_alive(),
            "error" => return Err(FailureKind::Server { status: 500 }.into()),
            _ => {}
        }
        Ok(Flow::More)
    }

    /// Takes in a whole answer from a server that does not stream.
    pub(super) fn handle_whole(
        &mut self,
        json: &[u8],
        answer: &mut Answer,
    ) -> Result<(), UpstreamFailure> {
        let message: Message<'_> = super::from_json_object(json).ok_or(FailureKind::Malformed)?;
        self.message(message, answer, Answer::usage)
    }

    fn message(
        &mut self,
        message: Message<'_>,
        answer: &mut Answer,
        take: fn(&mut Answer, TokensUsed),
    ) -> Result<(), UpstreamFailure> {
        if let Some(error) = message.error {
            return Err(error.into_failure(None, None));
        }
        if let Some(model) = message.model {
            answer.model(&model.0);
        }
        for (at, content) in (0..).zip(message.content) {
            block(Some(at), Some(content), answer)?;
        }
        self.counted(message.usage, answer, take);
        stopped(message.stop_reason, answer);
        Ok(())
    }

    fn counted(
        &mut self,
        usage: Option<Usage>,
        answer: &mut Answer,
        take: fn(&mut Answer, TokensUsed),
    ) {
        if let Some(usage) = usage {
            self.usage.update(usage);
            if let Some(tokens) = self.usage.tokens() {
                take(answer, tokens);
            }
        }
    }
}

fn block(
    index: Option<u64>,
    block: Option<Block<'_>>,
    answer: &mut Answer,
) -> Result<(), UpstreamFailure> {
    let Some(block) = block else {
        return Ok(());
    };
    if let Some(thinking) = block.thinking {
        answer.reasoning(&thinking.0)?;
    }
    if let Some(text) = block.text {
        answer.text(&text.0)?;
    }
    if let Some(signature) = block.signature {
        answer.signature(&signature.0)?;
    }
    let index = index.unwrap_or(0);
    if block.kind.is_some_and(|kind| kind.0 == "tool_use") {
        let text =
            |text: &Option<Text<'_>>| text.as_ref().map_or(String::new(), |t| t.0.to_string());
        answer.call(index, &text(&block.id), &text(&block.name))?;
        // A stream begins a call with an empty one.
        if let Some(input) = block
            .input
            .map(RawValue::get)
            .filter(|input| *input != "{}")
        {
            answer.arguments(index, input)?;
        }
    }
    if let Some(json) = block.partial_json {
        answer.arguments(index, &json.0)?;
    }
    Ok(())
}

fn stopped(reason: Option<Text<'_>>, answer: &mut Answer) {
    if let Some(reason) = reason {
        answer.finish(match reason.0.as_ref() {
            "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
            "tool_use" => FinishReason::ToolCalls,
            "refusal" => FinishReason::ContentFilter,
            // `end_turn`, `stop_sequence`, `pause_turn`.
            _ => FinishReason::Stop,
        });
    }
}
