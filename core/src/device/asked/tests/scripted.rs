//! A transport without a network: what it reports is what the test put there.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::time::{Now, origin};
use crate::transport::{
    self, CloseReason, ConnId, ConnStats, ConnectError, Datagram, Priority, Read, StreamId,
    Transmit, Transport,
};

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Scripted {
    pub(super) events: VecDeque<transport::Event>,
    pub(super) arrived: BTreeMap<(ConnId, StreamId), VecDeque<Bytes>>,
    pub(super) sent: BTreeMap<(ConnId, StreamId), Vec<u8>>,
    pub(super) finished: Vec<StreamId>,
    /// Streams that the gateway ends when they are read.
    pub(super) ended: Vec<(ConnId, StreamId)>,
    /// Connections that were begun, and whether they are open.
    pub(super) conns: Vec<(SocketAddr, bool)>,
    pub(super) streams: u64,
    /// Bytes of each connection that is open, sent and received.
    pub(super) bytes: BTreeMap<ConnId, (u64, u64)>,
}

impl Scripted {
    pub(super) fn is_open(&self, conn: ConnId) -> bool {
        usize::try_from(conn.0).is_ok_and(|at| self.conns.get(at).is_some_and(|(_, open)| *open))
    }
}

impl Transport for Scripted {
    fn handle_datagram(&mut self, _now: Now, _datagram: Datagram) {}
    fn handle_timeout(&mut self, _now: Now) {}
    fn handle_rebind(&mut self, _now: Now) {}
    fn connect(&mut self, _now: Now, remote: SocketAddr) -> Result<ConnId, ConnectError> {
        self.conns.push((remote, true));
        Ok(ConnId(self.conns.len() as u64 - 1))
    }
    fn accept(&mut self, _now: Now, _conn: ConnId) {}
    fn refuse(&mut self, _now: Now, _conn: ConnId) {}
    fn retry(&mut self, _now: Now, _conn: ConnId) {}
    fn close(&mut self, _now: Now, conn: ConnId, _code: u32, _reason: &str) {
        if self.is_open(conn) {
            self.conns[conn.0 as usize].1 = false;
            let reason = CloseReason::Local;
            self.events
                .push_back(transport::Event::Closed { conn, reason });
        }
    }
    fn open(&mut self, conn: ConnId, _priority: Priority) -> Option<StreamId> {
        let stream = StreamId(self.streams);
        self.streams += 1;
        self.is_open(conn).then_some(stream)
    }
    fn set_priority(&mut self, _conn: ConnId, _stream: StreamId, _priority: Priority) {}
    fn writable(&self, _conn: ConnId, _stream: StreamId) -> usize {
        usize::MAX
    }
    fn send(&mut self, conn: ConnId, stream: StreamId, data: &[u8]) {
        self.sent.entry((conn, stream)).or_default().extend(data);
    }
    fn finish(&mut self, _conn: ConnId, stream: StreamId) {
        self.finished.push(stream);
    }
    fn reset(&mut self, _conn: ConnId, _stream: StreamId, _code: u32) {}
    fn stop(&mut self, _conn: ConnId, _stream: StreamId, _code: u32) {}
    fn read(&mut self, conn: ConnId, stream: StreamId) -> Read {
        let arrived = self.arrived.get_mut(&(conn, stream));
        match arrived.and_then(VecDeque::pop_front) {
            Some(data) => Read::Data(data),
            None if self.ended.contains(&(conn, stream)) => Read::End,
            None => Read::Blocked,
        }
    }
    fn probe(&mut self, _now: Now, _conn: ConnId) {}
    fn stats(&self, conn: ConnId) -> Option<ConnStats> {
        let &(sent_bytes, received_bytes) = self.bytes.get(&conn)?;
        Some(ConnStats {
            rtt: Duration::from_millis(20),
            sent_bytes,
            received_bytes,
            lost_packets: 0,
            last_received: origin(),
            in_flight: false,
            remote: self.conns[0].0,
        })
    }
    fn flush(&mut self, _now: Now) {}
    fn poll_event(&mut self) -> Option<transport::Event> {
        self.events.pop_front()
    }
    fn poll_transmit(&mut self, _now: Now, _buf: &mut Vec<u8>) -> Option<Transmit> {
        None
    }
    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }
}
