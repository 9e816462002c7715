//! The relay itself: what a test tells it to do to datagrams, it does, and counts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use mesh_tests::relay::{Conditions, Relay, Way};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

struct Ends {
    device: UdpSocket,
    gateway: UdpSocket,
    relay: Relay,
}

impl Ends {
    async fn new(seed: u64) -> Self {
        let gateway = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        let relay = Relay::start(gateway.local_addr().unwrap(), seed)
            .await
            .unwrap();
        let device = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        device.connect(relay.address()).await.unwrap();
        Self {
            device,
            gateway,
            relay,
        }
    }

    async fn send_numbers(&self, count: u32) {
        for n in 0..count {
            self.device.send(&n.to_be_bytes()).await.unwrap();
            self.settled(u64::from(n) + 1).await;
        }
    }

    /// Until the relay has decided about so many datagrams on the way up.
    async fn settled(&self, received: u64) {
        let decided = self
            .relay
            .wait_until(Way::Up, |counts| counts.received >= received);
        timeout(PATIENCE, decided).await.unwrap();
    }

    async fn next_at_gateway(&self) -> (Vec<u8>, std::net::SocketAddr) {
        let mut buf = [0; 2048];
        let received = self.gateway.recv_from(&mut buf);
        let (length, from) = timeout(PATIENCE, received).await.unwrap().unwrap();
        (buf[..length].to_vec(), from)
    }
}

#[tokio::test]
async fn both_ways_pass_and_are_counted() {
    let ends = Ends::new(1).await;
    ends.device.send(b"ping").await.unwrap();
    let (data, from) = ends.next_at_gateway().await;
    assert_eq!(data, b"ping");
    ends.gateway.send_to(b"pong!", from).await.unwrap();
    let mut buf = [0; 16];
    let length = timeout(PATIENCE, ends.device.recv(&mut buf))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&buf[..length], b"pong!");
    let (up, down) = (ends.relay.counts(Way::Up), ends.relay.counts(Way::Down));
    assert_eq!((up.received, up.sent, up.bytes), (1, 1, 4));
    assert_eq!((down.received, down.sent, down.bytes), (1, 1, 5));
}

#[tokio::test]
async fn loss_follows_the_seed() {
    let mut lost = Vec::new();
    for _ in 0..2 {
        let ends = Ends::new(42).await;
        ends.relay
            .set(Conditions {
                drop: 0.3,
                ..Conditions::default()
            })
            .await;
        ends.send_numbers(300).await;
        let counts = ends.relay.counts(Way::Up);
        assert_eq!(counts.sent + counts.dropped, 300);
        // Three standard deviations of a binomial with n = 300, p = 0.3: 90 ± 24.
        assert!((66..=114).contains(&counts.dropped), "{counts:?}");
        lost.push(counts.dropped);
    }
    assert_eq!(lost[0], lost[1]);
}

#[tokio::test]
async fn duplicates_arrive_twice() {
    let ends = Ends::new(1).await;
    ends.relay
        .set(Conditions {
            duplicate: 1.0,
            ..Conditions::default()
        })
        .await;
    ends.send_numbers(3).await;
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(ends.next_at_gateway().await.0[3]);
    }
    assert_eq!(seen, [0, 0, 1, 1, 2, 2]);
}

#[tokio::test]
async fn a_reordered_datagram_arrives_after_its_successor() {
    let ends = Ends::new(1).await;
    ends.relay
        .set(Conditions {
            reorder: 1.0,
            ..Conditions::default()
        })
        .await;
    ends.device.send(b"first").await.unwrap();
    ends.settled(1).await;
    ends.relay.heal().await;
    ends.device.send(b"second").await.unwrap();
    assert_eq!(ends.next_at_gateway().await.0, b"second");
    assert_eq!(ends.next_at_gateway().await.0, b"first");
}

#[tokio::test]
async fn a_corrupted_datagram_differs_in_one_bit() {
    let ends = Ends::new(1).await;
    ends.relay
        .set(Conditions {
            corrupt: 1.0,
            ..Conditions::default()
        })
        .await;
    ends.device.send(&[0; 64]).await.unwrap();
    let (data, _) = ends.next_at_gateway().await;
    assert_eq!(data.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
}

#[tokio::test]
async fn a_delay_holds_each_datagram_for_its_time() {
    let ends = Ends::new(1).await;
    let delay = Duration::from_millis(60);
    ends.relay
        .set(Conditions {
            delay,
            ..Conditions::default()
        })
        .await;
    let sent = Instant::now();
    ends.device.send(b"late").await.unwrap();
    ends.next_at_gateway().await;
    assert!(sent.elapsed() >= delay);
}

#[tokio::test]
async fn a_rate_spreads_datagrams_and_a_full_queue_drops() {
    let ends = Ends::new(1).await;
    ends.relay
        .set(Conditions {
            rate: Some(20_000),
            ..Conditions::default()
        })
        .await;
    let sent = Instant::now();
    for n in 0..20 {
        ends.device.send(&[0; 1000]).await.unwrap();
        ends.settled(n + 1).await;
    }
    // 1 000 bytes take 50 ms; the queue holds 250 ms, so the last that fits in starts at 250 ms.
    let dropped = ends.relay.counts(Way::Up).dropped;
    assert!((10..=14).contains(&dropped), "{dropped}");
    for _ in 0..20 - dropped {
        ends.next_at_gateway().await;
    }
    assert!(sent.elapsed() >= Duration::from_millis(50 * (20 - dropped)));
}

#[tokio::test]
async fn a_black_out_swallows_everything_even_what_is_on_its_way() {
    let ends = Ends::new(1).await;
    let delay = Duration::from_millis(50);
    ends.relay
        .set(Conditions {
            delay,
            ..Conditions::default()
        })
        .await;
    ends.device.send(b"on its way").await.unwrap();
    ends.settled(1).await;
    ends.relay.go_black().await;
    ends.device.send(b"into the dark").await.unwrap();
    ends.settled(2).await;
    let swallowed = ends.relay.wait_until(Way::Up, |counts| counts.dropped >= 2);
    timeout(PATIENCE, swallowed).await.unwrap();
    ends.relay.heal().await;
    ends.device.send(b"light").await.unwrap();
    assert_eq!(ends.next_at_gateway().await.0, b"light");
}

#[tokio::test]
async fn after_a_rebind_the_gateway_sees_another_address() {
    let ends = Ends::new(1).await;
    ends.device.send(b"a").await.unwrap();
    let (_, before) = ends.next_at_gateway().await;
    ends.relay.rebind().await;
    ends.device.send(b"b").await.unwrap();
    let (_, after) = ends.next_at_gateway().await;
    assert_ne!(before, after);
    ends.gateway.send_to(b"still here", after).await.unwrap();
    let mut buf = [0; 16];
    let length = timeout(PATIENCE, ends.device.recv(&mut buf))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&buf[..length], b"still here");
}

#[tokio::test]
async fn a_relay_can_be_pointed_at_another_gateway() {
    let ends = Ends::new(1).await;
    ends.device.send(b"a").await.unwrap();
    assert_eq!(ends.next_at_gateway().await.0, b"a");
    let moved = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
    ends.relay.point_at(moved.local_addr().unwrap()).await;
    ends.device.send(b"b").await.unwrap();
    let mut buf = [0; 16];
    let length = timeout(PATIENCE, moved.recv(&mut buf))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&buf[..length], b"b");
}
