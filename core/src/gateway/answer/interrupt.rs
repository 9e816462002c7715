//! An answer that its gateway cuts off, since it goes away and can wait no longer.

use super::{Answer, Ending, Output, Pause, Stage};
use crate::gateway::terms;
use crate::time::Now;

impl Answer {
    /// What has produced something is lost, and free; its device may ask anew. Anything else may be
    /// asked of another gateway as it is. What has ended is brought to its end.
    pub(super) fn interrupt(&mut self) {
        let refused = Ending::Refused(terms::stopping(self.request_id));
        match &self.stage {
            Stage::Holding => self.unwanted = Some(refused),
            Stage::Calling(_) => {
                self.outputs.push_back(Output::Abandon);
                if self.produced {
                    self.lose();
                } else {
                    self.release(refused);
                }
            }
            Stage::Resting { .. } => self.release(refused),
            Stage::Settling { .. }
            | Stage::Releasing { .. }
            | Stage::Losing { .. }
            | Stage::Over => {}
        }
    }

    fn lose(&mut self) {
        if self.streamed {
            self.send_text(false);
        }
        self.stage = Stage::Losing {
            pause: Pause::default(),
        };
        self.ask_to_lose();
    }

    pub(super) fn ask_to_lose(&mut self) {
        let (tokens, _) = self.tokens();
        self.outputs.push_back(Output::Lose(tokens));
    }

    pub(super) fn lost(&mut self, now: Now, written: bool) {
        let Stage::Losing { pause } = &mut self.stage else {
            return;
        };
        if written {
            self.over_with(terms::interrupted(self.request_id));
        } else {
            pause.begin(now);
        }
    }
}
