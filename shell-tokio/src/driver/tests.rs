//! A driver with a machine of the test's own over loopback: what ends its waits.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_shell::driver::SENDS_PER_TURN;
use mesh_shell::driver::testing::{Command, Echo, Recorder};
use tokio::sync::oneshot;

use super::*;

struct Running {
    addr: SocketAddr,
    commands: mpsc::Sender<Command>,
    seen: mpsc::UnboundedReceiver<&'static str>,
    ended: oneshot::Receiver<()>,
}

fn start(binding: &str, copies: usize) -> Running {
    let socket = Socket::bind(Binding::exactly(binding.parse().unwrap())).unwrap();
    let addr = socket.local_addr().unwrap();
    let (seen_tx, seen) = mpsc::unbounded_channel();
    let (commands, rx) = mpsc::channel(8);
    let (ended_tx, ended) = oneshot::channel();
    let host = Recorder::new(move |output| {
        let _nobody_looks = seen_tx.send(output);
    });
    let machine = Echo::new(copies);
    tokio::spawn(async move {
        Driver::new(socket, machine, host).run(rx).await;
        let _nobody_waits = ended_tx.send(());
    });
    Running {
        addr,
        commands,
        seen,
        ended,
    }
}

async fn echo(from: &str, to: SocketAddr, copies: usize) {
    let peer = tokio::net::UdpSocket::bind(from).await.unwrap();
    peer.send_to(b"ping", to).await.unwrap();
    let mut buf = [0; 16];
    for _ in 0..copies {
        let (length, _) = peer.recv_from(&mut buf).await.unwrap();
        assert_eq!(&buf[..length], b"ping");
    }
}

#[tokio::test]
async fn datagrams_go_in_and_out_past_one_turns_budget() {
    let running = start("127.0.0.1:0", 3 * SENDS_PER_TURN);
    echo("127.0.0.1:0", running.addr, 3 * SENDS_PER_TURN).await;
}

#[tokio::test]
async fn a_dual_stack_socket_serves_ipv4_under_its_own_addresses() {
    let running = start("[::]:0", 1);
    echo(
        "127.0.0.1:0",
        SocketAddr::new([127, 0, 0, 1].into(), running.addr.port()),
        1,
    )
    .await;
}

#[tokio::test]
async fn a_deadline_set_by_a_command_wakes_the_machine() {
    let mut running = start("127.0.0.1:0", 1);
    running
        .commands
        .send(Command::WakeIn(Duration::from_millis(20)))
        .await
        .unwrap();
    assert_eq!(running.seen.recv().await, Some("due"));
    running
        .commands
        .send(Command::WakeIn(Duration::ZERO))
        .await
        .unwrap();
    assert_eq!(running.seen.recv().await, Some("due"));
}

#[tokio::test]
async fn a_rebind_takes_a_new_socket_and_tells_the_machine() {
    let mut running = start("127.0.0.1:0", 1);
    running.commands.send(Command::Rebind).await.unwrap();
    assert_eq!(running.seen.recv().await, Some("rebound"));
}

#[tokio::test]
async fn the_driver_ends_when_the_host_breaks_off_or_nobody_commands_it() {
    let running = start("127.0.0.1:0", 1);
    running.commands.send(Command::Stop).await.unwrap();
    running.ended.await.unwrap();
    let running = start("127.0.0.1:0", 1);
    drop(running.commands);
    running.ended.await.unwrap();
}
