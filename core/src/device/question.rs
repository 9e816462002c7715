//! A question's life on the device, across the tunnels that carry it.
//!
//! ```text
//!             a stream                     last frame
//!  Waiting ────────────▶ OnStream ─────────────────────▶ (gone)
//!     ▲ ▲                │   │ RATE_LIMITED, IN_PROGRESS, SHUTTING_DOWN
//!     │ └─ after its time ─ Resting ◀┘
//!     └─ the tunnel or the stream is lost: Cut, then Resumed by its first word on a new stream
//! ```
//!
//! On a new stream a question of which a piece has come says `Resume`; one of which none has is sent
//! again as it was, for the gateway may never have had it. An interrupted answer of which no text was
//! given out is asked again once, under a new id.
//!
//! # Deadlines
//!
//! Until it is first sent, its own time to the first piece. From then on the gateway keeps the
//! deadlines as long as there is a stream; [`limits::ESCALATION_TOTAL`] with a grace is for a gateway
//! that does not. While it is cut and nothing has come, it waits for a tunnel no longer than its time
//! to the first piece, with that grace. An answer that has begun may not be silent longer than its
//! device's owner allows ([`super::Terms::idle`]) while there is a stream that is read.

use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::asked::{Lane, Prepared};
use super::cancel::Cancelling;
use super::inflow::Inflow;
use super::unfinished::{Kept, Transcript};
use super::{AnswerEvent, AskError, Device, Failure};
use crate::dialect::chat::Delta;
use crate::error::ErrorCode;
use crate::escalation::request::first_piece_timeout;
use crate::ids::RequestId;
use crate::limits;
use crate::privacy::Mapping;
use crate::stream::reassembly::{Reassembly, Released, StreamError};
use crate::time::{Now, UnixMillis};
use crate::transport::{ConnId, StreamId, Transport};
use crate::tunnel::FailureKind;
use crate::wire::codec;
use crate::wire::frame::FrameDecoder;
use crate::wire::message::{
    ChunkAck, ErrorMessage, EscalationRequest, Message, Resume, StreamChunk,
};

/// A question under way. `Debug` shows nothing of it.
pub(super) struct Question {
    /// Its id at the gateway: a new one once it was asked again.
    pub(super) wire_id: RequestId,
    /// For being sent again; gone once text of its answer was given out.
    pub(super) request: Option<Box<EscalationRequest>>,
    /// Bytes of it, encoded.
    pub(super) request_bytes: usize,
    /// How it begins, for lists.
    pub(super) title: String,
    /// What it was asked with.
    pub(super) body: u64,
    /// Encoded, until it is first sent.
    frame: Vec<u8>,
    pub(super) place: Option<(ConnId, StreamId)>,
    pub(super) decoder: FrameDecoder,
    pub(super) pieces: Reassembly,
    pub(super) inflow: Inflow,
    pub(super) paused: bool,
    /// Whether somebody reads it: not yet, of one that another process of the device asked.
    pub(super) attended: bool,
    /// What was given out, if that is kept.
    pub(super) transcript: Option<Transcript>,
    asked: Instant,
    /// To the first piece.
    patience: Duration,
    /// From when it was sent to its end.
    total: Duration,
    pub(super) sent: Option<Instant>,
    /// When it was asked, or first sent, by the wall clock.
    pub(super) sent_at: UnixMillis,
    /// When the gateway last said something of it, or could.
    heard: Instant,
    rests_until: Option<Instant>,
    pub(super) cut: Option<Cut>,
    pub(super) cancelling: Cancelling,
    pub(super) asked_anew: bool,
    /// Times in a row that it was to go on and not one piece came.
    fruitless: u32,
    /// Pieces acknowledged.
    acked: u64,
    /// Bytes of text since.
    unacked_bytes: usize,
}

/// A question whose stream was lost and that has not gone on yet.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    pub(super) at: Instant,
    pub(super) failure: Failure,
}

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Question")
            .field("wire_id", &self.wire_id)
            .field("place", &self.place)
            .field("next_sequence", &self.pieces.next_sequence())
            .field("paused", &self.paused)
            .field("rests_until", &self.rests_until)
            .field("cut", &self.cut)
            .finish_non_exhaustive()
    }
}

impl Question {
    /// Whether a program asked it with a body of its own, over the local endpoint.
    fn is_a_clients(&self) -> bool {
        let request = self.request.as_ref();
        request.is_some_and(|request| request.chat.is_some())
    }

    pub(super) fn new(now: Now, prepared: Prepared, keeps: bool) -> Self {
        let Prepared {
            request,
            frame,
            body,
            title,
            patience,
            hidden,
        } = prepared;
        Self {
            wire_id: request.request_id,
            request: Some(request),
            request_bytes: frame.len(),
            title,
            body,
            frame,
            place: None,
            decoder: FrameDecoder::new(),
            pieces: Reassembly::new(),
            inflow: Inflow::new(hidden),
            paused: false,
            attended: true,
            transcript: keeps.then(Transcript::default),
            asked: now.instant,
            patience,
            total: limits::ESCALATION_TOTAL + limits::ANSWER_GRACE,
            sent: None,
            sent_at: now.wall,
            heard: now.instant,
            rests_until: None,
            cut: None,
            cancelling: Cancelling::No,
            asked_anew: false,
            fruitless: 0,
            acked: 0,
            unacked_bytes: 0,
        }
    }

    /// One that another process of the device asked so long ago; it goes on when there is a tunnel.
    pub(super) fn restored(now: Now, kept: Kept) -> Self {
        let age = now.wall.saturating_since(kept.sent_at);
        let whole = limits::ESCALATION_TOTAL + limits::ANSWER_GRACE;
        let patience = kept.request.as_deref().map(first_piece_timeout);
        Self {
            wire_id: kept.wire_id,
            request_bytes: kept.request.as_deref().map_or(0, encoded_bytes),
            request: kept.request,
            title: kept.title,
            body: kept.body,
            frame: Vec::new(),
            place: None,
            decoder: FrameDecoder::new(),
            pieces: Reassembly::going_on(kept.next_sequence, kept.whole),
            inflow: Inflow::going_on(kept.hidden, kept.open, kept.held),
            paused: false,
            attended: false,
            transcript: Some(Transcript::of(kept.said)),
            asked: now.instant,
            patience: patience.unwrap_or(limits::ESCALATION_TIMEOUT_DEFAULT),
            // The gateway may have it to the end by now: it is asked once in any case.
            total: whole.saturating_sub(age).max(limits::ANSWER_GRACE),
            sent: Some(now.instant),
            sent_at: kept.sent_at,
            heard: now.instant,
            rests_until: None,
            cut: Some(Cut {
                at: now.instant,
                failure: Failure::new(FailureKind::Ended, "the device's process ended"),
            }),
            cancelling: if kept.cancelled {
                Cancelling::Wanted(now.instant)
            } else {
                Cancelling::No
            },
            asked_anew: kept.asked_anew,
            fruitless: 0,
            acked: kept.next_sequence,
            unacked_bytes: 0,
        }
    }

    /// What there is to keep of it; `None` when it is not to be kept.
    pub(super) fn kept(&self, id: RequestId) -> Option<Kept> {
        let transcript = self.transcript.as_ref()?;
        let (open, held) = self.inflow.end_so_far();
        Some(Kept {
            id,
            wire_id: self.wire_id,
            title: self.title.clone(),
            body: self.body,
            sent_at: self.sent_at,
            request: self.request.clone(),
            asked_anew: self.asked_anew,
            cancelled: self.cancelling != Cancelling::No,
            next_sequence: self.pieces.next_sequence(),
            whole: self.pieces.is_complete(),
            said: transcript.parts.clone(),
            open,
            held: held.to_owned(),
            hidden: Mapping::clone(self.inflow.hidden()),
            end: None,
        })
    }

    /// When it has been silent too long.
    pub(super) fn silent_at(&self, idle: Duration) -> Option<Instant> {
        let in_the_middle = self.pieces.next_sequence() > 0 && !self.pieces.is_complete();
        (in_the_middle && self.place.is_some() && !self.paused).then(|| self.heard + idle)
    }

    /// It is read on, or somebody said something of it.
    pub(super) fn heard(&mut self, now: Now) {
        self.heard = now.instant;
    }

    /// When it has waited long enough.
    pub(super) fn overdue_at(&self) -> Instant {
        let Some(sent) = self.sent else {
            return self.asked + self.patience;
        };
        let end = sent + self.total;
        if let (Cancelling::Wanted(at), None) = (self.cancelling, self.place) {
            return end.min(at + limits::CANCEL_WAITS);
        }
        match &self.cut {
            Some(cut) if self.pieces.next_sequence() == 0 && self.place.is_none() => {
                end.min((sent + self.patience).max(cut.at) + limits::ANSWER_GRACE)
            }
            Some(_) | None => end,
        }
    }

    /// When something is due of it.
    pub(super) fn due_at(&self, idle: Duration) -> Instant {
        let others = [self.rests_until, self.silent_at(idle)];
        let others = others.into_iter().flatten();
        others.fold(self.overdue_at(), Instant::min)
    }

    /// What it ends with when it is overdue, or when there will be no tunnel.
    pub(super) fn given_up(&self, otherwise: AskError) -> AskError {
        match &self.cut {
            Some(cut) => AskError::TunnelLost(cut.failure.clone()),
            None => otherwise,
        }
    }

    /// Goes off its stream, to wait for another.
    fn leave_stream(&mut self) -> Option<(ConnId, StreamId)> {
        self.decoder = FrameDecoder::new();
        self.place.take()
    }

    /// What it says first on a stream, encoded.
    fn first_words(&mut self) -> Option<Vec<u8>> {
        if !self.frame.is_empty() {
            return Some(std::mem::take(&mut self.frame));
        }
        let next_sequence = self.pieces.next_sequence();
        let message = match &self.request {
            // One that nobody wants any more is not begun.
            Some(request) if next_sequence == 0 && self.cancelling == Cancelling::No => {
                Message::EscalationRequest(request.clone())
            }
            Some(_) | None => Message::Resume(Resume {
                request_id: self.wire_id,
                next_sequence,
            }),
        };
        let mut bytes = Vec::new();
        codec::encode(&message, &mut bytes).ok().map(|()| bytes)
    }

    /// Through which piece to acknowledge, if it is time.
    fn acknowledges(&mut self) -> Option<u64> {
        let next = self.pieces.next_sequence();
        let due = next - self.acked >= limits::ACK_EVERY_PIECES
            || self.unacked_bytes >= limits::ACK_EVERY_BYTES;
        let through = next.checked_sub(1).filter(|_| due && next > self.acked)?;
        self.acked = next;
        self.unacked_bytes = 0;
        Some(through)
    }
}

fn encoded_bytes(request: &EscalationRequest) -> usize {
    serde_json::to_vec(request).map_or(0, |bytes| bytes.len())
}

impl<T: Transport> Device<T> {
    /// Says what the question has to say on its new stream.
    pub(super) fn send_question(
        &mut self,
        now: Now,
        id: RequestId,
        conn: ConnId,
        stream: StreamId,
    ) {
        let Some(question) = self.questions.get_mut(&id) else {
            return;
        };
        question.place = Some((conn, stream));
        let first = !question.frame.is_empty();
        if question.sent.is_none() {
            question.sent = Some(now.instant);
            question.sent_at = now.wall;
        }
        question.heard(now);
        // It was encoded once and fits.
        if let Some(words) = question.first_words() {
            self.transport.send(conn, stream, &words);
        }
        self.stats.requests_sent += u64::from(first);
        self.tell_cancelled(id);
    }

    /// A stream of a question is lost: it waits for another, before those that were never sent.
    pub(super) fn cut_off(&mut self, now: Now, id: RequestId, failure: Failure) {
        let Some(question) = self.questions.get_mut(&id) else {
            return;
        };
        if let Some((conn, stream)) = question.leave_stream() {
            // It is not stopped: that would stop the answer.
            self.lanes.remove(&(conn, stream));
            self.transport.finish(conn, stream);
        }
        question.cancelling.untold();
        if question.cut.is_none() {
            question.cut = Some(Cut {
                at: now.instant,
                failure,
            });
            self.newly_cut.push(id);
        }
        self.waiting.push_front(Lane::Question(id));
    }

    /// Those that were cut in this step and did not end in it are said to be.
    pub(super) fn tell_cuts(&mut self) {
        for id in std::mem::take(&mut self.newly_cut) {
            let cut = self.questions.get(&id).is_some_and(|q| q.cut.is_some());
            if cut {
                self.answer(id, AnswerEvent::Cut);
            }
        }
    }

    /// A stream ended before the answer did, or pieces of it are missing: it is asked to go on from
    /// the first that is, unless that has helped nothing several times.
    pub(super) fn go_on(&mut self, now: Now, id: RequestId, what: &str) {
        let Some(question) = self.questions.get_mut(&id) else {
            return;
        };
        if question.cancelling != Cancelling::No {
            return self.fail_question(id, AskError::Cancelled);
        }
        question.fruitless += 1;
        if question.fruitless > limits::RESUMES_WITHOUT_PROGRESS_MAX {
            return self.fail_question(id, AskError::Protocol(what.to_owned()));
        }
        question.pieces.rewind();
        self.cut_off(now, id, Failure::new(FailureKind::Protocol, what));
    }

    /// The gateway said something of the answer: it goes on.
    pub(super) fn goes_on(&mut self, id: RequestId) {
        let Some(question) = self.questions.get_mut(&id) else {
            return;
        };
        if question.cut.take().is_some() {
            // The cut may not have been told yet, if it came to this in the same step.
            self.tell_cut_of(id);
            let at = self
                .questions
                .get(&id)
                .map_or(0, |question| question.pieces.next_sequence());
            self.answer(id, AnswerEvent::Resumed { at });
        }
    }

    fn tell_cut_of(&mut self, id: RequestId) {
        let before = self.newly_cut.len();
        self.newly_cut.retain(|&other| other != id);
        if self.newly_cut.len() < before {
            self.answer(id, AnswerEvent::Cut);
        }
    }

    pub(super) fn piece(&mut self, now: Now, id: RequestId, chunk: &StreamChunk) {
        let Some(question) = self.questions.get_mut(&id) else {
            return;
        };
        let before = question.pieces.next_sequence();
        let delta = chunk.delta.as_deref().map(RawValue::get);
        let taken =
            question
                .pieces
                .accept_with(chunk.sequence, &chunk.content, delta, chunk.is_final);
        let mut events = Vec::new();
        let mut understood = true;
        for part in question.pieces.take_all() {
            match part {
                Released::Text(text) => {
                    question.unacked_bytes += text.len();
                    question.inflow.text(text, &mut events);
                }
                Released::Delta(json) => {
                    question.unacked_bytes += json.len();
                    match Delta::from_json(&json) {
                        Some(delta) => question.inflow.delta(delta, &mut events),
                        None => understood = false,
                    }
                }
            }
        }
        if question.pieces.next_sequence() > before {
            question.fruitless = 0;
            self.touched = true;
        }
        if !events.is_empty() {
            question.request = None;
        }
        for event in events {
            self.answer(id, event);
        }
        match taken {
            Ok(_) if understood => {}
            Ok(_) => {
                let what = "a delta of no known kind".to_owned();
                self.fail_question(id, AskError::Protocol(what));
            }
            Err(error @ StreamError::WindowFull { .. }) => self.go_on(now, id, &error.to_string()),
            Err(error) => self.fail_question(id, AskError::Protocol(error.to_string())),
        }
    }

    /// Tells the gateway how far the answer has come, from time to time.
    pub(super) fn acknowledge(&mut self, id: RequestId) {
        let Some(question) = self.questions.get_mut(&id) else {
            return;
        };
        let Some((conn, stream)) = question.place else {
            return;
        };
        if let Some(received_through) = question.acknowledges() {
            let ack = ChunkAck {
                request_id: question.wire_id,
                received_through,
            };
            self.send(conn, stream, &Message::ChunkAck(ack));
        }
    }

    /// The gateway refused, or the answer failed: mostly that is final.
    pub(super) fn question_refused(&mut self, now: Now, id: RequestId, error: ErrorMessage) {
        if self.cancelled_is_over(id, &error) {
            return;
        }
        let waits = matches!(
            error.code,
            ErrorCode::RateLimited | ErrorCode::InProgress | ErrorCode::ShuttingDown
        );
        if waits && self.rest(now, id, &error) {
            return;
        }
        if error.code == ErrorCode::Interrupted && self.ask_anew(now, id) {
            return;
        }
        if error.code == ErrorCode::RateLimited && self.lost_sight_of(id, &error) {
            return;
        }
        self.fail_question(id, AskError::Remote(Box::new(error)));
    }

    /// Asks again once the gateway's time is over, if that is before the question's own deadline.
    fn rest(&mut self, now: Now, id: RequestId, error: &ErrorMessage) -> bool {
        let goes_elsewhere = error.code == ErrorCode::ShuttingDown && self.leaves_its_gateway(id);
        let Some(question) = self.questions.get_mut(&id) else {
            return false;
        };
        let Some(seconds) = error.retry_after_secs else {
            return false;
        };
        let uncut = question.cut.is_none();
        if error.code == ErrorCode::RateLimited && uncut && question.is_a_clients() {
            // Its client has a patience of its own, and is told how long.
            return false;
        }
        let untaken = matches!(error.code, ErrorCode::RateLimited | ErrorCode::ShuttingDown);
        if untaken && uncut {
            // It was not taken: its own time runs as if it had not been sent.
            question.sent = None;
        }
        let pause = if goes_elsewhere {
            Duration::ZERO
        } else {
            Duration::from_secs(seconds.max(1).into())
        };
        let until = now.instant + pause;
        let place = question.leave_stream();
        if until >= question.overdue_at() {
            question.place = place;
            return false;
        }
        question.rests_until = Some(until);
        self.leave(Lane::Question(id), place);
        true
    }

    /// No gateway lets a question come back that it, or another, may have taken before the tunnel was lost: that
    /// it was refused is not what became of it.
    fn lost_sight_of(&mut self, id: RequestId, error: &ErrorMessage) -> bool {
        let Some(question) = self.questions.get_mut(&id) else {
            return false;
        };
        let cut = question.cut.is_some();
        if cut {
            let place = question.leave_stream();
            self.leave(Lane::Question(id), place);
            let otherwise = AskError::Remote(Box::new(error.clone()));
            self.give_up(Lane::Question(id), otherwise);
        }
        cut
    }

    /// Whether the question is on a session that is being left, so that the next is another's.
    fn leaves_its_gateway(&self, id: RequestId) -> bool {
        let asked = self.questions.get(&id).and_then(|question| question.place);
        let used = self.tunnel.session().and_then(|(attempt, _)| {
            let link = self.links.get(&attempt)?;
            link.conn()
        });
        self.tunnel.is_asked_to_move() || asked.map(|(conn, _)| conn) != used
    }

    /// An answer that its gateway lost is free: if none of it was shown, it is asked for once more.
    fn ask_anew(&mut self, now: Now, id: RequestId) -> bool {
        let Some(question) = self.questions.get_mut(&id) else {
            return false;
        };
        if question.asked_anew || now.instant >= question.overdue_at() {
            return false;
        }
        let Some(request) = &mut question.request else {
            return false;
        };
        let fresh = question.wire_id.anew();
        request.retry_of = Some(question.wire_id);
        request.request_id = fresh;
        question.wire_id = fresh;
        question.asked_anew = true;
        question.pieces = Reassembly::new();
        question.acked = 0;
        let place = question.leave_stream();
        self.touched = true;
        self.leave(Lane::Question(id), place);
        self.waiting.push_front(Lane::Question(id));
        true
    }

    /// Those that have rested long enough wait for a stream.
    pub(super) fn wake_resting(&mut self, now: Now) {
        for (&id, question) in &mut self.questions {
            if question.rests_until.is_some_and(|at| at <= now.instant) {
                question.rests_until = None;
                self.waiting.push_back(Lane::Question(id));
            }
        }
    }
}
