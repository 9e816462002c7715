//! An ideal transport for very large fleets: ordered, reliable, without cryptography. It shares
//! nothing with QUIC but the contract, and stands on the same lossy links.
//!
//! Ideal is that a packet is sent again soon, however long the path was dead; that it knows the
//! peer's certificate without proof; that a handshake is one round trip. Everything else, from flow
//! control to a reset by a peer that has forgotten, is there, because the machines above rely on it.

mod conn;
mod packet;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mesh_core::rng::Seed;
use mesh_core::time::Now;
use mesh_core::transport::{
    CloseReason, ConnId, ConnStats, ConnectError, Datagram, Event, Priority, Read, StreamId,
    Transmit, Transport,
};
use rand::Rng as _;
use rand_chacha::ChaCha20Rng;

use self::conn::Conn;
use self::packet::Packet;
use super::certificates::{Authority, Certificate};
use super::{Unbuildable, WallClock, Wire};

/// TLS's `certificate_expired` (RFC 8446 §6).
const CERTIFICATE_EXPIRED: u8 = 45;

/// Somebody who wants in.
#[derive(Debug)]
struct Knocking {
    tag: u64,
    remote: SocketAddr,
    certificate: Bytes,
    not_after_ms: u64,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Plain {
    /// A device's certificate; a gateway has none to show.
    own: Option<(Vec<u8>, u64)>,
    chance: ChaCha20Rng,
    token_key: u64,
    conns: BTreeMap<ConnId, Conn>,
    by_tag: BTreeMap<u64, ConnId>,
    knocking: BTreeMap<ConnId, Knocking>,
    deadlines: BTreeSet<(Instant, ConnId)>,
    dirty: BTreeSet<ConnId>,
    /// Those that may have to acknowledge something, once everything else has been said: it may ride
    /// on an answer.
    owing: Vec<ConnId>,
    events: VecDeque<Event>,
    out: VecDeque<(SocketAddr, Vec<u8>)>,
    next_conn: u64,
}

impl Wire for Plain {
    const NAME: &'static str = "plain";
    const ORDERED: bool = true;

    fn device(
        _authority: &Authority,
        own: &Certificate,
        _clock: &WallClock,
        seed: &Seed,
    ) -> Result<Self, Unbuildable> {
        Ok(Self::new(
            Some((own.der().to_vec(), own.not_after_ms())),
            seed,
        ))
    }

    fn gateway(
        _authority: &Authority,
        _shard: u8,
        _clock: &WallClock,
        seed: &Seed,
    ) -> Result<Self, Unbuildable> {
        Ok(Self::new(None, seed))
    }
}

impl Plain {
    fn new(own: Option<(Vec<u8>, u64)>, seed: &Seed) -> Self {
        let mut chance = seed.secret("plain tags");
        Self {
            own,
            token_key: chance.next_u64(),
            chance,
            conns: BTreeMap::new(),
            by_tag: BTreeMap::new(),
            knocking: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            dirty: BTreeSet::new(),
            owing: Vec::new(),
            events: VecDeque::new(),
            out: VecDeque::new(),
            next_conn: 0,
        }
    }

    fn new_id(&mut self) -> ConnId {
        self.next_conn += 1;
        ConnId(self.next_conn)
    }

    fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        let conn = self.conns.get_mut(&id)?;
        self.dirty.insert(id);
        Some(conn)
    }

    fn answer(&mut self, remote: SocketAddr, tag: u64, packet: &Packet<'_>) {
        self.out.push_back((remote, packet::encode(tag, packet)));
    }

    /// The token that proves an address.
    fn token(&self, remote: SocketAddr) -> u64 {
        let mut token = self.token_key ^ u64::from(remote.port());
        if let std::net::IpAddr::V4(ip) = remote.ip() {
            token ^= u64::from(u32::from(ip)) << 16;
        }
        token.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1
    }

    fn hello(&mut self, remote: SocketAddr, tag: u64, token: u64, end: u64, certificate: &[u8]) {
        if self.own.is_some() {
            return;
        }
        if let Some(&id) = self.by_tag.get(&tag) {
            if let Some(conn) = self.conn(id) {
                conn.push(&Packet::Welcome);
            }
            return;
        }
        if self.knocking.values().any(|knocking| knocking.tag == tag) {
            return;
        }
        let conn = self.new_id();
        let validated = token == self.token(remote);
        self.knocking.insert(
            conn,
            Knocking {
                tag,
                remote,
                certificate: Bytes::copy_from_slice(certificate),
                not_after_ms: end,
            },
        );
        self.events.push_back(Event::Incoming {
            conn,
            remote,
            validated,
        });
    }

    /// Sends what acknowledgements no packet has carried.
    fn acknowledge(&mut self) {
        while let Some(id) = self.owing.pop() {
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.acknowledge();
                while let Some(packet) = conn.poll_packet() {
                    self.out.push_back((conn.remote, packet));
                }
            }
        }
    }

    fn lose(&mut self, id: ConnId, reason: CloseReason) {
        if let Some(conn) = self.conns.remove(&id) {
            self.by_tag.remove(&conn.tag);
            if let Some(at) = conn.armed {
                self.deadlines.remove(&(at, id));
            }
            self.dirty.remove(&id);
            self.events.push_back(Event::Closed { conn: id, reason });
        }
    }

    fn known(
        &mut self,
        now: Now,
        remote: SocketAddr,
        id: ConnId,
        bytes: usize,
        packet: &Packet<'_>,
    ) {
        let is_device = self.own.is_some();
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        self.dirty.insert(id);
        conn.received(now.instant, bytes);
        if !is_device {
            conn.remote = remote;
        }
        match *packet {
            Packet::Welcome if conn.hello.take().is_some() => {
                let handshake = now.instant.saturating_duration_since(conn.started);
                self.events.push_back(Event::Connected {
                    conn: id,
                    peer_certificate: None,
                    handshake,
                });
            }
            Packet::Again { token } if conn.hello.is_some() => {
                if let Some((certificate, not_after_ms)) = &self.own {
                    let hello = Packet::Hello {
                        token,
                        not_after_ms: *not_after_ms,
                        certificate,
                    };
                    conn.hello = Some(packet::encode(conn.tag, &hello));
                    conn.say_hello(now.instant);
                }
            }
            Packet::Data {
                number,
                ack,
                frames,
            } if conn.hello.is_none() => {
                conn.data(now.instant, number, ack, frames, &mut self.events);
            }
            Packet::Ack { ack } => conn.acked(now.instant, ack, &mut self.events),
            Packet::Close { code, reason } => {
                let reason = reason.to_owned();
                self.lose(id, CloseReason::Application { code, reason });
            }
            Packet::Reset => self.lose(id, CloseReason::Reset),
            Packet::Refused => self.lose(id, CloseReason::Refused),
            Packet::Alert { alert } => {
                let reason = "the certificate was refused".to_owned();
                let by_peer = true;
                self.lose(
                    id,
                    CloseReason::Tls {
                        alert,
                        by_peer,
                        reason,
                    },
                );
            }
            Packet::Hello { .. } | Packet::Welcome | Packet::Again { .. } | Packet::Data { .. } => {
            }
        }
    }
}

impl Transport for Plain {
    fn handle_datagram(&mut self, now: Now, datagram: Datagram) {
        let Some((tag, packet)) = packet::decode(&datagram.data) else {
            return;
        };
        let remote = datagram.remote;
        if let Packet::Hello {
            token,
            not_after_ms,
            certificate,
        } = packet
        {
            self.hello(remote, tag, token, not_after_ms, certificate);
        } else if let Some(&id) = self.by_tag.get(&tag) {
            self.known(now, remote, id, datagram.data.len(), &packet);
        } else if matches!(packet, Packet::Data { .. } | Packet::Ack { .. }) {
            self.answer(remote, tag, &Packet::Reset);
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        while let Some(&(at, id)) = self.deadlines.first() {
            if at > now.instant {
                break;
            }
            self.deadlines.pop_first();
            let Some(conn) = self.conn(id) else { continue };
            conn.armed = None;
            if conn.timeout(now.instant) {
                self.lose(id, CloseReason::TimedOut);
            }
        }
    }

    fn handle_rebind(&mut self, now: Now) {
        let all: Vec<ConnId> = self.conns.keys().copied().collect();
        for id in all {
            self.probe(now, id);
        }
    }

    fn connect(&mut self, now: Now, remote: SocketAddr) -> Result<ConnId, ConnectError> {
        let Some((certificate, not_after_ms)) = &self.own else {
            return Err(ConnectError("a gateway connects nowhere".to_owned()));
        };
        let tag = self.chance.next_u64();
        let hello = Packet::Hello {
            token: 0,
            not_after_ms: *not_after_ms,
            certificate,
        };
        let hello = packet::encode(tag, &hello);
        let id = self.new_id();
        let mut conn = Conn::new(id, tag, remote, Some(hello), now.instant);
        conn.say_hello(now.instant);
        self.conns.insert(id, conn);
        self.by_tag.insert(tag, id);
        self.dirty.insert(id);
        Ok(id)
    }

    fn accept(&mut self, now: Now, conn: ConnId) {
        let Some(knocking) = self.knocking.remove(&conn) else {
            return;
        };
        let (tag, remote) = (knocking.tag, knocking.remote);
        if now.wall.0 > knocking.not_after_ms {
            let alert = CERTIFICATE_EXPIRED;
            self.answer(remote, tag, &Packet::Alert { alert });
            let reason = CloseReason::Tls {
                alert,
                by_peer: false,
                reason: "the certificate has expired".to_owned(),
            };
            return self.events.push_back(Event::Closed { conn, reason });
        }
        let mut entry = Conn::new(conn, tag, remote, None, now.instant);
        entry.push(&Packet::Welcome);
        self.conns.insert(conn, entry);
        self.by_tag.insert(tag, conn);
        self.dirty.insert(conn);
        self.events.push_back(Event::Connected {
            conn,
            peer_certificate: Some(knocking.certificate),
            handshake: Duration::ZERO,
        });
    }

    fn refuse(&mut self, _now: Now, conn: ConnId) {
        if let Some(knocking) = self.knocking.remove(&conn) {
            self.answer(knocking.remote, knocking.tag, &Packet::Refused);
        }
    }

    fn retry(&mut self, _now: Now, conn: ConnId) {
        if let Some(knocking) = self.knocking.remove(&conn) {
            let token = self.token(knocking.remote);
            self.answer(knocking.remote, knocking.tag, &Packet::Again { token });
        }
    }

    fn close(&mut self, _now: Now, conn: ConnId, code: u32, reason: &str) {
        if let Some(entry) = self.conns.get(&conn) {
            let (remote, tag) = (entry.remote, entry.tag);
            self.answer(remote, tag, &Packet::Close { code, reason });
            self.lose(conn, CloseReason::Local);
        }
    }

    fn open(&mut self, conn: ConnId, priority: Priority) -> Option<StreamId> {
        self.conn(conn)?.open(priority)
    }

    fn set_priority(&mut self, conn: ConnId, stream: StreamId, priority: Priority) {
        if let Some(conn) = self.conn(conn) {
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
        let Some(entry) = self.conns.get_mut(&conn) else {
            return Read::Gone;
        };
        self.dirty.insert(conn);
        entry.read(stream, &mut self.events)
    }

    fn probe(&mut self, now: Now, conn: ConnId) {
        if let Some(conn) = self.conn(conn) {
            conn.probe(now.instant);
        }
    }

    fn stats(&self, conn: ConnId) -> Option<ConnStats> {
        self.conns.get(&conn).map(Conn::stats)
    }

    fn flush(&mut self, now: Now) {
        while let Some(id) = self.dirty.pop_first() {
            let Some(conn) = self.conns.get_mut(&id) else {
                continue;
            };
            conn.flush(now.instant, &mut self.events);
            if conn.owes_an_acknowledgement() {
                self.owing.push(id);
            }
            while let Some(packet) = conn.poll_packet() {
                self.out.push_back((conn.remote, packet));
            }
            // Armed anew only when it is due earlier: a deadline that moved on is looked at when the
            // old one comes.
            let due = conn.deadline();
            if conn.armed.is_none_or(|armed| due < armed) {
                if let Some(armed) = conn.armed.replace(due) {
                    self.deadlines.remove(&(armed, id));
                }
                self.deadlines.insert((due, id));
            }
        }
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn poll_transmit(&mut self, now: Now, buf: &mut Vec<u8>) -> Option<Transmit> {
        self.flush(now);
        self.acknowledge();
        let (remote, packet) = self.out.pop_front()?;
        buf.extend_from_slice(&packet);
        Some(Transmit {
            remote,
            local_ip: None,
            ecn: None,
            size: packet.len(),
            segment_size: None,
        })
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.deadlines.first().map(|&(at, _)| (at, "plain timer"))
    }
}
