//! OpenAI Chat Completions, as OpenAI and every compatible server speak it.
//!
//! Usage: `prompt_tokens` *includes* the cached ones (`prompt_tokens_details.cached_tokens`),
//! `completion_tokens` includes reasoning. With `include_usage` it comes in a last chunk without
//! choices, before `[DONE]`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::failure::{FailureKind, ProviderError, UpstreamFailure};
use super::neutral::{Answer, Flow, Prompt};
use super::{MaxTokensField, Target};
use crate::dialect::count::Count;
use crate::wire::message::{FinishReason, Role, TokensUsed};

/// The base URL holds the version: `https://api.openai.com/v1`.
pub(super) const PATH: &str = "/chat/completions";
pub(super) const HEADERS: &[(&str, &str)] = &[
    ("content-type", "application/json"),
    ("accept", "text/event-stream"),
];

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<BodyMessage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    stream: bool,
    stream_options: StreamOptions,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct BodyMessage<'a> {
    role: &'static str,
    content: &'a str,
}

pub(super) fn body(target: &Target<'_>, prompt: &Prompt<'_>) -> serde_json::Result<Vec<u8>> {
    let system = prompt.system.as_deref().map(|content| BodyMessage {
        role: "system",
        content,
    });
    let turns = prompt.messages.iter().map(|message| BodyMessage {
        role: match message.role {
            Role::User => "user",
            Role::Assistant => "assistant",
        },
        content: &message.content,
    });
    let (max_tokens, max_completion_tokens) = match target.max_tokens_field {
        MaxTokensField::MaxTokens => (Some(prompt.max_tokens), None),
        MaxTokensField::MaxCompletionTokens => (None, Some(prompt.max_tokens)),
    };
    serde_json::to_vec(&Body {
        model: target.model,
        messages: system.into_iter().chain(turns).collect(),
        max_tokens,
        max_completion_tokens,
        stream: true,
        stream_options: StreamOptions {
            include_usage: true,
        },
    })
}

/// Text that is borrowed from the event where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A streamed chunk and a whole answer alike.
#[derive(Deserialize)]
struct Completion<'a> {
    #[serde(borrow, default)]
    model: Option<Text<'a>>,
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    error: Option<ProviderError>,
    /// Older vLLM: `{"object": "error", "message": …}`.
    #[serde(borrow, default)]
    object: Option<Text<'a>>,
    #[serde(borrow, default)]
    message: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: u32,
    /// Of a streamed chunk.
    #[serde(borrow, default)]
    delta: Option<Content<'a>>,
    /// Of a whole answer.
    #[serde(borrow, default)]
    message: Option<Content<'a>>,
    #[serde(borrow, default)]
    finish_reason: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, default)]
    content: Option<Text<'a>>,
    #[serde(borrow, default)]
    refusal: Option<Text<'a>>,
    /// DeepSeek, llama.cpp.
    #[serde(borrow, default)]
    reasoning_content: Option<Text<'a>>,
    /// OpenRouter, Ollama, vLLM.
    #[serde(borrow, default)]
    reasoning: Option<Text<'a>>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<Call<'a>>>,
}

/// A tool call, or more of one.
#[derive(Deserialize)]
struct Call<'a> {
    /// Missing in a whole answer, where the order tells.
    #[serde(default)]
    index: Option<u32>,
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow, default)]
    function: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    #[serde(borrow, default)]
    arguments: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: Count,
    #[serde(default)]
    completion_tokens: Count,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
    #[serde(default)]
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Count,
}

#[derive(Deserialize)]
struct CompletionDetails {
    #[serde(default)]
    reasoning_tokens: Count,
}

impl Usage {
    /// `None` when either total is missing or not to be believed.
    fn tokens(&self) -> Option<TokensUsed> {
        let prompt = self.prompt_tokens.0?;
        let completion = self.completion_tokens.0?;
        let cached = self
            .prompt_tokens_details
            .as_ref()
            .and_then(|d| d.cached_tokens.0);
        let details = self.completion_tokens_details.as_ref();
        let reasoning = details.and_then(|d| d.reasoning_tokens.0);
        Some(TokensUsed {
            prompt,
            completion,
            // A part is no more than its whole, whatever the server says.
            cache_read: cached.unwrap_or(0).min(prompt),
            cache_write: 0,
            reasoning: reasoning.unwrap_or(0).min(completion),
        })
    }
}

/// Takes in the data of one event.
pub(super) fn handle_event(data: &str, answer: &mut Answer) -> Result<Flow, UpstreamFailure> {
    if data.trim() == "[DONE]" {
        return Ok(Flow::Done);
    }
    handle_completion(data.as_bytes(), answer)?;
    Ok(Flow::More)
}

/// Takes in a chunk, or a whole answer from a server that does not stream.
pub(super) fn handle_completion(json: &[u8], answer: &mut Answer) -> Result<(), UpstreamFailure> {
    let completion: Completion<'_> = super::from_json_object(json).ok_or(FailureKind::Malformed)?;
    if let Some(error) = completion.error {
        return Err(error.into_failure(None, None));
    }
    if completion.object.is_some_and(|object| object.0 == "error") {
        let message = completion.message.map_or(Cow::Borrowed(""), |m| m.0);
        return Err(ProviderError::Text(message.into_owned()).into_failure(None, None));
    }
    if let Some(model) = completion.model {
        answer.model(&model.0);
    }
    // One answer is asked for; a server that sends more is heard on the first only.
    let choices = completion.choices.unwrap_or_default();
    for choice in choices.into_iter().filter(|choice| choice.index == 0) {
        if let Some(content) = choice.delta.or(choice.message) {
            // The two names of reasoning are one text where a server sends both.
            let reasoning = content.reasoning_content.or(content.reasoning);
            if let Some(reasoning) = reasoning {
                answer.reasoning(&reasoning.0)?;
            }
            for text in [content.content, content.refusal].into_iter().flatten() {
                answer.text(&text.0)?;
            }
            for (at, call) in (0..).zip(content.tool_calls.into_iter().flatten()) {
                tool_call(at, &call, answer)?;
            }
        }
        if let Some(reason) = choice.finish_reason {
            answer.finish(finish_reason(&reason.0)?);
        }
    }
    if let Some(usage) = completion.usage.and_then(|usage| usage.tokens()) {
        answer.usage(usage);
    }
    Ok(())
}

fn tool_call(at: u64, call: &Call<'_>, answer: &mut Answer) -> Result<(), UpstreamFailure> {
    let key = call.index.map_or(at, u64::from);
    let Some(function) = &call.function else {
        return Ok(());
    };
    // Only a beginning has the name.
    if let Some(name) = function.name.as_ref().filter(|name| !name.0.is_empty()) {
        let id = call.id.as_ref().map_or("", |id| id.0.as_ref());
        answer.call(key, id, &name.0)?;
    }
    if let Some(arguments) = &function.arguments {
        answer.arguments(key, &arguments.0)?;
    }
    Ok(())
}

fn finish_reason(name: &str) -> Result<FinishReason, UpstreamFailure> {
    Ok(match name {
        "length" | "max_tokens" => FinishReason::Length,
        "tool_calls" | "function_call" => FinishReason::ToolCalls,
        "content_filter" => FinishReason::ContentFilter,
        // OpenRouter, when the provider behind it failed.
        "error" => return Err(FailureKind::Server { status: 500 }.into()),
        // `stop`, and what servers call it besides (`eos`, `end_turn`).
        _ => FinishReason::Stop,
    })
}
