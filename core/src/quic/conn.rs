//! One connection: its streams' send buffers, its events, what it has heard.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    Connection, ConnectionError, ConnectionHandle, Dir, FrameStats, ReadError, Side, StreamEvent,
    VarInt, WriteError,
};
use rustls::pki_types::CertificateDer;

use super::config::receive_window;
use super::quinn_stream;
use crate::limits;
use crate::time::Now;
use crate::transport::{CloseReason, ConnId, ConnStats, Event, Priority, Read, StreamId};

pub(super) struct Conn {
    pub(super) handle: ConnectionHandle,
    pub(super) inner: Box<Connection>,
    pub(super) deadline: Option<Instant>,
    pub(super) queued_to_send: bool,
    /// It was handed datagrams since [`Conn::note_received`].
    pub(super) handed: bool,
    /// `Closed` has been reported; what is left is for the peer's sake.
    pub(super) closed: bool,
    /// Only streams with something to send, or that are to be finished.
    pub(super) streams: BTreeMap<StreamId, Outgoing>,
    started: Instant,
    last_received: Instant,
    /// Frames received when `last_received` was set: only authenticated packets have frames.
    frames_received: u64,
    /// Ack-eliciting frames sent by then: more of them means that something is in flight.
    frames_sent_then: u64,
    acks_received: u64,
    /// Streams that we opened and have not read to their end.
    reading: u64,
    /// Streams that the receive window has room for.
    streams_allowed: u64,
}

/// What waits to be written to one stream.
#[derive(Default)]
pub(super) struct Outgoing {
    /// Being filled.
    open: BytesMut,
    /// Being written.
    ready: VecDeque<Bytes>,
    ready_bytes: usize,
    finish: bool,
    blocked: bool,
    /// The owner asked for room and found none.
    reported_full: bool,
    /// Small writes since an acknowledgement came: quinn walks a stream's unacknowledged writes one
    /// by one for every packet.
    small_writes: u32,
}

impl Outgoing {
    fn queued(&self) -> usize {
        self.open.len() + self.ready_bytes
    }

    /// Whether small writes in flight advise to wait for more, or for an acknowledgement.
    fn gathers(&self) -> bool {
        self.small_writes >= limits::QUIC_SMALL_WRITES_MAX
            && self.ready.is_empty()
            && self.open.len() < limits::WRITE_COALESCE_BYTES
            && !self.finish
    }

    /// Whether there is anything to remember.
    fn is_over(&self) -> bool {
        self.queued() == 0 && !self.finish && !self.reported_full && self.small_writes == 0
    }
}

impl Conn {
    pub(super) fn new(handle: ConnectionHandle, inner: Connection, now: Instant) -> Self {
        Self {
            handle,
            inner: Box::new(inner),
            deadline: None,
            queued_to_send: false,
            handed: false,
            closed: false,
            streams: BTreeMap::new(),
            started: now,
            last_received: now,
            frames_received: 0,
            frames_sent_then: 0,
            acks_received: 0,
            reading: 0,
            streams_allowed: limits::QUIC_STREAMS_INITIAL.into(),
        }
    }

    /// Datagrams were handed to the connection; whether they were genuine shows in its frame counts.
    pub(super) fn note_received(&mut self, now: Instant) {
        if !std::mem::take(&mut self.handed) {
            return;
        }
        let stats = self.inner.stats();
        let frames = eliciting(&stats.frame_rx) + stats.frame_rx.acks;
        if frames != self.frames_received {
            self.frames_received = frames;
            self.last_received = now;
            self.frames_sent_then = eliciting(&stats.frame_tx);
        }
        if stats.frame_rx.acks != self.acks_received {
            self.acks_received = stats.frame_rx.acks;
            for outgoing in self.streams.values_mut() {
                outgoing.small_writes = 0;
            }
        }
    }

    pub(super) fn stats(&self) -> ConnStats {
        let stats = self.inner.stats();
        ConnStats {
            rtt: stats.path.rtt,
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
            lost_packets: stats.path.lost_packets,
            last_received: self.last_received,
            in_flight: eliciting(&stats.frame_tx) > self.frames_sent_then,
            remote: self.inner.remote_address(),
        }
    }

    pub(super) fn open(&mut self, priority: Priority) -> Option<StreamId> {
        let stream = self.inner.streams().open(Dir::Bi)?;
        self.reading += 1;
        self.allow_for_streams();
        let stream = StreamId(stream.into());
        self.set_priority(stream, priority);
        Some(stream)
    }

    pub(super) fn set_priority(&mut self, stream: StreamId, priority: Priority) {
        // An error means that the stream is over, and needs no priority.
        let _gone = self
            .inner
            .send_stream(quinn_stream(stream))
            .set_priority(priority as i32);
    }

    pub(super) fn writable(&self, stream: StreamId) -> usize {
        let queued = self.streams.get(&stream).map_or(0, Outgoing::queued);
        if self.closed {
            0
        } else {
            limits::QUIC_STREAM_QUEUE_BYTES.saturating_sub(queued)
        }
    }

    pub(super) fn send(&mut self, stream: StreamId, data: &[u8]) {
        if self.closed {
            return;
        }
        let outgoing = self.streams.entry(stream).or_default();
        for piece in data.chunks(limits::WRITE_COALESCE_BYTES_MAX) {
            if outgoing.open.len() + piece.len() > limits::WRITE_COALESCE_BYTES_MAX {
                outgoing.ready_bytes += outgoing.open.len();
                outgoing.ready.push_back(outgoing.open.split().freeze());
            }
            outgoing.open.extend_from_slice(piece);
        }
        outgoing.reported_full = outgoing.queued() >= limits::QUIC_STREAM_QUEUE_BYTES;
    }

    pub(super) fn finish(&mut self, stream: StreamId) {
        if !self.closed {
            self.streams.entry(stream).or_default().finish = true;
        }
    }

    pub(super) fn reset(&mut self, stream: StreamId, code: u32) {
        self.streams.remove(&stream);
        // An error means that the stream is over already.
        let _gone = self
            .inner
            .send_stream(quinn_stream(stream))
            .reset(VarInt::from_u32(code));
    }

    /// Writes what is queued as far as the windows allow.
    pub(super) fn write_queued(&mut self) {
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            if self.write_stream(id) {
                self.streams.remove(&id);
            }
        }
    }

    /// Whether nothing is left to do for the stream.
    fn write_stream(&mut self, id: StreamId) -> bool {
        let Some(outgoing) = self.streams.get_mut(&id) else {
            return true;
        };
        if outgoing.blocked {
            return false;
        }
        if outgoing.gathers() {
            return false;
        }
        if !outgoing.open.is_empty() {
            if outgoing.open.len() < limits::WRITE_COALESCE_BYTES {
                outgoing.small_writes += 1;
            }
            outgoing.ready_bytes += outgoing.open.len();
            outgoing
                .ready
                .push_back(std::mem::take(&mut outgoing.open).freeze());
        }
        // The send window is one budget for all streams: only what governs the session, and calls,
        // may use its last part, so that a heartbeat never waits behind bulk.
        let urgent = self.inner.send_stream(quinn_stream(id)).priority();
        let reserve = match urgent {
            Ok(priority) if priority >= Priority::Call as i32 => limits::QUIC_SEND_RESERVE,
            Ok(_) | Err(_) => 0,
        };
        self.inner
            .set_send_window(limits::QUIC_SEND_WINDOW + reserve);
        let mut stream = self.inner.send_stream(quinn_stream(id));
        while let Some(front) = outgoing.ready.front_mut() {
            match stream.write_chunks(std::slice::from_mut(front)) {
                Ok(written) => {
                    outgoing.ready_bytes -= written.bytes;
                    if front.is_empty() {
                        outgoing.ready.pop_front();
                    }
                }
                Err(WriteError::Blocked) => {
                    outgoing.blocked = true;
                    return false;
                }
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => return true,
            }
        }
        if outgoing.finish {
            // An error means that the peer has stopped it: `Stopped` is reported.
            let _stopped = stream.finish();
            return true;
        }
        outgoing.is_over()
    }

    /// The next piece, of at most so many bytes.
    pub(super) fn read(&mut self, stream: StreamId, most: usize) -> Read {
        let mut recv = self.inner.recv_stream(quinn_stream(stream));
        let Ok(mut chunks) = recv.read(true) else {
            return Read::Gone;
        };
        let read = match chunks.next(most) {
            Ok(Some(chunk)) => Read::Data(chunk.bytes),
            Ok(None) => Read::End,
            Err(ReadError::Blocked) => Read::Blocked,
            Err(ReadError::Reset(code)) => {
                Read::Reset(u32::try_from(code.into_inner()).unwrap_or(u32::MAX))
            }
        };
        // Flow control credit goes out with the next transmit, which every step polls.
        let _credit = chunks.finalize();
        match &read {
            Read::End | Read::Reset(_) => self.reading = self.reading.saturating_sub(1),
            Read::Data(_) | Read::Blocked | Read::Gone => {}
        }
        read
    }

    pub(super) fn stop(&mut self, stream: StreamId, code: u32) {
        let mut recv = self.inner.recv_stream(quinn_stream(stream));
        // An error means that the peer is done with it already.
        if recv.stop(VarInt::from_u32(code)).is_ok() {
            self.reading = self.reading.saturating_sub(1);
        }
    }

    /// Translates the connection's events; whether there were any.
    pub(super) fn poll_events(
        &mut self,
        now: Now,
        conn: ConnId,
        out: &mut VecDeque<Event>,
    ) -> bool {
        let mut moved = false;
        while let Some(event) = self.inner.poll() {
            moved = true;
            // Nothing of a connection is reported after its `Closed`.
            if self.closed {
                continue;
            }
            match event {
                quinn_proto::Event::Connected => {
                    let peer_certificate = self.peer_certificate();
                    let handshake = now.instant.saturating_duration_since(self.started);
                    out.push_back(Event::Connected {
                        conn,
                        peer_certificate,
                        handshake,
                    });
                }
                quinn_proto::Event::ConnectionLost { reason: why } => {
                    self.streams.clear();
                    self.closed = true;
                    out.push_back(Event::Closed {
                        conn,
                        reason: reason(&why),
                    });
                }
                quinn_proto::Event::Stream(event) => self.stream_event(conn, event, out),
                quinn_proto::Event::HandshakeDataReady
                | quinn_proto::Event::DatagramReceived
                | quinn_proto::Event::DatagramsUnblocked => {}
            }
        }
        self.report_room(conn, out);
        moved
    }

    fn stream_event(&mut self, conn: ConnId, event: StreamEvent, out: &mut VecDeque<Event>) {
        match event {
            StreamEvent::Opened { dir } => {
                while let Some(stream) = self.inner.streams().accept(dir) {
                    out.push_back(Event::Opened {
                        conn,
                        stream: StreamId(stream.into()),
                    });
                }
                self.allow_more_streams();
            }
            StreamEvent::Readable { id } => {
                let stream = StreamId(id.into());
                // quinn says so for every packet; one reading empties the stream.
                let known = matches!(
                    out.back(),
                    Some(&Event::Readable { conn: c, stream: s } | &Event::Opened { conn: c, stream: s })
                        if c == conn && s == stream
                );
                if !known {
                    out.push_back(Event::Readable { conn, stream });
                }
            }
            StreamEvent::Writable { id } => {
                let stream = StreamId(id.into());
                if let Some(outgoing) = self.streams.get_mut(&stream) {
                    outgoing.blocked = false;
                }
                if self.write_stream(stream) {
                    self.streams.remove(&stream);
                }
            }
            StreamEvent::Finished { id } => {
                out.push_back(Event::Finished {
                    conn,
                    stream: StreamId(id.into()),
                });
            }
            StreamEvent::Stopped { id, error_code } => {
                let stream = StreamId(id.into());
                self.streams.remove(&stream);
                // STOP_SENDING is answered by RESET_STREAM (RFC 9000 §3.5), or the stream stays
                // open on both sides. An error means that it is over already.
                let _over = self.inner.send_stream(id).reset(error_code);
                let code = u32::try_from(error_code.into_inner()).unwrap_or(u32::MAX);
                out.push_back(Event::Stopped { conn, stream, code });
            }
            StreamEvent::Available { .. } => out.push_back(Event::StreamsAvailable { conn }),
        }
    }

    /// Says so where a queue that was full has room again.
    fn report_room(&mut self, conn: ConnId, out: &mut VecDeque<Event>) {
        self.streams.retain(|&stream, outgoing| {
            if outgoing.reported_full && outgoing.queued() <= limits::QUIC_STREAM_QUEUE_BYTES / 2 {
                outgoing.reported_full = false;
                out.push_back(Event::Writable { conn, stream });
            }
            !outgoing.is_over()
        });
    }

    /// Starts with few streams and doubles the limit when the peer comes near it.
    fn allow_more_streams(&mut self) {
        if self.inner.side() == Side::Client {
            return;
        }
        let allowed = self.inner.max_concurrent_streams(Dir::Bi);
        let open = self.inner.streams().remote_open_streams(Dir::Bi);
        let most = u64::from(limits::QUIC_STREAMS_MAX);
        if open + 1 >= allowed && allowed < most {
            let more = VarInt::from_u64((allowed * 2).min(most)).unwrap_or(VarInt::MAX);
            self.inner.set_max_concurrent_streams(Dir::Bi, more);
        }
        self.allow_for_streams();
    }

    /// Keeps the receive window as wide as all streams together may be; it never shrinks.
    fn allow_for_streams(&mut self) {
        let streams = match self.inner.side() {
            Side::Server => self.inner.max_concurrent_streams(Dir::Bi),
            // Doubling, so that the peer is told rarely.
            Side::Client => self.reading.max(1).next_power_of_two(),
        };
        let streams = streams.min(limits::QUIC_STREAMS_MAX.into());
        if streams > self.streams_allowed {
            self.streams_allowed = streams;
            self.inner.set_receive_window(receive_window(streams));
        }
    }

    fn peer_certificate(&self) -> Option<Bytes> {
        let identity = self.inner.crypto_session().peer_identity()?;
        let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        chain.first().map(|leaf| Bytes::copy_from_slice(leaf))
    }
}

/// Frames that make the peer answer (RFC 9000 §13.2): all but ACK, PADDING and CONNECTION_CLOSE.
fn eliciting(frames: &FrameStats) -> u64 {
    frames.crypto
        + frames.data_blocked
        + u64::from(frames.handshake_done)
        + frames.immediate_ack
        + frames.max_data
        + frames.max_stream_data
        + frames.max_streams_bidi
        + frames.new_connection_id
        + frames.new_token
        + frames.path_challenge
        + frames.path_response
        + frames.ping
        + frames.reset_stream
        + frames.retire_connection_id
        + frames.stop_sending
        + frames.stream
        + frames.stream_data_blocked
        + frames.streams_blocked_bidi
}

/// TLS alerts travel as 0x100 and the alert's number (RFC 9001 §4.8).
const TLS_ALERTS: std::ops::Range<u64> = 0x100..0x200;
/// RFC 9000 §20.1.
const CONNECTION_REFUSED: u64 = 2;

pub(super) fn reason(error: &ConnectionError) -> CloseReason {
    let of_code = |code: u64, by_peer: bool, words: String| match code {
        CONNECTION_REFUSED if by_peer => CloseReason::Refused,
        code if TLS_ALERTS.contains(&code) => CloseReason::Tls {
            alert: u8::try_from(code - TLS_ALERTS.start).unwrap_or_default(),
            by_peer,
            reason: words,
        },
        _ => CloseReason::Transport(words),
    };
    match error {
        ConnectionError::VersionMismatch => CloseReason::VersionMismatch,
        ConnectionError::TransportError(error) => {
            of_code(error.code.into(), false, error.reason.clone())
        }
        ConnectionError::ConnectionClosed(close) => {
            let words = String::from_utf8_lossy(&close.reason).into_owned();
            of_code(close.error_code.into(), true, words)
        }
        ConnectionError::ApplicationClosed(close) => CloseReason::Application {
            code: u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX),
            reason: String::from_utf8_lossy(&close.reason).into_owned(),
        },
        ConnectionError::Reset => CloseReason::Reset,
        ConnectionError::TimedOut => CloseReason::TimedOut,
        ConnectionError::LocallyClosed => CloseReason::Local,
        ConnectionError::CidsExhausted => {
            CloseReason::Transport("no connection ids are left".to_owned())
        }
    }
}
