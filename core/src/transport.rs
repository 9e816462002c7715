//! What a root machine needs of a connection-oriented, multi-stream, datagram-driven transport.
//!
//! `quic::Quic` is the real one. The simulator brings an ideal one for very large fleets.
//! Connections and streams are named by small ids that are never reused within one transport, so a
//! late event cannot be taken for another connection's.
//!
//! A transport is a child machine: the parent calls it inside its own step and drains its events
//! before the step ends.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::time::Now;

/// One connection of one transport. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// One bidirectional stream of one connection. Never reused within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// Explicit congestion notification codepoint (RFC 3168 §5), the two low bits of the traffic class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ecn {
    /// ECN-capable transport, ECT(0).
    Ect0,
    /// ECN-capable transport, ECT(1).
    Ect1,
    /// Congestion experienced.
    Ce,
}

/// A datagram that arrived.
#[derive(Debug)]
pub struct Datagram {
    /// Who sent it.
    pub remote: SocketAddr,
    /// The local address it was sent to, where the system tells.
    pub local_ip: Option<IpAddr>,
    /// Its congestion mark.
    pub ecn: Option<Ecn>,
    /// Its bytes.
    pub data: BytesMut,
}

/// One send: `size` bytes in the caller's buffer, in datagrams of `segment_size` (the last may be
/// shorter), or a single datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub remote: SocketAddr,
    /// From which local address, where it matters.
    pub local_ip: Option<IpAddr>,
    /// The congestion mark to send with.
    pub ecn: Option<Ecn>,
    /// Bytes in the buffer.
    pub size: usize,
    /// Bytes per datagram when there are several.
    pub segment_size: Option<usize>,
}

/// Which stream goes first when not all can. Higher goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Bulk.
    Upload = 0,
    /// Questions and answers.
    Escalation = 1,
    /// Typed calls.
    Call = 2,
    /// Heartbeats and what governs the session.
    Control = 3,
}

/// Why a connection is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// We closed it.
    #[error("closed by this side")]
    Local,
    /// The peer's application closed it.
    #[error("closed by the peer (code {code}): {reason}")]
    Application {
        /// The application's code.
        code: u32,
        /// For a person.
        reason: String,
    },
    /// The TLS handshake failed, on either side: the alert (RFC 8446 §6) and the library's words.
    #[error("TLS alert {alert}: {reason}")]
    Tls {
        /// Alert number, e.g. 48 `unknown_ca`, 116 `certificate_required`.
        alert: u8,
        /// Whether the peer raised it.
        by_peer: bool,
        /// For a person.
        reason: String,
    },
    /// Nothing arrived for the idle timeout.
    #[error("nothing was heard for the idle timeout")]
    TimedOut,
    /// The peer lost its state (stateless reset, RFC 9000 §10.3).
    #[error("the peer has forgotten the connection")]
    Reset,
    /// The peer refused the connection.
    #[error("the peer refused the connection")]
    Refused,
    /// No common QUIC version.
    #[error("no common QUIC version")]
    VersionMismatch,
    /// Either side broke the transport's rules.
    #[error("transport error: {0}")]
    Transport(String),
}

/// What a transport reports.
#[derive(Clone, Debug)]
pub enum Event {
    /// Somebody wants in: answer with [`Transport::accept`] or [`Transport::refuse`].
    Incoming {
        /// The connection's name from now on.
        conn: ConnId,
        /// Who.
        remote: SocketAddr,
        /// Whether the address has been proven (Retry).
        validated: bool,
    },
    /// The handshake is complete and the peer authenticated.
    Connected {
        /// Which.
        conn: ConnId,
        /// The peer's leaf certificate, DER.
        peer_certificate: Option<Bytes>,
        /// From the first datagram to here.
        handshake: Duration,
    },
    /// The peer opened a stream; it may be readable at once.
    Opened {
        /// Which connection.
        conn: ConnId,
        /// Which stream.
        stream: StreamId,
    },
    /// There is something to read: data, the end, or a reset. Not repeated for what has been
    /// reported: read until there is nothing more.
    Readable {
        /// Which connection.
        conn: ConnId,
        /// Which stream.
        stream: StreamId,
    },
    /// There is room again after [`Transport::send`] had filled the stream's buffer.
    Writable {
        /// Which connection.
        conn: ConnId,
        /// Which stream.
        stream: StreamId,
    },
    /// A stream may be opened again after [`Transport::open`] had returned `None`.
    StreamsAvailable {
        /// Which.
        conn: ConnId,
    },
    /// Everything sent on the stream, and its end, has been acknowledged.
    Finished {
        /// Which connection.
        conn: ConnId,
        /// Which stream.
        stream: StreamId,
    },
    /// The peer no longer wants what we send on the stream.
    Stopped {
        /// Which connection.
        conn: ConnId,
        /// Which stream.
        stream: StreamId,
        /// The application's code.
        code: u32,
    },
    /// The connection is over; its id names nothing any more, and no event of it follows. What the
    /// peer must still be told goes out through [`Transport::poll_transmit`].
    Closed {
        /// Which.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
    },
}

/// What reading a stream gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// Bytes, in order.
    Data(Bytes),
    /// Nothing now; a [`Event::Readable`] will follow.
    Blocked,
    /// The peer has finished.
    End,
    /// The peer gave up on the stream.
    Reset(u32),
    /// There is no such stream (any more).
    Gone,
}

/// Counters and estimates of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnStats {
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// UDP payload bytes sent.
    pub sent_bytes: u64,
    /// UDP payload bytes received.
    pub received_bytes: u64,
    /// Packets declared lost.
    pub lost_packets: u64,
    /// When the last *authenticated* packet arrived.
    pub last_received: Instant,
    /// Whether anything that asks for an answer (RFC 9002 §2) was sent after the last authenticated
    /// packet arrived. What was sent before it and is still out shows within a probe timeout, when
    /// it is sent again.
    pub in_flight: bool,
    /// The peer's address now.
    pub remote: SocketAddr,
}

/// Why a connection could not even be tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot connect: {0}")]
pub struct ConnectError(pub String);

/// See the module documentation.
pub trait Transport {
    /// A datagram arrived.
    fn handle_datagram(&mut self, now: Now, datagram: Datagram);
    /// Runs the timers due at `now`.
    fn handle_timeout(&mut self, now: Now);
    /// The local address changed (rebind): keeps the connections and tells the peers at once, also
    /// when a congestion window is full.
    fn handle_rebind(&mut self, now: Now);

    /// Starts a connection.
    ///
    /// # Errors
    ///
    /// When the address cannot be used or a bound is reached.
    fn connect(&mut self, now: Now, remote: SocketAddr) -> Result<ConnId, ConnectError>;
    /// Lets an [`Event::Incoming`] in: this is where the expensive handshake begins.
    fn accept(&mut self, now: Now, conn: ConnId);
    /// Turns an [`Event::Incoming`] away.
    fn refuse(&mut self, now: Now, conn: ConnId);
    /// Asks an [`Event::Incoming`] to prove its address first (RFC 9000 §8.1.2).
    fn retry(&mut self, now: Now, conn: ConnId);
    /// Closes a connection, telling the peer why. `Closed { reason: Local }` follows.
    fn close(&mut self, now: Now, conn: ConnId, code: u32, reason: &str);

    /// Opens a stream, or `None` while the peer allows no more.
    fn open(&mut self, conn: ConnId, priority: Priority) -> Option<StreamId>;
    /// Sets the priority of a stream that the peer opened.
    fn set_priority(&mut self, conn: ConnId, stream: StreamId, priority: Priority);
    /// Room in the stream's send buffer, bytes. Zero when the stream is gone.
    fn writable(&self, conn: ConnId, stream: StreamId) -> usize;
    /// Queues bytes to be sent; small ones are coalesced. Takes them all, also past
    /// [`Transport::writable`], which callers look at before they make more.
    fn send(&mut self, conn: ConnId, stream: StreamId, data: &[u8]);
    /// Ends our side after everything queued.
    fn finish(&mut self, conn: ConnId, stream: StreamId);
    /// Gives up on our side.
    fn reset(&mut self, conn: ConnId, stream: StreamId, code: u32);
    /// Tells the peer that we will read no more.
    fn stop(&mut self, conn: ConnId, stream: StreamId, code: u32);
    /// Reads the next piece.
    fn read(&mut self, conn: ConnId, stream: StreamId) -> Read;
    /// Sends one datagram that the peer must acknowledge, also when the congestion window is full.
    fn probe(&mut self, now: Now, conn: ConnId);

    /// How the connection fares, `None` when it is gone.
    fn stats(&self, conn: ConnId) -> Option<ConnStats>;
    /// Ends a step: moves queued bytes into packets' reach, and finds what events and deadlines
    /// came of it. Events of this step may be missing until then; some may come of handling others,
    /// so a parent repeats `flush` and [`Transport::poll_event`] until there are none.
    fn flush(&mut self, now: Now);
    /// The next event.
    fn poll_event(&mut self) -> Option<Event>;
    /// Writes the next datagrams into `buf`, which must be empty, or `None`.
    fn poll_transmit(&mut self, now: Now, buf: &mut Vec<u8>) -> Option<Transmit>;
    /// The next deadline and the reason for it.
    fn poll_timeout(&self) -> Option<(Instant, &'static str)>;
}
