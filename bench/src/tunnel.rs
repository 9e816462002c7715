//! Our tunnel as a benchmark drives it: [`Quic`] in the smallest root machines, under the driver.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_core::identity::GATEWAY_NAME;
use mesh_core::ids::DeviceId;
use mesh_core::machine::{Machine, RootMachine};
use mesh_core::quic::{ClientConfig, Quic, ServerConfig};
use mesh_core::rng::Seed;
use mesh_core::time::Now;
use mesh_core::transport::{
    ConnId, Datagram, Event, Priority, Read, StreamId, Transmit, Transport,
};
use mesh_tokio::driver::{Binding, Driver, Host, Request, Socket};
use tokio::sync::mpsc;

use crate::certs::{Certs, GatewayTls};

/// What the sender hands over at once.
pub const WRITE_BYTES: usize = 64 * 1024;

/// The gateway's side over given certificates.
///
/// # Errors
///
/// When the certificates do not fit.
pub fn gateway(tls: &GatewayTls) -> Result<Quic, Box<dyn Error>> {
    let config = ServerConfig {
        tls: tls.config()?,
        reset_key: [1; 32],
        token_key: [2; 32],
        shard: 0,
    };
    Ok(Quic::server(config, &Seed::new([3; 32]))?)
}

/// The device's side.
///
/// # Errors
///
/// When the certificates do not fit.
pub fn device(tls: Arc<rustls::ClientConfig>) -> Result<Quic, Box<dyn Error>> {
    let config = ClientConfig {
        tls,
        server_name: GATEWAY_NAME.to_owned(),
    };
    Ok(Quic::client(config, &Seed::new([4; 32]))?)
}

/// A socket of its own on loopback.
///
/// # Errors
///
/// When there is none.
pub fn socket() -> Result<Socket, Box<dyn Error>> {
    let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    Ok(Socket::bind(Binding::exactly(any))?)
}

/// What a machine of this module says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// A connection is established.
    Connected,
    /// Everything was sent and acknowledged.
    Sent,
    /// A connection is over.
    Closed,
}

/// Sends `left` bytes over each connection that it is told to make, in pieces of `piece` bytes, and
/// reads what others send.
#[derive(Debug)]
pub struct Bulk {
    quic: Quic,
    left: u64,
    piece: Vec<u8>,
    received: u64,
    said: VecDeque<Said>,
}

impl Bulk {
    /// A machine over a transport.
    #[must_use]
    pub fn new(quic: Quic, send: u64, piece: usize) -> Self {
        Self {
            quic,
            left: send,
            piece: vec![7; piece],
            received: 0,
            said: VecDeque::new(),
        }
    }

    fn step(&mut self, now: Now) {
        loop {
            self.quic.flush(now);
            let Some(event) = self.quic.poll_event() else {
                return;
            };
            self.event(now, &event);
        }
    }

    fn event(&mut self, now: Now, event: &Event) {
        match *event {
            Event::Incoming { conn, .. } => self.quic.accept(now, conn),
            Event::Connected { conn, .. } => {
                self.said.push_back(Said::Connected);
                if self.left > 0
                    && let Some(stream) = self.quic.open(conn, Priority::Upload)
                {
                    self.fill(conn, stream);
                }
            }
            Event::Writable { conn, stream } => self.fill(conn, stream),
            Event::Opened { conn, stream } | Event::Readable { conn, stream } => {
                while let Read::Data(data) = self.quic.read(conn, stream) {
                    self.received += data.len() as u64;
                }
            }
            Event::Finished { conn, .. } => {
                self.quic.close(now, conn, 0, "done");
                self.said.push_back(Said::Sent);
            }
            Event::Closed { .. } => self.said.push_back(Said::Closed),
            Event::StreamsAvailable { .. } | Event::Stopped { .. } => {}
        }
    }

    fn fill(&mut self, conn: ConnId, stream: StreamId) {
        while self.left > 0 && self.quic.writable(conn, stream) > 0 {
            let most = self.piece.len();
            let size = usize::try_from(self.left).map_or(most, |n| n.min(most));
            self.quic.send(conn, stream, &self.piece[..size]);
            self.left -= size as u64;
        }
        if self.left == 0 {
            self.quic.finish(conn, stream);
        }
    }
}

impl Machine for Bulk {
    /// Connect.
    type Input<'a> = SocketAddr;
    type Output = Said;
    type Rejected = Infallible;

    fn handle_input(&mut self, now: Now, remote: SocketAddr) -> Result<(), Infallible> {
        if self.quic.connect(now, remote).is_err() {
            self.said.push_back(Said::Closed);
        }
        self.step(now);
        Ok(())
    }

    fn poll_output(&mut self) -> Option<Said> {
        self.said.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.quic.poll_timeout()
    }
}

impl RootMachine for Bulk {
    fn handle_datagram(&mut self, now: Now, datagram: Datagram) {
        self.quic.handle_datagram(now, datagram);
        self.step(now);
    }

    fn handle_datagrams(&mut self, now: Now, datagrams: impl Iterator<Item = Datagram>) {
        for datagram in datagrams {
            self.quic.handle_datagram(now, datagram);
        }
        self.step(now);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.quic.handle_timeout(now);
        self.step(now);
    }

    fn handle_rebind(&mut self, now: Now) {
        self.quic.handle_rebind(now);
        self.step(now);
    }

    fn poll_transmit(&mut self, now: Now, buf: &mut Vec<u8>) -> Option<Transmit> {
        self.quic.poll_transmit(now, buf)
    }
}

/// Passes on what a [`Bulk`] says, and ends with `last`.
#[derive(Debug)]
pub struct Until {
    /// The last word.
    pub last: Said,
    /// Who wants to know.
    pub tell: Option<mpsc::UnboundedSender<Said>>,
    /// Bytes that were received by then.
    pub received: u64,
}

impl Host for Until {
    type Machine = Bulk;
    type Command = SocketAddr;

    fn command(&mut self, now: Now, machine: &mut Bulk, remote: SocketAddr) -> Request {
        match machine.handle_input(now, remote) {
            Ok(()) => Request::None,
        }
    }

    fn output(&mut self, _now: Now, machine: &Bulk, said: Said) -> ControlFlow<(), Request> {
        self.received = machine.received;
        if let Some(tell) = &self.tell {
            // Whoever has heard enough need not listen.
            let _unheard = tell.send(said);
        }
        if said == self.last {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(Request::None)
        }
    }

    fn woke(&mut self, _now: Now, _machine: &mut Bulk, _asleep: Duration) -> Request {
        Request::None
    }
}

/// Sends so many bytes over one connection, in pieces; ends when they are acknowledged.
///
/// # Errors
///
/// When a socket, a certificate or a byte is missing.
pub async fn transfer(certs: &Certs, bytes: u64, piece: usize) -> Result<(), Box<dyn Error>> {
    let until = |last| Until {
        last,
        tell: None,
        received: 0,
    };
    let (to, from) = (socket()?, socket()?);
    let addr = to.local_addr()?;
    let receiver = Driver::new(
        to,
        Bulk::new(gateway(certs.gateway())?, 0, piece),
        until(Said::Closed),
    );
    let sender = Driver::new(
        from,
        Bulk::new(device(certs.device(DeviceId::from_u128(1))?)?, bytes, piece),
        until(Said::Sent),
    );
    let (_keep, nobody) = mpsc::channel(1);
    let (connect, commands) = mpsc::channel(1);
    connect.send(addr).await?;
    let receiving = tokio::spawn(receiver.run(nobody));
    let sending = tokio::spawn(sender.run(commands));
    sending.await?;
    let received = receiving.await?.received;
    if received == bytes {
        Ok(())
    } else {
        Err(format!("{received} of {bytes} bytes arrived").into())
    }
}
