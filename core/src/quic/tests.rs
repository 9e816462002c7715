//! Two endpoints on a wire in memory, and what the tests of them share.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test picks out the one event it looks for"
)]

mod bulk;
mod trust;
mod world;

use std::time::Duration;

use bytes::BytesMut;

use self::world::roots;
pub(crate) use self::world::{Leaf, WALL, World};
use super::*;
use crate::identity::GATEWAY_NAME;
use crate::time::origin;
use crate::wire::ALPN;

/// Two endpoints, a wire with a delay each way, and a clock that jumps to the next event.
struct Pair {
    ends: [Quic; 2],
    addrs: [SocketAddr; 2],
    origin: Instant,
    now: Now,
    /// (arrives, order, to, bytes)
    wire: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    sent: u64,
    delay: Duration,
    /// Lose every datagram.
    black: bool,
    /// Of every hundred datagrams, by a fixed pattern.
    lose_percent: u64,
    duplicate: bool,
    reorder: bool,
    admit: fn(&mut Quic, Now, ConnId, bool),
    events: [Vec<Event>; 2],
    datagrams: [u64; 2],
    /// When, from whom, and what of it tells ids and lengths.
    trace: Vec<(Duration, usize, Vec<u8>, usize)>,
    /// What the last `read_all` ended with.
    last_read: Read,
}

const CLIENT: usize = 0;
const SERVER: usize = 1;

impl Pair {
    fn new(client: Quic, server: Quic) -> Self {
        let origin = origin();
        Self {
            ends: [client, server],
            origin,
            addrs: ["[::1]:1000".parse().unwrap(), "[::1]:4443".parse().unwrap()],
            now: Now {
                instant: origin,
                wall: WALL,
            },
            wire: BTreeMap::new(),
            sent: 0,
            delay: Duration::from_millis(10),
            black: false,
            lose_percent: 0,
            duplicate: false,
            reorder: false,
            admit: |quic, now, conn, _| quic.accept(now, conn),
            events: [Vec::new(), Vec::new()],
            datagrams: [0; 2],
            trace: Vec::new(),
            last_read: Read::Gone,
        }
    }

    fn connected() -> (Self, ConnId, ConnId) {
        let world = World::new();
        let client = world.client(Some(world.device_leaf(2040)));
        let mut pair = Self::new(client, world.server(1));
        let (conn, peer) = pair.connect();
        (pair, conn, peer.unwrap())
    }

    fn connect(&mut self) -> (ConnId, Option<ConnId>) {
        let conn = self.ends[CLIENT]
            .connect(self.now, self.addrs[SERVER])
            .unwrap();
        self.run(Duration::from_secs(2));
        let peer = self.events[SERVER].iter().find_map(|event| match event {
            Event::Connected { conn, .. } => Some(*conn),
            _ => None,
        });
        (conn, peer)
    }

    /// Everything that is due now, both ends.
    fn settle(&mut self) {
        for end in [CLIENT, SERVER] {
            loop {
                self.ends[end].flush(self.now);
                let Some(event) = self.ends[end].poll_event() else {
                    break;
                };
                if let Event::Incoming {
                    conn, validated, ..
                } = event
                {
                    (self.admit)(&mut self.ends[end], self.now, conn, validated);
                }
                self.events[end].push(event);
            }
            let mut buf = Vec::new();
            while let Some(transmit) = self.ends[end].poll_transmit(self.now, &mut buf) {
                let segment = transmit.segment_size.unwrap_or(transmit.size);
                for datagram in buf[..transmit.size].chunks(segment) {
                    self.send(end, datagram);
                }
                buf.clear();
            }
        }
    }

    fn send(&mut self, from: usize, datagram: &[u8]) {
        self.datagrams[from] += 1;
        let at = self.now.instant.duration_since(self.origin);
        // The first byte is masked in part with what the handshake drew (RFC 9001 §5.4.1); behind it
        // stand the ids, of short headers 8 bytes, of long ones up to 23 with version and lengths.
        let ids = if datagram[0] & 0x80 == 0 { 1..9 } else { 1..23 };
        let ids = datagram.get(ids).unwrap_or_default().to_vec();
        self.trace.push((at, from, ids, datagram.len()));
        let copies = if self.duplicate { 2 } else { 1 };
        for _ in 0..copies {
            self.sent += 1;
            if self.black || (self.sent * 37) % 100 < self.lose_percent {
                continue;
            }
            // Every seventh overtakes.
            let delay = if self.reorder && self.sent.is_multiple_of(7) {
                self.delay / 2
            } else {
                self.delay
            };
            let at = self.now.instant + delay;
            self.wire
                .insert((at, self.sent), (1 - from, datagram.to_vec()));
        }
    }

    /// Runs for so long.
    fn run(&mut self, span: Duration) {
        let end = self.now.instant + span;
        loop {
            self.settle();
            let arrival = self.wire.keys().next().map(|&(at, _)| at);
            let timers = self
                .ends
                .iter()
                .filter_map(|quic| quic.poll_timeout().map(|t| t.0));
            let next = timers.chain(arrival).min().filter(|&at| at <= end);
            let Some(at) = next else { break };
            let step = at.saturating_duration_since(self.now.instant);
            self.now = self.now.after(step);
            while let Some((&(arrives, order), _)) = self.wire.first_key_value() {
                if arrives > self.now.instant {
                    break;
                }
                let (to, bytes) = self.wire.remove(&(arrives, order)).unwrap();
                let datagram = Datagram {
                    remote: self.addrs[1 - to],
                    local_ip: None,
                    ecn: None,
                    data: BytesMut::from(&bytes[..]),
                };
                self.ends[to].handle_datagram(self.now, datagram);
            }
            for quic in &mut self.ends {
                quic.handle_timeout(self.now);
            }
        }
        self.now = self
            .now
            .after(end.saturating_duration_since(self.now.instant));
        self.settle();
    }

    fn closed(&self, end: usize) -> Vec<&CloseReason> {
        self.events[end]
            .iter()
            .filter_map(|event| match event {
                Event::Closed { reason, .. } => Some(reason),
                _ => None,
            })
            .collect()
    }

    fn read_all(&mut self, end: usize, conn: ConnId, stream: StreamId) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            match self.ends[end].read(conn, stream) {
                Read::Data(data) => bytes.extend_from_slice(&data),
                other => {
                    self.last_read = other;
                    return bytes;
                }
            }
        }
    }
}

fn opened(pair: &Pair) -> Vec<StreamId> {
    pair.events[SERVER]
        .iter()
        .filter_map(|event| match event {
            Event::Opened { stream, .. } => Some(*stream),
            _ => None,
        })
        .collect()
}

#[test]
fn streams_carry_bytes_both_ways_through_loss_reordering_and_duplication() {
    let (mut pair, conn, peer) = Pair::connected();
    pair.lose_percent = 10;
    pair.duplicate = true;
    pair.reorder = true;
    let stream = pair.ends[CLIENT].open(conn, Priority::Escalation).unwrap();
    let data: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    pair.ends[CLIENT].send(conn, stream, &data);
    pair.ends[CLIENT].finish(conn, stream);
    let mut received = Vec::new();
    while pair.last_read != Read::End {
        pair.run(Duration::from_millis(100));
        received.extend(pair.read_all(SERVER, peer, stream));
        assert!(pair.now.instant < pair.origin + Duration::from_secs(60));
    }
    assert_eq!(received.len(), data.len());
    assert_eq!(received, data);
    pair.ends[SERVER].send(peer, stream, b"answer");
    pair.ends[SERVER].finish(peer, stream);
    pair.run(Duration::from_secs(5));
    assert_eq!(pair.read_all(CLIENT, conn, stream), b"answer");
    assert!(pair.ends[CLIENT].stats(conn).unwrap().lost_packets > 0);
}

#[test]
fn a_closed_connection_tells_the_peer_why_and_leaves_nothing_behind() {
    let (mut pair, conn, _) = Pair::connected();
    let stream = pair.ends[CLIENT].open(conn, Priority::Control).unwrap();
    pair.ends[CLIENT].send(conn, stream, b"hello");
    pair.run(Duration::from_millis(50));
    pair.ends[CLIENT].close(pair.now, conn, 4, "revoked");
    pair.run(Duration::from_secs(10));
    let told = CloseReason::Application {
        code: 4,
        reason: "revoked".to_owned(),
    };
    assert_eq!(pair.closed(SERVER), [&told]);
    assert_eq!(pair.closed(CLIENT), [&CloseReason::Local]);
    for end in &pair.ends {
        assert_eq!(end.connections(), 0);
        assert_eq!(end.endpoint.open_connections(), 0);
        assert!(end.by_handle.is_empty() && end.deadlines.is_empty() && end.dirty.is_empty());
    }
    assert_eq!(pair.ends[CLIENT].read(conn, stream), Read::Gone);
    assert_eq!(pair.ends[CLIENT].writable(conn, stream), 0);
    assert!(pair.ends[CLIENT].stats(conn).is_none());
}

#[test]
fn a_restarted_gateway_resets_old_sessions_at_once() {
    let world = World::new();
    let client = world.client(Some(world.device_leaf(2040)));
    let mut pair = Pair::new(client, world.server(1));
    let (conn, _) = pair.connect();
    pair.ends[SERVER] = world.server(2);
    let stream = pair.ends[CLIENT].open(conn, Priority::Control).unwrap();
    pair.ends[CLIENT].send(conn, stream, &[0; 100]);
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.closed(CLIENT), [&CloseReason::Reset]);
}

#[test]
fn the_stream_limit_grows_as_streams_are_used() {
    let (mut pair, conn, peer) = Pair::connected();
    let mut streams = Vec::new();
    for _ in 0..40 {
        while let Some(stream) = pair.ends[CLIENT].open(conn, Priority::Call) {
            pair.ends[CLIENT].send(conn, stream, b"x");
            streams.push(stream);
        }
        pair.run(Duration::from_millis(100));
    }
    assert_eq!(streams.len(), 64);
    assert_eq!(opened(&pair).len(), 64);
    // Those that are over make room for others; credit comes in batches.
    for &done in &streams[..16] {
        pair.ends[CLIENT].finish(conn, done);
        pair.ends[SERVER].finish(peer, done);
        pair.run(Duration::from_millis(100));
        assert_eq!(pair.read_all(SERVER, peer, done), b"x");
        assert_eq!(pair.last_read, Read::End);
        assert_eq!(pair.ends[CLIENT].read(conn, done), Read::End);
    }
    pair.run(Duration::from_millis(200));
    assert!(pair.ends[CLIENT].open(conn, Priority::Call).is_some());
}

#[test]
fn an_idle_connection_outlives_a_minute_of_silence_but_not_two() {
    let (mut pair, conn, _) = Pair::connected();
    pair.black = true;
    pair.run(Duration::from_secs(60));
    pair.black = false;
    pair.ends[CLIENT].probe(pair.now, conn);
    pair.run(Duration::from_secs(1));
    let since = pair.now.instant - pair.ends[CLIENT].stats(conn).unwrap().last_received;
    assert!(since < Duration::from_secs(1), "{since:?}");
    pair.black = true;
    // A keep-alive sent into the dark restarts the idle timer once (RFC 9000 §10.1).
    pair.run(Duration::from_secs(140));
    assert_eq!(pair.closed(CLIENT), [&CloseReason::TimedOut]);
    assert_eq!(pair.closed(SERVER), [&CloseReason::TimedOut]);
}

#[test]
fn rubbish_is_dropped_and_the_connection_goes_on() {
    let (mut pair, conn, peer) = Pair::connected();
    for length in [0, 1, 5, 20, 21, 1199, 1200, 65_000] {
        for first in [0x00, 0x40, 0xC0, 0xFF] {
            let mut data = BytesMut::zeroed(length);
            if let Some(byte) = data.first_mut() {
                *byte = first;
            }
            let datagram = Datagram {
                remote: pair.addrs[CLIENT],
                local_ip: None,
                ecn: None,
                data,
            };
            pair.ends[SERVER].handle_datagram(pair.now, datagram);
        }
    }
    let heard = pair.ends[SERVER].stats(peer).unwrap().last_received;
    assert!(heard < pair.now.instant, "rubbish does not count as heard");
    let stream = pair.ends[CLIENT].open(conn, Priority::Control).unwrap();
    pair.ends[CLIENT].send(conn, stream, b"still here");
    pair.run(Duration::from_millis(100));
    assert_eq!(pair.read_all(SERVER, peer, stream), b"still here");
}

#[test]
fn nothing_is_reported_of_a_connection_after_its_end() {
    let (mut pair, conn, peer) = Pair::connected();
    let stream = pair.ends[CLIENT].open(conn, Priority::Call).unwrap();
    pair.ends[CLIENT].send(conn, stream, b"late");
    pair.settle();
    pair.ends[SERVER].close(pair.now, peer, 0, "bye");
    pair.run(Duration::from_secs(1));
    let last = pair.events[SERVER].last();
    assert!(matches!(last, Some(Event::Closed { .. })), "{last:?}");
}

#[test]
fn without_tls_chance_a_run_repeats_to_the_datagram() {
    // Certificates and keys are drawn anew by the other side of the fixture, so one world serves
    // both runs; keys of the handshake change bytes, never lengths, ids or times.
    let world = World::new();
    let own = world.device_leaf(2040);
    let server_leaf = world.server_leaf();
    let play = || {
        let client = world.client(Some(own.copy()));
        let mut pair = Pair::new(client, world.server_with(server_leaf.copy(), 1));
        pair.lose_percent = 5;
        pair.duplicate = true;
        pair.reorder = true;
        let (conn, peer) = pair.connect();
        let stream = pair.ends[CLIENT].open(conn, Priority::Upload).unwrap();
        pair.ends[CLIENT].send(conn, stream, &vec![3; 200_000]);
        pair.ends[CLIENT].finish(conn, stream);
        for _ in 0..50 {
            pair.run(Duration::from_millis(50));
            pair.read_all(SERVER, peer.unwrap(), stream);
        }
        pair.trace
    };
    let first = play();
    assert!(first.len() > 200);
    assert_eq!(first, play());
}

#[test]
fn an_id_that_no_stream_can_have_names_none() {
    let (mut pair, conn, _) = Pair::connected();
    for id in [2, 3, 400, u64::MAX, u64::MAX >> 2] {
        let stream = StreamId(id);
        assert_eq!(pair.ends[CLIENT].read(conn, stream), Read::Gone);
        pair.ends[CLIENT].send(conn, stream, b"nobody");
        pair.ends[CLIENT].stop(conn, stream, 1);
        pair.ends[CLIENT].reset(conn, stream, 1);
        pair.run(Duration::from_millis(1));
    }
    assert!(pair.closed(CLIENT).is_empty());
}

#[test]
fn connection_ids_carry_the_shard() {
    let seed = Seed::new([3; 32]);
    let config = config::endpoint(&seed, Some(&[0; 32]), 7);
    let mut endpoint = Endpoint::new(config, None, true, None);
    let world = World::new();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots(&world.server_ca))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let client = ClientConfig {
        tls: Arc::new(tls),
        server_name: GATEWAY_NAME.to_owned(),
    };
    let config = config::client(client, &Shared::default(), &seed).unwrap();
    let remote = "[::1]:1".parse().unwrap();
    let (_, mut connection) = endpoint
        .connect(origin(), config, remote, GATEWAY_NAME)
        .unwrap();
    let mut buf = Vec::new();
    let _first = connection.poll_transmit(origin(), 1, &mut buf).unwrap();
    // A long header (RFC 9000 §17.2): 1 byte, version 4, then both ids behind their lengths.
    let destination = usize::from(buf[5]);
    assert_eq!(buf[6 + destination], 8, "the length of our own id");
    assert_eq!(buf[7 + destination], 7, "its first byte is the shard");
}
