//! What the model says, taken in piece by piece.

use super::Answer;
use crate::dialect::chat::Delta;
use crate::dialect::neutral::Piece;
use crate::gateway::terms;
use crate::limits;

impl Answer {
    pub(super) fn piece(&mut self, piece: Piece) {
        match piece {
            Piece::Text(text) => {
                self.produced = true;
                self.produced_bytes += text.len() as u64;
                self.text.push_str(&text);
                if !self.streamed && self.client.is_some() {
                    self.composer.text(&text);
                }
                self.check_size();
            }
            Piece::Delta(delta) => self.delta(&delta),
            Piece::Model(name) => self.model_used = name,
            Piece::Usage(usage) => self.usage = Some(usage),
            Piece::KeepAlive => {}
        }
    }

    /// What text cannot carry: for a client that asked with its own body, in its dialect.
    fn delta(&mut self, delta: &Delta) {
        self.produced = true;
        self.produced_bytes += delta.written_bytes();
        let Some(dialect) = self.client else {
            return;
        };
        if !self.streamed {
            self.composer.delta(delta);
            self.check_size();
        } else if let Some(json) = delta.to_json(dialect) {
            self.send_text(false);
            self.send_chunk(String::new(), false, Some(json));
        }
    }

    /// An unstreamed answer must fit one message.
    fn check_size(&mut self) {
        let held = self.text.len().max(self.composer.bytes());
        if !self.streamed && held > limits::ANSWER_TEXT_BYTES_MAX {
            self.cut_short(terms::answer_too_large(self.request_id));
        }
    }
}
