//! The streams of a tunnel: bytes to messages, and messages to whom they concern.
//!
//! A stream's first message says what it is for; from then on only messages of that kind are taken
//! from it ([`Lane`]). What is half received is counted, for the tunnel and for all of them.

use super::answers::AnswerId;
use super::tunnels::Phase;
use super::{Gateway, answer, terms};
use crate::limits;
use crate::time::Now;
use crate::transport::{ConnId, Read, StreamId, Transport};
use crate::wire::close::CloseCode;
use crate::wire::codec;
use crate::wire::frame::{Direction, FrameDecoder, FrameType, StreamKind};
use crate::wire::message::Message;

/// One stream that the device opened.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) lane: Lane,
    decoder: FrameDecoder,
}

/// What a stream is for; its first message says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Lane {
    #[default]
    Fresh,
    Control,
    Answer(AnswerId),
    /// An answer that is not here; the outside world is asked what it knows of it.
    Recall,
    Call,
    /// Nothing more is taken from it.
    Spent,
}

impl Lane {
    const fn kind(self) -> Option<StreamKind> {
        match self {
            Self::Control => Some(StreamKind::Control),
            Self::Answer(_) | Self::Recall => Some(StreamKind::Escalation),
            Self::Call => Some(StreamKind::Call),
            Self::Fresh | Self::Spent => None,
        }
    }
}

impl<T: Transport> Gateway<T> {
    /// Reads everything a stream has, unless its tunnel is not admitted yet.
    pub(super) fn read(&mut self, now: Now, conn: ConnId, stream: StreamId) {
        loop {
            if !self.may_read(conn, stream) {
                return;
            }
            match self.transport.read(conn, stream) {
                Read::Data(data) => self.feed(now, conn, stream, &data),
                Read::Blocked => return,
                Read::End => return self.device_finished(now, conn, stream),
                // We stopped it ourselves: our last word on it still has to go out.
                Read::Gone if self.lane(conn, stream) == Some(Lane::Spent) => return,
                Read::Reset(_) | Read::Gone => return self.unwanted(now, conn, stream),
            }
        }
    }

    fn is_live(&self, conn: ConnId) -> bool {
        let phase = self.tunnels.get(&conn).map(|tunnel| &tunnel.phase);
        matches!(phase, Some(Phase::Live { .. }))
    }

    fn may_read(&self, conn: ConnId, stream: StreamId) -> bool {
        let Some(tunnel) = self.tunnels.get(&conn) else {
            return false;
        };
        tunnel.streams.contains_key(&stream)
            && match &tunnel.phase {
                Phase::Live { .. } => true,
                // Until then only the stream that says hello.
                Phase::Knocking { control: None, .. } => tunnel
                    .streams
                    .first_key_value()
                    .is_some_and(|(&first, _)| first == stream),
                Phase::Knocking {
                    control: Some(control),
                    ..
                } => *control == stream,
                Phase::Handshaking | Phase::Closing => false,
            }
    }

    fn feed(&mut self, now: Now, conn: ConnId, stream: StreamId, data: &[u8]) {
        // The decoder leaves its place while its frames are handled, which may need all of `self`.
        let Some(entry) = self.stream(conn, stream) else {
            return;
        };
        let mut decoder = std::mem::take(&mut entry.decoder);
        let before = decoder.buffered();
        let mut broken = None;
        let mut frames = decoder.feed(data);
        while let Some(frame) = frames.next() {
            let taken = match frame {
                Ok(frame) => self.frame(now, conn, stream, frame.frame_type, frame.payload),
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = taken {
                broken = Some(error);
                break;
            }
        }
        let after = decoder.buffered();
        if let Some(entry) = self.stream(conn, stream) {
            entry.decoder = decoder;
            self.count_received(now, conn, stream, before, after);
        } else {
            self.received_bytes = self.received_bytes.saturating_sub(before);
        }
        if let Some(error) = broken {
            self.protocol_error(now, conn, stream, &error);
        }
    }

    fn count_received(
        &mut self,
        now: Now,
        conn: ConnId,
        stream: StreamId,
        before: usize,
        after: usize,
    ) {
        let Some(tunnel) = self.tunnels.get_mut(&conn) else {
            return;
        };
        tunnel.received_bytes = (tunnel.received_bytes + after).saturating_sub(before);
        self.received_bytes = (self.received_bytes + after).saturating_sub(before);
        let over = tunnel.received_bytes > limits::TUNNEL_RECEIVE_BYTES_MAX
            || self.received_bytes > limits::GATEWAY_RECEIVE_BYTES_MAX;
        if over {
            self.refuse_stream(now, conn, stream, &Message::Error(terms::receive_full()));
        }
    }

    fn frame(
        &mut self,
        now: Now,
        conn: ConnId,
        stream: StreamId,
        frame_type: FrameType,
        payload: &[u8],
    ) -> Result<(), String> {
        let Some(lane) = self.lane(conn, stream) else {
            return Ok(());
        };
        if lane == Lane::Spent {
            return Ok(());
        }
        let kind = lane
            .kind()
            .or_else(|| frame_type.opens())
            .ok_or("a frame that opens nothing")?;
        if !frame_type.allowed(Direction::ToGateway, kind) {
            return Err("a frame where it does not belong".to_owned());
        }
        // One conversation for each stream: a second one would speak between the first one's words.
        if lane != Lane::Fresh && frame_type.opens().is_some() {
            return Err("a second beginning on one stream".to_owned());
        }
        if lane == Lane::Control && !self.is_live(conn) {
            return Err("a message before the device was admitted".to_owned());
        }
        let message = codec::decode(frame_type, payload).map_err(|error| error.to_string())?;
        if let Message::ChunkAck(ack) = &message {
            return self.acknowledged(now, conn, stream, ack);
        }
        self.message(now, conn, stream, message);
        Ok(())
    }

    fn message(&mut self, now: Now, conn: ConnId, stream: StreamId, message: Message) {
        match message {
            Message::Hello(hello) => self.hello(now, conn, stream, &hello),
            Message::Heartbeat(beat) => self.heartbeat(now, conn, stream, &beat),
            Message::PrewarmSignal(signal) => self.prewarm(now, conn, &signal),
            Message::EscalationRequest(request) => self.question(now, conn, stream, &request),
            Message::Cancel(_) => self.cancelled(now, conn, stream),
            Message::Call(call) => self.call(now, conn, stream, &call),
            Message::Resume(resume) => self.resume(now, conn, stream, &resume),
            Message::UploadBegin(_) => {
                self.refuse_stream(now, conn, stream, &Message::Error(terms::no_uploads()));
            }
            // An acknowledgement is taken before; a device's own error is its last word on a stream.
            Message::ChunkAck(_) | Message::Error(_) => {}
            Message::HeartbeatAck(_)
            | Message::EscalationResponse(_)
            | Message::StreamChunk(_)
            | Message::StreamEnd(_)
            | Message::HelloAck(_)
            | Message::GoAway(_)
            | Message::Notice(_)
            | Message::Reply(_)
            | Message::UploadReady(_)
            | Message::UploadAck(_)
            | Message::UploadDone(_) => {
                self.protocol_error(now, conn, stream, "a message in the wrong direction");
            }
        }
    }

    /// The device has said all it will on a stream.
    fn device_finished(&mut self, now: Now, conn: ConnId, stream: StreamId) {
        match self.lane(conn, stream) {
            Some(Lane::Control) => {
                self.close(
                    now,
                    conn,
                    CloseCode::Protocol,
                    "the control stream was closed",
                );
            }
            Some(Lane::Fresh) => {
                self.transport.finish(conn, stream);
                self.set_lane(conn, stream, Lane::Spent);
            }
            Some(Lane::Answer(_) | Lane::Recall | Lane::Call | Lane::Spent) | None => {}
        }
    }

    /// The device wants the answer stopped: what there is of it still comes, and its end.
    fn cancelled(&mut self, now: Now, conn: ConnId, stream: StreamId) {
        match self.lane(conn, stream) {
            Some(Lane::Answer(id)) => self.step_answer(now, id, answer::Input::Cancelled),
            Some(Lane::Fresh | Lane::Control | Lane::Recall | Lane::Call | Lane::Spent) | None => {
                self.unwanted(now, conn, stream);
            }
        }
    }

    /// The device no longer wants what a stream is for.
    pub(super) fn unwanted(&mut self, now: Now, conn: ConnId, stream: StreamId) {
        match self.lane(conn, stream) {
            Some(Lane::Control) => {
                self.close(
                    now,
                    conn,
                    CloseCode::Protocol,
                    "the control stream was reset",
                );
            }
            // Its last word still goes out on the half of the stream that is left.
            Some(Lane::Answer(id)) if self.answers.contains_key(&id) => {
                self.step_answer(now, id, answer::Input::Cancelled);
            }
            Some(Lane::Answer(id)) => {
                self.detach(now, id, conn, stream);
                self.transport.reset(conn, stream, CloseCode::Done.as_u32());
                self.forget_stream(conn, stream);
            }
            Some(Lane::Fresh | Lane::Recall | Lane::Call | Lane::Spent) => {
                self.transport.reset(conn, stream, CloseCode::Done.as_u32());
                self.forget_stream(conn, stream);
            }
            None => {}
        }
    }

    fn protocol_error(&mut self, now: Now, conn: ConnId, stream: StreamId, what: &str) {
        match self.lane(conn, stream) {
            Some(Lane::Control) => self.close(now, conn, CloseCode::Protocol, what),
            Some(Lane::Answer(id)) => {
                self.detach(now, id, conn, stream);
                self.step_answer(now, id, answer::Input::Cancelled);
                self.refuse_stream(now, conn, stream, &Message::Error(terms::protocol(what)));
            }
            Some(Lane::Fresh | Lane::Recall | Lane::Call) => {
                self.refuse_stream(now, conn, stream, &Message::Error(terms::protocol(what)));
            }
            // The last word on it has been said.
            Some(Lane::Spent) | None => {}
        }
    }

    /// Says a last word on a stream and takes no more from it.
    pub(super) fn refuse_stream(
        &mut self,
        now: Now,
        conn: ConnId,
        stream: StreamId,
        word: &Message,
    ) {
        self.send(now, conn, stream, word);
        self.transport
            .stop(conn, stream, CloseCode::Protocol.as_u32());
        self.end_stream(conn, stream);
    }

    /// Ends our side of a stream; what is queued still goes out.
    pub(super) fn end_stream(&mut self, conn: ConnId, stream: StreamId) {
        self.transport.finish(conn, stream);
        self.set_lane(conn, stream, Lane::Spent);
    }

    /// Encodes and queues one message. One that does not fit a frame becomes an error that does.
    pub(super) fn send(&mut self, now: Now, conn: ConnId, stream: StreamId, message: &Message) {
        let mut bytes = Vec::new();
        if codec::encode(message, &mut bytes).is_err() {
            bytes.clear();
            let instead = Message::Error(terms::unsendable());
            if codec::encode(&instead, &mut bytes).is_err() {
                self.close(
                    now,
                    conn,
                    CloseCode::Protocol,
                    "a message that cannot be sent",
                );
                return;
            }
        }
        self.transport.send(conn, stream, &bytes);
    }

    fn stream(&mut self, conn: ConnId, stream: StreamId) -> Option<&mut Stream> {
        self.tunnels.get_mut(&conn)?.streams.get_mut(&stream)
    }

    pub(super) fn lane(&self, conn: ConnId, stream: StreamId) -> Option<Lane> {
        Some(self.tunnels.get(&conn)?.streams.get(&stream)?.lane)
    }

    pub(super) fn set_lane(&mut self, conn: ConnId, stream: StreamId, lane: Lane) {
        if let Some(entry) = self.stream(conn, stream) {
            entry.lane = lane;
        }
    }

    pub(super) fn forget_stream(&mut self, conn: ConnId, stream: StreamId) {
        let Some(tunnel) = self.tunnels.get_mut(&conn) else {
            return;
        };
        if let Some(entry) = tunnel.streams.remove(&stream) {
            let held = entry.decoder.buffered();
            tunnel.received_bytes = tunnel.received_bytes.saturating_sub(held);
            self.received_bytes = self.received_bytes.saturating_sub(held);
        }
    }
}
