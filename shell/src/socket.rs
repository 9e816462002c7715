//! A UDP socket with batches, segmentation offload and congestion marks. Whatever waits for it is
//! the runtime's: [`Waited`].

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use bytes::BytesMut;
use mesh_core::transport::{Datagram, Ecn, Transmit};
use quinn_udp::{BATCH_SIZE, EcnCodepoint, RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Type};

/// Errors of one read before the socket is left alone until it has news.
const READ_ERRORS_MAX: usize = 8;
/// The most reads of one batch, 64 KiB each where the system coalesces datagrams. More than this is
/// no quicker, and crowds the processor's cache.
pub const BATCH_MAX: usize = if BATCH_SIZE < 4 { BATCH_SIZE } else { 4 };
/// The largest UDP payload.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// A socket as a runtime has it, which knows when it is worth trying; and what a shell asks of the
/// system for it.
pub trait Waited: AsFd + Sized {
    /// Buffers for each direction, bytes; the system may grant less.
    const BUFFER_BYTES: usize;
    /// Reads of one batch, at most [`BATCH_MAX`]. Each has a buffer of 64 KiB.
    const BATCH: usize;

    /// Takes a socket over, which does not block.
    ///
    /// # Errors
    ///
    /// The system's word.
    fn new(socket: UdpSocket) -> io::Result<Self>;

    /// Reads, unless it is known that there is nothing: `WouldBlock` then. A read that would block
    /// makes that known.
    ///
    /// # Errors
    ///
    /// Those of the read.
    fn try_read<R>(&self, read: impl FnOnce() -> io::Result<R>) -> io::Result<R>;

    /// The same for a write.
    ///
    /// # Errors
    ///
    /// Those of the write.
    fn try_write(&self, write: impl FnOnce() -> io::Result<()>) -> io::Result<()>;
}

/// Where to bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The address; port 0 takes a free one.
    pub addr: SocketAddr,
    /// Whether other sockets share the port (`SO_REUSEPORT`): one for each shard.
    pub reuse_port: bool,
}

impl Binding {
    /// Any address, any port: IPv6 and IPv4 at once where the system can.
    pub const ANY: Self = Self {
        addr: SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
        reuse_port: false,
    };

    /// Exactly this address.
    #[must_use]
    pub const fn exactly(addr: SocketAddr) -> Self {
        Self {
            addr,
            reuse_port: false,
        }
    }
}

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
pub struct Socket<W> {
    io: W,
    state: UdpSocketState,
    binding: Binding,
    is_v6: bool,
    /// Bytes of one read: as many datagrams as the system may coalesce.
    per_read: usize,
    /// A batch of reads.
    buffers: Vec<u8>,
}

impl<W: Waited> Socket<W> {
    /// Binds. An unspecified IPv6 address takes IPv4 too; where there is no IPv6, only IPv4.
    ///
    /// # Errors
    ///
    /// [`BindError`] with the address and the system's word.
    pub fn bind(binding: Binding) -> Result<Self, BindError> {
        let (io, addr) = match open(binding.addr, binding.reuse_port, W::BUFFER_BYTES) {
            Err(error)
                if binding.addr.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                    && error.kind() != io::ErrorKind::AddrInUse
                    && error.kind() != io::ErrorKind::PermissionDenied =>
            {
                let v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), binding.addr.port());
                (open(v4, binding.reuse_port, W::BUFFER_BYTES), v4)
            }
            other => (other, binding.addr),
        };
        let finish = |socket: io::Result<UdpSocket>| {
            let io = W::new(socket?)?;
            let state = UdpSocketState::new(UdpSockRef::from(&io))?;
            Ok((io, state))
        };
        let (io, state) = finish(io).map_err(|source| BindError { addr, source })?;
        let per_read = DATAGRAM_BYTES_MAX
            .min(state.gro_segments() * 1500)
            .max(2048);
        Ok(Self {
            io,
            state,
            binding,
            is_v6: addr.is_ipv6(),
            per_read,
            buffers: vec![0; per_read * W::BATCH.clamp(1, BATCH_MAX)],
        })
    }

    /// The address it has.
    ///
    /// # Errors
    ///
    /// The system's word.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let addr = SockRef::from(&self.io).local_addr()?;
        addr.as_socket().ok_or(io::ErrorKind::Unsupported.into())
    }

    /// The runtime's socket, to wait for it.
    pub const fn io(&self) -> &W {
        &self.io
    }

    /// A new socket on a new port, for a network that has changed.
    ///
    /// # Errors
    ///
    /// As [`Self::bind`]; the old one stays.
    pub fn rebind(&mut self) -> Result<(), BindError> {
        *self = Self::bind(self.binding)?;
        Ok(())
    }

    /// Sends what is left of a transmit, `sent` bytes of which are gone already; `false` when the
    /// socket would have to wait. What cannot be sent at all is lost, as on any network: QUIC sends
    /// it again.
    pub fn send(&self, transmit: &Transmit, buf: &[u8], sent: &mut usize) -> bool {
        let Some(destination) = self.reachable(transmit.remote) else {
            return true;
        };
        let segment = transmit.segment_size.unwrap_or(transmit.size).max(1);
        while *sent < transmit.size {
            // Asked each time: the first failure of offload takes it back to one.
            let offload = self.state.max_gso_segments().max(1);
            let end = transmit.size.min(*sent + segment * offload);
            let batch = &buf[*sent..end];
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
            let tried = self
                .io
                .try_write(|| self.state.try_send(UdpSockRef::from(&self.io), &piece));
            match tried {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) if self.state.max_gso_segments() < offload => continue,
                Err(error) => tracing::trace!(%error, "a datagram was not sent"),
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

    /// How many reads there are to a batch.
    pub(crate) const fn batch(&self) -> usize {
        self.buffers.len() / self.per_read
    }

    /// Reads one batch, if there is any.
    pub fn receive(&mut self) -> Option<impl Iterator<Item = Datagram>> {
        let batch = self.batch();
        let mut metas = [RecvMeta::default(); BATCH_MAX];
        let mut free = self.buffers.chunks_exact_mut(self.per_read);
        let mut slices: [IoSliceMut<'_>; BATCH_MAX] =
            std::array::from_fn(|_| IoSliceMut::new(free.next().unwrap_or_default()));
        let (io, state) = (&self.io, &self.state);
        let received = io.try_read(|| {
            for _ in 0..READ_ERRORS_MAX {
                let socket = UdpSockRef::from(io);
                match state.recv(socket, &mut slices[..batch], &mut metas[..batch]) {
                    // Such as an ICMP port unreachable for something sent earlier.
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                        tracing::trace!(%error, "a read failed");
                    }
                    other => return other,
                }
            }
            // It would fail again and again, and the loop would be busy with that.
            Err(io::ErrorKind::WouldBlock.into())
        });
        let filled = self.buffers.chunks_exact(self.per_read);
        let batch = metas.into_iter().zip(filled).take(received.ok()?);
        Some(batch.flat_map(|(meta, buffer)| datagrams(meta, &buffer[..meta.len])))
    }
}

/// The datagrams of one read, all of one sender. They share one allocation instead of making two
/// each. What one of them keeps alive is bounded by the read, 64 KiB.
fn datagrams(meta: RecvMeta, bytes: &[u8]) -> impl Iterator<Item = Datagram> + use<> {
    let remote = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
    let ecn = meta.ecn.map(|ecn| match ecn {
        EcnCodepoint::Ect0 => Ecn::Ect0,
        EcnCodepoint::Ect1 => Ecn::Ect1,
        EcnCodepoint::Ce => Ecn::Ce,
    });
    let mut rest = BytesMut::from(bytes);
    std::iter::from_fn(move || {
        let data = if rest.len() > meta.stride {
            rest.split_to(meta.stride.max(1))
        } else {
            std::mem::take(&mut rest)
        };
        (!data.is_empty()).then_some(Datagram {
            remote,
            local_ip: meta.dst_ip,
            ecn,
            data,
        })
    })
}

fn open(addr: SocketAddr, reuse_port: bool, buffer_bytes: usize) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    #[cfg(unix)]
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    ask_for_buffers(&socket, buffer_bytes);
    Ok(socket.into())
}

/// Small buffers lose datagrams in bursts; the system may grant less than is asked for.
fn ask_for_buffers(socket: &socket2::Socket, bytes: usize) {
    static WARNED: std::sync::Once = std::sync::Once::new();
    let _granted_less = socket.set_recv_buffer_size(bytes);
    let _granted_less = socket.set_send_buffer_size(bytes);
    // Linux reports twice what it grants, for its own bookkeeping (socket(7)).
    let bookkeeping = if cfg!(target_os = "linux") { 2 } else { 1 };
    let granted = |size: io::Result<usize>| size.map_or(bytes, |size| size / bookkeeping);
    let (receive, send) = (
        granted(socket.recv_buffer_size()),
        granted(socket.send_buffer_size()),
    );
    if receive < bytes || send < bytes {
        WARNED.call_once(|| {
            tracing::warn!(
                receive,
                send,
                wanted = bytes,
                "the system grants small UDP buffers, bursts may lose datagrams; as root: \
                 sysctl -w net.core.rmem_max={bytes} net.core.wmem_max={bytes}"
            );
        });
    }
}

#[cfg(test)]
pub(crate) mod tests;
