//! What an answer has used: as the provider counted, or by estimate; written down from time to time, for
//! the case that the gateway goes down.

use std::time::Instant;

use super::{Answer, Output};
use crate::limits;
use crate::time::Now;
use crate::wire::message::TokensUsed;

/// When what was used is written down next, for the case that the gateway goes down.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Checkpoint {
    pub(super) due: Option<Instant>,
    /// The store has not answered to the last one.
    pub(super) open: bool,
    /// What had been produced at the last one.
    pub(super) bytes: Option<u64>,
}

impl Answer {
    /// Writes down what has been used, if the store has taken the last one and there is news.
    pub(super) fn checkpoint(&mut self, now: Now) {
        if self.checkpoint.due.is_none_or(|due| now.instant < due) {
            return;
        }
        self.checkpoint.due = Some(now.instant + limits::CHECKPOINT_EVERY);
        let produced = Some(self.produced_bytes);
        if !self.checkpoint.open && self.checkpoint.bytes != produced {
            self.checkpoint.open = true;
            self.checkpoint.bytes = produced;
            let (tokens, _) = self.tokens();
            self.outputs.push_back(Output::Checkpoint(tokens));
        }
    }

    /// What the provider counted, or an estimate marked as one.
    pub(super) fn tokens(&self) -> (TokensUsed, bool) {
        match self.usage {
            Some(usage) if self.counted => (usage, false),
            // A broken stream's last count may lag behind what it produced.
            partial => {
                let counted = partial.unwrap_or_default();
                let written = self.produced_bytes.div_ceil(limits::BYTES_PER_TOKEN);
                let prompt = if partial.is_some() && counted.prompt > 0 {
                    counted.prompt
                } else {
                    self.call.input_tokens_max.div_ceil(limits::BYTES_PER_TOKEN)
                };
                // A guess stays within what was asked for: beyond it, it would be beyond the hold.
                let written = written.min(self.output_tokens_max);
                let completion = counted.completion.max(written);
                (
                    TokensUsed {
                        prompt,
                        completion,
                        ..counted
                    },
                    true,
                )
            }
        }
    }
}
