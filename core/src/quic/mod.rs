//! QUIC and TLS as a [`Transport`]: quinn-proto's endpoint and connections behind our contract.
//!
//! ```text
//!  handle_datagram ─▶ endpoint ─▶ connection ─▶ events ─▶ poll_event
//!                        ▲  └ stateless responses ┐
//!                        └── endpoint events      ├─▶ poll_transmit
//!  send ─▶ coalesced ─▶ flush ─▶ connection ──────┘
//! ```
//!
//! Only this folder names `quinn_proto`. `config` has the transport's settings and every source of
//! chance or time that quinn would otherwise take for itself; `conn` has one connection with its
//! streams; `window` lets a probe out when the congestion window is full.
//!
//! # Invariants
//!
//! 1. A [`ConnId`] is never reused, though quinn's handles are.
//! 2. Everything queued before a step's [`Transport::flush`] is in reach of its `poll_transmit`.
//! 3. Every incoming connection is accepted, refused or asked to retry.
//! 4. Time and chance come from `Now` and the seed alone; what TLS draws comes from the crypto
//!    provider in the configuration that is handed in.
//! 5. A datagram, however hostile, is at most dropped.

mod config;
mod conn;
mod window;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{
    ConnectionHandle, DatagramEvent, Dir, EcnCodepoint, Endpoint, Incoming, Side,
    StreamId as QuinnStream, VarInt,
};

pub use self::config::{BadTls, ClientConfig, ServerConfig};
use self::config::{Shared, Wall};
use self::conn::Conn;
use crate::buggify;
use crate::buggify::Buggify;
use crate::limits;
use crate::rng::Seed;
use crate::time::Now;
use crate::transport::{
    CloseReason, ConnId, ConnStats, ConnectError, Datagram, Ecn, Event, Priority, Read, StreamId,
    Transmit, Transport,
};

/// See the module documentation.
pub struct Quic {
    endpoint: Endpoint,
    client: Option<Dialer>,
    shared: Shared,
    conns: BTreeMap<ConnId, Conn>,
    by_handle: BTreeMap<usize, ConnId>,
    incoming: BTreeMap<ConnId, Incoming>,
    deadlines: BTreeSet<(Instant, ConnId)>,
    /// Connections that something happened to since the last flush.
    dirty: BTreeSet<ConnId>,
    /// Connections that may have something to send, in turn.
    sendable: VecDeque<ConnId>,
    responses: VecDeque<(Transmit, Vec<u8>)>,
    events: VecDeque<Event>,
    next_conn: u64,
    buggify: Buggify,
}

struct Dialer {
    config: quinn_proto::ClientConfig,
    server_name: String,
}

impl fmt::Debug for Quic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quic")
            .field("conns", &self.conns.len())
            .field("incoming", &self.incoming.len())
            .field("events", &self.events.len())
            .finish_non_exhaustive()
    }
}

impl Quic {
    /// A device's side: connects, and takes nobody in.
    ///
    /// # Errors
    ///
    /// [`BadTls`] when the TLS configuration cannot carry QUIC.
    pub fn client(config: ClientConfig, seed: &Seed) -> Result<Self, BadTls> {
        let shared = Shared::default();
        let server_name = config.server_name.clone();
        let endpoint = config::endpoint(seed, None, 0);
        let dialer = Dialer {
            config: config::client(config, &shared, seed)?,
            server_name,
        };
        Ok(Self::new(
            Endpoint::new(endpoint, None, true, None),
            Some(dialer),
            shared,
            seed,
        ))
    }

    /// A gateway's side: takes in, and connects nowhere.
    ///
    /// # Errors
    ///
    /// [`BadTls`] when the TLS configuration cannot carry QUIC.
    pub fn server(config: ServerConfig, seed: &Seed) -> Result<Self, BadTls> {
        let shared = Shared::default();
        let endpoint = config::endpoint(seed, Some(&config.reset_key), config.shard);
        let server = Arc::new(config::server(config, &shared)?);
        Ok(Self::new(
            Endpoint::new(endpoint, Some(server), true, None),
            None,
            shared,
            seed,
        ))
    }

    fn new(endpoint: Endpoint, client: Option<Dialer>, shared: Shared, seed: &Seed) -> Self {
        Self {
            endpoint,
            client,
            shared,
            conns: BTreeMap::new(),
            by_handle: BTreeMap::new(),
            incoming: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            dirty: BTreeSet::new(),
            sendable: VecDeque::new(),
            responses: VecDeque::new(),
            events: VecDeque::new(),
            next_conn: 0,
            buggify: Buggify::new(&seed.child("quic")),
        }
    }

    /// Connections that are kept, closing ones included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    fn wall(&self) -> &Wall {
        &self.shared.wall
    }

    fn new_id(&mut self) -> ConnId {
        self.next_conn += 1;
        ConnId(self.next_conn)
    }

    fn adopt(
        &mut self,
        now: Now,
        id: ConnId,
        handle: ConnectionHandle,
        inner: quinn_proto::Connection,
    ) {
        self.by_handle.insert(handle.0, id);
        self.conns.insert(id, Conn::new(handle, inner, now.instant));
        self.dirty.insert(id);
    }

    /// Sends what the endpoint says of its own accord; past a bound it is dropped, as a full socket
    /// would.
    fn respond(&mut self, transmit: &quinn_proto::Transmit, buf: Vec<u8>) {
        if self.responses.len() < limits::QUIC_RESPONSES_MAX {
            self.responses
                .push_back((translate_transmit(transmit), buf));
        }
    }

    fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        let conn = self.conns.get_mut(&id)?;
        self.dirty.insert(id);
        Some(conn)
    }

    /// Moves a connection until nothing moves: its events, the endpoint's, its deadline.
    fn drive(&mut self, now: Now, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        conn.note_received(now.instant);
        conn.write_queued();
        loop {
            let mut moved = conn.poll_events(now, id, &mut self.events);
            while let Some(event) = conn.inner.poll_endpoint_events() {
                moved = true;
                if let Some(answer) = self.endpoint.handle_event(conn.handle, event) {
                    conn.inner.handle_event(answer);
                }
            }
            if !moved {
                break;
            }
        }
        let deadline = conn.inner.poll_timeout();
        if deadline != conn.deadline {
            if let Some(old) = conn.deadline {
                self.deadlines.remove(&(old, id));
            }
            if let Some(new) = deadline {
                self.deadlines.insert((new, id));
            }
            conn.deadline = deadline;
        }
        if conn.inner.is_drained() {
            self.by_handle.remove(&conn.handle.0);
            if let Some(old) = conn.deadline {
                self.deadlines.remove(&(old, id));
            }
            self.conns.remove(&id);
        } else if !conn.queued_to_send {
            conn.queued_to_send = true;
            self.sendable.push_back(id);
        }
    }

    fn received(&mut self, event: DatagramEvent, buf: Vec<u8>) {
        match event {
            DatagramEvent::ConnectionEvent(handle, event) => {
                if let Some(&id) = self.by_handle.get(&handle.0)
                    && let Some(conn) = self.conn(id)
                {
                    conn.inner.handle_event(event);
                    conn.handed = true;
                }
            }
            DatagramEvent::NewConnection(incoming) => {
                let conn = self.new_id();
                let remote = incoming.remote_address();
                let validated = incoming.remote_address_validated();
                self.incoming.insert(conn, incoming);
                self.events.push_back(Event::Incoming {
                    conn,
                    remote,
                    validated,
                });
            }
            DatagramEvent::Response(transmit) => self.respond(&transmit, buf),
        }
    }
}

impl Transport for Quic {
    fn handle_datagram(&mut self, now: Now, datagram: Datagram) {
        self.wall().set(now.wall);
        if buggify!(self.buggify, "quic: timers are looked at early") {
            self.handle_timeout(now);
        }
        let mut buf = Vec::new();
        let ecn = datagram.ecn.map(|ecn| match ecn {
            Ecn::Ect0 => EcnCodepoint::Ect0,
            Ecn::Ect1 => EcnCodepoint::Ect1,
            Ecn::Ce => EcnCodepoint::Ce,
        });
        let Datagram {
            remote,
            local_ip,
            data,
            ..
        } = datagram;
        let event = self
            .endpoint
            .handle(now.instant, remote, local_ip, ecn, data, &mut buf);
        if let Some(event) = event {
            self.received(event, buf);
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        self.wall().set(now.wall);
        while let Some(&(at, id)) = self.deadlines.first() {
            if at > now.instant {
                break;
            }
            self.deadlines.pop_first();
            if let Some(conn) = self.conn(id) {
                conn.deadline = None;
                conn.inner.handle_timeout(now.instant);
            }
        }
    }

    fn handle_rebind(&mut self, now: Now) {
        self.wall().set(now.wall);
        let ids: Vec<ConnId> = self.conns.keys().copied().collect();
        for id in ids {
            if let Some(conn) = self.conn(id) {
                conn.inner.local_address_changed();
                self.probe(now, id);
            }
        }
    }

    fn connect(&mut self, now: Now, remote: SocketAddr) -> Result<ConnId, ConnectError> {
        let Some(dialer) = &self.client else {
            return Err(ConnectError(
                "this side takes connections and makes none".to_owned(),
            ));
        };
        let (handle, inner) = self
            .endpoint
            .connect(
                now.instant,
                dialer.config.clone(),
                remote,
                &dialer.server_name,
            )
            .map_err(|error| ConnectError(error.to_string()))?;
        let id = self.new_id();
        self.adopt(now, id, handle, inner);
        Ok(id)
    }

    fn accept(&mut self, now: Now, conn: ConnId) {
        self.wall().set(now.wall);
        let Some(incoming) = self.incoming.remove(&conn) else {
            return;
        };
        let mut buf = Vec::new();
        match self.endpoint.accept(incoming, now.instant, &mut buf, None) {
            Ok((handle, inner)) => {
                self.adopt(now, conn, handle, inner);
                if let Some(conn) = self.conns.get_mut(&conn) {
                    conn.handed = true;
                }
            }
            Err(error) => {
                if let Some(transmit) = &error.response {
                    self.respond(transmit, buf);
                }
                let reason = conn::reason(&error.cause);
                self.events.push_back(Event::Closed { conn, reason });
            }
        }
    }

    fn refuse(&mut self, _now: Now, conn: ConnId) {
        if let Some(incoming) = self.incoming.remove(&conn) {
            let mut buf = Vec::new();
            let transmit = self.endpoint.refuse(incoming, &mut buf);
            self.respond(&transmit, buf);
        }
    }

    fn retry(&mut self, now: Now, conn: ConnId) {
        self.wall().set(now.wall);
        let Some(incoming) = self.incoming.remove(&conn) else {
            return;
        };
        let mut buf = Vec::new();
        match self.endpoint.retry(incoming, &mut buf) {
            Ok(transmit) => self.respond(&transmit, buf),
            // It has proven its address already: a second Retry is not allowed (RFC 9000 §17.2.5).
            Err(error) => {
                buf.clear();
                let transmit = self.endpoint.refuse(error.into_incoming(), &mut buf);
                self.respond(&transmit, buf);
            }
        }
    }

    fn close(&mut self, now: Now, conn: ConnId, code: u32, reason: &str) {
        let Some(entry) = self.conn(conn) else { return };
        if !entry.closed {
            entry.closed = true;
            entry.streams.clear();
            let reason = Bytes::copy_from_slice(reason.as_bytes());
            entry
                .inner
                .close(now.instant, VarInt::from_u32(code), reason);
            self.events.push_back(Event::Closed {
                conn,
                reason: CloseReason::Local,
            });
        }
    }

    fn open(&mut self, conn: ConnId, priority: Priority) -> Option<StreamId> {
        self.conn(conn)?.open(priority)
    }

    fn set_priority(&mut self, conn: ConnId, stream: StreamId, priority: Priority) {
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.set_priority(stream, priority);
        }
    }

    fn writable(&self, conn: ConnId, stream: StreamId) -> usize {
        self.conns
            .get(&conn)
            .map_or(0, |conn| conn.writable(stream))
    }

    fn send(&mut self, conn: ConnId, stream: StreamId, data: &[u8]) {
        if let Some(conn) = self.conn(conn) {
            conn.send(stream, data);
        }
    }

    fn finish(&mut self, conn: ConnId, stream: StreamId) {
        if let Some(conn) = self.conn(conn) {
            conn.finish(stream);
        }
    }

    fn reset(&mut self, conn: ConnId, stream: StreamId, code: u32) {
        if let Some(conn) = self.conn(conn) {
            conn.reset(stream, code);
        }
    }

    fn stop(&mut self, conn: ConnId, stream: StreamId, code: u32) {
        if let Some(conn) = self.conn(conn) {
            conn.stop(stream, code);
        }
    }

    fn read(&mut self, conn: ConnId, stream: StreamId) -> Read {
        let most = if buggify!(self.buggify, "quic: a read gives a few bytes") {
            3
        } else {
            limits::WRITE_COALESCE_BYTES_MAX
        };
        self.conn(conn)
            .map_or(Read::Gone, |conn| conn.read(stream, most))
    }

    fn probe(&mut self, now: Now, conn: ConnId) {
        let Some(entry) = self.conns.get_mut(&conn) else {
            return;
        };
        if entry.closed {
            return;
        }
        entry.inner.ping();
        let mut buf = Vec::new();
        self.shared.window.lift();
        let probe = entry.inner.poll_transmit(now.instant, 1, &mut buf);
        self.shared.window.lower();
        self.dirty.insert(conn);
        if let Some(transmit) = probe {
            self.respond(&transmit, buf);
        }
    }

    fn stats(&self, conn: ConnId) -> Option<ConnStats> {
        self.conns
            .get(&conn)
            .filter(|conn| !conn.closed)
            .map(Conn::stats)
    }

    fn flush(&mut self, now: Now) {
        while let Some(id) = self.dirty.pop_first() {
            self.drive(now, id);
        }
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn poll_transmit(&mut self, now: Now, buf: &mut Vec<u8>) -> Option<Transmit> {
        if let Some((transmit, bytes)) = self.responses.pop_front() {
            buf.extend_from_slice(&bytes);
            return Some(transmit);
        }
        while let Some(id) = self.sendable.pop_front() {
            let Some(conn) = self.conns.get_mut(&id) else {
                continue;
            };
            buf.clear();
            let max = limits::QUIC_SEGMENTS_MAX;
            if let Some(transmit) = conn.inner.poll_transmit(now.instant, max, buf) {
                // To the back of the queue: no connection sends all it has before another's turn.
                self.sendable.push_back(id);
                return Some(translate_transmit(&transmit));
            }
            conn.queued_to_send = false;
            self.settle(now, id);
        }
        None
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.deadlines.first().map(|&(at, _)| (at, "quic timer"))
    }
}

impl Quic {
    /// After sending, a connection's timers have moved; nothing else has.
    fn settle(&mut self, now: Now, id: ConnId) {
        self.drive(now, id);
        if let Some(conn) = self.conns.get_mut(&id)
            && conn.queued_to_send
        {
            conn.queued_to_send = false;
            self.sendable.pop_back();
        }
    }
}

fn translate_transmit(transmit: &quinn_proto::Transmit) -> Transmit {
    Transmit {
        remote: transmit.destination,
        local_ip: transmit.src_ip,
        ecn: transmit.ecn.map(|ecn| match ecn {
            EcnCodepoint::Ect0 => Ecn::Ect0,
            EcnCodepoint::Ect1 => Ecn::Ect1,
            EcnCodepoint::Ce => Ecn::Ce,
        }),
        size: transmit.size,
        segment_size: transmit.segment_size,
    }
}

/// Ids come from quinn, and of bidirectional streams only; any other stands for a stream that will
/// never be, the last one of its kind (RFC 9000 §2.1).
fn quinn_stream(stream: StreamId) -> QuinnStream {
    const UNIDIRECTIONAL: u64 = 0b10;
    let id = VarInt::from_u64(stream.0)
        .ok()
        .filter(|id| id.into_inner() & UNIDIRECTIONAL == 0);
    id.map_or_else(
        || QuinnStream::new(Side::Client, Dir::Bi, VarInt::MAX.into_inner() >> 2),
        QuinnStream::from,
    )
}

#[cfg(test)]
pub(crate) mod tests;
