//! Questions that outlive the device's process: when what there is of them is written down, what
//! becomes of them when there is a process again, and who gets their answers.
//!
//! ```text
//!               last event                      Taken
//!   under way ───────────────▶ on the shelf ───────────────▶ (forgotten)
//!    ▲  │ no tunnel is left        │ ▲
//!    │  └──────── parked ──────────┘ │ Restore: ended, or too old to go on
//!    └─ Attach, a tunnel again ──────┘
//!    └─ Restore: cut, and read by nobody until Attach
//! ```
//!
//! # Invariants
//!
//! 1. An answer stays written down until its last event was taken by whoever reads it.
//! 2. Somebody who attaches is given the whole of it, from the first word on, each once.
//! 3. What is kept is bounded ([`limits::UNFINISHED_BYTES_MAX`]); nothing is when
//!    [`super::Terms::keeps`] is off.
//! 4. A question that was cancelled is kept only as long as the gateway may not know.

use std::time::{Duration, Instant};

use super::asked::Lane;
use super::cancel::Cancelling;
use super::control::Failure as Words;
use super::question::Question;
use super::unfinished::{End, Kept, Listed, Said, Unfinished};
use super::{AnswerEvent, AskError, Device, Output};
use crate::ids::RequestId;
use crate::limits;
use crate::time::Now;
use crate::transport::Transport;
use crate::tunnel::State;
use crate::wire::message::Notice;

/// A question that is kept and not under way.
#[derive(Debug)]
pub(super) struct Shelved {
    kept: Kept,
    /// Whether its last event was given to somebody who has not taken it yet.
    attended: bool,
}

/// When what is kept is written down.
#[derive(Debug, Default)]
pub(super) struct Pace {
    due: Option<Instant>,
    last: Option<Instant>,
    /// Bytes that were written last.
    bytes: usize,
    /// Whether there was anything.
    any: bool,
}

impl Pace {
    fn touch(&mut self, now: Now) {
        if self.due.is_some() {
            return;
        }
        let soon = now.instant + limits::UNFINISHED_FIRST;
        let millis = self.bytes.saturating_mul(1000) / limits::UNFINISHED_BYTES_PER_SEC;
        let pause = Duration::from_millis(millis as u64).max(limits::UNFINISHED_EVERY);
        self.due = Some(self.last.map_or(soon, |last| soon.max(last + pause)));
    }
}

impl<T: Transport> Device<T> {
    /// Questions that somebody may attach to, the oldest first.
    #[must_use]
    pub fn unfinished(&self) -> Vec<Listed> {
        let shelved = self.shelf.values().filter(|shelved| !shelved.attended);
        let shelved = shelved.map(|shelved| shelved.kept.listed());
        let wanted = |q: &Question| !q.attended && q.cancelling == Cancelling::No;
        let running = self
            .questions
            .iter()
            .filter(|(_, question)| wanted(question));
        let running = running.filter_map(|(&id, question)| Some(question.kept(id)?.listed()));
        let mut all: Vec<Listed> = shelved.chain(running).collect();
        all.sort_by_key(|listed| (listed.sent_at, listed.id));
        all
    }

    pub(super) fn next_keep(&self) -> Option<Instant> {
        self.pace.due
    }

    /// Says what there is to keep, if it is time, or the last moment to.
    pub(super) fn keep(&mut self, now: Now, last: bool) {
        if !self.config.terms.keeps {
            self.touched = false;
            return;
        }
        if std::mem::take(&mut self.touched) {
            self.pace.touch(now);
        }
        if self.pace.due.is_none_or(|due| due > now.instant && !last) {
            return;
        }
        self.pace.due = None;
        self.pace.last = Some(now.instant);
        let unfinished = self.snapshot(now);
        if self.pace.any || !unfinished.is_empty() {
            self.pace.any = !unfinished.is_empty();
            self.outputs.push_back(Output::Keep(unfinished));
        }
    }

    /// All that there is to keep and room for, the oldest first.
    fn snapshot(&mut self, now: Now) -> Unfinished {
        let old = |kept: &Kept| now.wall.saturating_since(kept.sent_at) > limits::UNFINISHED_KEPT;
        self.shelf.retain(|_, shelved| !old(&shelved.kept));
        let mut order: Vec<_> = self
            .questions
            .iter()
            .map(|(&id, q)| (q.sent_at, id))
            .collect();
        order.extend(self.shelf.iter().map(|(&id, s)| (s.kept.sent_at, id)));
        order.sort_unstable();
        let mut left = limits::UNFINISHED_BYTES_MAX;
        let mut questions = Vec::new();
        for (_, id) in order {
            if let Some(shelved) = self.shelf.get(&id) {
                left = left.saturating_sub(shelved.kept.bytes());
                questions.push(shelved.kept.clone());
                continue;
            }
            let Some(question) = self.questions.get_mut(&id) else {
                continue;
            };
            let said = question.transcript.as_ref().map_or(0, |said| said.bytes);
            if said > left {
                if question.attended {
                    question.transcript = None;
                } else {
                    question.paused = true;
                }
            }
            let Some(mut kept) = question.kept(id) else {
                continue;
            };
            left = left.saturating_sub(said);
            match left.checked_sub(question.request_bytes) {
                Some(rest) if kept.request.is_some() => left = rest,
                // It can still be resumed, if the gateway had it.
                Some(_) | None => kept.request = None,
            }
            questions.push(kept);
        }
        self.pace.bytes = limits::UNFINISHED_BYTES_MAX - left;
        Unfinished { questions }
    }

    /// What an earlier process kept.
    pub(super) fn restore(&mut self, now: Now, unfinished: Unfinished) {
        // Also that nothing of it is left is to be written down.
        self.touched = true;
        self.pace.any = true;
        for mut kept in unfinished.questions {
            let (id, age) = (kept.id, now.wall.saturating_since(kept.sent_at));
            let known = self.questions.contains_key(&id) || self.shelf.contains_key(&id);
            if known || age > limits::UNFINISHED_KEPT {
                continue;
            }
            if kept.end.is_none() && age > limits::UNFINISHED_RESUMABLE {
                if kept.cancelled {
                    continue;
                }
                kept.end = Some(End::Failed(Words::from(&AskError::TooLate)));
            }
            if kept.end.is_none() && self.may_go_on() {
                self.go_on_with(now, kept);
            } else {
                self.put_on_shelf(kept, false);
            }
        }
        self.send_waiting(now);
    }

    fn may_go_on(&self) -> bool {
        !matches!(self.tunnel.state(), State::Disconnected | State::Failed)
            && self.questions.len() + self.calls.len() < limits::ASKED_MAX
    }

    fn go_on_with(&mut self, now: Now, kept: Kept) {
        let id = kept.id;
        self.questions.insert(id, Question::restored(now, kept));
        self.waiting.push_back(Lane::Question(id));
    }

    /// A tunnel is wanted again: what waits for nothing else goes on.
    pub(super) fn unpark(&mut self, now: Now) {
        let parked: Vec<RequestId> = self
            .shelf
            .iter()
            .filter(|(_, shelved)| shelved.kept.end.is_none())
            .map(|(&id, _)| id)
            .collect();
        for id in parked {
            if self.may_go_on()
                && let Some(shelved) = self.shelf.remove(&id)
            {
                self.go_on_with(now, shelved.kept);
            }
        }
    }

    fn put_on_shelf(&mut self, kept: Kept, attended: bool) {
        if self.shelf.len() >= limits::UNFINISHED_MAX {
            let oldest = self.shelf.iter().min_by_key(|(_, s)| s.kept.sent_at);
            if let Some(id) = oldest.map(|(&id, _)| id) {
                self.shelf.remove(&id);
            }
        }
        self.shelf.insert(kept.id, Shelved { kept, attended });
        self.touched = true;
    }

    /// An answer ends: it is kept until its end is taken.
    pub(super) fn shelve(&mut self, id: RequestId, question: &Question, event: &AnswerEvent) {
        self.touched = true;
        if question.cancelling != Cancelling::No || question.sent.is_none() {
            return;
        }
        let Some(mut kept) = question.kept(id) else {
            return;
        };
        kept.request = None;
        kept.held.clear();
        kept.end = Some(match event {
            AnswerEvent::Ended(end) => End::Ended(end.clone()),
            AnswerEvent::Whole(answer) => {
                let (content, end) = (**answer).clone().into_parts();
                kept.said.push(Said::Text(content));
                End::Ended(end)
            }
            AnswerEvent::Failed(error) => End::Failed(Words::from(error)),
            AnswerEvent::Chunk(_)
            | AnswerEvent::Delta(_)
            | AnswerEvent::Cut
            | AnswerEvent::Notice(_)
            | AnswerEvent::Resumed { .. } => return,
        });
        self.put_on_shelf(kept, question.attended);
    }

    /// Whether a question that would end with `error` may go on some other time: it waits for a
    /// tunnel, and if it was cancelled, the gateway may still have to be told.
    pub(super) fn is_to_be_parked(&self, id: RequestId, error: &AskError) -> bool {
        let stopping = matches!(error, AskError::NotConnected(_));
        self.questions.get(&id).is_some_and(|question| {
            let wanted = question.cancelling == Cancelling::No || stopping;
            let waits = question.cut.is_some() && question.place.is_none();
            wanted && waits && question.transcript.is_some()
        })
    }

    /// It ends for whoever reads it, with `error`, and is kept for whoever wants it to go on.
    pub(super) fn park(&mut self, id: RequestId, error: AskError) {
        let Some(question) = self.questions.remove(&id) else {
            return;
        };
        self.leave(Lane::Question(id), question.place);
        self.touched = true;
        if let Some(kept) = question.kept(id) {
            self.put_on_shelf(kept, false);
        }
        if question.attended {
            self.stats.requests_failed += 1;
            self.say(id, AnswerEvent::Failed(error));
        }
    }

    /// Somebody wants an answer that an earlier process asked for, or that had no tunnel left.
    pub(super) fn attach(&mut self, now: Now, id: RequestId) {
        let parked = self.shelf.get(&id).is_some_and(|s| s.kept.end.is_none());
        if parked && !self.may_go_on() {
            let failure = self.tunnel.failure().cloned();
            return self.say(id, AnswerEvent::Failed(AskError::NotConnected(failure)));
        }
        if parked && let Some(shelved) = self.shelf.remove(&id) {
            self.go_on_with(now, shelved.kept);
        }
        if let Some(shelved) = self.shelf.get_mut(&id) {
            if std::mem::replace(&mut shelved.attended, true) {
                return self.say(id, AnswerEvent::Failed(AskError::Duplicate));
            }
            let events: Vec<_> = shelved.kept.said.iter().flat_map(Said::events).collect();
            let end = match &shelved.kept.end {
                Some(End::Ended(end)) => AnswerEvent::Ended(end.clone()),
                Some(End::Failed(words)) => AnswerEvent::Failed(words.clone().into()),
                None => return,
            };
            for event in events.into_iter().chain([end]) {
                self.say(id, event);
            }
            return;
        }
        let Some(question) = self.questions.get_mut(&id) else {
            return self.say(id, AnswerEvent::Failed(AskError::NothingKept));
        };
        if std::mem::replace(&mut question.attended, true) {
            return self.say(id, AnswerEvent::Failed(AskError::Duplicate));
        }
        let said = question.transcript.iter().flat_map(|said| &said.parts);
        let events: Vec<_> = said.flat_map(Said::events).collect();
        let cut = question.cut.is_some();
        for event in events {
            self.say(id, event);
        }
        if cut {
            self.say(id, AnswerEvent::Cut);
        }
        self.tell_unheard(id);
        self.unpause(now, id);
        self.send_waiting(now);
    }

    /// Whether a question that is asked is one that is kept: then its answer goes on for this asker.
    pub(super) fn is_asked_again(&mut self, now: Now, id: RequestId, body: u64) -> bool {
        let running = self.questions.get(&id).map(|question| question.body);
        if let Some(kept) = running {
            if kept == body {
                self.attach(now, id);
            } else {
                self.say(id, AnswerEvent::Failed(AskError::Duplicate));
            }
            return true;
        }
        let answered = self.shelf.get(&id).is_some_and(|shelved| {
            let ended = matches!(shelved.kept.end, Some(End::Ended(_)) | None);
            ended && !shelved.attended && shelved.kept.body == body
        });
        if answered {
            self.attach(now, id);
        }
        answered
    }

    /// Whoever reads an answer has had its last event.
    pub(super) fn taken(&mut self, id: RequestId) {
        let ended = self.shelf.get(&id).is_some_and(|s| s.kept.end.is_some());
        if ended {
            self.shelf.remove(&id);
            self.touched = true;
        }
    }

    /// The device is to stop: what the gateway was told is not wanted has no other day.
    pub(super) fn forget_cancelled(&mut self) {
        let told = |question: &Question| matches!(question.cancelling, Cancelling::Told(_));
        let told = self.questions.iter().filter(|(_, question)| told(question));
        let told: Vec<RequestId> = told.map(|(&id, _)| id).collect();
        for id in told {
            self.fail_question(id, AskError::Cancelled);
        }
    }

    /// Something that whoever asks may want to know; when nobody does, for the next who will. It comes
    /// on the control stream and with the answer that gave occasion, in either order, and is told once.
    pub(super) fn notice(&mut self, notice: Notice) {
        if notice.kind == Notice::LIMIT {
            if self.notices.contains(&notice) {
                return;
            }
            self.notices.truncate(limits::NOTICES_REMEMBERED - 1);
            self.notices.push_front(notice.clone());
            let readers = self
                .questions
                .iter()
                .filter(|(_, question)| question.attended);
            let readers: Vec<RequestId> = readers.map(|(&id, _)| id).collect();
            for &id in &readers {
                self.say(id, AnswerEvent::Notice(notice.clone()));
            }
            if readers.is_empty() {
                self.unheard = Some(notice.clone());
            }
        }
        self.outputs.push_back(Output::Notice(notice));
    }

    /// What came with the end of an answer.
    pub(super) fn tell_all(&mut self, notice: Option<Notice>) {
        if let Some(notice) = notice {
            self.notice(notice);
        }
    }

    pub(super) fn tell_unheard(&mut self, id: RequestId) {
        if let Some(notice) = self.unheard.take() {
            self.say(id, AnswerEvent::Notice(notice));
        }
    }
}
