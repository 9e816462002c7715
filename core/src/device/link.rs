//! One attempt, and the session it became: addresses tried in turn, then a control stream.
//!
//! ```text
//!  Resolve ─▶ dial the first address ─ 250 ms ─▶ the next … (RFC 8305)
//!                  │ the first to complete wins, the others are closed
//!                  ▼
//!              Hello on the control stream ─ HelloAck ─▶ established
//! ```

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{AttemptId, Device, Failure};
use crate::limits;
use crate::time::Now;
use crate::transport::{CloseReason, ConnId, Priority, Read, StreamId, Transport};
use crate::tunnel::{self, FailureKind};
use crate::wire::close::CloseCode;
use crate::wire::codec;
use crate::wire::frame::{Direction, FrameDecoder, StreamKind};
use crate::wire::message::{GoAway, Heartbeat, Hello, HelloAck, Message, PrewarmSignal};

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Link {
    stage: Stage,
    /// It goes to where a gateway has sent the device, not to the configured one.
    is_alternate: bool,
    last_failure: Option<Failure>,
    /// Beats sent and acknowledged, as the heart last told.
    pub(super) beats: (u64, u64),
}

#[derive(Debug)]
enum Stage {
    /// The gateway's addresses are being looked up.
    Resolving,
    /// Connections are being made, a new one at `next`.
    Dialling {
        left: VecDeque<SocketAddr>,
        dialled: Vec<ConnId>,
        next: Option<Instant>,
    },
    /// One was; the gateway has not said hello yet, or has.
    Up(Box<Session>),
}

#[derive(Debug)]
struct Session {
    conn: ConnId,
    control: StreamId,
    decoder: FrameDecoder,
    established: bool,
}

impl Link {
    pub(super) const fn new(is_alternate: bool) -> Self {
        Self {
            stage: Stage::Resolving,
            is_alternate,
            last_failure: None,
            beats: (0, 0),
        }
    }

    /// The one connection, once there is one.
    pub(super) fn conn(&self) -> Option<ConnId> {
        match &self.stage {
            Stage::Up(session) => Some(session.conn),
            Stage::Resolving | Stage::Dialling { .. } => None,
        }
    }

    pub(super) fn is_established(&self) -> bool {
        matches!(&self.stage, Stage::Up(session) if session.established)
    }

    /// When the next address is due.
    pub(super) const fn next_dial(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Dialling { next, .. } => *next,
            Stage::Resolving | Stage::Up(_) => None,
        }
    }

    fn conns(&self) -> Vec<ConnId> {
        match &self.stage {
            Stage::Resolving => Vec::new(),
            Stage::Dialling { dialled, .. } => dialled.clone(),
            Stage::Up(session) => vec![session.conn],
        }
    }
}

/// The resolver's order with the families taking turns, its first choice first (RFC 8305 §4).
fn interleave(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut first, mut second): (VecDeque<_>, VecDeque<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let mut mixed = VecDeque::new();
    while !first.is_empty() || !second.is_empty() {
        mixed.extend(first.pop_front());
        mixed.extend(second.pop_front());
    }
    mixed.truncate(limits::GATEWAY_ADDRESSES_MAX);
    mixed
}

impl<T: Transport> Device<T> {
    pub(super) fn resolved(
        &mut self,
        now: Now,
        attempt: AttemptId,
        result: Result<Vec<SocketAddr>, String>,
    ) {
        let Some(link) = self.links.get_mut(&attempt) else {
            return;
        };
        if !matches!(link.stage, Stage::Resolving) {
            return;
        }
        match result {
            Ok(addresses) => {
                link.stage = Stage::Dialling {
                    left: interleave(addresses),
                    dialled: Vec::new(),
                    next: None,
                };
                self.dial_next(now, attempt);
            }
            Err(why) => {
                let failure = Failure::new(FailureKind::Unresolved, why);
                self.attempt_failed(now, attempt, failure);
            }
        }
    }

    pub(super) fn dial_due(&mut self, now: Now) {
        let due: Vec<AttemptId> = self
            .links
            .iter()
            .filter(|(_, link)| link.next_dial().is_some_and(|at| at <= now.instant))
            .map(|(&attempt, _)| attempt)
            .collect();
        for attempt in due {
            self.dial_next(now, attempt);
        }
    }

    /// Dials the next address that can be dialled; with none left and none under way it has failed.
    fn dial_next(&mut self, now: Now, attempt: AttemptId) {
        let Some(link) = self.links.get_mut(&attempt) else {
            return;
        };
        let Stage::Dialling {
            left,
            dialled,
            next,
        } = &mut link.stage
        else {
            return;
        };
        while let Some(address) = left.pop_front() {
            match self.transport.connect(now, address) {
                Ok(conn) => {
                    dialled.push(conn);
                    self.conns.insert(conn, attempt);
                    break;
                }
                Err(error) => {
                    let failure = Failure::new(FailureKind::Unreachable, error.to_string());
                    link.last_failure.get_or_insert(failure);
                }
            }
        }
        *next = (!left.is_empty()).then(|| now.instant + limits::NEXT_ADDRESS_AFTER);
        if dialled.is_empty() {
            let failure = link.last_failure.take();
            let failure = failure.unwrap_or_else(|| FailureKind::Unresolved.into());
            self.attempt_failed(now, attempt, failure);
        }
    }

    pub(super) fn connected(&mut self, now: Now, conn: ConnId, handshake: Duration) {
        let Some(&attempt) = self.conns.get(&conn) else {
            return;
        };
        let Some(link) = self.links.get_mut(&attempt) else {
            return;
        };
        let Stage::Dialling { dialled, .. } = &link.stage else {
            return;
        };
        let others: Vec<ConnId> = dialled
            .iter()
            .copied()
            .filter(|&other| other != conn)
            .collect();
        let Some(control) = self.transport.open(conn, Priority::Control) else {
            let failure = Failure::new(FailureKind::Protocol, "the gateway allows no stream");
            self.attempt_failed(now, attempt, failure);
            return;
        };
        link.stage = Stage::Up(Box::new(Session {
            conn,
            control,
            decoder: FrameDecoder::new(),
            established: false,
        }));
        self.stats.handshake = Some(handshake);
        for other in others {
            self.close_conn(now, other);
        }
        let hello = Hello {
            device_id: self.config.device_id,
            agent: self.config.agent.clone(),
            features: Vec::new(),
        };
        self.send(conn, control, &Message::Hello(hello));
    }

    pub(super) fn closed(&mut self, now: Now, conn: ConnId, reason: &CloseReason) {
        let Some(attempt) = self.conns.remove(&conn) else {
            return;
        };
        self.close_meter(conn);
        let failure = Failure::of_close(reason);
        self.lose_lanes(now, conn, &failure);
        let Some(link) = self.links.get_mut(&attempt) else {
            return;
        };
        match &mut link.stage {
            Stage::Resolving => {}
            Stage::Dialling { left, dialled, .. } => {
                dialled.retain(|&other| other != conn);
                // What is wrong with a certificate is wrong at every address. Waiting for another
                // one that never answers would hide it behind a timeout, and retry for ever.
                if failure.is_final() {
                    return self.attempt_failed(now, attempt, failure);
                }
                link.last_failure = Some(failure);
                if dialled.is_empty() || !left.is_empty() {
                    self.dial_next(now, attempt);
                }
            }
            Stage::Up(session) if session.established => {
                let sum = link.beats;
                self.links.remove(&attempt);
                self.stats.heartbeats_sent += sum.0;
                self.stats.heartbeats_acked += sum.1;
                self.note_tunnel(now, tunnel::Input::SessionLost { attempt, failure });
            }
            Stage::Up(_) => self.attempt_failed(now, attempt, failure),
        }
    }

    fn attempt_failed(&mut self, now: Now, attempt: AttemptId, failure: Failure) {
        self.abandon(now, attempt);
        self.note_tunnel(now, tunnel::Input::AttemptFailed { attempt, failure });
    }

    /// Closes everything that belongs to an attempt or to the session it became.
    pub(super) fn abandon(&mut self, now: Now, attempt: AttemptId) {
        let Some(link) = self.links.remove(&attempt) else {
            return;
        };
        self.stats.heartbeats_sent += link.beats.0;
        self.stats.heartbeats_acked += link.beats.1;
        for conn in link.conns() {
            self.lose_lanes(now, conn, &FailureKind::Ended.into());
            self.close_conn(now, conn);
        }
    }

    fn close_conn(&mut self, now: Now, conn: ConnId) {
        self.read_meters();
        self.close_meter(conn);
        self.conns.remove(&conn);
        self.transport
            .close(now, conn, CloseCode::Done.as_u32(), "");
    }

    /// Whether the stream is the control stream of the connection's session.
    pub(super) fn is_control(&self, conn: ConnId, stream: StreamId) -> bool {
        let link = self
            .conns
            .get(&conn)
            .and_then(|attempt| self.links.get(attempt));
        matches!(link.map(|link| &link.stage), Some(Stage::Up(s)) if s.control == stream)
    }

    pub(super) fn read_control(&mut self, now: Now, conn: ConnId, stream: StreamId) {
        loop {
            match self.transport.read(conn, stream) {
                Read::Data(data) => self.feed_control(now, conn, &data),
                Read::Blocked => return,
                Read::End | Read::Reset(_) => {
                    return self.broken(now, conn, "the gateway closed the control stream");
                }
                Read::Gone => return,
            }
        }
    }

    fn feed_control(&mut self, now: Now, conn: ConnId, data: &[u8]) {
        let Some(session) = self.session_of(conn) else {
            return;
        };
        let mut decoder = std::mem::take(&mut session.decoder);
        let mut frames = decoder.feed(data);
        while let Some(frame) = frames.next() {
            let read = frame.map_err(|error| error.to_string()).and_then(|frame| {
                if !frame
                    .frame_type
                    .allowed(Direction::ToDevice, StreamKind::Control)
                {
                    return Err(format!("{:?} on the control stream", frame.frame_type));
                }
                codec::decode(frame.frame_type, frame.payload).map_err(|error| error.to_string())
            });
            match read {
                Ok(message) => self.control_message(now, conn, message),
                Err(error) => return self.broken(now, conn, &error),
            }
        }
        if let Some(session) = self.session_of(conn) {
            session.decoder = decoder;
        }
    }

    fn session_of(&mut self, conn: ConnId) -> Option<&mut Session> {
        let attempt = self.conns.get(&conn)?;
        match &mut self.links.get_mut(attempt)?.stage {
            Stage::Up(session) => Some(session),
            Stage::Resolving | Stage::Dialling { .. } => None,
        }
    }

    fn control_message(&mut self, now: Now, conn: ConnId, message: Message) {
        let Some(&attempt) = self.conns.get(&conn) else {
            return;
        };
        match message {
            Message::HelloAck(ack) => self.hello_ack(now, conn, attempt, &ack),
            Message::HeartbeatAck(ack) => {
                let sequence = ack.sequence;
                self.note_tunnel(now, tunnel::Input::HeartbeatAcked { attempt, sequence });
            }
            Message::GoAway(go) => self.go_away(now, attempt, go),
            Message::Notice(notice) => self.notice(notice),
            Message::Error(error) => {
                let failure = Failure::of_error(&error);
                self.lost(now, conn, failure);
            }
            Message::Heartbeat(_)
            | Message::EscalationRequest(_)
            | Message::EscalationResponse(_)
            | Message::StreamChunk(_)
            | Message::StreamEnd(_)
            | Message::PrewarmSignal(_)
            | Message::Hello(_)
            | Message::Resume(_)
            | Message::Cancel(_)
            | Message::ChunkAck(_)
            | Message::Call(_)
            | Message::Reply(_)
            | Message::UploadBegin(_)
            | Message::UploadReady(_)
            | Message::UploadAck(_)
            | Message::UploadDone(_) => self.broken(now, conn, "a message of another stream"),
        }
    }

    /// The gateway goes away: if it was not heard too late, where to go instead counts from now on.
    fn go_away(&mut self, now: Now, attempt: AttemptId, go: GoAway) {
        if self
            .tunnel
            .session()
            .is_some_and(|(used, _)| used == attempt)
        {
            self.course.sent_to(go.alternate);
        }
        let told = tunnel::Input::GoAway {
            attempt,
            reconnect_in: Duration::from_millis(go.reconnect_in_ms),
            try_for: Duration::from_secs(go.try_for_secs.into()),
        };
        self.note_tunnel(now, told);
    }

    fn hello_ack(&mut self, now: Now, conn: ConnId, attempt: AttemptId, ack: &HelloAck) {
        let Some(session) = self.session_of(conn) else {
            return;
        };
        if std::mem::replace(&mut session.established, true) {
            return self.broken(now, conn, "a second HelloAck");
        }
        self.stats.epoch = Some(ack.epoch);
        if let Some(link) = self.links.get(&attempt) {
            self.course.arrived(link.is_alternate);
        }
        let heartbeat = Duration::from_secs(ack.heartbeat_secs.into());
        self.note_tunnel(
            now,
            tunnel::Input::AttemptEstablished { attempt, heartbeat },
        );
    }

    fn broken(&mut self, now: Now, conn: ConnId, what: &str) {
        self.lost(now, conn, Failure::new(FailureKind::Protocol, what));
    }

    /// The session, or the attempt, is over by our own or the gateway's word.
    fn lost(&mut self, now: Now, conn: ConnId, failure: Failure) {
        let Some(&attempt) = self.conns.get(&conn) else {
            return;
        };
        let established = self.links.get(&attempt).is_some_and(Link::is_established);
        self.lose_lanes(now, conn, &failure);
        if established {
            self.abandon(now, attempt);
            self.note_tunnel(now, tunnel::Input::SessionLost { attempt, failure });
        } else {
            self.attempt_failed(now, attempt, failure);
        }
    }

    pub(super) fn send_heartbeat(&mut self, now: Now, attempt: AttemptId, sequence: u64) {
        let waiting = u32::try_from(self.questions.len()).unwrap_or(u32::MAX);
        let beat = Heartbeat {
            device_id: self.config.device_id,
            timestamp: now.wall,
            sequence,
            vitals: crate::wire::message::Vitals {
                pending_queries: waiting,
                ..self.vitals.clone()
            },
        };
        self.send_control(attempt, &Message::Heartbeat(beat));
    }

    pub(super) fn send_prewarm(&mut self, now: Now, attempt: AttemptId, reason: &str) {
        let signal = PrewarmSignal {
            device_id: self.config.device_id,
            timestamp: now.wall,
            gpu_usage: self.vitals.gpu_usage.unwrap_or_default(),
            gpu_temp: self.vitals.gpu_temp_celsius,
            reason: reason.to_owned(),
            project_id: None,
            lora_id: None,
        };
        self.send_control(attempt, &Message::PrewarmSignal(signal));
    }

    fn send_control(&mut self, attempt: AttemptId, message: &Message) {
        if let Some(Stage::Up(session)) = self.links.get(&attempt).map(|link| &link.stage) {
            let (conn, control) = (session.conn, session.control);
            self.send(conn, control, message);
        }
    }

    /// Encodes and queues a message of our own making, which is known to fit.
    pub(super) fn send(&mut self, conn: ConnId, stream: StreamId, message: &Message) {
        let mut bytes = Vec::new();
        if codec::encode(message, &mut bytes).is_ok() {
            self.transport.send(conn, stream, &bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_the_resolvers_first_choice_goes_first() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (a, b, c) = (address("[::1]:1"), address("[::2]:1"), address("[::3]:1"));
        let (x, y) = (address("1.1.1.1:1"), address("2.2.2.2:1"));
        assert_eq!(interleave(vec![a, b, c, x, y]), [a, x, b, y, c]);
        assert_eq!(interleave(vec![x, a, b]), [x, a, b]);
        assert_eq!(interleave(vec![]), []);
        assert_eq!(
            interleave(vec![x; 100]).len(),
            limits::GATEWAY_ADDRESSES_MAX
        );
    }
}
