//! Turns without a runtime, over loopback.

use std::iter::repeat_n;
use std::net::UdpSocket;
use std::sync::mpsc::{Receiver, channel};

use super::testing::{Command, Echo, Recorder};
use super::*;
use crate::socket::tests::{Bare, socket};

const MORE: ControlFlow<(), bool> = ControlFlow::Continue(true);
const NO_MORE: ControlFlow<(), bool> = ControlFlow::Continue(false);

type Echoing = Driven<Recorder, Bare>;

/// An echo, the outputs of its machine, and somebody who has sent it a datagram.
fn echo(copies: usize) -> (Echoing, Receiver<&'static str>, UdpSocket) {
    let (tell, seen) = channel();
    let host = Recorder::new(move |output| tell.send(output).unwrap());
    let mut driven = Driven::new(socket(), Echo::new(copies), host);
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    peer.send_to(b"ping", driven.socket.local_addr().unwrap())
        .unwrap();
    driven.io().wait();
    driven.receive();
    (driven, seen, peer)
}

fn hear(peer: &UdpSocket, copies: usize) {
    for _ in 0..copies {
        let mut buf = [0; 16];
        let length = peer.recv(&mut buf).unwrap();
        assert_eq!(&buf[..length], b"ping");
    }
}

#[test]
fn what_is_over_a_turns_budget_is_sent_in_the_next_one() {
    let (mut driven, _seen, peer) = echo(SENDS_PER_TURN + 1);
    assert_eq!(driven.turn(), MORE);
    hear(&peer, SENDS_PER_TURN);
    assert_eq!(driven.turn(), NO_MORE);
    hear(&peer, 1);
}

#[test]
fn a_send_that_the_socket_would_not_take_is_kept_and_tried_first() {
    let (mut driven, _seen, peer) = echo(2);
    driven.io().refuses.set(true);
    for _ in 0..3 {
        assert_eq!(driven.turn(), NO_MORE);
        assert!(driven.is_blocked());
    }
    driven.io().refuses.set(false);
    assert_eq!(driven.turn(), NO_MORE);
    assert!(!driven.is_blocked());
    hear(&peer, 2);
}

#[test]
fn a_new_socket_takes_over_and_what_the_old_one_did_not_take_is_lost() {
    let (mut driven, seen, _peer) = echo(1);
    driven.io().refuses.set(true);
    assert_eq!(driven.turn(), NO_MORE);
    let old = driven.socket.local_addr().unwrap();
    driven.commands([Command::Rebind].into_iter());
    assert!(!driven.is_blocked());
    assert_ne!(driven.socket.local_addr().unwrap(), old);
    assert_eq!(driven.turn(), NO_MORE);
    assert_eq!(seen.try_recv(), Ok("rebound"));
}

#[test]
fn a_machine_that_asks_for_a_new_socket_is_told_of_it_in_the_same_turn() {
    let (mut driven, seen, _peer) = echo(1);
    let old = driven.socket.local_addr().unwrap();
    driven.commands([Command::AskToRebind].into_iter());
    assert_eq!(driven.turn(), NO_MORE);
    assert_ne!(driven.socket.local_addr().unwrap(), old);
    let said: Vec<_> = seen.try_iter().collect();
    assert_eq!(said, ["rebind", "rebound"]);
}

#[test]
fn a_turn_takes_so_many_commands_and_leaves_the_others() {
    let (mut driven, _seen, _peer) = echo(0);
    let wake = Command::WakeIn(Duration::from_secs(1));
    let mut commands = repeat_n(wake, COMMANDS_PER_TURN + 1);
    driven.commands(commands.by_ref());
    assert_eq!(commands.count(), 1);
}

#[test]
fn the_deadline_is_the_machines_and_never_far_away() {
    let (mut driven, seen, _peer) = echo(0);
    let far = Instant::now() + LOOK_AROUND;
    assert!(driven.deadline() >= far);
    driven.commands([Command::WakeIn(10 * LOOK_AROUND)].into_iter());
    assert!(driven.deadline() <= Instant::now() + LOOK_AROUND);
    driven.commands([Command::WakeIn(LOOK_AROUND / 5)].into_iter());
    assert!(driven.deadline() < far);
    driven.time_passed();
    assert_eq!(driven.turn(), NO_MORE);
    assert!(seen.try_recv().is_err(), "too early");
    driven.commands([Command::WakeIn(Duration::ZERO)].into_iter());
    driven.time_passed();
    assert_eq!(driven.turn(), NO_MORE);
    assert_eq!(seen.try_recv(), Ok("due"));
}

#[test]
fn what_the_machine_said_last_is_sent_when_the_host_breaks_off() {
    let (mut driven, seen, peer) = echo(3);
    driven.commands([Command::Stop].into_iter());
    assert_eq!(driven.turn(), ControlFlow::Break(()));
    assert_eq!(seen.try_recv(), Ok("stopped"));
    hear(&peer, 3);
}
