//! The UDP socket, woken by tokio.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use mesh_shell::socket::{BATCH_MAX, Waited};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// A UDP socket that tokio wakes.
pub type Socket = mesh_shell::socket::Socket<Woken>;

/// A socket, and what tokio knows of it.
#[derive(Debug)]
pub struct Woken(UdpSocket);

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

impl Waited for Woken {
    const BUFFER_BYTES: usize = 4 * 1024 * 1024;
    const BATCH: usize = BATCH_MAX;

    fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        UdpSocket::from_std(socket).map(Self)
    }

    fn try_read<R>(&self, read: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        self.0.try_io(Interest::READABLE, read)
    }

    fn try_write(&self, write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.0.try_io(Interest::WRITABLE, write)
    }
}
