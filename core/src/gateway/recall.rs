//! Answers that this gateway does not have: begun by another one of its deployment, or by an earlier life
//! of this one.
//!
//! ```text
//!   Resume ───────────────────────────┐            Kept ───────▶ fetched, told, and let go again
//!   the same question ─▶ Hold denied ─┴─▶ Recall ─ Charged ────▶ EXPIRED, with the receipt
//!                                                  Lost ───────▶ INTERRUPTED
//!                                                  Elsewhere ──▶ IN_PROGRESS, come back shortly
//!                                                  NotYours ───▶ NOT_FOUND
//! ```
//!
//! # Invariants
//!
//! 1. What was charged is told, or its receipt: never that it was lost.

use super::answers::AnswerId;
use super::asks::Pending;
use super::attach::{Kept, Return};
use super::outside::{Ask, Keep, Recalled, Transcript, Unavailable};
use super::streams::Lane;
use super::{Due, Gateway, terms};
use crate::billing::ledger::Charge;
use crate::ids::RequestId;
use crate::time::Now;
use crate::transport::{ConnId, Priority, StreamId, Transport};
use crate::wire::message::{ErrorMessage, Resume};

/// Who comes back for an answer that is not here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recalling {
    conn: ConnId,
    stream: StreamId,
    request: RequestId,
    how: Return,
    /// The piece that is wanted first.
    next: u64,
}

impl<T: Transport> Gateway<T> {
    pub(super) fn resume(&mut self, now: Now, conn: ConnId, stream: StreamId, resume: &Resume) {
        let recalling = Recalling {
            conn,
            stream,
            request: resume.request_id,
            how: Return::Resumed,
            next: resume.next_sequence,
        };
        if self.is_back(now, &recalling) {
            return;
        }
        self.transport
            .set_priority(conn, stream, Priority::Escalation);
        self.ask_what_became(now, recalling);
    }

    /// Lets a device that came back hear its answer, if it is here.
    fn is_back(&mut self, now: Now, recalling: &Recalling) -> bool {
        let Recalling {
            conn,
            stream,
            request,
            how,
            next,
        } = *recalling;
        let Some((account, device)) = self.asker(conn) else {
            return true;
        };
        let Some(&id) = self.requests.get(&(account, request)) else {
            return false;
        };
        let refused = match self.kept.get(&id) {
            Some(kept) if kept.whose().1 != device => Some(terms::no_such_answer(request)),
            Some(kept) if next > kept.journal().pieces() => Some(terms::no_such_piece(request)),
            Some(_) => None,
            None => Some(terms::no_such_answer(request)),
        };
        match refused {
            Some(error) => self.refuse_question(now, (conn, stream), device, error),
            None => self.attach(now, id, (conn, stream), next, how),
        }
        true
    }

    fn ask_what_became(&mut self, now: Now, recalling: Recalling) {
        let Recalling {
            conn,
            stream,
            request,
            ..
        } = recalling;
        let Some((account, device)) = self.asker(conn) else {
            return;
        };
        self.set_lane(conn, stream, Lane::Recall);
        let ask = Ask::Recall {
            account,
            device,
            request,
        };
        self.ask_store(now, Pending::Recall(recalling), ask);
    }

    /// The store knows the question that was to be held: who asks it is told what became of it, if they
    /// still listen.
    pub(super) fn recall_instead(&mut self, now: Now, id: AnswerId) -> bool {
        self.give_turn_back(id);
        let Some((conn, stream)) = self.kept.get(&id).and_then(Kept::place) else {
            return false;
        };
        let Some(kept) = self.kept.remove(&id) else {
            return false;
        };
        let (account, _, request) = kept.whose();
        self.runs_no_more(id);
        self.shelf.remove(id);
        self.requests.remove(&(account, request));
        self.deadlines.set(Due::Answer(id), None);
        self.deadlines.set(Due::Kept(id), None);
        let recalling = Recalling {
            conn,
            stream,
            request,
            how: Return::AskedAgain,
            next: 0,
        };
        self.ask_what_became(now, recalling);
        true
    }

    /// What the outside world knows of an answer that is not here.
    pub(super) fn recalled(
        &mut self,
        now: Now,
        recalling: &Recalling,
        word: Result<Recalled, Unavailable>,
    ) {
        let (conn, stream) = (recalling.conn, recalling.stream);
        // The stream may be gone meanwhile; and the answer may be here, fetched for another one.
        if self.lane(conn, stream) != Some(Lane::Recall) || self.is_back(now, recalling) {
            return;
        }
        let Some((_, device)) = self.asker(conn) else {
            return;
        };
        let request = recalling.request;
        // Nobody has pieces of a question that was never accepted.
        let accepted = recalling.next > 0;
        let error = match word {
            Ok(Recalled::Kept { charge, transcript }) => {
                match self.fetch(now, recalling, charge, &transcript) {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
            Ok(Recalled::Charged(charge)) => terms::expired(&charge, request),
            Ok(Recalled::Lost) => terms::interrupted(request),
            Ok(Recalled::Nothing) if accepted => terms::interrupted(request),
            // It failed where it was under way, at this moment: the question may be asked once more.
            Ok(Recalled::Nothing) if recalling.how == Return::AskedAgain => {
                terms::elsewhere(request)
            }
            Ok(Recalled::Elsewhere) => terms::elsewhere(request),
            Ok(Recalled::NotYours | Recalled::Nothing) => terms::no_such_answer(request),
            Err(Unavailable) => terms::store_unavailable(request),
        };
        self.refuse_question(now, (conn, stream), device, error);
    }

    /// Takes a finished answer from the store, and tells it.
    fn fetch(
        &mut self,
        now: Now,
        recalling: &Recalling,
        charge: Box<Charge>,
        transcript: &Transcript,
    ) -> Result<(), ErrorMessage> {
        let request = recalling.request;
        let Some(whose) = self.asker(recalling.conn) else {
            return Ok(());
        };
        let Some(told) = transcript.told(request, &charge) else {
            return Err(terms::expired(&charge, request));
        };
        let kept = Kept::fetched(now, whose, charge, told);
        let id = self.next_answer();
        let grown = self.shelf.hold(id, kept.bytes());
        for other in grown.let_go {
            self.forget_answer(now, other);
        }
        if !grown.fits {
            self.shelf.remove(id);
            return Err(terms::no_room(request));
        }
        self.shelf.finish(id, now.instant);
        self.kept.insert(id, kept);
        self.requests.insert((whose.0, request), id);
        self.is_back(now, recalling);
        // If there was no such piece, nobody hears it.
        self.mind(now, id);
        Ok(())
    }

    /// What the store is to keep of an answer that is being settled.
    pub(super) fn to_keep(&self, now: Now, id: AnswerId) -> Option<Box<Keep>> {
        let kept = self.config.keeping.kept;
        if kept.is_zero() {
            return None;
        }
        let end = self.answers.get(&id)?.answer.end(now)?;
        let transcript = Transcript::new(self.kept.get(&id)?.journal(), &end)?;
        Some(Box::new(Keep { transcript, kept }))
    }
}
