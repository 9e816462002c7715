//! What a device is told of its answer: the pieces, and how it ended.

use serde_json::value::RawValue;

use super::Answer;
use crate::billing::money::Nanos;
use crate::dialect::chat::reply::Heading;
use crate::limits;
use crate::time::Now;
use crate::wire::message::{
    EscalationResponse, FinishReason, Message, StreamChunk, StreamEnd, TokensUsed,
};

/// What the device is told of the money.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bill {
    pub(super) tokens: TokensUsed,
    pub(super) charge: Nanos,
    pub(super) base: Nanos,
    pub(super) estimated: bool,
}

impl Answer {
    pub(super) fn report_finished(&mut self, now: Now, reason: FinishReason, bill: Bill) {
        let latency = now.instant.saturating_duration_since(self.arrived);
        let latency_ms = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
        let model_used = std::mem::take(&mut self.model_used);
        if self.streamed {
            self.send_text(true);
            self.send(Message::StreamEnd(StreamEnd {
                request_id: self.request_id,
                tokens_used: bill.tokens,
                cost_cents: bill.charge.to_cents_half_even(),
                cost_nanos: bill.charge,
                base_nanos: bill.base,
                model_used,
                finish_reason: reason,
                latency_ms,
                estimated: bill.estimated,
                hidden: 0,
            }));
        } else {
            let content = std::mem::take(&mut self.text);
            let sources = std::mem::take(&mut self.sources);
            let body = self.client_body(now, &model_used, reason, bill.tokens);
            self.send(Message::EscalationResponse(Box::new(EscalationResponse {
                request_id: self.request_id,
                content,
                model_used,
                tokens_used: bill.tokens,
                cost_cents: bill.charge.to_cents_half_even(),
                cost_nanos: bill.charge,
                base_nanos: bill.base,
                latency_ms,
                sources,
                lora_applied: false,
                finish_reason: reason,
                estimated: bill.estimated,
                hidden: 0,
                body,
            })));
        }
    }

    /// The whole answer in the dialect of the client that asked with its own body.
    fn client_body(
        &mut self,
        now: Now,
        model: &str,
        reason: FinishReason,
        tokens: TokensUsed,
    ) -> Option<Box<RawValue>> {
        let heading = Heading {
            dialect: self.client?,
            id: self.request_id.to_string(),
            created: now.wall.as_secs(),
            model: model.to_owned(),
        };
        let composer = std::mem::take(&mut self.composer);
        serde_json::value::to_raw_value(&composer.body(&heading, reason, tokens)).ok()
    }

    /// Sends the text that waits as pieces; the last one is final if asked.
    pub(super) fn send_text(&mut self, end: bool) {
        let text = std::mem::take(&mut self.text);
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(floor_char(rest, limits::CHUNK_TEXT_BYTES_MAX));
            rest = after;
            self.send_chunk(piece.to_owned(), end && rest.is_empty(), None);
        }
        if end && text.is_empty() {
            self.send_chunk(String::new(), true, None);
        }
    }

    pub(super) fn send_chunk(
        &mut self,
        content: String,
        is_final: bool,
        delta: Option<Box<RawValue>>,
    ) {
        let sequence = self.sequence;
        self.sequence += 1;
        let request_id = self.request_id;
        let chunk = StreamChunk {
            request_id,
            content,
            sequence,
            is_final,
            delta,
        };
        self.send(Message::StreamChunk(chunk));
    }
}

/// The largest split of `text` at or below `max` bytes that cuts no character.
fn floor_char(text: &str, max: usize) -> usize {
    if text.len() <= max {
        return text.len();
    }
    (0..=max)
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0)
}
