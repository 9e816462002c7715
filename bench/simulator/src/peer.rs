//! The heartbeats in turmoil: a host that answers, clients that beat, over its UDP.
//!
//! UDP is the lighter of its two: TCP would add segments for the handshake and per-segment
//! bookkeeping to the same two messages. Nothing subscribes to its tracing. Its random order of
//! hosts, its failures and its file system are off, and messages are never lost.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, interval_at};
use turmoil::net::UdpSocket;
use turmoil::{Builder, Sim};

use crate::message::{APART_MS, BYTES, EVERY_MS, Known, LATENCY_MAX_MS, LATENCY_MIN_MS, Message};
use crate::{Broken, World};

const PORT: u16 = 4433;
/// Messages that wait at a host: more than there are clients.
const WAITING: usize = 1024;

/// What the hosts count, on the one thread that they all share.
#[derive(Debug, Default)]
struct Count {
    events: Cell<u64>,
    answered: Cell<u64>,
    known: Vec<Cell<Known>>,
}

impl Count {
    fn event(&self) {
        self.events.set(self.events.get() + 1);
    }

    fn with<R>(&self, client: usize, what: impl FnOnce(&mut Known) -> R) -> Result<R, Broken> {
        let cell = self.known.get(client).ok_or("there is no such client")?;
        let mut known = cell.get();
        let result = what(&mut known);
        cell.set(known);
        Ok(result)
    }
}

/// See the module documentation.
pub(crate) struct Peer {
    sim: Sim<'static>,
    tick: Duration,
    count: Rc<Count>,
}

impl Peer {
    /// One server and so many clients; turmoil moves on by `tick`.
    pub(crate) fn new(clients: usize, tick: Duration) -> Result<Self, Broken> {
        let mut sim = Builder::new()
            .rng_seed(1)
            .tick_duration(tick)
            .simulation_duration(Duration::from_secs(u64::from(u32::MAX)))
            .min_message_latency(Duration::from_millis(LATENCY_MIN_MS))
            .max_message_latency(Duration::from_millis(LATENCY_MAX_MS))
            .udp_capacity(WAITING)
            .build();
        let count = Rc::new(Count {
            known: vec![Cell::default(); clients],
            ..Count::default()
        });
        let counts = Rc::clone(&count);
        sim.host("server", move || serve(Rc::clone(&counts)));
        let server = sim.lookup("server");
        for client in 0..clients {
            sim.client(
                format!("client-{client}"),
                beat(client, server, Rc::clone(&count)),
            );
        }
        Ok(Self { sim, tick, count })
    }
}

async fn serve(count: Rc<Count>) -> turmoil::Result {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    let mut bytes = [0; BYTES];
    loop {
        let (size, from) = socket.recv_from(&mut bytes).await?;
        count.event();
        let message = Message::decode(bytes.get(..size).unwrap_or_default()).ok_or("damaged")?;
        count.with(message.client, |known| known.hear(message.number, true))??;
        socket.send_to(&bytes, from).await?;
    }
}

async fn beat(client: usize, server: IpAddr, count: Rc<Count>) -> turmoil::Result {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    let first = Instant::now() + Duration::from_millis(client as u64 * APART_MS);
    let mut every = interval_at(first, Duration::from_millis(EVERY_MS));
    let mut bytes = [0; BYTES];
    // An answer is back long before the next beat, so nothing has to wait for two things at once.
    loop {
        every.tick().await;
        count.event();
        let number = count.with(client, Known::say)?;
        let message = Message { client, number };
        socket.send_to(&message.encode(), (server, PORT)).await?;
        let (size, _) = socket.recv_from(&mut bytes).await?;
        count.event();
        let answer = Message::decode(bytes.get(..size).unwrap_or_default()).ok_or("damaged")?;
        count.with(answer.client, |known| known.answer(answer.number, true))??;
        count.answered.set(count.answered.get() + 1);
    }
}

impl World for Peer {
    fn run(&mut self, seconds: u64) -> Result<(), Broken> {
        let end = self.sim.elapsed() + Duration::from_secs(seconds);
        while self.sim.elapsed() + self.tick <= end {
            self.sim.step().map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn events(&self) -> u64 {
        self.count.events.get()
    }

    fn beats(&self) -> u64 {
        self.count.answered.get()
    }
}
