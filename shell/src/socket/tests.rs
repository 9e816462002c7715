//! A socket that no runtime waits for, over loopback.

use std::cell::Cell;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::*;

/// Writes nothing as long as it is told not to.
#[derive(Debug)]
pub(crate) struct Bare {
    socket: UdpSocket,
    pub(crate) refuses: Cell<bool>,
}

impl Bare {
    /// Waits until there is something to read.
    pub(crate) fn wait(&self) {
        self.socket.set_nonblocking(false).unwrap();
        self.socket.peek(&mut [0]).unwrap();
        self.socket.set_nonblocking(true).unwrap();
    }
}

impl AsFd for Bare {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Waited for Bare {
    const BUFFER_BYTES: usize = 64 * 1024;
    const BATCH: usize = BATCH_MAX;

    fn new(socket: UdpSocket) -> io::Result<Self> {
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        let refuses = Cell::new(false);
        Ok(Self { socket, refuses })
    }

    fn try_read<R>(&self, read: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        read()
    }

    fn try_write(&self, write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if self.refuses.get() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        write()
    }
}

pub(crate) fn socket() -> Socket<Bare> {
    Socket::bind(Binding::exactly(([127, 0, 0, 1], 0).into())).unwrap()
}

fn bytes() -> Vec<u8> {
    (0..250).collect()
}

/// Bytes in datagrams of a hundred.
fn hundreds(remote: SocketAddr) -> Transmit {
    Transmit {
        remote,
        local_ip: None,
        ecn: Some(Ecn::Ect0),
        size: bytes().len(),
        segment_size: Some(100),
    }
}

fn received(socket: &mut Socket<Bare>, count: usize) -> Vec<Datagram> {
    let mut datagrams = Vec::new();
    while datagrams.len() < count {
        socket.io().wait();
        datagrams.extend(socket.receive().unwrap());
    }
    datagrams
}

#[test]
fn one_send_of_many_datagrams_arrives_as_many_and_goes_on_where_it_was_cut_short() {
    let socket = socket();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let next = || {
        let mut datagram = [0; 512];
        let length = peer.recv(&mut datagram).unwrap();
        datagram[..length].to_vec()
    };
    let transmit = hundreds(peer.local_addr().unwrap());
    let mut sent = 0;
    assert!(socket.send(&transmit, &bytes(), &mut sent));
    assert_eq!(sent, 250);
    let datagrams = [next(), next(), next()];
    assert_eq!(datagrams.each_ref().map(Vec::len), [100, 100, 50]);
    assert_eq!(datagrams.concat(), bytes());
    let mut sent = 200;
    assert!(socket.send(&transmit, &bytes(), &mut sent));
    assert_eq!(next(), bytes()[200..]);
}

#[test]
fn datagrams_that_the_system_coalesced_are_taken_apart() {
    let (sender, mut receiver) = (socket(), socket());
    let transmit = hundreds(receiver.local_addr().unwrap());
    assert!(sender.send(&transmit, &bytes(), &mut 0));
    let datagrams = received(&mut receiver, 3);
    let lengths: Vec<_> = datagrams.iter().map(|d| d.data.len()).collect();
    assert_eq!(lengths, [100, 100, 50]);
    let whole: Vec<u8> = datagrams.iter().flat_map(|d| d.data.to_vec()).collect();
    assert_eq!(whole, bytes());
    for datagram in datagrams {
        assert_eq!(datagram.remote, sender.local_addr().unwrap());
        assert_eq!(datagram.ecn, Some(Ecn::Ect0));
    }
}

#[test]
fn reads_of_several_senders_stay_apart() {
    let mut receiver = socket();
    let senders: Vec<_> = (0..2 * BATCH_MAX).map(|_| socket()).collect();
    for sender in &senders {
        let transmit = hundreds(receiver.local_addr().unwrap());
        assert!(sender.send(&transmit, &bytes(), &mut 0));
    }
    let datagrams = received(&mut receiver, 3 * senders.len());
    for sender in senders {
        let own = sender.local_addr().unwrap();
        let of_one = datagrams.iter().filter(|d| d.remote == own);
        let whole: Vec<u8> = of_one.flat_map(|d| d.data.to_vec()).collect();
        assert_eq!(whole, bytes());
    }
}

#[test]
fn a_socket_that_takes_nothing_is_waited_for_and_nothing_counts_as_sent() {
    let (sender, mut receiver) = (socket(), socket());
    let transmit = hundreds(receiver.local_addr().unwrap());
    sender.io().refuses.set(true);
    let mut sent = 0;
    assert!(!sender.send(&transmit, &bytes(), &mut sent));
    assert_eq!(sent, 0);
    sender.io().refuses.set(false);
    assert!(sender.send(&transmit, &bytes(), &mut sent));
    assert_eq!(received(&mut receiver, 3).len(), 3);
}

#[test]
fn an_address_of_the_other_family_is_no_reason_to_wait() {
    let socket = socket();
    socket.io().refuses.set(true);
    let transmit = Transmit {
        remote: "[2001:db8::1]:1".parse().unwrap(),
        ..hundreds(([127, 0, 0, 1], 1).into())
    };
    assert!(socket.send(&transmit, &bytes(), &mut 0));
}

#[test]
fn a_taken_address_is_an_error_that_names_it() {
    let taken = socket();
    let addr = taken.local_addr().unwrap();
    let error = Socket::<Bare>::bind(Binding::exactly(addr)).unwrap_err();
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
}
