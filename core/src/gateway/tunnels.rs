//! Connections, their streams and their messages.
//!
//! ```text
//!  Incoming ─ accept ─▶ Handshaking ─ Connected ─▶ Knocking { hello?, admitted? }
//!                                                      │ both
//!                                                      ▼
//!                                 Closing ◀───────── Live { account, epoch, control }
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::admission::{self, Load};
use super::answers::AnswerId;
use super::outside::{Admitted, Ask, NotAdmitted};
use super::{Due, Event, Gateway, Output, answer, terms};
use crate::identity;
use crate::ids::{AccountId, DeviceId};
use crate::limits;
use crate::time::Now;
use crate::transport::{self, CloseReason, ConnId, Priority, Read, StreamId, Transport};
use crate::wire::close::CloseCode;
use crate::wire::codec;
use crate::wire::frame::{Direction, FrameDecoder, FrameType, StreamKind};
use crate::wire::message::{
    Heartbeat, HeartbeatAck, Hello, HelloAck, Message, PrewarmSignal, ServerStatus, SessionLimits,
};

/// One connection.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) remote: SocketAddr,
    pub(super) handshake: Duration,
    pub(super) device: Option<DeviceId>,
    pub(super) phase: Phase,
    pub(super) streams: BTreeMap<StreamId, Stream>,
    /// Bytes of half-received messages.
    received_bytes: usize,
}

#[derive(Debug)]
pub(super) enum Phase {
    Handshaking,
    Knocking {
        control: Option<StreamId>,
        admitted: Option<Admitted>,
    },
    Live {
        account: AccountId,
    },
    Closing,
}

impl Tunnel {
    /// Whether something said last on a stream has not been acknowledged yet.
    pub(super) fn is_speaking(&self) -> bool {
        self.streams
            .values()
            .any(|stream| stream.lane == Lane::Spent)
    }
}

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
    Call,
    /// Nothing more is taken from it.
    Spent,
}

impl Lane {
    const fn kind(self) -> Option<StreamKind> {
        match self {
            Self::Control => Some(StreamKind::Control),
            Self::Answer(_) => Some(StreamKind::Escalation),
            Self::Call => Some(StreamKind::Call),
            Self::Fresh | Self::Spent => None,
        }
    }
}

impl<T: Transport> Gateway<T> {
    pub(super) fn transport_event(&mut self, now: Now, event: transport::Event) {
        match event {
            transport::Event::Incoming {
                conn,
                remote,
                validated,
            } => {
                self.incoming(now, conn, remote, validated);
            }
            transport::Event::Connected {
                conn,
                peer_certificate,
                handshake,
            } => {
                self.connected(now, conn, peer_certificate, handshake);
            }
            transport::Event::Opened { conn, stream } => {
                if let Some(tunnel) = self.tunnels.get_mut(&conn) {
                    tunnel.streams.insert(stream, Stream::default());
                    self.read(now, conn, stream);
                }
            }
            transport::Event::Readable { conn, stream } => self.read(now, conn, stream),
            transport::Event::Writable { conn, stream } => {
                if let Some(Lane::Answer(id)) = self.lane(conn, stream) {
                    self.give_room(now, id);
                }
            }
            transport::Event::Finished { conn, stream } => self.forget_stream(conn, stream),
            transport::Event::Stopped { conn, stream, .. } => self.unwanted(now, conn, stream),
            transport::Event::Closed { conn, reason } => self.closed(now, conn, &reason),
            transport::Event::StreamsAvailable { .. } => {}
        }
    }

    fn incoming(&mut self, now: Now, conn: ConnId, remote: SocketAddr, validated: bool) {
        let load = Load {
            handshakes: self.handshakes,
            tunnels: self.tunnels.len(),
            tunnels_max: self.config.tunnels_max,
            stopping: self.stopping,
        };
        match admission::verdict(load, validated) {
            admission::Verdict::Accept => {
                self.handshakes += 1;
                let tunnel = Tunnel {
                    remote,
                    handshake: Duration::ZERO,
                    device: None,
                    phase: Phase::Handshaking,
                    streams: BTreeMap::new(),
                    received_bytes: 0,
                };
                self.tunnels.insert(conn, tunnel);
                self.transport.accept(now, conn);
            }
            admission::Verdict::Retry => self.transport.retry(now, conn),
            admission::Verdict::Refuse => {
                self.transport.refuse(now, conn);
                self.event(Event::HandshakeRefused { remote });
            }
        }
    }

    fn connected(
        &mut self,
        now: Now,
        conn: ConnId,
        certificate: Option<Bytes>,
        handshake: Duration,
    ) {
        let Some(tunnel) = self.tunnels.get_mut(&conn) else {
            return;
        };
        self.handshakes -= 1;
        tunnel.handshake = handshake;
        tunnel.phase = Phase::Knocking {
            control: None,
            admitted: None,
        };
        let Some(certificate) = certificate else {
            self.close(now, conn, CloseCode::Unauthorized, "no device certificate");
            return;
        };
        match identity::device_id_of(&certificate) {
            Ok(device) => {
                tunnel.device = Some(device);
                let hello_by = now.instant + limits::HELLO_TIMEOUT;
                self.deadlines.set(Due::Hello(conn), Some(hello_by));
                let certificate = identity::Fingerprint::of(&certificate);
                self.ask_admission(
                    now,
                    conn,
                    Ask::Admit {
                        device,
                        certificate,
                    },
                );
            }
            Err(_) => self.close(
                now,
                conn,
                CloseCode::Unauthorized,
                "not a device certificate",
            ),
        }
    }

    pub(super) fn admission_told(
        &mut self,
        now: Now,
        conn: ConnId,
        word: Result<Admitted, NotAdmitted>,
    ) {
        let Some(tunnel) = self.tunnels.get_mut(&conn) else {
            return;
        };
        let Phase::Knocking { admitted, .. } = &mut tunnel.phase else {
            return;
        };
        match word {
            Ok(granted) => {
                *admitted = Some(granted);
                self.establish(now, conn);
            }
            Err(refused) => {
                let code = match refused {
                    NotAdmitted::Unknown | NotAdmitted::Mismatched => CloseCode::Unauthorized,
                    NotAdmitted::Revoked => CloseCode::Revoked,
                    NotAdmitted::Unavailable => CloseCode::Overloaded,
                };
                self.close(now, conn, code, &refused.to_string());
            }
        }
    }

    fn hello(&mut self, now: Now, conn: ConnId, stream: StreamId, hello: &Hello) {
        let Some(tunnel) = self.tunnels.get_mut(&conn) else {
            return;
        };
        let fresh = matches!(tunnel.phase, Phase::Knocking { control: None, .. });
        if !fresh || tunnel.device != Some(hello.device_id) {
            self.close(
                now,
                conn,
                CloseCode::Protocol,
                "a Hello that does not belong here",
            );
            return;
        }
        if let Phase::Knocking { control, .. } = &mut tunnel.phase {
            *control = Some(stream);
        }
        self.set_lane(conn, stream, Lane::Control);
        self.transport.set_priority(conn, stream, Priority::Control);
        self.establish(now, conn);
    }

    /// Once both the device has said hello and the store has admitted it.
    fn establish(&mut self, now: Now, conn: ConnId) {
        let Some(tunnel) = self.tunnels.get_mut(&conn) else {
            return;
        };
        let Phase::Knocking {
            control: Some(control),
            admitted: Some(admitted),
        } = tunnel.phase
        else {
            return;
        };
        let Some(device) = tunnel.device else { return };
        let Admitted { account, epoch } = admitted;
        tunnel.phase = Phase::Live { account };
        let (remote, handshake) = (tunnel.remote, tunnel.handshake);
        self.deadlines.set(Due::Hello(conn), None);
        if let Some(older) = self.live.insert(device, conn) {
            self.close(
                now,
                older,
                CloseCode::Replaced,
                "the device has connected anew",
            );
        }
        let ack = HelloAck {
            epoch,
            server_time: now.wall,
            heartbeat_secs: terms::HEARTBEAT_SECS,
            limits: SessionLimits::default(),
            features: Vec::new(),
        };
        self.send(now, conn, control, &Message::HelloAck(ack));
        self.event(Event::TunnelUp {
            device,
            account,
            epoch,
            remote,
            handshake,
        });
        let waiting: Vec<StreamId> = self
            .tunnels
            .get(&conn)
            .map(|tunnel| {
                tunnel
                    .streams
                    .keys()
                    .copied()
                    .filter(|&s| s != control)
                    .collect()
            })
            .unwrap_or_default();
        for stream in waiting {
            self.read(now, conn, stream);
        }
    }

    /// Reads everything a stream has, unless its tunnel is not admitted yet.
    fn read(&mut self, now: Now, conn: ConnId, stream: StreamId) {
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
        let message = codec::decode(frame_type, payload).map_err(|error| error.to_string())?;
        self.message(now, conn, stream, message);
        Ok(())
    }

    fn message(&mut self, now: Now, conn: ConnId, stream: StreamId, message: Message) {
        match message {
            Message::Hello(hello) => self.hello(now, conn, stream, &hello),
            Message::Heartbeat(beat) => self.heartbeat(now, conn, stream, &beat),
            Message::PrewarmSignal(signal) => self.prewarm(now, conn, &signal),
            Message::EscalationRequest(request) => self.question(now, conn, stream, &request),
            Message::Cancel(_) => self.unwanted(now, conn, stream),
            Message::Call(call) => self.call(now, conn, stream, &call),
            Message::Resume(resume) => {
                let error = terms::no_such_answer(resume.request_id);
                self.refuse_stream(now, conn, stream, &Message::Error(error));
            }
            Message::UploadBegin(_) => {
                self.refuse_stream(now, conn, stream, &Message::Error(terms::no_uploads()));
            }
            // Nothing is kept that an acknowledgement could free, and a device's own error is its
            // last word on a stream.
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

    fn heartbeat(&mut self, now: Now, conn: ConnId, stream: StreamId, beat: &Heartbeat) {
        if !self.speaks_for(conn, beat.device_id) {
            self.close(
                now,
                conn,
                CloseCode::Protocol,
                "a heartbeat of another device",
            );
            return;
        }
        let rtt = self
            .transport
            .stats(conn)
            .map(|stats| stats.rtt)
            .unwrap_or_default();
        let ack = HeartbeatAck {
            sequence: beat.sequence,
            server_time: now.wall,
            latency_ms: u32::try_from(rtt.as_millis()).unwrap_or(u32::MAX),
            pending_messages: 0,
            server_status: ServerStatus::Healthy,
        };
        self.send(now, conn, stream, &Message::HeartbeatAck(ack));
    }

    fn prewarm(&mut self, now: Now, conn: ConnId, signal: &PrewarmSignal) {
        if !self.speaks_for(conn, signal.device_id) {
            self.close(now, conn, CloseCode::Protocol, "a signal of another device");
            return;
        }
        if let Some(model) = self.model("auto") {
            let provider = model.provider.clone();
            self.outputs.push_back(Output::Warm { provider });
        }
    }

    fn speaks_for(&self, conn: ConnId, device: DeviceId) -> bool {
        self.tunnels
            .get(&conn)
            .is_some_and(|tunnel| tunnel.device == Some(device))
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
            Some(Lane::Answer(_) | Lane::Call | Lane::Spent) | None => {}
        }
    }

    /// The device no longer wants what a stream is for.
    fn unwanted(&mut self, now: Now, conn: ConnId, stream: StreamId) {
        match self.lane(conn, stream) {
            Some(Lane::Control) => {
                self.close(
                    now,
                    conn,
                    CloseCode::Protocol,
                    "the control stream was reset",
                );
            }
            Some(Lane::Answer(id)) => self.step_answer(now, id, answer::Input::Cancelled),
            Some(Lane::Fresh | Lane::Call | Lane::Spent) => {
                self.transport.reset(conn, stream, CloseCode::Done.as_u32());
                self.forget_stream(conn, stream);
            }
            None => {}
        }
    }

    fn protocol_error(&mut self, now: Now, conn: ConnId, stream: StreamId, what: &str) {
        match self.lane(conn, stream) {
            Some(Lane::Control) => self.close(now, conn, CloseCode::Protocol, what),
            Some(lane) => {
                if let Lane::Answer(id) = lane {
                    self.step_answer(now, id, answer::Input::Deserted);
                }
                self.refuse_stream(now, conn, stream, &Message::Error(terms::protocol(what)));
            }
            None => {}
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

    pub(super) fn close(&mut self, now: Now, conn: ConnId, code: CloseCode, why: &str) {
        let Some(tunnel) = self.tunnels.get_mut(&conn) else {
            return;
        };
        if matches!(tunnel.phase, Phase::Closing) {
            return;
        }
        if matches!(tunnel.phase, Phase::Handshaking) {
            self.handshakes -= 1;
        }
        tunnel.phase = Phase::Closing;
        let device = tunnel.device;
        self.left(now, conn);
        self.transport.close(now, conn, code.as_u32(), why);
        self.event(Event::TunnelDown {
            device,
            reason: why.to_owned(),
        });
    }

    fn closed(&mut self, now: Now, conn: ConnId, reason: &CloseReason) {
        let Some(tunnel) = self.tunnels.get(&conn) else {
            return;
        };
        let (device, told) = (tunnel.device, matches!(tunnel.phase, Phase::Closing));
        if matches!(tunnel.phase, Phase::Handshaking) {
            self.handshakes -= 1;
        }
        self.left(now, conn);
        self.tunnels.remove(&conn);
        if !told {
            self.event(Event::TunnelDown {
                device,
                reason: reason.to_string(),
            });
        }
    }

    /// Nobody listens on the connection any more.
    fn left(&mut self, now: Now, conn: ConnId) {
        self.deadlines.set(Due::Hello(conn), None);
        let Some(tunnel) = self.tunnels.get_mut(&conn) else {
            return;
        };
        self.received_bytes = self.received_bytes.saturating_sub(tunnel.received_bytes);
        tunnel.received_bytes = 0;
        let streams = std::mem::take(&mut tunnel.streams);
        if let Some(device) = tunnel.device
            && self.live.get(&device) == Some(&conn)
        {
            self.live.remove(&device);
        }
        for stream in streams.into_values() {
            if let Lane::Answer(id) = stream.lane {
                self.step_answer(now, id, answer::Input::Deserted);
            }
        }
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

    fn lane(&self, conn: ConnId, stream: StreamId) -> Option<Lane> {
        Some(self.tunnels.get(&conn)?.streams.get(&stream)?.lane)
    }

    pub(super) fn set_lane(&mut self, conn: ConnId, stream: StreamId, lane: Lane) {
        if let Some(entry) = self.stream(conn, stream) {
            entry.lane = lane;
        }
    }

    fn forget_stream(&mut self, conn: ConnId, stream: StreamId) {
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
