//! An answer as the official clients of a dialect read it: an event stream, or one body.
//!
//! A stream of OpenAI's: chunks that share `id` and `created`, the role in the first, the finish
//! reason in the last with a choice, then the usage with `choices: []` if it was asked for, then
//! `[DONE]`. Anthropic's: `message_start`, blocks that start, go on and stop one after the other,
//! `message_delta` with the usage, `message_stop`; each event with its `event:` line.

use serde_json::{Value, json};

use super::Delta;
use crate::wire::message::{DialectName, FinishReason, TokensUsed};

/// What every part of one answer has in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heading {
    /// The client's dialect.
    pub dialect: DialectName,
    /// The answer's id; the dialect's prefix is put before it.
    pub id: String,
    /// When it was asked for, seconds since 1970.
    pub created: u64,
    /// The model, as the client named it.
    pub model: String,
}

/// A call of a tool, put together.
#[derive(Clone, Default)]
struct Call {
    id: String,
    name: String,
    arguments: String,
}

impl Call {
    /// A tool without parameters is called with nothing, which is no JSON.
    fn arguments(&self) -> &str {
        if self.arguments.trim().is_empty() {
            "{}"
        } else {
            &self.arguments
        }
    }
}

/// Puts a whole answer together. `Debug` shows nothing of it.
#[derive(Clone, Default)]
pub struct Composer {
    text: String,
    reasoning: String,
    signature: String,
    calls: Vec<Call>,
    bytes: usize,
}

impl std::fmt::Debug for Composer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Composer")
            .field("text_bytes", &self.text.len())
            .field("calls", &self.calls.len())
            .finish_non_exhaustive()
    }
}

impl Composer {
    /// Bytes held.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// More text.
    pub fn text(&mut self, text: &str) {
        self.bytes += text.len();
        self.text.push_str(text);
    }

    /// More of what is no text.
    pub fn delta(&mut self, delta: &Delta) {
        self.bytes += match delta {
            Delta::Reasoning(text) | Delta::Signature(text) => text.len(),
            Delta::ToolCall { id, name, .. } => id.len() + name.len(),
            Delta::Arguments { json, .. } => json.len(),
        };
        match delta {
            Delta::Reasoning(text) => self.reasoning.push_str(text),
            Delta::Signature(text) => self.signature.push_str(text),
            Delta::ToolCall { id, name, .. } => self.calls.push(Call {
                id: id.clone(),
                name: name.clone(),
                arguments: String::new(),
            }),
            Delta::Arguments { index, json } => {
                let place = usize::try_from(*index).unwrap_or(usize::MAX);
                if let Some(call) = self.calls.get_mut(place) {
                    call.arguments.push_str(json);
                }
            }
        }
    }

    /// The body of the whole answer.
    #[must_use]
    pub fn body(&self, heading: &Heading, reason: FinishReason, tokens: TokensUsed) -> Value {
        match heading.dialect {
            DialectName::Openai => self.openai(heading, reason, tokens),
            DialectName::Anthropic => self.anthropic(heading, reason, tokens),
        }
    }

    fn openai(&self, heading: &Heading, reason: FinishReason, tokens: TokensUsed) -> Value {
        let content = if self.text.is_empty() && !self.calls.is_empty() {
            Value::Null
        } else {
            self.text.as_str().into()
        };
        let mut message = json!({"role": "assistant", "content": content, "refusal": null});
        if !self.reasoning.is_empty() {
            message["reasoning_content"] = self.reasoning.as_str().into();
        }
        if !self.calls.is_empty() {
            let calls = self.calls.iter().map(|call| {
                json!({"id": call.id, "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments()}})
            });
            message["tool_calls"] = calls.collect();
        }
        json!({
            "id": openai_id(heading), "object": "chat.completion", "created": heading.created,
            "model": heading.model,
            "choices": [{"index": 0, "message": message, "logprobs": null,
                "finish_reason": openai_reason(reason)}],
            "usage": openai_usage(tokens),
        })
    }

    fn anthropic(&self, heading: &Heading, reason: FinishReason, tokens: TokensUsed) -> Value {
        let mut content = Vec::new();
        if !self.reasoning.is_empty() {
            content.push(json!({"type": "thinking", "thinking": self.reasoning,
                "signature": self.signature}));
        }
        if !self.text.is_empty() {
            content.push(json!({"type": "text", "text": self.text}));
        }
        for call in &self.calls {
            // What the model wrote as arguments and is no JSON stays what it wrote.
            let input = serde_json::from_str(call.arguments())
                .unwrap_or_else(|_| Value::from(call.arguments()));
            content.push(json!({"type": "tool_use", "id": call.id, "name": call.name,
                "input": input}));
        }
        json!({
            "id": anthropic_id(heading), "type": "message", "role": "assistant",
            "model": heading.model, "content": content,
            "stop_reason": anthropic_reason(reason), "stop_sequence": null,
            "usage": anthropic_usage(tokens),
        })
    }
}

/// The block of Anthropic's that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Text,
    Thinking,
    Call(u32),
}

/// Writes an answer as an event stream.
#[derive(Debug)]
pub struct Writer {
    heading: Heading,
    include_usage: bool,
    begun: bool,
    block: Option<Block>,
    /// Blocks begun so far.
    blocks: u32,
    /// Whether the call that began last has had arguments.
    call_open: Option<(u32, bool)>,
}

impl Writer {
    /// A writer at the beginning of an answer.
    #[must_use]
    pub const fn new(heading: Heading, include_usage: bool) -> Self {
        Self {
            heading,
            include_usage,
            begun: false,
            block: None,
            blocks: 0,
            call_open: None,
        }
    }

    /// The client's dialect.
    #[must_use]
    pub const fn dialect(&self) -> DialectName {
        self.heading.dialect
    }

    /// More text.
    pub fn text(&mut self, text: &str) -> String {
        let mut out = self.begin();
        if text.is_empty() {
            return out;
        }
        match self.heading.dialect {
            DialectName::Openai => {
                self.close_call(&mut out);
                out.push_str(&self.chunk(&json!({"content": text}), None));
            }
            DialectName::Anthropic => {
                let start = json!({"type": "text", "text": ""});
                self.block(Block::Text, &start, &mut out);
                self.block_delta(&json!({"type": "text_delta", "text": text}), &mut out);
            }
        }
        out
    }

    /// More of what is no text.
    pub fn delta(&mut self, delta: &Delta) -> String {
        let mut out = self.begin();
        match self.heading.dialect {
            DialectName::Openai => self.openai_delta(delta, &mut out),
            DialectName::Anthropic => self.anthropic_delta(delta, &mut out),
        }
        out
    }

    /// The answer is whole.
    pub fn end(&mut self, reason: FinishReason, tokens: TokensUsed) -> String {
        let mut out = self.begin();
        match self.heading.dialect {
            DialectName::Openai => {
                self.close_call(&mut out);
                out.push_str(&self.chunk(&json!({}), Some(openai_reason(reason))));
                if self.include_usage {
                    let mut usage = self.chunk_value(&json!([]));
                    usage["usage"] = openai_usage(tokens);
                    out.push_str(&data(&usage));
                }
                out.push_str("data: [DONE]\n\n");
            }
            DialectName::Anthropic => {
                if self.blocks == 0 {
                    let start = json!({"type": "text", "text": ""});
                    self.block(Block::Text, &start, &mut out);
                }
                self.stop_block(&mut out);
                let delta = json!({
                    "type": "message_delta",
                    "delta": {"stop_reason": anthropic_reason(reason), "stop_sequence": null},
                    "usage": anthropic_usage(tokens),
                });
                event(&delta, &mut out);
                event(&json!({"type": "message_stop"}), &mut out);
            }
        }
        out
    }

    /// The answer failed in the middle: the dialect's error, as its clients find it in a stream.
    #[must_use]
    pub fn error(&self, body: &Value) -> String {
        match self.heading.dialect {
            DialectName::Openai => data(body),
            DialectName::Anthropic => {
                let mut out = String::new();
                event(body, &mut out);
                out
            }
        }
    }

    fn begin(&mut self) -> String {
        let mut out = String::new();
        if std::mem::replace(&mut self.begun, true) {
            return out;
        }
        match self.heading.dialect {
            DialectName::Openai => {
                out = self.chunk(&json!({"role": "assistant", "content": ""}), None);
            }
            DialectName::Anthropic => {
                let message = json!({
                    "id": anthropic_id(&self.heading), "type": "message", "role": "assistant",
                    "model": self.heading.model, "content": [],
                    "stop_reason": null, "stop_sequence": null,
                    "usage": {"input_tokens": 0, "output_tokens": 0},
                });
                event(
                    &json!({"type": "message_start", "message": message}),
                    &mut out,
                );
            }
        }
        out
    }

    fn openai_delta(&mut self, delta: &Delta, out: &mut String) {
        match delta {
            Delta::ToolCall { index, .. } => {
                self.close_call(out);
                self.call_open = Some((*index, false));
            }
            Delta::Arguments { index, json } => {
                if let Some((open, has_arguments)) = &mut self.call_open
                    && open == index
                {
                    *has_arguments |= !json.trim().is_empty();
                }
            }
            Delta::Reasoning(_) | Delta::Signature(_) => {}
        }
        if let Some(raw) = delta.to_json(DialectName::Openai)
            && let Ok(value) = serde_json::from_str::<Value>(raw.get())
        {
            out.push_str(&self.chunk(&value, None));
        }
    }

    /// A tool without parameters is called with nothing, which is no JSON.
    fn close_call(&mut self, out: &mut String) {
        if let Some((index, false)) = self.call_open.take() {
            let json = "{}".to_owned();
            self.openai_delta(&Delta::Arguments { index, json }, out);
        }
    }

    fn anthropic_delta(&mut self, delta: &Delta, out: &mut String) {
        match delta {
            Delta::Reasoning(text) => {
                let start = json!({"type": "thinking", "thinking": "", "signature": ""});
                self.block(Block::Thinking, &start, out);
                self.block_delta(&json!({"type": "thinking_delta", "thinking": text}), out);
            }
            Delta::Signature(text) => {
                let start = json!({"type": "thinking", "thinking": "", "signature": ""});
                self.block(Block::Thinking, &start, out);
                self.block_delta(&json!({"type": "signature_delta", "signature": text}), out);
            }
            Delta::ToolCall { index, id, name } => {
                let start = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
                self.block(Block::Call(*index), &start, out);
            }
            Delta::Arguments { index, json } if self.block == Some(Block::Call(*index)) => {
                self.block_delta(
                    &json!({"type": "input_json_delta", "partial_json": json}),
                    out,
                );
            }
            // Of a call that is closed: no server sends calls interleaved.
            Delta::Arguments { .. } => {}
        }
    }

    /// Makes a block the open one.
    fn block(&mut self, block: Block, start: &Value, out: &mut String) {
        if self.block == Some(block) {
            return;
        }
        self.stop_block(out);
        let index = self.blocks;
        event(
            &json!({"type": "content_block_start", "index": index, "content_block": start}),
            out,
        );
        self.block = Some(block);
        self.blocks += 1;
    }

    fn stop_block(&mut self, out: &mut String) {
        if self.block.take().is_some() {
            let index = self.blocks.saturating_sub(1);
            event(&json!({"type": "content_block_stop", "index": index}), out);
        }
    }

    fn block_delta(&self, delta: &Value, out: &mut String) {
        let index = self.blocks.saturating_sub(1);
        event(
            &json!({"type": "content_block_delta", "index": index, "delta": delta}),
            out,
        );
    }

    fn chunk(&self, delta: &Value, reason: Option<&str>) -> String {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": reason});
        let mut chunk = self.chunk_value(&json!([choice]));
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        data(&chunk)
    }

    fn chunk_value(&self, choices: &Value) -> Value {
        json!({
            "id": openai_id(&self.heading), "object": "chat.completion.chunk",
            "created": self.heading.created, "model": self.heading.model, "choices": choices,
        })
    }
}

fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn event(value: &Value, out: &mut String) {
    let name = value["type"].as_str().unwrap_or("error");
    out.push_str(&format!("event: {name}\ndata: {value}\n\n"));
}

fn openai_id(heading: &Heading) -> String {
    format!("chatcmpl-{}", heading.id)
}

fn anthropic_id(heading: &Heading) -> String {
    format!("msg_{}", heading.id)
}

const fn openai_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop | FinishReason::Cancelled | FinishReason::Error => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::ContentFilter => "content_filter",
    }
}

const fn anthropic_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop | FinishReason::Cancelled | FinishReason::Error => "end_turn",
        FinishReason::Length => "max_tokens",
        FinishReason::ToolCalls => "tool_use",
        FinishReason::ContentFilter => "refusal",
    }
}

/// OpenAI counts cached tokens among the prompt's and reasoning among the completion's.
fn openai_usage(tokens: TokensUsed) -> Value {
    json!({
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "total_tokens": tokens.prompt.saturating_add(tokens.completion),
        "prompt_tokens_details": {"cached_tokens": tokens.cache_read},
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
    })
}

/// Anthropic counts cached tokens beside `input_tokens`.
fn anthropic_usage(tokens: TokensUsed) -> Value {
    let cached = tokens.cache_read.saturating_add(tokens.cache_write);
    json!({
        "input_tokens": tokens.prompt.saturating_sub(cached),
        "cache_read_input_tokens": tokens.cache_read,
        "cache_creation_input_tokens": tokens.cache_write,
        "output_tokens": tokens.completion,
    })
}
