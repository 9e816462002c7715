//! Many devices in one process: each a connection of its own with a certificate of its own.
//!
//! They connect one after another, because the handshake under way decides which certificate is
//! shown.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mesh_core::ids::DeviceId;
use mesh_core::machine::{Machine, RootMachine};
use mesh_core::quic::Quic;
use mesh_core::time::Now;
use mesh_core::transport::{ConnId, Datagram, Event, Priority, Read, Transmit, Transport};
use mesh_core::wire::codec;
use mesh_core::wire::message::{Heartbeat, Hello, Message, Vitals};
use mesh_tokio::driver::{Host, Request};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use tokio::sync::mpsc;

use crate::certs::Certs;
use crate::tunnel;

/// Shows the certificate of the device whose turn it is.
#[derive(Debug)]
struct InTurn {
    certificates: Vec<Arc<CertifiedKey>>,
    turn: Arc<AtomicUsize>,
}

impl ResolvesClientCert for InTurn {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.certificates
            .get(self.turn.load(Ordering::Relaxed))
            .cloned()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// So many devices more.
#[derive(Clone, Copy, Debug)]
pub struct Grow(pub usize);

/// What a fleet says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Everybody is connected.
    Up,
    /// Somebody is not, and why.
    Lost(String),
}

/// See the module documentation.
#[derive(Debug)]
pub struct Fleet {
    quic: Quic,
    gateway: SocketAddr,
    turn: Arc<AtomicUsize>,
    wanted: usize,
    /// Whether the other side answers a `Hello`.
    greeted: bool,
    waiting: BTreeSet<ConnId>,
    said: VecDeque<Said>,
}

impl Fleet {
    /// So many devices at most, with certificates but not connected.
    ///
    /// # Errors
    ///
    /// When certificates cannot be made.
    pub fn new(
        certs: &Certs,
        most: usize,
        gateway: SocketAddr,
        greeted: bool,
    ) -> Result<Self, Box<dyn Error>> {
        let turn = Arc::new(AtomicUsize::new(0));
        let mut certificates = Vec::with_capacity(most);
        for n in 0..most {
            certificates.push(Arc::new(certs.device_key(device(n))?));
        }
        let resolver = InTurn {
            certificates,
            turn: Arc::clone(&turn),
        };
        Ok(Self {
            quic: tunnel::device(certs.devices(Arc::new(resolver))?)?,
            gateway,
            turn,
            wanted: 0,
            greeted,
            waiting: BTreeSet::new(),
            said: VecDeque::new(),
        })
    }

    fn connect_next(&mut self, now: Now) {
        match self.quic.connect(now, self.gateway) {
            Ok(conn) => {
                self.waiting.insert(conn);
            }
            Err(error) => self.said.push_back(Said::Lost(error.to_string())),
        }
    }

    /// The device whose turn it was is up.
    fn up(&mut self, now: Now, conn: ConnId) {
        if !self.waiting.remove(&conn) {
            return;
        }
        let up = self.turn.fetch_add(1, Ordering::Relaxed) + 1;
        if up < self.wanted {
            self.connect_next(now);
        } else {
            self.said.push_back(Said::Up);
        }
    }

    fn greet(&mut self, now: Now, conn: ConnId) {
        let device_id = device(self.turn.load(Ordering::Relaxed));
        let hello = Message::Hello(Hello {
            device_id,
            agent: "bench".to_owned(),
            features: Vec::new(),
        });
        let beat = Message::Heartbeat(Heartbeat {
            device_id,
            timestamp: now.wall,
            sequence: 1,
            vitals: Vitals::default(),
        });
        let mut frames = Vec::new();
        let encoded =
            codec::encode(&hello, &mut frames).and_then(|()| codec::encode(&beat, &mut frames));
        match (encoded, self.quic.open(conn, Priority::Control)) {
            (Ok(()), Some(stream)) => self.quic.send(conn, stream, &frames),
            _ => self
                .said
                .push_back(Said::Lost("no control stream".to_owned())),
        }
        if !self.greeted {
            self.up(now, conn);
        }
    }

    fn step(&mut self, now: Now) {
        loop {
            self.quic.flush(now);
            let Some(event) = self.quic.poll_event() else {
                return;
            };
            match event {
                Event::Connected { conn, .. } => self.greet(now, conn),
                Event::Readable { conn, stream } => {
                    while let Read::Data(_) = self.quic.read(conn, stream) {
                        self.up(now, conn);
                    }
                }
                Event::Closed { reason, .. } => self.said.push_back(Said::Lost(reason.to_string())),
                Event::Incoming { .. }
                | Event::Opened { .. }
                | Event::Writable { .. }
                | Event::StreamsAvailable { .. }
                | Event::Finished { .. }
                | Event::Stopped { .. } => {}
            }
        }
    }
}

fn device(n: usize) -> DeviceId {
    DeviceId::from_u128(1 + n as u128)
}

impl Machine for Fleet {
    type Input<'a> = Grow;
    type Output = Said;
    type Rejected = Infallible;

    fn handle_input(&mut self, now: Now, Grow(more): Grow) -> Result<(), Infallible> {
        self.wanted += more;
        self.connect_next(now);
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

impl RootMachine for Fleet {
    fn handle_datagram(&mut self, now: Now, datagram: Datagram) {
        self.quic.handle_datagram(now, datagram);
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

/// Passes on what a fleet says.
#[derive(Debug)]
pub struct Telling(pub mpsc::UnboundedSender<Said>);

impl Host for Telling {
    type Machine = Fleet;
    type Command = Grow;

    fn command(&mut self, now: Now, machine: &mut Fleet, grow: Grow) -> Request {
        match machine.handle_input(now, grow) {
            Ok(()) => Request::None,
        }
    }

    fn output(&mut self, _now: Now, _machine: &Fleet, said: Said) -> ControlFlow<(), Request> {
        match self.0.send(said) {
            Ok(()) => ControlFlow::Continue(Request::None),
            Err(_) => ControlFlow::Break(()),
        }
    }

    fn woke(&mut self, _now: Now, _machine: &mut Fleet, _asleep: Duration) -> Request {
        Request::None
    }
}
