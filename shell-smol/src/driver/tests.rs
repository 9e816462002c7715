//! A driver with machines of the test's own over loopback: what it hands in, when, and how often.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};

use async_io::Async;
use bytes::BytesMut;
use mesh_core::transport::{Datagram, Ecn, Transmit};
use smol::LocalExecutor;
use smol::channel::{self, Receiver, Sender};

use super::*;

/// Sends back what it is sent, `copies` times, and answers a deadline with an output.
#[derive(Debug, Default)]
struct Echo {
    copies: usize,
    queue: VecDeque<(SocketAddr, BytesMut)>,
    deadline: Option<Instant>,
    outputs: VecDeque<&'static str>,
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
    seen: Sender<&'static str>,
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
        let _nobody_looks = self.seen.try_send(output);
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
    commands: Sender<Command>,
    seen: Receiver<&'static str>,
    ended: smol::Task<()>,
}

/// Plays `scene` with a driver of an echo that is bound to `addr`.
fn play(addr: &str, copies: usize, scene: impl AsyncFnOnce(Running)) {
    let executor = LocalExecutor::new();
    let socket = Socket::bind(addr.parse().unwrap()).unwrap();
    let addr = socket.local_addr().unwrap();
    let (seen_tx, seen) = channel::unbounded();
    let (commands, inbox) = channel::bounded(8);
    let host = Recorder {
        seen: seen_tx,
        stop: false,
    };
    let machine = Echo {
        copies,
        ..Echo::default()
    };
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
fn one_send_of_many_datagrams_arrives_as_many() {
    smol::block_on(async {
        let socket = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let peer = peer();
        let buf: Vec<u8> = (0..250).collect();
        let transmit = Transmit {
            remote: peer.get_ref().local_addr().unwrap(),
            local_ip: None,
            ecn: Some(Ecn::Ect0),
            size: buf.len(),
            segment_size: Some(100),
        };
        let mut sent = 0;
        assert!(socket.send(&transmit, &buf, &mut sent));
        assert_eq!(sent, 250);
        let mut lengths = Vec::new();
        let mut received = Vec::new();
        let mut datagram = [0; 512];
        for _ in 0..3 {
            let (length, _) = peer.recv_from(&mut datagram).await.unwrap();
            lengths.push(length);
            received.extend_from_slice(&datagram[..length]);
        }
        assert_eq!(lengths, [100, 100, 50]);
        assert_eq!(received, buf);
        // A send that was cut short goes on where it stopped.
        let mut sent = 200;
        assert!(socket.send(&transmit, &buf, &mut sent));
        let (length, _) = peer.recv_from(&mut datagram).await.unwrap();
        assert_eq!(datagram[..length], buf[200..]);
    });
}

#[test]
fn datagrams_that_the_system_coalesced_are_taken_apart() {
    smol::block_on(async {
        let mut socket = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let to = socket.local_addr().unwrap();
        let sender = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let buf: Vec<u8> = (0..250).collect();
        let transmit = Transmit {
            remote: to,
            local_ip: None,
            ecn: None,
            size: buf.len(),
            segment_size: Some(100),
        };
        assert!(sender.send(&transmit, &buf, &mut 0));
        let mut datagrams = Vec::new();
        while datagrams.len() < 3 {
            socket.readable().await;
            while let Some(read) = socket.receive() {
                datagrams.extend(read.map(|datagram| datagram.data.to_vec()));
            }
        }
        assert_eq!(datagrams.concat(), buf);
        assert_eq!(datagrams[2].len(), 50);
    });
}

#[test]
fn an_address_of_the_other_family_is_no_reason_to_wait() {
    let socket = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let transmit = Transmit {
        remote: "[::1]:9".parse().unwrap(),
        local_ip: None,
        ecn: None,
        size: 4,
        segment_size: None,
    };
    assert!(socket.send(&transmit, b"ping", &mut 0));
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

#[test]
fn a_taken_address_is_an_error_that_names_it() {
    let taken = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = taken.local_addr().unwrap();
    let error = Socket::bind(addr).unwrap_err();
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
}
