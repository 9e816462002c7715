//! Questions and typed calls under way: each on its own stream, each with one last event.
//!
//! ```text
//!  Waiting ── a session, and a stream ──▶ OnStream ── last frame ──▶ (gone)
//!     │ overdue, refused, cancelled          │ overdue; for a call: tunnel lost
//!     └──────────────▶ Failed ◀──────────────┘
//! ```
//!
//! What a question does when its tunnel is lost is in [`super::question`]; what a call is, in
//! [`super::calls`].

use std::time::{Duration, Instant};

use super::question::Question;
use super::route::Route;
use super::unfinished::{self, Said};
use super::{AnswerEvent, AskError, Device, Failure, Output};
use crate::escalation::request::{first_piece_timeout, validate};
use crate::ids::RequestId;
use crate::limits;
use crate::privacy::{self, Mapping};
use crate::time::Now;
use crate::transport::{ConnId, Priority, Read, StreamId, Transport};
use crate::tunnel::State;
use crate::wire::close::CloseCode;
use crate::wire::codec;
use crate::wire::frame::{Direction, FrameDecoder, StreamKind};
use crate::wire::message::{EscalationRequest, Message, Notice};

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    Question(RequestId),
    Call(u64),
}

/// A question that may be sent, what is private in it hidden.
pub(super) struct Prepared {
    pub(super) request: Box<EscalationRequest>,
    /// The same, encoded.
    pub(super) frame: Vec<u8>,
    /// What it was asked with, to know the same question again; if it is kept.
    pub(super) body: u64,
    /// How it begins, for lists; if it is kept.
    pub(super) title: String,
    /// To the first piece.
    pub(super) patience: Duration,
    /// What was hidden.
    pub(super) hidden: Mapping,
}

impl<T: Transport> Device<T> {
    pub(super) fn escalate(&mut self, now: Now, request: Box<EscalationRequest>) {
        let id = request.request_id;
        if self.questions.get(&id).is_some_and(|first| first.attended) {
            // The first one's events go on; this one has its own last event.
            return self.say(id, AnswerEvent::Failed(AskError::Duplicate));
        }
        match self.prepare(request) {
            Ok(prepared) if self.is_asked_again(now, id, prepared.body) => {}
            Ok(prepared) => {
                let question = Question::new(now, prepared, self.config.terms.keeps);
                self.questions.insert(id, question);
                self.touched = true;
                self.tell_unheard(id);
                self.waiting.push_back(Lane::Question(id));
                self.send_waiting(now);
            }
            Err(error) => {
                self.stats.requests_failed += 1;
                self.say(id, AnswerEvent::Failed(error));
            }
        }
    }

    fn prepare(&self, mut request: Box<EscalationRequest>) -> Result<Prepared, AskError> {
        validate(&request)?;
        let hidden = privacy::hide(&self.config.privacy, &mut request)?;
        // A token may be longer than what it stands for.
        validate(&request)?;
        self.may_wait()?;
        let patience = first_piece_timeout(&request);
        let mut frame = Vec::new();
        let message = Message::EscalationRequest(request);
        codec::encode(&message, &mut frame).map_err(|_| AskError::TooLarge)?;
        let Message::EscalationRequest(request) = message else {
            return Err(AskError::TooLarge);
        };
        let (body, title) = if self.config.terms.keeps {
            let title = unfinished::title(&request, &hidden);
            (unfinished::digest(&frame), title)
        } else {
            (0, String::new())
        };
        Ok(Prepared {
            request,
            frame,
            body,
            title,
            patience,
            hidden,
        })
    }

    /// Whether something more may be asked in this state.
    pub(super) fn may_wait(&self) -> Result<(), AskError> {
        if matches!(self.tunnel.state(), State::Disconnected | State::Failed) {
            return Err(AskError::NotConnected(self.tunnel.failure().cloned()));
        }
        if self.questions.len() + self.calls.len() >= limits::ASKED_MAX {
            return Err(AskError::Busy);
        }
        Ok(())
    }

    /// Sends what waits, as far as there are a session and streams.
    pub(super) fn send_waiting(&mut self, now: Now) {
        if self.tunnel.is_asked_to_move() {
            return;
        }
        while let Some(&lane) = self.waiting.front() {
            let Some((attempt, _)) = self.tunnel.session() else {
                return;
            };
            let Some(conn) = self.links.get(&attempt).and_then(super::Link::conn) else {
                return;
            };
            let priority = match lane {
                Lane::Question(_) => Priority::Escalation,
                Lane::Call(_) => Priority::Call,
            };
            let Some(stream) = self.transport.open(conn, priority) else {
                return;
            };
            self.waiting.pop_front();
            self.lanes.insert((conn, stream), lane);
            match lane {
                Lane::Question(id) => self.send_question(now, id, conn, stream),
                Lane::Call(id) => self.send_call(id, conn, stream),
            }
        }
    }

    pub(super) fn pause(&mut self, id: RequestId) {
        if let Some(question) = self.questions.get_mut(&id) {
            question.paused = true;
        }
    }

    pub(super) fn unpause(&mut self, now: Now, id: RequestId) {
        let Some(question) = self.questions.get_mut(&id) else {
            return;
        };
        question.heard(now);
        if std::mem::replace(&mut question.paused, false)
            && let Some((conn, stream)) = question.place
        {
            self.read(now, conn, stream);
        }
    }

    pub(super) fn read(&mut self, now: Now, conn: ConnId, stream: StreamId) {
        if self.is_control(conn, stream) {
            return self.read_control(now, conn, stream);
        }
        while let Some(&lane) = self.lanes.get(&(conn, stream)) {
            if let Lane::Question(id) = lane
                && self
                    .questions
                    .get(&id)
                    .is_some_and(|question| question.paused)
            {
                return;
            }
            match self.transport.read(conn, stream) {
                Read::Data(data) => self.feed(now, lane, &data),
                Read::Blocked => return,
                Read::End | Read::Reset(_) | Read::Gone => {
                    let what = "the stream ended before the answer";
                    match lane {
                        Lane::Question(id) => self.go_on(now, id, what),
                        Lane::Call(_) => self.fail(lane, AskError::Protocol(what.to_owned())),
                    }
                }
            }
        }
    }

    fn feed(&mut self, now: Now, lane: Lane, data: &[u8]) {
        let place = self.place(lane);
        let Some(decoder) = self.decoder(lane) else {
            return;
        };
        let mut decoder = std::mem::take(decoder);
        let kind = match lane {
            Lane::Question(_) => StreamKind::Escalation,
            Lane::Call(_) => StreamKind::Call,
        };
        let mut frames = decoder.feed(data);
        while let Some(frame) = frames.next() {
            let read = frame.map_err(|error| error.to_string()).and_then(|frame| {
                if !frame.frame_type.allowed(Direction::ToDevice, kind) {
                    return Err(format!("{:?} where it does not belong", frame.frame_type));
                }
                codec::decode(frame.frame_type, frame.payload).map_err(|error| error.to_string())
            });
            match (lane, read) {
                (Lane::Question(id), Ok(message)) => self.question_message(now, id, message),
                (Lane::Call(id), Ok(message)) => self.call_message(id, message),
                (lane, Err(error)) => return self.fail(lane, AskError::Protocol(error)),
            }
            // Whatever follows a last frame is nobody's.
            if self.place(lane) != place {
                return;
            }
        }
        if let Some(place) = self.decoder(lane) {
            *place = decoder;
        }
        if let Lane::Question(id) = lane {
            self.acknowledge(id);
        }
    }

    /// The stream it is on; a question may leave one and wait for another.
    fn place(&self, lane: Lane) -> Option<(ConnId, StreamId)> {
        match lane {
            Lane::Question(id) => self.questions.get(&id)?.place,
            Lane::Call(id) => self.calls.get(&id)?.place,
        }
    }

    fn decoder(&mut self, lane: Lane) -> Option<&mut FrameDecoder> {
        match lane {
            Lane::Question(id) => self
                .questions
                .get_mut(&id)
                .map(|question| &mut question.decoder),
            Lane::Call(id) => self.calls.get_mut(&id).map(|call| &mut call.decoder),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "every message that does not belong here is refused alike"
    )]
    fn question_message(&mut self, now: Now, id: RequestId, message: Message) {
        let Some(question) = self.questions.get_mut(&id) else {
            return;
        };
        question.heard(now);
        let wire_id = question.wire_id;
        if !matches!(message, Message::Error(_)) {
            self.goes_on(id);
        }
        match message {
            Message::StreamChunk(chunk) if chunk.request_id == wire_id => {
                self.piece(now, id, &chunk);
            }
            Message::StreamEnd(mut end) if end.request_id == wire_id => {
                let Some(question) = self.questions.get_mut(&id) else {
                    return;
                };
                match question.pieces.end() {
                    Ok(()) => {
                        end.route = Route::Cloud;
                        end.hidden = question.inflow.hidden_count();
                        self.flush(id);
                        self.tell_all(end.notice.take());
                        self.finish_question(id, AnswerEvent::Ended(end));
                    }
                    Err(error) => self.fail_question(id, AskError::Protocol(error.to_string())),
                }
            }
            Message::EscalationResponse(mut answer) if answer.request_id == wire_id => {
                self.tell_all(answer.notice.take());
                if let Some(question) = self.questions.get(&id) {
                    question.inflow.restore(&mut answer);
                }
                self.finish_question(id, AnswerEvent::Whole(answer));
            }
            Message::Error(error) => {
                self.tell_all(Notice::of_failed(&error));
                self.question_refused(now, id, error);
            }
            other => {
                let what = format!("{:?} that is not of this answer", other.frame_type());
                self.fail_question(id, AskError::Protocol(what));
            }
        }
    }

    /// Hands out what was held back because it could have become a token.
    fn flush(&mut self, id: RequestId) {
        let mut events = Vec::new();
        if let Some(question) = self.questions.get_mut(&id) {
            question.inflow.finish(&mut events);
        }
        for event in events {
            self.answer(id, event);
        }
    }

    /// The last event of an answer that is complete.
    fn finish_question(&mut self, id: RequestId, event: AnswerEvent) {
        if self.end_question(id, event) {
            self.stats.requests_succeeded += 1;
        }
    }

    pub(super) fn fail_question(&mut self, id: RequestId, error: AskError) {
        self.flush(id);
        if self.end_question(id, AnswerEvent::Failed(error)) {
            self.stats.requests_failed += 1;
        }
    }

    /// Whether somebody was given its last event: only who reads it counts.
    fn end_question(&mut self, id: RequestId, event: AnswerEvent) -> bool {
        let Some(question) = self.questions.remove(&id) else {
            return false;
        };
        self.leave(Lane::Question(id), question.place);
        self.shelve(id, &question, &event);
        if question.attended {
            self.say(id, event);
        }
        question.attended
    }

    /// Gives a stream up; whatever it still carries is nobody's.
    pub(super) fn leave(&mut self, lane: Lane, place: Option<(ConnId, StreamId)>) {
        match place {
            Some((conn, stream)) => {
                self.lanes.remove(&(conn, stream));
                self.transport.finish(conn, stream);
                self.transport.stop(conn, stream, CloseCode::Done.as_u32());
            }
            None => self.waiting.retain(|&other| other != lane),
        }
    }

    fn fail(&mut self, lane: Lane, error: AskError) {
        match lane {
            Lane::Question(id) => self.fail_question(id, error),
            Lane::Call(id) => self.end_call(id, Err(error)),
        }
    }

    /// News of an answer under way: kept if it is to be, and given to whoever reads it.
    pub(super) fn answer(&mut self, request: RequestId, event: AnswerEvent) {
        let Some(question) = self.questions.get_mut(&request) else {
            return;
        };
        if let Some(transcript) = &mut question.transcript
            && let Some(said) = Said::of(&event)
        {
            transcript.push(said);
        }
        if question.attended {
            self.say(request, event);
        }
    }

    pub(super) fn say(&mut self, request: RequestId, event: AnswerEvent) {
        self.outputs.push_back(Output::Answer { request, event });
    }

    /// The gateway stopped a stream: its last word on it may still be read.
    pub(super) fn stopped(&mut self, now: Now, conn: ConnId, stream: StreamId) {
        if self.is_control(conn, stream) {
            self.read_control(now, conn, stream);
        }
    }

    /// A connection is over: the calls on it failed, the questions wait for another.
    pub(super) fn lose_lanes(&mut self, now: Now, conn: ConnId, failure: &Failure) {
        let lost: Vec<Lane> = self
            .lanes
            .range((conn, StreamId(0))..=(conn, StreamId(u64::MAX)))
            .map(|(_, &lane)| lane)
            .collect();
        // The last one first: each goes before those that wait already.
        for lane in lost.into_iter().rev() {
            match lane {
                Lane::Question(id) => self.cut_off(now, id, failure.clone()),
                Lane::Call(_) => self.fail(lane, AskError::TunnelLost(failure.clone())),
            }
        }
    }

    /// The tunnel was given up: nothing that waits will be sent.
    pub(super) fn refuse_waiting(&mut self, failure: Option<&Failure>) {
        let questions = self.questions.iter().filter(|(_, q)| q.place.is_none());
        let calls = self.calls.iter().filter(|(_, call)| call.place.is_none());
        let lanes: Vec<Lane> = questions
            .map(|(&id, _)| Lane::Question(id))
            .chain(calls.map(|(&id, _)| Lane::Call(id)))
            .collect();
        for lane in lanes {
            self.give_up(lane, AskError::NotConnected(failure.cloned()));
        }
    }

    /// Ends what is overdue, and lets go on what has rested.
    pub(super) fn expire(&mut self, now: Now) {
        let overdue = |at: Instant| at <= now.instant;
        let questions = self
            .questions
            .iter()
            .filter(|(_, question)| overdue(question.overdue_at()));
        let calls = self
            .calls
            .iter()
            .filter(|(_, call)| overdue(call.overdue_at));
        let lanes: Vec<Lane> = questions
            .map(|(&id, _)| Lane::Question(id))
            .chain(calls.map(|(&id, _)| Lane::Call(id)))
            .collect();
        for lane in lanes {
            self.give_up(lane, AskError::TimedOut);
        }
        let idle = self.config.terms.idle;
        let silent: Vec<RequestId> = self
            .questions
            .iter()
            .filter(|(_, question)| question.silent_at(idle).is_some_and(overdue))
            .map(|(&id, _)| id)
            .collect();
        for id in silent {
            self.fail_question(id, AskError::Silent(idle));
        }
        self.wake_resting(now);
    }

    pub(super) fn give_up(&mut self, lane: Lane, otherwise: AskError) {
        let parked = matches!(lane, Lane::Question(id) if self.is_to_be_parked(id, &otherwise));
        let error = match lane {
            Lane::Question(id) => match self.questions.get(&id) {
                Some(question) => question.given_up(otherwise),
                None => return,
            },
            Lane::Call(_) => otherwise,
        };
        match lane {
            Lane::Question(id) if parked => self.park(id, error),
            Lane::Question(_) | Lane::Call(_) => self.fail(lane, error),
        }
    }

    pub(super) fn next_expiry(&self) -> Option<(Instant, &'static str)> {
        let idle = self.config.terms.idle;
        let questions = self
            .questions
            .values()
            .map(|question| question.due_at(idle));
        let calls = self.calls.values().map(|call| call.overdue_at);
        questions
            .chain(calls)
            .min()
            .map(|at| (at, "a question is overdue"))
    }
}

#[cfg(test)]
mod tests;
