//! The UDP socket, woken by async-io.
//!
//! It reads one datagram's buffer at a time, because a device receives at the rate of one tunnel and
//! its memory counts for more.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd};

use async_io::Async;
use mesh_shell::socket::Waited;

/// A UDP socket that async-io wakes.
pub type Socket = mesh_shell::socket::Socket<Woken>;

/// A socket, and who waits for it.
#[derive(Debug)]
pub struct Woken(Async<UdpSocket>);

impl Woken {
    pub(super) async fn readable(&self) {
        // An error of the socket shows when it is read.
        let _ready = self.0.readable().await;
    }

    pub(super) async fn writable(&self) {
        let _ready = self.0.writable().await;
    }
}

impl AsFd for Woken {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// async-io remembers nothing of a socket's readiness: each try asks the system.
impl Waited for Woken {
    /// A full stream window and some.
    const BUFFER_BYTES: usize = 1024 * 1024;
    const BATCH: usize = 1;

    fn new(socket: UdpSocket) -> io::Result<Self> {
        Async::new_nonblocking(socket).map(Self)
    }

    fn try_read<R>(&self, read: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        read()
    }

    fn try_write(&self, write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        write()
    }
}
