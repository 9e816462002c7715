//! A driver with machines of the test's own over loopback: what it hands in, when, and how often.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::BytesMut;
use mesh_core::transport::{Datagram, Transmit};
use tokio::sync::oneshot;

use super::*;

/// Sends back what it is sent, `copies` times, and answers a deadline with an output.
#[derive(Debug, Default)]
struct Echo {
    copies: usize,
    queue: VecDeque<(SocketAddr, BytesMut)>,
    deadline: Option<Instant>,
    outputs: VecDeque<&'static str>,
    rebinds: usize,
}

impl Machine for Echo {
    type Input<'a> = ();
    type Output = &'static str;
    type Rejected = ();

    fn handle_input(&mut self, _now: Now, (): ()) -> Result<(), ()> {
        Err(())
    }

    fn poll_output(&mut self) -> Option<&'static str> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.deadline.map(|at| (at, "echo"))
    }
}

impl RootMachine for Echo {
    fn handle_datagram(&mut self, _now: Now, datagram: Datagram) {
        for _ in 0..self.copies {
            self.queue
                .push_back((datagram.remote, datagram.data.clone()));
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        if self.deadline.is_some_and(|at| at <= now.instant) {
            self.deadline = None;
            self.outputs.push_back("due");
        }
    }

    fn handle_rebind(&mut self, _now: Now) {
        self.rebinds += 1;
        self.outputs.push_back("rebound");
    }

    fn poll_transmit(&mut self, _now: Now, buf: &mut Vec<u8>) -> Option<Transmit> {
        assert!(buf.is_empty());
        let (remote, data) = self.queue.pop_front()?;
        buf.extend_from_slice(&data);
        Some(Transmit {
            remote,
            local_ip: None,
            ecn: None,
            size: data.len(),
            segment_size: None,
        })
    }
}

enum Command {
    WakeIn(Duration),
    Rebind,
    Stop,
}

struct Recorder {
    seen: mpsc::UnboundedSender<&'static str>,
    stop: bool,
}

impl Host for Recorder {
    type Machine = Echo;
    type Command = Command;

    fn command(&mut self, now: Now, machine: &mut Echo, command: Command) -> Request {
        match command {
            Command::WakeIn(span) => machine.deadline = Some(now.instant + span),
            Command::Rebind => return Request::Rebind,
            Command::Stop => {
                self.stop = true;
                machine.outputs.push_back("stopped");
            }
        }
        Request::None
    }

    fn output(&mut self, _now: Now, _machine: &Echo, output: &'static str) -> ControlFlow<()> {
        let _nobody_looks = self.seen.send(output);
        if self.stop {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn woke(&mut self, _now: Now, _machine: &mut Echo, _asleep: Duration) -> Request {
        Request::Rebind
    }
}

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
    let host = Recorder {
        seen: seen_tx,
        stop: false,
    };
    let machine = Echo {
        copies,
        ..Echo::default()
    };
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
async fn one_send_of_many_datagrams_arrives_as_many() {
    let socket = Socket::bind(Binding::exactly("127.0.0.1:0".parse().unwrap())).unwrap();
    let peer = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let buf: Vec<u8> = (0..250).collect();
    let transmit = Transmit {
        remote: peer.local_addr().unwrap(),
        local_ip: None,
        ecn: Some(mesh_core::transport::Ecn::Ect0),
        size: buf.len(),
        segment_size: Some(100),
    };
    socket.writable().await;
    let mut sent = 0;
    assert!(socket.send(&transmit, &buf, &mut sent));
    assert_eq!(sent, 250);
    let mut lengths = Vec::new();
    let mut received = Vec::new();
    for _ in 0..3 {
        let mut datagram = [0; 512];
        let (length, _) = peer.recv_from(&mut datagram).await.unwrap();
        lengths.push(length);
        received.extend_from_slice(&datagram[..length]);
    }
    assert_eq!(lengths, [100, 100, 50]);
    assert_eq!(received, buf);
    // A send that was cut short goes on where it stopped.
    let mut sent = 200;
    assert!(socket.send(&transmit, &buf, &mut sent));
    let mut datagram = [0; 512];
    let (length, _) = peer.recv_from(&mut datagram).await.unwrap();
    assert_eq!(datagram[..length], buf[200..]);
}

#[tokio::test]
async fn an_address_of_the_other_family_is_no_reason_to_wait() {
    let socket = Socket::bind(Binding::exactly("127.0.0.1:0".parse().unwrap())).unwrap();
    let transmit = Transmit {
        remote: "[::1]:9".parse().unwrap(),
        local_ip: None,
        ecn: None,
        size: 4,
        segment_size: None,
    };
    assert!(socket.send(&transmit, b"ping", &mut 0));
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

#[tokio::test]
async fn a_taken_address_is_an_error_that_names_it() {
    let taken = Socket::bind(Binding::exactly("127.0.0.1:0".parse().unwrap())).unwrap();
    let addr = taken.local_addr().unwrap();
    let error = Socket::bind(Binding::exactly(addr)).unwrap_err();
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
}
