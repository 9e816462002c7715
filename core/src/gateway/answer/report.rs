//! What a device is told of its answer: the pieces, and how it ended.

use serde_json::value::RawValue;

use super::{Answer, Stage, Verdict};
use crate::dialect::chat::reply::Heading;
use crate::gateway::transcript::{Bill, End};
use crate::limits;
use crate::time::Now;
use crate::wire::message::{FinishReason, Message, StreamChunk, TokensUsed};

impl Answer {
    /// How it ends, if it is about to be settled: what it will say last, without the money.
    pub(in crate::gateway) fn end(&self, now: Now) -> Option<End> {
        let Stage::Settling { verdict, .. } = &self.stage else {
            return None;
        };
        Some(match verdict {
            Verdict::Finished(reason) => self.finish(now, *reason, self.tokens().0),
            Verdict::Failed(error) => End::Failed(error.clone()),
        })
    }

    fn finish(&self, now: Now, reason: FinishReason, tokens: TokensUsed) -> End {
        let latency = now.instant.saturating_duration_since(self.arrived);
        let latency_ms = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
        let model = self.model_used.clone();
        if self.streamed {
            return End::Streamed {
                model,
                reason,
                latency_ms,
            };
        }
        End::Whole {
            content: self.text.clone(),
            sources: self.sources.clone(),
            body: self.client_body(now, &model, reason, tokens),
            model,
            reason,
            latency_ms,
        }
    }

    pub(super) fn report_finished(&mut self, now: Now, reason: FinishReason, bill: &Bill) {
        let end = self.finish(now, reason, bill.tokens);
        if self.streamed {
            self.send_text(true);
        }
        self.send(end.last_word(self.request_id, bill));
    }

    /// The whole answer in the dialect of the client that asked with its own body.
    fn client_body(
        &self,
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
        serde_json::value::to_raw_value(&self.composer.body(&heading, reason, tokens)).ok()
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
