//! Model servers: what they say to one call, as bytes with the time before each, and how far they may
//! be read.

use std::collections::VecDeque;

use bytes::Bytes;
use mesh_core::dialect::exchange::{Broken, Head};
use mesh_core::gateway::{AskId, Progress};
use mesh_core::ids::RequestId;
use mesh_core::wire::message::TokensUsed;

use crate::plan::{Script, Trouble};
use crate::queue::Micros;

/// What comes next of a call.
#[derive(Clone, Debug)]
pub enum Next {
    /// News for the gateway, with the text that it carries.
    Piece(Progress, String),
    /// The body is over, with the text that can be read only now.
    End(Result<(), Broken>, String),
    /// Nothing until everything heals, then the connection breaks.
    Stall,
}

/// One call under way.
#[derive(Debug)]
pub struct Call {
    /// At which gateway.
    pub gateway: usize,
    /// In which life of it.
    pub life: u32,
    /// Its name there.
    pub ask: AskId,
    /// For which question.
    pub request: RequestId,
    /// What is still to come.
    pub script: VecDeque<Next>,
    /// What each piece takes longer, µs.
    pub pace: Micros,
    /// Bytes that may still be read.
    pub credit: usize,
    /// Whether an event for its next piece is in the queue.
    pub scheduled: bool,
}

/// What a whole answer to this question counts.
#[must_use]
pub const fn usage(context_bytes: usize, words: u32) -> TokensUsed {
    TokensUsed {
        prompt: 10 + context_bytes as u64 / 8,
        completion: words as u64,
        cache_read: 0,
        cache_write: 0,
        reasoning: 0,
    }
}

/// The `n`th word of the answer to a question.
#[must_use]
pub fn word(question: u64, n: u32) -> String {
    format!("q{question}w{n} ")
}

/// What the server says at one attempt.
#[must_use]
pub fn says(
    question: u64,
    script: &Script,
    attempt: usize,
    stream: bool,
    words: u32,
    usage: TokensUsed,
) -> VecDeque<Next> {
    let trouble = script.troubles.get(attempt).copied();
    let status = match trouble {
        Some(Trouble::Unreachable) => {
            return VecDeque::from([Next::End(Err(Broken::Connect), String::new())]);
        }
        Some(Trouble::Status { status }) => status,
        Some(Trouble::Break { .. } | Trouble::Stall { .. } | Trouble::NoUsage) | None => 200,
    };
    let head = Head {
        status,
        content_type: None,
        retry_after: None,
    };
    let mut says = VecDeque::from([Next::Piece(Progress::Head(head), String::new())]);
    if status != 200 {
        let body = Bytes::from_static(br#"{"error":{"message":"not now"}}"#);
        says.push_back(Next::Piece(Progress::Body(body), String::new()));
        says.push_back(Next::End(Ok(()), String::new()));
        return says;
    }
    let cut = match trouble {
        Some(Trouble::Break { after } | Trouble::Stall { after }) => Some(after.min(words)),
        Some(Trouble::Status { .. } | Trouble::Unreachable | Trouble::NoUsage) | None => None,
    };
    let counted = (trouble != Some(Trouble::NoUsage)).then_some(usage);
    let mut said = Vec::new();
    // A body that is no stream can be read when it is whole.
    let mut at_end = String::new();
    let mut push = |body: String, text: String| said.push((body, text));
    if stream {
        if script.anthropic {
            push(anthropic_start(usage), String::new());
        }
        for n in 0..cut.unwrap_or(words) {
            let text = word(question, n);
            push(delta(script.anthropic, &text), text);
        }
        if cut.is_none() {
            push(end(script.anthropic, counted), String::new());
        }
    } else if cut.is_none() {
        at_end = (0..words).map(|n| word(question, n)).collect();
        push(whole(script.anthropic, &at_end, counted), String::new());
    }
    for group in said.chunks(script.together.max(1) as usize) {
        let (bodies, texts): (String, String) = group.iter().cloned().unzip();
        says.push_back(Next::Piece(Progress::Body(Bytes::from(bodies)), texts));
    }
    says.push_back(match trouble {
        Some(Trouble::Break { .. }) => Next::End(Err(Broken::Reset), String::new()),
        Some(Trouble::Stall { .. }) => Next::Stall,
        Some(Trouble::Status { .. } | Trouble::Unreachable | Trouble::NoUsage) | None => {
            Next::End(Ok(()), at_end)
        }
    });
    says
}

fn anthropic_start(usage: TokensUsed) -> String {
    let prompt = usage.prompt;
    format!(
        "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{{\"model\":\"m\",\"usage\":{{\"input_tokens\":{prompt},\"output_tokens\":1}}}}}}\n\n"
    )
}

fn delta(anthropic: bool, text: &str) -> String {
    if anthropic {
        format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}\n\n"
        )
    } else {
        format!(
            "data: {{\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"
        )
    }
}

fn end(anthropic: bool, usage: Option<TokensUsed>) -> String {
    if anthropic {
        let usage = usage.map_or_else(String::new, |usage| {
            format!(",\"usage\":{{\"output_tokens\":{}}}", usage.completion)
        });
        return format!(
            "event: message_delta\ndata: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"end_turn\"}}{usage}}}\n\nevent: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"
        );
    }
    let usage = usage.map_or_else(String::new, |usage| {
        format!(
            "data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":{},\"completion_tokens\":{}}}}}\n\n",
            usage.prompt, usage.completion
        )
    });
    format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"stop\"}}]}}\n\n{usage}data: [DONE]\n\n"
    )
}

fn whole(anthropic: bool, text: &str, usage: Option<TokensUsed>) -> String {
    if anthropic {
        let usage = usage.map_or_else(String::new, |usage| {
            format!(
                ",\"usage\":{{\"input_tokens\":{},\"output_tokens\":{}}}",
                usage.prompt, usage.completion
            )
        });
        return format!(
            "{{\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":[{{\"type\":\"text\",\"text\":\"{text}\"}}],\"stop_reason\":\"end_turn\"{usage}}}"
        );
    }
    let usage = usage.map_or_else(String::new, |usage| {
        format!(
            ",\"usage\":{{\"prompt_tokens\":{},\"completion_tokens\":{}}}",
            usage.prompt, usage.completion
        )
    });
    format!(
        "{{\"model\":\"m\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"{text}\"}},\"finish_reason\":\"stop\"}}]{usage}}}"
    )
}
