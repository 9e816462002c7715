//! Input that no honest program sends: garbage at the gateway's two ports, damaged files, a control
//! socket that is shouted at. Nothing falls over, and honest devices are served on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use mesh_tests::cluster::{Cluster, Setup};
use mesh_tests::process::PATIENCE;
use mesh_tests::upstream::FakeUpstream;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket, UnixStream};
use tokio::time::timeout;

async fn scene() -> (FakeUpstream, Cluster) {
    let upstream = FakeUpstream::start().await.unwrap();
    let cluster = Cluster::start(Setup::with_upstream(&upstream)).await;
    cluster.enrol("laptop").await;
    (upstream, cluster)
}

async fn still_serves(cluster: &Cluster) {
    let _ = cluster
        .ask("laptop", "Still there?", &[])
        .await
        .ended
        .succeeded();
}

#[tokio::test]
async fn garbage_at_the_tunnels_port_is_dropped() {
    let (_upstream, cluster) = scene().await;
    let _agent = cluster.agent("laptop").await;
    let socket = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
    socket.connect(cluster.tunnel_address()).await.unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut datagram = vec![0; 1500];
    for n in 0..5000 {
        let length = rng.random_range(0..datagram.len());
        rng.fill_bytes(&mut datagram[..length]);
        match n % 4 {
            // A QUIC v1 Initial by its first bytes (RFC 9000 §17.2.2), garbage behind.
            1 if length > 6 => datagram[..5].copy_from_slice(&[0xC3, 0, 0, 0, 1]),
            // An unknown version (§6).
            2 if length > 6 => datagram[..5].copy_from_slice(&[0xC3, 0x1A, 0x2A, 0x3A, 0x4A]),
            // A short header.
            3 if length > 1 => datagram[0] = 0x40,
            _ => {}
        }
        socket.send(&datagram[..length]).await.unwrap();
    }
    still_serves(&cluster).await;
}

/// Sends bytes to the HTTP port and reads what comes, until it is closed or nothing comes.
async fn shout(cluster: &Cluster, bytes: &[u8]) -> String {
    let address: SocketAddr = cluster
        .http_url()
        .trim_start_matches("http://")
        .parse()
        .unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let mut reply = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut reply))
        .await
        .unwrap();
    String::from_utf8_lossy(&reply).into_owned()
}

fn enrolment(key: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST /v2/devices HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Authorization: Bearer {key}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

#[tokio::test]
async fn garbage_at_the_http_port_is_refused() {
    let (_upstream, cluster) = scene().await;
    let (_, key) = cluster.new_key().await;
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut noise = vec![0; 4096];
    rng.fill_bytes(&mut noise);
    let long_header = format!(
        "GET /healthz HTTP/1.1\r\nX: {}\r\n\r\n",
        "y".repeat(1 << 20)
    );
    let nothing_after = b"POST /v2/devices HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n";
    for bytes in [
        &noise[..],
        b"\r\n\r\n",
        long_header.as_bytes(),
        nothing_after,
    ] {
        let reply = shout(&cluster, bytes).await;
        assert!(
            !reply.contains(" 200 ") && !reply.contains(" 201 "),
            "{reply}"
        );
    }
    let refusals = [
        (enrolment("nonsense", "{}"), "401"),
        (enrolment(&key.replace("si_live_", "si_test_"), "{}"), "401"),
        (enrolment(&key, "{}"), "400"),
        (enrolment(&key, "{\"csr\": 3}"), "400"),
        (enrolment(&key, "not json"), "400"),
        (
            enrolment(&key, "{\"csr\": \"-----BEGIN CERTIFICATE REQUEST-----\"}"),
            "400",
        ),
        (
            enrolment(&key, &format!("{{\"csr\": \"{}\"}}", "A".repeat(4 << 20))),
            "413",
        ),
    ];
    for (request, status) in refusals {
        let reply = shout(&cluster, &request).await;
        let first = reply.lines().next().unwrap_or_default();
        assert!(first.contains(status), "wanted {status}: {reply}");
        assert!(!reply.contains(&key), "a key comes back");
    }
    still_serves(&cluster).await;
}

#[tokio::test]
async fn connections_that_say_nothing_do_not_keep_others_out() {
    let (_upstream, cluster) = scene().await;
    let address: SocketAddr = cluster
        .http_url()
        .trim_start_matches("http://")
        .parse()
        .unwrap();
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let health = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let reply = timeout(Duration::from_secs(10), shout(&cluster, health))
        .await
        .unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
}

#[tokio::test]
async fn damaged_credentials_are_named_and_never_shown() {
    let (_upstream, cluster) = scene().await;
    let file = cluster.device_folder("laptop").join("credentials.json");
    let whole = std::fs::read(&file).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x20;
    let empty_object = b"{}".to_vec();
    for bytes in [
        vec![],
        whole[..whole.len() / 2].to_vec(),
        vec![0xFF; 100],
        empty_object,
    ] {
        std::fs::write(&file, &bytes).unwrap();
        let ended = cluster.ask("laptop", "Hello?", &[]).await.ended;
        assert!(matches!(ended.code, Some(11..=14)), "{ended:?}");
        assert!(
            ended.stderr.contains("credentials.json"),
            "{}",
            ended.stderr
        );
        assert!(!ended.stderr.contains("PRIVATE KEY"), "{}", ended.stderr);
    }
    std::fs::write(&file, whole).unwrap();
    still_serves(&cluster).await;
}

#[cfg(unix)]
#[tokio::test]
async fn the_agents_control_socket_survives_whatever_is_said_to_it() {
    let (_upstream, cluster) = scene().await;
    let _agent = cluster.agent("laptop").await;
    let socket = cluster.device_folder("laptop").join("agent.sock");
    let endless = vec![b'x'; 11 * 1024 * 1024];
    let nested = "[".repeat(100_000);
    let lines: [&[u8]; 6] = [
        b"",
        b"\n",
        b"{\"ask\":{}}\n",
        b"\"dance\"\n",
        nested.as_bytes(),
        &endless,
    ];
    for line in lines {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        let _ = stream.write_all(line).await;
        let _ = stream.shutdown().await;
        let mut reply = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut reply))
            .await
            .unwrap();
        assert!(!String::from_utf8_lossy(&reply).contains("\"ended\""));
    }
    still_serves(&cluster).await;
}

#[tokio::test]
async fn damaged_gateway_files_stop_the_gateway_with_a_clear_word() {
    let (_upstream, mut cluster) = scene().await;
    let store = cluster.store_path();
    cluster.stop_gateway().await;
    std::fs::write(&store, b"this is no database, and never was one").unwrap();
    let ended = cluster.try_gateway().await;
    assert!(ended.code.is_some_and(|code| code != 0), "{ended:?}");
    assert!(ended.stderr.contains("gateway.sqlite"), "{}", ended.stderr);
}
