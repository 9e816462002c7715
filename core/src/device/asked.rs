//! Questions and typed calls under way: each on its own stream, each with one last event.
//!
//! ```text
//!  Waiting ── a session, and a stream ──▶ OnStream ── last frame ──▶ (gone)
//!     │ overdue, refused, cancelled          │ overdue, tunnel lost
//!     └──────────────▶ Failed ◀──────────────┘
//! ```

use std::sync::Arc;
use std::time::Instant;

use serde_json::value::RawValue;

use super::inflow::Inflow;
use super::{AnswerEvent, AskError, Device, Failure, Output};
use crate::api::Method;
use crate::dialect::chat::Delta;
use crate::escalation::request::{first_piece_timeout, validate};
use crate::ids::RequestId;
use crate::limits;
use crate::privacy::restore::{Form, Restorer};
use crate::privacy::{self, Mapping, json};
use crate::stream::reassembly::{Reassembly, Released};
use crate::time::Now;
use crate::transport::{ConnId, Priority, Read, StreamId, Transport};
use crate::tunnel::State;
use crate::wire::close::CloseCode;
use crate::wire::codec;
use crate::wire::frame::{Direction, FrameDecoder, StreamKind};
use crate::wire::message::{
    Call, Cancel, EscalationRequest, EscalationResponse, Message, StreamChunk,
};

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    Question(RequestId),
    Call(u64),
}

/// A question under way. `Debug` shows nothing of it.
pub(super) struct Question {
    /// Encoded, until it is sent.
    frame: Vec<u8>,
    place: Option<(ConnId, StreamId)>,
    decoder: FrameDecoder,
    pieces: Reassembly,
    inflow: Inflow,
    overdue_at: Instant,
    paused: bool,
}

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Question")
            .field("place", &self.place)
            .field("next_sequence", &self.pieces.next_sequence())
            .field("paused", &self.paused)
            .finish_non_exhaustive()
    }
}

/// A typed call under way. `Debug` shows nothing of its parameters.
pub(super) struct AskedCall {
    /// Encoded, until it is sent.
    frame: Vec<u8>,
    place: Option<(ConnId, StreamId)>,
    decoder: FrameDecoder,
    overdue_at: Instant,
}

impl std::fmt::Debug for AskedCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AskedCall")
            .field("place", &self.place)
            .field("overdue_at", &self.overdue_at)
            .finish_non_exhaustive()
    }
}

impl<T: Transport> Device<T> {
    pub(super) fn escalate(&mut self, now: Now, request: Box<EscalationRequest>) {
        let id = request.request_id;
        if self.questions.contains_key(&id) {
            // The first one's events go on; this one has its own last event.
            return self.answer(id, AnswerEvent::Failed(AskError::Duplicate));
        }
        match self.prepare(request) {
            Ok((frame, patience, hidden)) => {
                let question = Question {
                    frame,
                    place: None,
                    decoder: FrameDecoder::new(),
                    pieces: Reassembly::new(),
                    inflow: Inflow::new(hidden),
                    overdue_at: now.instant + patience,
                    paused: false,
                };
                self.questions.insert(id, question);
                self.waiting.push_back(Lane::Question(id));
                self.send_waiting(now);
            }
            Err(error) => {
                self.stats.requests_failed += 1;
                self.answer(id, AnswerEvent::Failed(error));
            }
        }
    }

    fn prepare(
        &self,
        mut request: Box<EscalationRequest>,
    ) -> Result<(Vec<u8>, std::time::Duration, Mapping), AskError> {
        validate(&request)?;
        let hidden = privacy::hide(&self.config.privacy, &mut request)?;
        // A token may be longer than what it stands for.
        validate(&request)?;
        self.may_wait()?;
        let patience = first_piece_timeout(&request);
        let mut frame = Vec::new();
        codec::encode(&Message::EscalationRequest(request), &mut frame)
            .map_err(|_| AskError::TooLarge)?;
        Ok((frame, patience, hidden))
    }

    /// Whether something more may be asked in this state.
    fn may_wait(&self) -> Result<(), AskError> {
        if matches!(self.tunnel.state(), State::Disconnected | State::Failed) {
            return Err(AskError::NotConnected(self.tunnel.failure().cloned()));
        }
        if self.questions.len() + self.calls.len() >= limits::ASKED_MAX {
            return Err(AskError::Busy);
        }
        Ok(())
    }

    pub(super) fn call(
        &mut self,
        now: Now,
        id: u64,
        method: Method,
        params: Option<Box<RawValue>>,
    ) {
        let frame = match self.prepare_call(id, method, params) {
            Ok(frame) => frame,
            Err(error) => {
                let result = Err(error);
                return self.outputs.push_back(Output::Replied { id, result });
            }
        };
        let call = AskedCall {
            frame,
            place: None,
            decoder: FrameDecoder::new(),
            overdue_at: now.instant + limits::CALL_TIMEOUT,
        };
        self.calls.insert(id, call);
        self.waiting.push_back(Lane::Call(id));
        self.send_waiting(now);
    }

    fn prepare_call(
        &self,
        id: u64,
        method: Method,
        params: Option<Box<RawValue>>,
    ) -> Result<Vec<u8>, AskError> {
        self.may_wait()?;
        let method = method.as_str().to_owned();
        let mut frame = Vec::new();
        codec::encode(&Message::Call(Call { id, method, params }), &mut frame)
            .map_err(|_| AskError::TooLarge)?;
        Ok(frame)
    }

    /// Sends what waits, as far as there are a session and streams.
    pub(super) fn send_waiting(&mut self, now: Now) {
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

    fn send_question(&mut self, now: Now, id: RequestId, conn: ConnId, stream: StreamId) {
        let Some(question) = self.questions.get_mut(&id) else {
            return;
        };
        question.place = Some((conn, stream));
        // From here on the gateway keeps the deadlines; this one is for a gateway that does not.
        question.overdue_at = now.instant + limits::ESCALATION_TOTAL + limits::ANSWER_GRACE;
        let frame = std::mem::take(&mut question.frame);
        self.transport.send(conn, stream, &frame);
        self.stats.requests_sent += 1;
    }

    fn send_call(&mut self, id: u64, conn: ConnId, stream: StreamId) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        call.place = Some((conn, stream));
        let frame = std::mem::take(&mut call.frame);
        self.transport.send(conn, stream, &frame);
        self.transport.finish(conn, stream);
    }

    pub(super) fn cancel(&mut self, now: Now, id: RequestId) {
        let Some(question) = self.questions.get(&id) else {
            return;
        };
        match question.place {
            Some((conn, stream)) => {
                self.send(conn, stream, &Message::Cancel(Cancel { request_id: id }));
                self.unpause(now, id);
            }
            None => self.fail_question(id, AskError::Cancelled),
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
                Read::Data(data) => self.feed(lane, &data),
                Read::Blocked => return,
                Read::End | Read::Reset(_) | Read::Gone => {
                    let error = AskError::Protocol("the stream ended before the answer".to_owned());
                    self.fail(lane, error);
                }
            }
        }
    }

    fn feed(&mut self, lane: Lane, data: &[u8]) {
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
                (Lane::Question(id), Ok(message)) => self.question_message(id, message),
                (Lane::Call(id), Ok(message)) => self.call_message(id, message),
                (lane, Err(error)) => return self.fail(lane, AskError::Protocol(error)),
            }
            // Whatever follows a last frame is nobody's.
            if self.decoder(lane).is_none() {
                return;
            }
        }
        if let Some(place) = self.decoder(lane) {
            *place = decoder;
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
    fn question_message(&mut self, id: RequestId, message: Message) {
        match message {
            Message::StreamChunk(chunk) if chunk.request_id == id => self.piece(id, &chunk),
            Message::StreamEnd(mut end) if end.request_id == id => {
                let Some(question) = self.questions.get_mut(&id) else {
                    return;
                };
                match question.pieces.end() {
                    Ok(()) => {
                        end.hidden = count(question.inflow.hidden());
                        self.flush(id);
                        self.finish_question(id, AnswerEvent::Ended(end));
                    }
                    Err(error) => self.fail_question(id, AskError::Protocol(error.to_string())),
                }
            }
            Message::EscalationResponse(mut answer) if answer.request_id == id => {
                if let Some(question) = self.questions.get(&id) {
                    restore_whole(question.inflow.hidden(), &mut answer);
                }
                self.finish_question(id, AnswerEvent::Whole(answer));
            }
            Message::Error(error) => self.fail_question(id, AskError::Remote(Box::new(error))),
            other => {
                let what = format!("{:?} that is not of this answer", other.frame_type());
                self.fail_question(id, AskError::Protocol(what));
            }
        }
    }

    fn piece(&mut self, id: RequestId, chunk: &StreamChunk) {
        let Some(question) = self.questions.get_mut(&id) else {
            return;
        };
        let delta = chunk.delta.as_deref().map(RawValue::get);
        let taken =
            question
                .pieces
                .accept_with(chunk.sequence, &chunk.content, delta, chunk.is_final);
        let mut events = Vec::new();
        let mut understood = true;
        for part in question.pieces.take_all() {
            match part {
                Released::Text(text) => question.inflow.text(text, &mut events),
                Released::Delta(json) => match Delta::from_json(&json) {
                    Some(delta) => question.inflow.delta(delta, &mut events),
                    None => understood = false,
                },
            }
        }
        for event in events {
            self.answer(id, event);
        }
        let error = match taken {
            Err(error) => error.to_string(),
            Ok(_) if !understood => "a delta of no known kind".to_owned(),
            Ok(_) => return,
        };
        self.fail_question(id, AskError::Protocol(error));
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

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "every message that does not belong here is refused alike"
    )]
    fn call_message(&mut self, id: u64, message: Message) {
        let result = match message {
            Message::Reply(reply) if reply.id == id => match (reply.result, reply.error) {
                (Some(result), None) => Ok(result),
                (_, Some(error)) => Err(AskError::Remote(Box::new(error))),
                (None, None) => Err(AskError::Protocol("an empty reply".to_owned())),
            },
            Message::Error(error) => Err(AskError::Remote(Box::new(error))),
            other => {
                let what = format!("{:?} that is not of this call", other.frame_type());
                Err(AskError::Protocol(what))
            }
        };
        self.end_call(id, result);
    }

    fn end_call(&mut self, id: u64, result: Result<Box<RawValue>, AskError>) {
        if let Some(call) = self.calls.remove(&id) {
            self.leave(Lane::Call(id), call.place);
            self.outputs.push_back(Output::Replied { id, result });
        }
    }

    /// The last event of an answer that is complete.
    fn finish_question(&mut self, id: RequestId, event: AnswerEvent) {
        if self.remove_question(id) {
            self.stats.requests_succeeded += 1;
            self.answer(id, event);
        }
    }

    fn fail_question(&mut self, id: RequestId, error: AskError) {
        self.flush(id);
        if self.remove_question(id) {
            self.stats.requests_failed += 1;
            self.answer(id, AnswerEvent::Failed(error));
        }
    }

    /// Whether it was under way: only then is there a last event to give.
    fn remove_question(&mut self, id: RequestId) -> bool {
        let Some(question) = self.questions.remove(&id) else {
            return false;
        };
        self.leave(Lane::Question(id), question.place);
        true
    }

    /// Gives a stream up; whatever it still carries is nobody's.
    fn leave(&mut self, lane: Lane, place: Option<(ConnId, StreamId)>) {
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

    fn answer(&mut self, request: RequestId, event: AnswerEvent) {
        self.outputs.push_back(Output::Answer { request, event });
    }

    /// The gateway stopped a stream: its last word on it may still be read.
    pub(super) fn stopped(&mut self, now: Now, conn: ConnId, stream: StreamId) {
        if self.is_control(conn, stream) {
            self.read_control(now, conn, stream);
        }
    }

    /// A connection is over: what was on it failed.
    pub(super) fn lose_lanes(&mut self, conn: ConnId, failure: &Failure) {
        let lost: Vec<Lane> = self
            .lanes
            .range((conn, StreamId(0))..=(conn, StreamId(u64::MAX)))
            .map(|(_, &lane)| lane)
            .collect();
        for lane in lost {
            self.fail(lane, AskError::TunnelLost(failure.clone()));
        }
    }

    /// The tunnel was given up: nothing that waits will be sent.
    pub(super) fn refuse_waiting(&mut self, failure: Option<&Failure>) {
        while let Some(lane) = self.waiting.pop_front() {
            self.fail(lane, AskError::NotConnected(failure.cloned()));
        }
    }

    /// Ends what is overdue.
    pub(super) fn expire(&mut self, now: Now) {
        let overdue = |at: Instant| at <= now.instant;
        let questions = self.questions.iter().filter(|(_, q)| overdue(q.overdue_at));
        let calls = self
            .calls
            .iter()
            .filter(|(_, call)| overdue(call.overdue_at));
        let lanes: Vec<Lane> = questions
            .map(|(&id, _)| Lane::Question(id))
            .chain(calls.map(|(&id, _)| Lane::Call(id)))
            .collect();
        for lane in lanes {
            self.fail(lane, AskError::TimedOut);
        }
    }

    pub(super) fn next_expiry(&self) -> Option<(Instant, &'static str)> {
        let questions = self.questions.values().map(|question| question.overdue_at);
        let calls = self.calls.values().map(|call| call.overdue_at);
        questions
            .chain(calls)
            .min()
            .map(|at| (at, "a question is overdue"))
    }
}

/// How many values a question had hidden.
fn count(hidden: &Mapping) -> u32 {
    u32::try_from(hidden.len()).unwrap_or(u32::MAX)
}

/// Puts what was hidden back into a whole answer.
fn restore_whole(hidden: &Arc<Mapping>, answer: &mut EscalationResponse) {
    answer.hidden = count(hidden);
    if hidden.is_empty() {
        return;
    }
    let restored = |text: &mut String| {
        *text = Restorer::whole(hidden, Form::Text, std::mem::take(text));
    };
    restored(&mut answer.content);
    answer.sources.iter_mut().for_each(restored);
    let body = answer.body.as_deref().map(RawValue::get);
    if let Some(body) = body.and_then(|body| restored_body(hidden, body)) {
        answer.body = Some(body);
    }
}

/// A client's own body of an answer; the arguments of tools in it are JSON inside of JSON.
fn restored_body(hidden: &Arc<Mapping>, body: &str) -> Option<Box<RawValue>> {
    let written = json::rewrite(body, |literal| {
        let form = match literal.of {
            Some("arguments") => Form::Json,
            Some(_) | None => Form::Text,
        };
        let text = literal.text.as_ref();
        let restored = Restorer::whole(hidden, form, text.to_owned());
        (restored != text).then_some(restored)
    });
    written
        .ok()
        .flatten()
        .and_then(|body| RawValue::from_string(body).ok())
}

#[cfg(test)]
mod tests;
