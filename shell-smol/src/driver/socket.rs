//! A UDP socket with segmentation offload and congestion marks, woken by async-io.
//!
//! It reads one batch at a time, because a device receives at the rate of one tunnel and its memory
//! counts for more.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use async_io::Async;
use bytes::BytesMut;
use mesh_core::transport::{Datagram, Ecn, Transmit};
use quinn_udp::{EcnCodepoint, RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Type};

/// What is asked of the system for each direction, bytes; it may grant less. A full stream window
/// and some.
const BUFFER_BYTES: usize = 1024 * 1024;
/// Errors of one read before the socket is left alone until it has news.
const READ_ERRORS_MAX: usize = 8;
/// The largest UDP payload.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// No socket.
#[derive(Debug, thiserror::Error)]
#[error("cannot bind UDP {addr}: {source}")]
pub struct BindError {
    /// Where.
    pub addr: SocketAddr,
    /// Why.
    pub source: io::Error,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Socket {
    io: Async<UdpSocket>,
    state: UdpSocketState,
    addr: SocketAddr,
    is_v6: bool,
    /// One read: as many datagrams as the system may coalesce.
    buffer: Vec<u8>,
}

impl Socket {
    /// Binds any address, any port: IPv6 and IPv4 at once where the system can.
    ///
    /// # Errors
    ///
    /// [`BindError`] with the address and the system's word.
    pub fn any() -> Result<Self, BindError> {
        Self::bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0))
    }

    /// Binds `addr`; port 0 takes a free one. An unspecified IPv6 address takes IPv4 too; where
    /// there is no IPv6, only IPv4.
    ///
    /// # Errors
    ///
    /// As [`Self::any`].
    pub fn bind(addr: SocketAddr) -> Result<Self, BindError> {
        let (io, bound) = match open(addr) {
            Err(error)
                if addr.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                    && error.kind() != io::ErrorKind::AddrInUse
                    && error.kind() != io::ErrorKind::PermissionDenied =>
            {
                let v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), addr.port());
                (open(v4), v4)
            }
            other => (other, addr),
        };
        let finish = |io: io::Result<UdpSocket>| {
            let io = Async::new_nonblocking(io?)?;
            let state = UdpSocketState::new(UdpSockRef::from(io.get_ref()))?;
            Ok((io, state))
        };
        let (io, state) = finish(io).map_err(|source| BindError {
            addr: bound,
            source,
        })?;
        let per_read = DATAGRAM_BYTES_MAX
            .min(state.gro_segments() * 1500)
            .max(2048);
        Ok(Self {
            io,
            state,
            addr,
            is_v6: bound.is_ipv6(),
            buffer: vec![0; per_read],
        })
    }

    /// The address it has.
    ///
    /// # Errors
    ///
    /// The system's word.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    /// A new socket on a new port, for a network that has changed.
    pub(super) fn rebind(&mut self) -> Result<(), BindError> {
        *self = Self::bind(self.addr)?;
        Ok(())
    }

    pub(super) async fn readable(&self) {
        // An error of the socket shows when it is read.
        let _ready = self.io.readable().await;
    }

    pub(super) async fn writable(&self) {
        let _ready = self.io.writable().await;
    }

    /// Sends what is left of a transmit, `sent` bytes of which are gone already; `false` when the
    /// socket would have to wait. What cannot be sent at all is lost, as on any network: QUIC sends
    /// it again.
    pub(super) fn send(&self, transmit: &Transmit, buf: &[u8], sent: &mut usize) -> bool {
        let Some(destination) = self.reachable(transmit.remote) else {
            return true;
        };
        let segment = transmit.segment_size.unwrap_or(transmit.size).max(1);
        while *sent < transmit.size {
            // Asked each time: the first failure of offload takes it back to one.
            let offload = self.state.max_gso_segments().max(1);
            let end = transmit.size.min(*sent + segment * offload);
            let Some(batch) = buf.get(*sent..end) else {
                return true;
            };
            let piece = quinn_udp::Transmit {
                destination,
                ecn: transmit.ecn.map(|ecn| match ecn {
                    Ecn::Ect0 => EcnCodepoint::Ect0,
                    Ecn::Ect1 => EcnCodepoint::Ect1,
                    Ecn::Ce => EcnCodepoint::Ce,
                }),
                contents: batch,
                segment_size: (batch.len() > segment).then_some(segment),
                src_ip: transmit.local_ip,
            };
            match self
                .state
                .try_send(UdpSockRef::from(self.io.get_ref()), &piece)
            {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) if self.state.max_gso_segments() < offload => continue,
                Ok(()) | Err(_) => {}
            }
            *sent = end;
        }
        true
    }

    /// The address as this socket's family writes it.
    fn reachable(&self, remote: SocketAddr) -> Option<SocketAddr> {
        match remote {
            SocketAddr::V4(v4) if self.is_v6 => {
                Some(SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()))
            }
            SocketAddr::V6(_) if !self.is_v6 => None,
            SocketAddr::V4(_) | SocketAddr::V6(_) => Some(remote),
        }
    }

    /// Reads what the system has coalesced into one read, if there is any.
    pub(super) fn receive(&mut self) -> Option<impl Iterator<Item = Datagram> + use<>> {
        let mut meta = [RecvMeta::default()];
        for _ in 0..READ_ERRORS_MAX {
            let socket = UdpSockRef::from(self.io.get_ref());
            let mut slices = [IoSliceMut::new(&mut self.buffer)];
            match self.state.recv(socket, &mut slices, &mut meta) {
                Ok(_) => {
                    let [meta] = meta;
                    return Some(datagrams(&meta, self.buffer.get(..meta.len)?));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                // Such as an ICMP port unreachable for something sent earlier.
                Err(_) => {}
            }
        }
        // It would fail again and again, and the loop would be busy with that.
        None
    }
}

/// The datagrams of one read, all of one sender. They share one allocation.
fn datagrams(meta: &RecvMeta, bytes: &[u8]) -> impl Iterator<Item = Datagram> + use<> {
    let remote = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
    let local_ip = meta.dst_ip;
    let ecn = meta.ecn.map(|ecn| match ecn {
        EcnCodepoint::Ect0 => Ecn::Ect0,
        EcnCodepoint::Ect1 => Ecn::Ect1,
        EcnCodepoint::Ce => Ecn::Ce,
    });
    let stride = meta.stride.max(1);
    let mut rest = BytesMut::from(bytes);
    std::iter::from_fn(move || {
        let data = if rest.len() > stride {
            rest.split_to(stride)
        } else {
            std::mem::take(&mut rest)
        };
        (!data.is_empty()).then_some(Datagram {
            remote,
            local_ip,
            ecn,
            data,
        })
    })
}

fn open(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    // Small buffers lose datagrams in bursts, which QUIC sends again.
    let _granted_less = socket.set_recv_buffer_size(BUFFER_BYTES);
    let _granted_less = socket.set_send_buffer_size(BUFFER_BYTES);
    Ok(socket.into())
}
