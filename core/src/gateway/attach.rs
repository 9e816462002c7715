//! Answers that outlive their streams: what an answer has said is kept, and streams come and go.
//!
//! ```text
//!                  the stream or its tunnel dies
//!   Hears(stream) ─────────────────────────────▶ Away(since) ─ resume window ─▶ stopped, or drained
//!        ▲  │ everything said                      │
//!        │  └───────────▶ Away                     │
//!        └──── Resume, or the same question again ─┘      kept until some time after the end
//! ```
//!
//! # Invariants
//!
//! 1. An answer is for the device that asked; to another one it does not exist.
//! 2. At most one stream hears an answer: a newer one takes it from the older.
//! 3. A lost stream stops nothing before the resume window has passed; a device's own word does at
//!    once.
//! 4. Nothing is kept longer than configured after its end, except what is on its way to a device,
//!    which has [`limits::ANSWER_DELIVERY`]; what was not charged is not kept at all, and what the store
//!    has no longer than it is told.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::answer::Input;
use super::answers::AnswerId;
use super::streams::Lane;
use super::{Due, Event, Gateway, terms};
use crate::billing::ledger::Charge;
use crate::escalation::request;
use crate::ids::{AccountId, DeviceId, RequestId};
use crate::limits;
use crate::stream::journal::{Journal, Reader};
use crate::time::Now;
use crate::transport::{ConnId, Priority, StreamId, Transport};
use crate::wire::close::CloseCode;
use crate::wire::message::{ChunkAck, ErrorMessage, EscalationRequest, Message, StreamChunk};

/// How long answers are kept for devices that lost their tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// From an answer's end until its text is forgotten; zero forgets it once it is delivered, or
    /// at its end if nobody listens.
    pub kept: Duration,
    /// How long a running answer waits for its device.
    pub resume_window: Duration,
    /// Providers whose answers then go on to their end, for the exact usage, instead of being
    /// stopped.
    pub drained: BTreeSet<String>,
    /// All kept answers together, bytes.
    pub bytes_max: usize,
}

impl Default for Keeping {
    fn default() -> Self {
        Self {
            kept: limits::ANSWER_KEPT,
            resume_window: limits::RESUME_WINDOW,
            drained: BTreeSet::new(),
            bytes_max: limits::JOURNALS_BYTES_MAX,
        }
    }
}

/// How a device came back to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// By `Resume`.
    Resumed,
    /// By the same question again.
    AskedAgain,
}

/// An answer, running or not, with everything it has said. `Debug` shows nothing of that.
#[derive(Debug)]
pub(super) struct Kept {
    account: AccountId,
    device: DeviceId,
    request: RequestId,
    /// SHA-256 of the question.
    body: [u8; 32],
    journal: Journal,
    last_word: Option<Message>,
    last_word_bytes: usize,
    ear: Ear,
    ended: Option<Instant>,
    charge: Option<Box<Charge>>,
    /// Goes on without its device for as long as it takes.
    drains: bool,
    /// Fetched from the store, which has it still: here it is only to be told.
    fetched: bool,
}

/// Whether a device listens.
#[derive(Clone, Copy, Debug)]
enum Ear {
    Hears {
        conn: ConnId,
        stream: StreamId,
        reader: Reader,
    },
    Away(Instant),
}

impl Kept {
    pub(super) fn new(
        (account, device): (AccountId, DeviceId),
        (request, body): (RequestId, [u8; 32]),
        (conn, stream): (ConnId, StreamId),
        drains: bool,
    ) -> Self {
        Self {
            account,
            device,
            request,
            body,
            journal: Journal::new(),
            last_word: None,
            last_word_bytes: 0,
            ear: Ear::Hears {
                conn,
                stream,
                reader: Reader::from(0),
            },
            ended: None,
            charge: None,
            drains,
            fetched: false,
        }
    }

    /// A finished one that the store had kept; nobody hears it yet.
    pub(super) fn fetched(
        now: Now,
        (account, device): (AccountId, DeviceId),
        charge: Box<Charge>,
        (journal, last_word): (Journal, Message),
    ) -> Self {
        Self {
            account,
            device,
            request: charge.request,
            body: charge.body,
            journal,
            last_word_bytes: size_of_word(&last_word),
            last_word: Some(last_word),
            ear: Ear::Away(now.instant),
            ended: Some(now.instant),
            charge: Some(charge),
            drains: false,
            fetched: true,
        }
    }

    pub(super) fn charged(&mut self, charge: &Charge) {
        self.charge = Some(Box::new(charge.clone()));
    }

    pub(super) const fn whose(&self) -> (AccountId, DeviceId, RequestId) {
        (self.account, self.device, self.request)
    }

    pub(super) const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// What it takes, bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.journal.bytes() + self.last_word_bytes
    }

    /// Where it is heard.
    pub(super) const fn place(&self) -> Option<(ConnId, StreamId)> {
        match self.ear {
            Ear::Hears { conn, stream, .. } => Some((conn, stream)),
            Ear::Away(_) => None,
        }
    }

    /// When something is to be done about it without anybody's word.
    fn due(&self, keeping: &Keeping) -> Option<Instant> {
        match (self.ended, self.ear) {
            (None, Ear::Away(since)) if !self.drains => since.checked_add(keeping.resume_window),
            (None, _) => None,
            (Some(ended), ear) => {
                // What was not charged may be asked anew.
                let stays = self.charge.is_some() && !self.fetched;
                let kept = if stays { keeping.kept } else { Duration::ZERO };
                let kept = match ear {
                    Ear::Hears { .. } => kept.max(limits::ANSWER_DELIVERY),
                    Ear::Away(_) => kept,
                };
                ended.checked_add(kept)
            }
        }
    }
}

/// What a last word takes that is the whole answer, bytes; others are small.
fn size_of_word(word: &Message) -> usize {
    if let Message::EscalationResponse(whole) = word {
        whole.content.len()
    } else {
        0
    }
}

/// What a question under a known id leads to.
enum Again {
    Attach,
    Refuse(ErrorMessage),
    /// The id is free again.
    Anew,
}

impl<T: Transport> Gateway<T> {
    /// A question whose id is known here: attaches to its answer, or is refused. `false` if the id
    /// is free.
    pub(super) fn asked_again(
        &mut self,
        now: Now,
        (conn, stream): (ConnId, StreamId),
        (account, device): (AccountId, DeviceId),
        request: &EscalationRequest,
    ) -> bool {
        let id = request.request_id;
        let Some(&known) = self.requests.get(&(account, id)) else {
            return false;
        };
        let again = self.kept.get(&known).map_or(Again::Anew, |kept| {
            if kept.ended.is_some() && kept.charge.is_none() {
                return Again::Anew;
            }
            match request::body_hash(request) {
                Err(_) => Again::Refuse(terms::unreadable(id)),
                Ok(_) if kept.device != device => Again::Refuse(terms::no_such_answer(id)),
                Ok(body) if kept.body != body => Again::Refuse(terms::used_for_another(id)),
                Ok(_) => Again::Attach,
            }
        });
        match again {
            Again::Attach => self.attach(now, known, (conn, stream), 0, Return::AskedAgain),
            Again::Refuse(error) => self.refuse_question(now, (conn, stream), device, error),
            Again::Anew => {
                self.forget_answer(now, known);
                return false;
            }
        }
        true
    }

    pub(super) fn refuse_question(
        &mut self,
        now: Now,
        (conn, stream): (ConnId, StreamId),
        device: DeviceId,
        error: ErrorMessage,
    ) {
        if let Some(request) = error.request_id {
            let code = error.code;
            self.event(Event::Failed {
                device,
                request,
                code,
            });
        }
        self.refuse_stream(now, conn, stream, &Message::Error(error));
    }

    /// From now on the stream hears the answer, from a piece on; whoever heard it before does not.
    pub(super) fn attach(
        &mut self,
        now: Now,
        id: AnswerId,
        (conn, stream): (ConnId, StreamId),
        from: u64,
        how: Return,
    ) {
        let Some(kept) = self.kept.get_mut(&id) else {
            return;
        };
        let older = kept.place();
        let reader = Reader::from(from);
        kept.ear = Ear::Hears {
            conn,
            stream,
            reader,
        };
        let (device, request) = (kept.device, kept.request);
        let running = kept.ended.is_none();
        if let Some((conn, stream)) = older {
            let code = CloseCode::Replaced.as_u32();
            self.transport.reset(conn, stream, code);
            self.transport.stop(conn, stream, code);
            self.set_lane(conn, stream, Lane::Spent);
        }
        self.transport
            .set_priority(conn, stream, Priority::Escalation);
        self.set_lane(conn, stream, Lane::Answer(id));
        self.watch(now, conn);
        self.event(Event::Attached {
            device,
            request,
            how,
            from,
            running,
        });
        self.pump(now, id);
        self.give_room(now, id);
        self.mind(now, id);
    }

    /// The stream no longer hears the answer, which goes on.
    pub(super) fn detach(&mut self, now: Now, id: AnswerId, conn: ConnId, stream: StreamId) {
        let Some(kept) = self.kept.get_mut(&id) else {
            return;
        };
        if kept.place() != Some((conn, stream)) {
            return;
        }
        kept.ear = Ear::Away(now.instant);
        if kept.ended.is_none() {
            let (device, request) = (kept.device, kept.request);
            self.event(Event::Detached { device, request });
        }
        self.give_room(now, id);
        self.mind(now, id);
    }

    /// Keeps what the answer says.
    pub(super) fn keep(&mut self, now: Now, id: AnswerId, message: Message) {
        let Some(kept) = self.kept.get_mut(&id) else {
            return;
        };
        let Message::StreamChunk(chunk) = message else {
            kept.last_word_bytes = size_of_word(&message);
            kept.last_word = Some(message);
            return;
        };
        let pushed = kept
            .journal
            .push(&chunk.content, chunk.delta, chunk.is_final);
        if pushed.is_err() {
            self.step_answer(now, id, Input::Crowded);
        }
    }

    /// After an answer's step: what it holds is counted, what it said goes out, and when it is to be
    /// looked at again is noted.
    pub(super) fn after_step(&mut self, now: Now, id: AnswerId) {
        let Some(kept) = self.kept.get(&id) else {
            return;
        };
        let running = self.answers.get(&id).map(|running| &running.answer);
        let unsaid = running.map_or(0, super::answer::Answer::unsaid_bytes);
        let growing = running.is_some_and(super::answer::Answer::is_growing);
        let grown = self.shelf.hold(id, kept.bytes() + unsaid);
        for other in grown.let_go {
            self.forget_answer(now, other);
        }
        if !grown.fits && growing {
            return self.step_answer(now, id, Input::Crowded);
        }
        self.pump(now, id);
        self.give_room(now, id);
        self.mind(now, id);
    }

    /// The answer is over: what it said stays for a while.
    pub(super) fn ended(&mut self, now: Now, id: AnswerId) {
        if let Some(kept) = self.kept.get_mut(&id) {
            kept.ended = Some(now.instant);
            self.shelf.finish(id, now.instant);
        }
    }

    /// Sends what the answer has said, as far as its stream takes it.
    pub(super) fn pump(&mut self, now: Now, id: AnswerId) {
        while let Some(kept) = self.kept.get_mut(&id) {
            let Ear::Hears {
                conn,
                stream,
                reader,
            } = &mut kept.ear
            else {
                return;
            };
            let (conn, stream) = (*conn, *stream);
            if self.transport.writable(conn, stream) == 0 {
                return;
            }
            if let Some(piece) = reader.take(&kept.journal) {
                let chunk = StreamChunk {
                    request_id: kept.request,
                    content: piece.content.to_owned(),
                    sequence: piece.sequence,
                    is_final: piece.is_final,
                    delta: piece.delta.map(ToOwned::to_owned),
                };
                self.send(now, conn, stream, &Message::StreamChunk(chunk));
                continue;
            }
            if !reader.has_all(&kept.journal) {
                return;
            }
            let Some(last_word) = kept.last_word.take() else {
                return;
            };
            kept.ear = Ear::Away(now.instant);
            self.send(now, conn, stream, &last_word);
            self.end_stream(conn, stream);
            if let Some(kept) = self.kept.get_mut(&id) {
                kept.last_word = Some(last_word);
            }
            return self.mind(now, id);
        }
    }

    /// Lets the upstream be read further: as far as the device takes what is said, or, while nobody
    /// listens, as far as it can be kept.
    pub(super) fn give_room(&mut self, now: Now, id: AnswerId) {
        let Some(running) = self.answers.get_mut(&id) else {
            return;
        };
        if !running.answer.wants_room() {
            return;
        }
        let room = match self.kept.get(&id).map(|kept| (kept.ear, &kept.journal)) {
            Some((Ear::Hears { reader, .. }, journal)) if !reader.has_all(journal) => 0,
            Some((Ear::Hears { conn, stream, .. }, _)) => self.transport.writable(conn, stream),
            Some((Ear::Away(_), _)) => 1,
            None => 0,
        };
        if room > 0 {
            self.step_answer(now, id, Input::Room(room));
        }
    }

    /// Notes when the answer is to be looked at again; at once if that has passed.
    pub(super) fn mind(&mut self, now: Now, id: AnswerId) {
        let due = self
            .kept
            .get(&id)
            .and_then(|kept| kept.due(&self.config.keeping));
        match due {
            Some(at) if at <= now.instant => self.kept_too_long(now, id),
            due => self.deadlines.set(Due::Kept(id), due),
        }
    }

    /// The device has not come back in time, or the end is long enough ago.
    pub(super) fn kept_too_long(&mut self, now: Now, id: AnswerId) {
        self.deadlines.set(Due::Kept(id), None);
        let Some(kept) = self.kept.get_mut(&id) else {
            return;
        };
        if kept.ended.is_some() {
            return self.forget_answer(now, id);
        }
        // From here on it goes to its end without its device, which is near.
        kept.drains = true;
        self.step_answer(now, id, Input::Forsaken);
    }

    /// Forgets what a finished answer has said. Who is still listening is told.
    pub(super) fn forget_answer(&mut self, now: Now, id: AnswerId) {
        self.deadlines.set(Due::Kept(id), None);
        let Some(kept) = self.kept.remove(&id) else {
            return;
        };
        self.shelf.remove(id);
        self.requests.remove(&(kept.account, kept.request));
        let (device, request) = (kept.device, kept.request);
        if let Some((conn, stream)) = kept.place() {
            let error = match &kept.charge {
                Some(charge) => terms::expired(charge, request),
                None => terms::no_such_answer(request),
            };
            self.refuse_question(now, (conn, stream), device, error);
        }
        if kept.charge.is_some() && !kept.fetched {
            self.event(Event::Forgotten { device, request });
        }
    }

    /// A revoked device's answers stop, and nothing is kept for it.
    pub(super) fn drop_answers_of(&mut self, now: Now, device: DeviceId) {
        let of_device: Vec<AnswerId> = self
            .kept
            .iter()
            .filter(|(_, kept)| kept.device == device)
            .map(|(&id, _)| id)
            .collect();
        for id in of_device {
            if self.answers.contains_key(&id) {
                self.step_answer(now, id, Input::Cancelled);
            } else {
                self.forget_answer(now, id);
            }
        }
    }

    pub(super) fn acknowledged(
        &mut self,
        now: Now,
        conn: ConnId,
        stream: StreamId,
        ack: &ChunkAck,
    ) -> Result<(), String> {
        let Some(Lane::Answer(id)) = self.lane(conn, stream) else {
            return Ok(());
        };
        let Some(kept) = self.kept.get_mut(&id) else {
            return Ok(());
        };
        if kept.request != ack.request_id {
            return Err("an acknowledgement of another answer".to_owned());
        }
        if let Ear::Hears { reader, .. } = &mut kept.ear {
            reader
                .acknowledge(ack.received_through)
                .map_err(|error| error.to_string())?;
        }
        self.pump(now, id);
        self.give_room(now, id);
        Ok(())
    }
}
