//! A transport that does what it is told: connections and streams are lists in memory, what the
//! peer does is called from outside, and everything that the machine sends is kept to be read.
//!
//! It keeps the promises that root machines rely on (`mesh_core::transport`): ids are never used
//! again, a closed connection has no events but `Closed`, a stream that was stopped is gone.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mesh_core::time::Now;
use mesh_core::transport::{
    CloseReason, ConnId, ConnStats, ConnectError, Datagram, Event, Priority, Read, StreamId,
    Transmit, Transport,
};

use crate::{golden, steps};

/// Bytes that a stream takes before its owner is told to wait.
const ROOM: usize = 4096;

/// One stream as both sides know it.
#[derive(Debug, Default)]
pub struct Stream {
    inbound: VecDeque<Read>,
    /// Everything that the machine ever sent on it.
    pub outbound: Vec<u8>,
    room: usize,
    /// The machine has ended, or given up, its side.
    pub finished: bool,
    told_finished: bool,
    gone: bool,
}

/// One connection.
#[derive(Debug)]
pub struct Conn {
    /// The peer's address.
    pub remote: SocketAddr,
    /// In the order in which they were opened.
    pub streams: BTreeMap<StreamId, Stream>,
    /// Whether the handshake is complete.
    pub up: bool,
    last_received: Instant,
    in_flight: bool,
}

/// Everything there is.
#[derive(Debug, Default)]
pub struct State {
    next: u64,
    /// Connections that are not over.
    pub conns: BTreeMap<ConnId, Conn>,
    /// Those that are, with what was sent on them.
    pub over: BTreeMap<ConnId, Conn>,
    events: VecDeque<Event>,
    /// Streams that the machine may open on each connection.
    pub streams_max: usize,
    now: Option<Instant>,
}

/// A handle on it: the machine owns one, the oracle another.
#[derive(Clone, Debug, Default)]
pub struct Wire(pub Rc<RefCell<State>>);

/// The peer's address of that number.
#[must_use]
pub fn address(number: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, number)), 4443)
}

impl State {
    fn now(&self) -> Instant {
        self.now.unwrap_or(steps::origin().instant)
    }

    fn name(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn begin(&mut self, remote: SocketAddr) -> ConnId {
        let conn = ConnId(self.name());
        let entry = Conn {
            remote,
            streams: BTreeMap::new(),
            up: false,
            last_received: self.now(),
            in_flight: true,
        };
        self.conns.insert(conn, entry);
        conn
    }

    fn end(&mut self, conn: ConnId, reason: CloseReason) {
        if let Some(entry) = self.conns.remove(&conn) {
            self.over.insert(conn, entry);
            self.events.retain(|event| of(event) != conn);
            self.events.push_back(Event::Closed { conn, reason });
        }
    }

    fn stream(&mut self, conn: ConnId, stream: StreamId) -> Option<&mut Stream> {
        self.conns.get_mut(&conn)?.streams.get_mut(&stream)
    }

    fn add_stream(&mut self, conn: ConnId) -> StreamId {
        let stream = StreamId(self.name());
        if let Some(entry) = self.conns.get_mut(&conn) {
            let fresh = Stream {
                room: ROOM,
                ..Stream::default()
            };
            entry.streams.insert(stream, fresh);
        }
        stream
    }
}

fn of(event: &Event) -> ConnId {
    match event {
        Event::Incoming { conn, .. }
        | Event::Connected { conn, .. }
        | Event::Opened { conn, .. }
        | Event::Readable { conn, .. }
        | Event::Writable { conn, .. }
        | Event::StreamsAvailable { conn }
        | Event::Finished { conn, .. }
        | Event::Stopped { conn, .. }
        | Event::Closed { conn, .. } => *conn,
    }
}

/// What the peer does.
impl Wire {
    /// Time goes on.
    pub fn at(&self, now: Now) {
        self.0.borrow_mut().now = Some(now.instant);
    }

    /// The connection of that number, counted round.
    #[must_use]
    pub fn pick(&self, number: u8) -> Option<ConnId> {
        let state = self.0.borrow();
        let count = state.conns.len().max(1);
        state.conns.keys().nth(usize::from(number) % count).copied()
    }

    /// The stream of that number on a connection, counted round.
    #[must_use]
    pub fn pick_stream(&self, conn: ConnId, number: u8) -> Option<StreamId> {
        let state = self.0.borrow();
        let streams = &state.conns.get(&conn)?.streams;
        let count = streams.len().max(1);
        streams.keys().nth(usize::from(number) % count).copied()
    }

    /// Somebody knocks.
    pub fn incoming(&self, remote: SocketAddr, validated: bool) {
        let mut state = self.0.borrow_mut();
        let conn = state.begin(remote);
        state.events.push_back(Event::Incoming {
            conn,
            remote,
            validated,
        });
    }

    /// The handshake of a connection completes, once.
    pub fn complete(&self, conn: ConnId, peer_certificate: Option<Bytes>) {
        let mut state = self.0.borrow_mut();
        if let Some(entry) = state.conns.get_mut(&conn).filter(|entry| !entry.up) {
            entry.up = true;
            state.events.push_back(Event::Connected {
                conn,
                peer_certificate,
                handshake: Duration::from_millis(40),
            });
        }
    }

    /// The peer opens a stream.
    pub fn opened(&self, conn: ConnId) {
        let mut state = self.0.borrow_mut();
        if state.conns.get(&conn).is_some_and(|entry| entry.up) {
            let stream = state.add_stream(conn);
            state.events.push_back(Event::Opened { conn, stream });
        }
    }

    /// Something arrives on a stream: bytes, the end, a reset.
    pub fn arrives(&self, conn: ConnId, stream: StreamId, what: Read) {
        let mut state = self.0.borrow_mut();
        let now = state.now();
        if let Some(entry) = state.conns.get_mut(&conn) {
            (entry.last_received, entry.in_flight) = (now, false);
        }
        if let Some(entry) = state.stream(conn, stream).filter(|entry| !entry.gone) {
            entry.inbound.push_back(what);
            state.events.push_back(Event::Readable { conn, stream });
        }
    }

    /// The peer wants no more of a stream.
    pub fn stopped(&self, conn: ConnId, stream: StreamId) {
        let mut state = self.0.borrow_mut();
        if state
            .stream(conn, stream)
            .is_some_and(|entry| !entry.finished)
        {
            state.events.push_back(Event::Stopped {
                conn,
                stream,
                code: 0,
            });
        }
    }

    /// The peer has taken everything: there is room again, and ends are acknowledged.
    pub fn acknowledge(&self, conn: ConnId) {
        let mut state = self.0.borrow_mut();
        let mut events = Vec::new();
        if let Some(entry) = state.conns.get_mut(&conn) {
            entry.in_flight = false;
            for (&stream, entry) in &mut entry.streams {
                if entry.finished && !entry.told_finished {
                    entry.told_finished = true;
                    events.push(Event::Finished { conn, stream });
                } else if entry.room == 0 {
                    events.push(Event::Writable { conn, stream });
                }
                entry.room = ROOM;
            }
        }
        state.events.extend(events);
    }

    /// The peer allows more streams.
    pub fn allow_streams(&self, conn: ConnId, more: u8) {
        let mut state = self.0.borrow_mut();
        state.streams_max += usize::from(more);
        if state.conns.get(&conn).is_some_and(|entry| entry.up) {
            state.events.push_back(Event::StreamsAvailable { conn });
        }
    }

    /// A connection is over, for a reason of the peer's or the network's.
    pub fn lost(&self, conn: ConnId, reason: CloseReason) {
        self.0.borrow_mut().end(conn, reason);
    }

    /// Every frame that was sent on each stream of each connection, in the streams' order.
    #[must_use]
    pub fn sent(&self) -> Vec<(ConnId, Vec<Vec<Frame>>)> {
        let state = self.0.borrow();
        let all = state.conns.iter().chain(&state.over);
        all.map(|(conn, entry)| {
            let streams = entry.streams.values();
            (
                *conn,
                streams.map(|stream| frames(&stream.outbound)).collect(),
            )
        })
        .collect()
    }
}

/// A frame that a machine has sent: its type and its JSON.
pub type Frame = (u8, serde_json::Value);

/// A message in its frame, as the peer sends it.
#[must_use]
pub fn framed(number: u8, data: &serde_json::Value) -> Vec<u8> {
    let name = golden::frame(number).map_or("", |(name, _)| name);
    let payload = serde_json::json!({"type": name, "data": data}).to_string();
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    [&[number][..], &length.to_be_bytes(), payload.as_bytes()].concat()
}

/// Whole frames; a machine sends nothing else.
fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let [number, a, b, c, d, rest @ ..] = bytes {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let Some((name, max)) = golden::frame(*number) else {
            unreachable!("a frame of type 0x{number:02x} was sent");
        };
        assert!(
            length <= max && length <= rest.len(),
            "{name} of {length} bytes"
        );
        let message: serde_json::Value =
            serde_json::from_slice(&rest[..length]).unwrap_or_default();
        assert_eq!(message["type"], name);
        frames.push((*number, message["data"].clone()));
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty(), "half a frame was sent");
    frames
}

impl Transport for Wire {
    fn handle_datagram(&mut self, _: Now, _: Datagram) {}

    fn handle_timeout(&mut self, _: Now) {}

    fn handle_rebind(&mut self, _: Now) {}

    fn connect(&mut self, _: Now, remote: SocketAddr) -> Result<ConnId, ConnectError> {
        // One address that cannot be used.
        if remote == address(0) {
            return Err(ConnectError("no route".to_owned()));
        }
        Ok(self.0.borrow_mut().begin(remote))
    }

    fn accept(&mut self, _: Now, conn: ConnId) {
        assert!(self.0.borrow().conns.contains_key(&conn));
    }

    fn refuse(&mut self, _: Now, conn: ConnId) {
        assert!(self.0.borrow_mut().conns.remove(&conn).is_some());
    }

    fn retry(&mut self, now: Now, conn: ConnId) {
        self.refuse(now, conn);
    }

    fn close(&mut self, _: Now, conn: ConnId, _: u32, _: &str) {
        self.0.borrow_mut().end(conn, CloseReason::Local);
    }

    fn open(&mut self, conn: ConnId, _: Priority) -> Option<StreamId> {
        let mut state = self.0.borrow_mut();
        let most = state.streams_max;
        let entry = state.conns.get(&conn)?;
        (entry.up && entry.streams.len() <= most).then(|| state.add_stream(conn))
    }

    fn set_priority(&mut self, _: ConnId, _: StreamId, _: Priority) {}

    fn writable(&self, conn: ConnId, stream: StreamId) -> usize {
        let mut state = self.0.borrow_mut();
        state.stream(conn, stream).map_or(0, |entry| entry.room)
    }

    fn send(&mut self, conn: ConnId, stream: StreamId, data: &[u8]) {
        let mut state = self.0.borrow_mut();
        if let Some(entry) = state.conns.get_mut(&conn) {
            entry.in_flight = true;
        }
        if let Some(entry) = state.stream(conn, stream) {
            assert!(!entry.finished, "bytes after the end");
            entry.outbound.extend_from_slice(data);
            entry.room = entry.room.saturating_sub(data.len());
        }
    }

    fn finish(&mut self, conn: ConnId, stream: StreamId) {
        if let Some(entry) = self.0.borrow_mut().stream(conn, stream) {
            entry.finished = true;
        }
    }

    fn reset(&mut self, conn: ConnId, stream: StreamId, _: u32) {
        if let Some(entry) = self.0.borrow_mut().stream(conn, stream) {
            (entry.finished, entry.told_finished) = (true, true);
        }
    }

    fn stop(&mut self, conn: ConnId, stream: StreamId, _: u32) {
        if let Some(entry) = self.0.borrow_mut().stream(conn, stream) {
            entry.gone = true;
            entry.inbound.clear();
        }
    }

    fn read(&mut self, conn: ConnId, stream: StreamId) -> Read {
        let mut state = self.0.borrow_mut();
        let Some(entry) = state.stream(conn, stream).filter(|entry| !entry.gone) else {
            return Read::Gone;
        };
        let read = entry.inbound.pop_front().unwrap_or(Read::Blocked);
        entry.gone = matches!(read, Read::End | Read::Reset(_));
        read
    }

    fn probe(&mut self, _: Now, conn: ConnId) {
        if let Some(entry) = self.0.borrow_mut().conns.get_mut(&conn) {
            entry.in_flight = true;
        }
    }

    fn stats(&self, conn: ConnId) -> Option<ConnStats> {
        let state = self.0.borrow();
        let entry = state.conns.get(&conn)?;
        Some(ConnStats {
            rtt: Duration::from_millis(20),
            sent_bytes: entry
                .streams
                .values()
                .map(|s| s.outbound.len() as u64)
                .sum(),
            received_bytes: 0,
            lost_packets: 0,
            last_received: entry.last_received,
            in_flight: entry.in_flight,
            remote: entry.remote,
        })
    }

    fn flush(&mut self, now: Now) {
        self.at(now);
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.0.borrow_mut().events.pop_front()
    }

    fn poll_transmit(&mut self, _: Now, _: &mut Vec<u8>) -> Option<Transmit> {
        None
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let state = self.0.borrow();
        (!state.events.is_empty()).then(|| (state.now(), "events"))
    }
}
