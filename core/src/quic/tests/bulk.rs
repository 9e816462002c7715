//! A lot on its way: what small and urgent things still get, and what is reported of it.

use super::*;

#[test]
fn a_probe_gets_out_when_the_window_is_full_and_brings_bulk_back() {
    let (mut pair, conn, peer) = Pair::connected();
    let stream = pair.ends[CLIENT].open(conn, Priority::Upload).unwrap();
    let bulk = vec![7; 64 * 1024];
    let fill = |pair: &mut Pair| {
        while pair.ends[CLIENT].writable(conn, stream) > 0 {
            pair.ends[CLIENT].send(conn, stream, &bulk);
        }
    };
    fill(&mut pair);
    pair.run(Duration::from_millis(15));
    pair.black = true;
    pair.run(Duration::from_secs(60));
    pair.black = false;
    pair.wire.clear();
    let healed = pair.now.instant;
    assert!(pair.ends[CLIENT].stats(conn).unwrap().last_received < healed);
    let sent = pair.datagrams[CLIENT];
    pair.ends[CLIENT].probe(pair.now, conn);
    pair.settle();
    assert_eq!(pair.datagrams[CLIENT], sent + 1, "one datagram, no more");
    pair.run(Duration::from_millis(300));
    assert!(pair.ends[CLIENT].stats(conn).unwrap().last_received > healed);
    let mut received = 0;
    for _ in 0..20 {
        fill(&mut pair);
        pair.run(Duration::from_millis(50));
        received += pair.read_all(SERVER, peer, stream).len();
    }
    assert!(
        received > 256 * 1024,
        "bulk goes on within a second: {received}"
    );
}

#[test]
fn a_heartbeat_passes_while_bulk_fills_every_window() {
    let (mut pair, conn, peer) = Pair::connected();
    let control = pair.ends[CLIENT].open(conn, Priority::Control).unwrap();
    pair.ends[CLIENT].send(conn, control, b"hello");
    pair.run(Duration::from_millis(50));
    assert_eq!(pair.read_all(SERVER, peer, control), b"hello");
    for _ in 0..3 {
        let bulk = pair.ends[CLIENT].open(conn, Priority::Upload).unwrap();
        pair.ends[CLIENT].send(conn, bulk, &vec![1; 4 * 1024 * 1024]);
    }
    // Nobody reads the bulk, so the send window and the stream windows are full.
    pair.run(Duration::from_secs(3));
    pair.ends[CLIENT].send(conn, control, b"beat");
    pair.run(Duration::from_millis(100));
    assert_eq!(pair.read_all(SERVER, peer, control), b"beat");
}

#[test]
fn small_writes_are_gathered_into_few_packets() {
    let (mut pair, conn, peer) = Pair::connected();
    let stream = pair.ends[CLIENT].open(conn, Priority::Escalation).unwrap();
    let before = pair.datagrams[CLIENT];
    for _ in 0..2000 {
        pair.ends[CLIENT].send(conn, stream, &[5; 100]);
        pair.settle();
    }
    pair.run(Duration::from_secs(2));
    assert_eq!(pair.read_all(SERVER, peer, stream).len(), 200_000);
    // 200 000 bytes need 167 full packets of 1 200; one each would have been 2 000.
    let packets = pair.datagrams[CLIENT] - before;
    assert!(packets < 300, "{packets}");
}

#[test]
fn a_full_queue_is_reported_writable_when_it_has_drained() {
    let (mut pair, conn, peer) = Pair::connected();
    let stream = pair.ends[CLIENT].open(conn, Priority::Upload).unwrap();
    pair.ends[CLIENT].send(conn, stream, &vec![1; 4 * 1024 * 1024]);
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.ends[CLIENT].writable(conn, stream), 0);
    let writable = |pair: &Pair| {
        pair.events[CLIENT]
            .iter()
            .filter(|e| matches!(e, Event::Writable { .. }))
            .count()
    };
    assert_eq!(writable(&pair), 0);
    for _ in 0..100 {
        pair.read_all(SERVER, peer, stream);
        pair.run(Duration::from_millis(50));
    }

    assert_eq!(writable(&pair), 1);
    assert!(pair.ends[CLIENT].writable(conn, stream) > 0);
}

#[test]
fn a_device_reads_every_stream_while_none_of_the_others_is_read() {
    let (mut pair, conn, peer) = Pair::connected();
    let mut streams = Vec::new();
    for _ in 0..20 {
        while let Some(stream) = pair.ends[CLIENT].open(conn, Priority::Escalation) {
            pair.ends[CLIENT].send(conn, stream, b"?");
            pair.ends[CLIENT].finish(conn, stream);
            streams.push(stream);
        }
        pair.run(Duration::from_millis(50));
    }
    // Seven answers fill their windows and nobody reads them.
    for &stream in &streams[..7] {
        pair.ends[SERVER].send(peer, stream, &vec![1; 1024 * 1024]);
    }
    pair.run(Duration::from_secs(5));
    pair.ends[SERVER].send(peer, streams[8], b"answer");
    pair.run(Duration::from_millis(100));
    assert_eq!(pair.read_all(CLIENT, conn, streams[8]), b"answer");
}

#[test]
fn a_new_address_is_told_at_once_though_bulk_fills_the_window() {
    let (mut pair, conn, _) = Pair::connected();
    let stream = pair.ends[CLIENT].open(conn, Priority::Upload).unwrap();
    pair.ends[CLIENT].send(conn, stream, &vec![1; 1024 * 1024]);
    pair.run(Duration::from_millis(15));
    pair.black = true;
    pair.run(Duration::from_secs(10));
    pair.black = false;
    let healed = pair.now.instant;
    pair.addrs[CLIENT] = "[::1]:2000".parse().unwrap();
    pair.ends[CLIENT].handle_rebind(pair.now);
    pair.run(Duration::from_millis(100));
    let (_, server) = (&pair.ends[CLIENT], &pair.ends[SERVER]);
    let peer = *server.conns.keys().next().unwrap();
    assert_eq!(server.stats(peer).unwrap().remote, pair.addrs[CLIENT]);
    assert!(pair.ends[CLIENT].stats(conn).unwrap().last_received > healed);
}

#[test]
fn datagrams_that_arrive_together_are_reported_readable_once() {
    let (mut pair, conn, peer) = Pair::connected();
    let stream = pair.ends[CLIENT].open(conn, Priority::Upload).unwrap();
    pair.ends[CLIENT].send(conn, stream, b"first");
    pair.run(Duration::from_millis(50));
    pair.read_all(SERVER, peer, stream);
    pair.events[SERVER].clear();
    pair.ends[CLIENT].send(conn, stream, &[1; 10_000]);
    pair.settle();
    pair.now = pair.now.after(Duration::from_millis(10));
    for (_, (to, bytes)) in std::mem::take(&mut pair.wire) {
        let datagram = Datagram {
            remote: pair.addrs[1 - to],
            local_ip: None,
            ecn: None,
            data: BytesMut::from(&bytes[..]),
        };
        pair.ends[to].handle_datagram(pair.now, datagram);
    }
    pair.settle();
    let [Event::Readable { .. }] = pair.events[SERVER][..] else {
        panic!("{:?}", pair.events[SERVER])
    };
    assert_eq!(pair.read_all(SERVER, peer, stream), [1; 10_000]);
}
