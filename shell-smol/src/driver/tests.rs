//! A driver with a machine of the test's own over loopback: what ends its waits.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use async_io::Async;
use mesh_shell::driver::SENDS_PER_TURN;
use mesh_shell::driver::testing::{Command, Echo, Recorder};
use smol::LocalExecutor;
use smol::channel::{self, Sender};

use super::*;

struct Running {
    addr: SocketAddr,
    commands: Sender<Command>,
    seen: Receiver<&'static str>,
    ended: smol::Task<()>,
}

/// Plays `scene` with a driver of an echo that is bound to `addr`.
fn play(addr: &str, copies: usize, scene: impl AsyncFnOnce(Running)) {
    let executor = LocalExecutor::new();
    let socket = Socket::bind(Binding::exactly(addr.parse().unwrap())).unwrap();
    let addr = socket.local_addr().unwrap();
    let (seen_tx, seen) = channel::unbounded();
    let (commands, inbox) = channel::bounded(8);
    let host = Recorder::new(move |output| {
        let _nobody_looks = seen_tx.try_send(output);
    });
    let machine = Echo::new(copies);
    let ended = executor.spawn(async move {
        Driver::new(socket, machine, host).run(inbox).await;
    });
    let running = Running {
        addr,
        commands,
        seen,
        ended,
    };
    smol::block_on(executor.run(scene(running)));
}

fn peer() -> Async<UdpSocket> {
    Async::<UdpSocket>::bind(([127, 0, 0, 1], 0)).unwrap()
}

async fn echo(to: SocketAddr, copies: usize) {
    let peer = peer();
    peer.send_to(b"ping", to).await.unwrap();
    let mut buf = [0; 16];
    for _ in 0..copies {
        let (length, _) = peer.recv_from(&mut buf).await.unwrap();
        assert_eq!(&buf[..length], b"ping");
    }
}

#[test]
fn datagrams_go_in_and_out_past_one_turns_budget() {
    let copies = 3 * SENDS_PER_TURN;
    play("127.0.0.1:0", copies, async |running| {
        echo(running.addr, copies).await;
    });
}

#[test]
fn a_dual_stack_socket_serves_ipv4_under_its_own_addresses() {
    play("[::]:0", 1, async |running| {
        let own = SocketAddr::new([127, 0, 0, 1].into(), running.addr.port());
        echo(own, 1).await;
    });
}

#[test]
fn a_deadline_set_by_a_command_wakes_the_machine_again_and_again() {
    play("127.0.0.1:0", 1, async |running| {
        for millis in [20, 0, 5] {
            let wake = Command::WakeIn(Duration::from_millis(millis));
            running.commands.send(wake).await.unwrap();
            assert_eq!(running.seen.recv().await, Ok("due"));
        }
    });
}

#[test]
fn a_rebind_takes_a_new_socket_and_tells_the_machine() {
    play("127.0.0.1:0", 1, async |running| {
        running.commands.send(Command::Rebind).await.unwrap();
        assert_eq!(running.seen.recv().await, Ok("rebound"));
    });
}

#[test]
fn the_driver_ends_when_the_host_breaks_off_or_nobody_commands_it() {
    play("127.0.0.1:0", 1, async |running| {
        running.commands.send(Command::Stop).await.unwrap();
        running.ended.await;
    });
    play("127.0.0.1:0", 1, async |running| {
        drop(running.commands);
        running.ended.await;
    });
}
