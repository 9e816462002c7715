//! What is asked of the outside world: for what, until when, and what follows from its word, from its silence
//! and from a word that comes too late.

use super::answer::Input;
use super::answers::AnswerId;
use super::count;
use super::outside::{
    Ask, AskId, Granted, HoldFailed, NotAdmitted, Progress, SettleFailed, Settled, Told,
    Unavailable,
};
use super::recall::Recalling;
use super::{Due, Event, Gateway, Output, terms};
use crate::billing::account::{Denied, Release};
use crate::ids::AccountId;
use crate::limits;
use crate::time::Now;
use crate::transport::{ConnId, StreamId, Transport};

/// What an outstanding ask was for.
#[derive(Debug)]
pub(super) enum Pending {
    Admit(ConnId),
    Hold(AnswerId),
    Settle(AnswerId),
    Release(AnswerId),
    Lose(AnswerId),
    Checkpoint(AnswerId),
    Call(AnswerId),
    /// A device asks how many tokens something is, and who pays its provider is not known yet.
    CountFor(Box<count::Wanted>),
    /// The same, asked of the model's server.
    Count(Box<count::Asked>),
    Service {
        conn: ConnId,
        stream: StreamId,
        call: u64,
    },
    Recall(Recalling),
    /// A hold that came too late to use: if it was granted, it is given back.
    LateHold {
        account: AccountId,
        release: Release,
    },
    /// The release of such a hold.
    GiveBack {
        account: AccountId,
        release: Release,
    },
    /// The store could not release it: asked again at the deadline. Nothing is asked under this id.
    GiveBackLater {
        account: AccountId,
        release: Release,
    },
    /// Its word no longer matters.
    Forgotten,
}

impl<T: Transport> Gateway<T> {
    pub(super) fn ask(&mut self, pending: Pending, ask: Ask) -> AskId {
        let id = AskId(self.next_id());
        self.asks.insert(id, pending);
        self.outputs.push_back(Output::Ask { id, ask });
        id
    }

    pub(super) fn ask_store(&mut self, now: Now, pending: Pending, ask: Ask) {
        let id = self.ask(pending, ask);
        self.deadlines
            .set(Due::Ask(id), Some(now.instant + limits::STORE_TIMEOUT));
    }

    pub(super) fn ask_admission(&mut self, now: Now, conn: ConnId, ask: Ask) {
        self.ask_store(now, Pending::Admit(conn), ask);
    }

    pub(super) fn progress(&mut self, now: Now, id: AskId, piece: Progress) {
        let Some(Pending::Call(answer)) = self.asks.get(&id) else {
            return self.count_progress(id, piece);
        };
        let answer = *answer;
        match piece {
            Progress::Head(head) => self.step_answer(now, answer, Input::Head(head)),
            Progress::Body(bytes) => self.step_answer(now, answer, Input::Body(&bytes)),
        }
    }

    pub(super) fn told(&mut self, now: Now, id: AskId, told: Told) {
        self.deadlines.set(Due::Ask(id), None);
        let Some(pending) = self.asks.remove(&id) else {
            return;
        };
        match (pending, told) {
            (Pending::Admit(conn), Told::Admitted(word)) => self.admission_told(now, conn, word),
            // Another gateway, or another life of this one, has had the question: what became of it?
            (
                Pending::Hold(answer),
                Told::Held(Err(HoldFailed::Denied(
                    Denied::Expired { .. } | Denied::InProgress | Denied::Interrupted { .. },
                ))),
            ) if self.recall_instead(now, answer) => {}
            (Pending::Hold(answer), Told::Held(word)) => self.held(now, answer, word),
            (Pending::Settle(answer), Told::Settled(word)) => self.settled(now, answer, word),
            (Pending::Checkpoint(answer), Told::Checkpointed(word)) => {
                self.step_answer(now, answer, Input::Checkpointed(word.is_ok()));
            }
            (Pending::Lose(answer), Told::Lost(word)) => {
                self.step_answer(now, answer, Input::Lost(word.is_ok()));
            }
            (Pending::Release(answer), Told::Released(word)) => {
                self.step_answer(now, answer, Input::Released(word.is_ok()));
            }
            (Pending::Call(answer), Told::Called(end)) => {
                if let Some(running) = self.answers.get_mut(&answer) {
                    running.call = None;
                }
                self.step_answer(now, answer, Input::Ended(end));
            }
            (Pending::Count(asked), Told::Called(end)) => self.counted(now, *asked, end),
            (Pending::CountFor(wanted), Told::Served(word)) => self.count_for(now, *wanted, word),
            (Pending::Service { conn, stream, call }, Told::Served(word)) => {
                self.served(now, conn, stream, call, word);
            }
            (Pending::Recall(recalling), Told::Recalled(word)) => {
                self.recalled(now, &recalling, word);
            }
            (Pending::LateHold { account, release }, Told::Held(Ok(Granted { .. }))) => {
                self.event(Event::LateAnswer);
                self.give_back(now, account, release);
            }
            (Pending::GiveBack { .. }, Told::Released(Ok(()))) => {}
            (Pending::GiveBack { account, release }, Told::Released(Err(Unavailable))) => {
                self.give_back_later(now, account, release);
            }
            (Pending::LateHold { .. } | Pending::Forgotten, _) => self.event(Event::LateAnswer),
            // The shell answered with another ask's kind: as if it had not answered at all.
            (mismatched, _) => {
                self.asks.insert(id, mismatched);
                self.ask_overdue(now, id);
                self.asks.remove(&id);
            }
        }
    }

    fn held(&mut self, now: Now, answer: AnswerId, word: Result<Granted, HoldFailed>) {
        let word = match word {
            Ok(Granted { tier }) => {
                if let Some(running) = self.answers.get_mut(&answer) {
                    running.tier = Some(tier);
                }
                Some(Ok(()))
            }
            Err(HoldFailed::Denied(denied)) => Some(Err(denied)),
            Err(HoldFailed::Unavailable) => None,
        };
        self.step_answer(now, answer, Input::Held(word));
    }

    fn settled(&mut self, now: Now, answer: AnswerId, word: Result<Settled, SettleFailed>) {
        let input = match word {
            Ok(settled) => Input::Settled(Some(self.charged(now, answer, settled))),
            Err(SettleFailed::Denied(denied)) => Input::SettleDenied(denied),
            Err(SettleFailed::Unavailable) => Input::Settled(None),
        };
        self.step_answer(now, answer, input);
    }

    /// The outside world has not answered in time: go on without, and remember what a late success
    /// would have taken.
    pub(super) fn ask_overdue(&mut self, now: Now, id: AskId) {
        let Some(pending) = self.asks.get_mut(&id) else {
            return;
        };
        match std::mem::replace(pending, Pending::Forgotten) {
            Pending::Admit(conn) => {
                self.admission_told(now, conn, Err(NotAdmitted::Unavailable));
            }
            Pending::Hold(answer) => {
                if let Some(running) = self.answers.get(&answer) {
                    let (account, release) = (running.account, running.release());
                    self.asks.insert(id, Pending::LateHold { account, release });
                }
                self.step_answer(now, answer, Input::Held(None));
            }
            Pending::Settle(answer) => self.step_answer(now, answer, Input::Settled(None)),
            Pending::Release(answer) => self.step_answer(now, answer, Input::Released(false)),
            Pending::Lose(answer) => self.step_answer(now, answer, Input::Lost(false)),
            Pending::Checkpoint(answer) => {
                self.step_answer(now, answer, Input::Checkpointed(false));
            }
            Pending::Service { conn, stream, call } => {
                self.served(now, conn, stream, call, Err(terms::store_down()));
            }
            Pending::Recall(recalling) => self.recalled(now, &recalling, Err(Unavailable)),
            Pending::CountFor(wanted) => {
                self.count_for(now, *wanted, Err(terms::store_down()));
            }
            Pending::Count(asked) => self.count_overdue(now, id, *asked),
            Pending::GiveBack { account, release } => self.give_back(now, account, release),
            Pending::GiveBackLater { account, release } => {
                self.asks.remove(&id);
                self.give_back(now, account, release);
            }
            Pending::Call(_) | Pending::LateHold { .. } | Pending::Forgotten => {}
        }
    }

    fn give_back(&mut self, now: Now, account: AccountId, release: Release) {
        let pending = Pending::GiveBack { account, release };
        self.ask_store(now, pending, Ask::Release { account, release });
    }

    fn give_back_later(&mut self, now: Now, account: AccountId, release: Release) {
        let id = AskId(self.next_id());
        let pending = Pending::GiveBackLater { account, release };
        self.asks.insert(id, pending);
        let again = now.instant + limits::SETTLE_RETRY_MAX;
        self.deadlines.set(Due::Ask(id), Some(again));
    }
}
