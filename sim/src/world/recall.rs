//! Answers that outlive their gateway: those that die at an answer's end, and what becomes of what was said.

use std::collections::BTreeMap;

use mesh_core::gateway::{Ask, Recalled, Told};
use mesh_core::ids::RequestId;

use super::{Event, World};
use crate::queue::{Micros, SECOND};
use crate::wire::Wire;

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Recalls {
    /// Questions whose gateway dies once it has charged them: the happening, and for how long.
    armed: BTreeMap<RequestId, (usize, Micros)>,
    /// Which gateway died of which happening.
    pub(super) died: BTreeMap<usize, usize>,
    /// When and by which gateway an id was charged.
    charged: BTreeMap<RequestId, (Micros, usize)>,
    /// Whose hold was granted in this step.
    pub(super) granted: Option<RequestId>,
}

impl Recalls {
    /// From now on nobody dies of it.
    pub(super) fn disarm(&mut self) {
        self.armed.clear();
    }

    /// The gateway that charges this question dies of it.
    pub(super) fn arm(&mut self, question: RequestId, index: usize, for_us: Micros) {
        self.armed.insert(question, (index, for_us));
    }
}

impl<W: Wire> World<W> {
    fn kept(&self) -> Micros {
        Micros::from(self.plan.kept_secs) * SECOND
    }

    /// The store gave its word on an answer. `false` if its gateway does not live to hear it.
    pub(super) fn answer_told(&mut self, gateway: usize, ask: &Ask, told: Option<&Told>) -> bool {
        let now = self.queue.now();
        match (ask, told) {
            (Ask::Hold { hold, .. }, Some(Told::Held(Ok(_)))) => {
                self.recalls.granted = Some(hold.request);
            }
            (Ask::Settle { settle, .. }, Some(Told::Settled(Ok(_)))) => {
                let id = settle.request;
                self.recalls.charged.entry(id).or_insert((now, gateway));
                let question = self.record.question_of(id);
                if let Some((index, for_us)) = self.recalls.armed.remove(&question) {
                    self.recalls.died.insert(index, gateway);
                    self.record.gateways_ended += 1;
                    self.kill_gateway(gateway);
                    self.queue.put(now + for_us, Event::Undo(index));
                    return false;
                }
            }
            (Ask::Recall { request, .. }, Some(Told::Recalled(Ok(word)))) => {
                self.recalled(gateway, *request, word);
            }
            _ => {}
        }
        true
    }

    fn recalled(&mut self, gateway: usize, request: RequestId, word: &Recalled) {
        let now = self.queue.now();
        let charged = self.recalls.charged.get(&request).copied();
        match (word, charged) {
            (Recalled::Kept { .. }, Some((at, by))) => {
                self.sometimes.saw("an answer was told from the store");
                if by != gateway {
                    self.sometimes
                        .saw("an answer was told by another gateway than the one that finished it");
                }
                if now >= at + self.kept() {
                    let found = format!("{request} was told {} s later", (now - at) / SECOND);
                    self.break_off("no text is kept past its time", found);
                }
            }
            (Recalled::Kept { .. }, None) => {
                let found = format!("{request} was kept and never charged");
                self.break_off("no text is kept of what was not charged", found);
            }
            (Recalled::Charged(_), _) => self
                .sometimes
                .saw("an answer was kept no longer when its device came for it"),
            (Recalled::Elsewhere, _) => self
                .sometimes
                .saw("an answer under way at another gateway was asked for"),
            (Recalled::Lost | Recalled::NotYours | Recalled::Nothing, _) => {}
        }
    }

    /// What a living gateway does from time to time: text that has been kept for its time goes.
    pub(super) fn forget_answers(&mut self) {
        self.store.forget_answers(self.wall());
        let (now, kept) = (self.queue.now(), self.kept());
        let old = self.store.kept().find(|request| {
            let charged = self.recalls.charged.get(request);
            charged.is_none_or(|(at, _)| now >= at + kept)
        });
        if let Some(request) = old {
            let found = format!("{request} is there after {} s", kept / SECOND);
            self.break_off("no text is kept past its time", found);
        }
    }

    /// A model is called: under the id whose hold was granted in this step, or again under the last one.
    pub(super) fn called_under(&mut self, question: RequestId) {
        let Some(asked) = self.record.questions.get_mut(&question) else {
            return;
        };
        if let Some(id) = self.recalls.granted.take()
            && id != asked.wire
        {
            asked.wire = id;
            asked.wire_from = asked.produced.len();
            self.record.wires.insert(id, question);
        }
        let (account, id) = (asked.account, asked.wire);
        if self.store.has_ended(account, id) {
            let found = format!("{id} has ended, and a model is called for it");
            self.break_off("no attempt is made under an id that has ended", found);
        }
    }
}
