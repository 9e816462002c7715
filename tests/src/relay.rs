//! A userspace UDP relay between devices and a gateway: a network that a test makes bad at will.
//!
//! ```text
//!   device ──▶ public socket ──▶ [up: loss, delay, …] ──▶ one socket per device ──▶ gateway
//!   device ◀── public socket ◀── [down: loss, delay, …] ◀─ one socket per device ◀─ gateway
//! ```
//!
//! Each device address gets a socket of its own towards the gateway, as a NAT does, and
//! [`Relay::rebind`] replaces those sockets, as a NAT does that has forgotten.
//!
//! # Invariants
//!
//! 1. One task owns everything and sleeps until a datagram, a deadline or a command comes.
//! 2. Chance comes from the seed, one stream for each direction.
//! 3. Conditions hold for datagrams that arrive from then on; what is already on its way goes on,
//!    but a black-out swallows also that.
//! 4. Held datagrams are bounded ([`HELD_MAX`]); past it the newcomer is dropped and counted.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Datagrams on their way at once, both directions together.
pub const HELD_MAX: usize = 8192;
/// Device addresses served at once; the datagrams of further ones are dropped.
pub const DEVICES_MAX: usize = 256;
/// A rate-limited direction queues this long at most, then drops: a router's buffer.
const QUEUE_MAX: Duration = Duration::from_millis(250);
/// How much later a reordered datagram leaves than it otherwise would.
const REORDER_BY: Duration = Duration::from_millis(8);
/// Connection ids that both sides give out, bytes.
const CID_BYTES: usize = 8;
/// Connection ids remembered; past it a newcomer cannot be severed.
const CIDS_MAX: usize = 4096;
/// Larger than any datagram QUIC sends over an Ethernet or loopback path here.
const DATAGRAM_BYTES_MAX: usize = 65_536;

/// How one direction treats datagrams. The default treats them well.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Conditions {
    /// Probability of loss.
    pub drop: f64,
    /// Probability of being sent twice.
    pub duplicate: f64,
    /// Probability of leaving after its successors.
    pub reorder: f64,
    /// Probability of one flipped bit.
    pub corrupt: f64,
    /// Added to every datagram.
    pub delay: Duration,
    /// Up to this much is added besides, evenly spread. More than the gaps between datagrams
    /// reorders them.
    pub jitter: Duration,
    /// Bytes per second; a queue of 250 ms stands before it.
    pub rate: Option<u64>,
    /// Everything is swallowed.
    pub black: bool,
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Device to gateway.
    Up,
    /// Gateway to device.
    Down,
}

/// What became of one direction's datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Arrived at the relay.
    pub received: u64,
    /// Left the relay, repeats included.
    pub sent: u64,
    /// Lost by chance, by a full queue or in a black-out.
    pub dropped: u64,
    /// Sent twice.
    pub duplicated: u64,
    /// Held back behind successors.
    pub reordered: u64,
    /// Sent with a flipped bit.
    pub corrupted: u64,
    /// Payload bytes that left.
    pub bytes: u64,
}

enum Command {
    Set(Way, Conditions),
    Rebind,
    Sever,
    PointAt(SocketAddr),
}

/// The relay. Stops when dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    commands: mpsc::Sender<(Command, oneshot::Sender<()>)>,
    counts: watch::Receiver<[Counts; 2]>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Listens on an ephemeral loopback port and passes everything on to `gateway`.
    ///
    /// # Errors
    ///
    /// When the socket cannot be bound.
    pub async fn start(gateway: SocketAddr, seed: u64) -> io::Result<Self> {
        let public = bind().await?;
        let address = public.local_addr()?;
        let (commands, inbox) = mpsc::channel(16);
        let (published, counts) = watch::channel(<[Counts; 2]>::default());
        let (heard, answers) = mpsc::channel(1024);
        let worker = Worker {
            gateway,
            public: Arc::new(public),
            devices: BTreeMap::new(),
            heard,
            lanes: [Lane::new(seed, 0), Lane::new(seed, 1)],
            held: BinaryHeap::new(),
            held_ever: 0,
            counts: published,
            connections: BTreeSet::new(),
            severed: None,
        };
        let task = tokio::spawn(worker.run(inbox, answers));
        Ok(Self {
            address,
            commands,
            counts,
            task,
        })
    }

    /// What devices take for the gateway's address.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets both directions. In force when it returns.
    pub async fn set(&self, conditions: Conditions) {
        self.set_way(Way::Up, conditions).await;
        self.set_way(Way::Down, conditions).await;
    }

    /// Sets one direction. In force when it returns.
    pub async fn set_way(&self, way: Way, conditions: Conditions) {
        self.command(Command::Set(way, conditions)).await;
    }

    /// Swallows everything from now on.
    pub async fn go_black(&self) {
        self.set(Conditions {
            black: true,
            ..Conditions::default()
        })
        .await;
    }

    /// Passes everything on as it should from now on.
    pub async fn heal(&self) {
        self.set(Conditions::default()).await;
    }

    /// Gives every device a new source address towards the gateway, as a NAT does that has
    /// forgotten its mappings.
    pub async fn rebind(&self) {
        self.command(Command::Rebind).await;
    }

    /// Swallows everything of the connections that there are, and lets through those that are made
    /// from now on, as a router does that has restarted.
    pub async fn sever(&self) {
        self.command(Command::Sever).await;
    }

    /// Passes on to another gateway from now on: the relay's address can be given out before there
    /// is a gateway behind it, and a gateway can move.
    pub async fn point_at(&self, gateway: SocketAddr) {
        self.command(Command::PointAt(gateway)).await;
    }

    /// What became of one direction's datagrams so far.
    #[must_use]
    pub fn counts(&self, way: Way) -> Counts {
        self.counts.borrow()[way as usize]
    }

    /// Waits until one direction's counts satisfy `satisfied`.
    pub async fn wait_until(&self, way: Way, mut satisfied: impl FnMut(&Counts) -> bool) {
        // The task that counts ends only with `self`.
        let _ = self
            .counts
            .clone()
            .wait_for(|counts| satisfied(&counts[way as usize]))
            .await;
    }

    async fn command(&self, command: Command) {
        let (done, carried_out) = oneshot::channel();
        // The task ends only with `self`.
        let _ = self.commands.send((command, done)).await;
        let _ = carried_out.await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn bind() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).await?;
    // As much as the system grants: the relay must lose only what it is told to.
    let raw = socket2::SockRef::from(&socket);
    let _ = raw.set_recv_buffer_size(4 << 20);
    let _ = raw.set_send_buffer_size(4 << 20);
    Ok(socket)
}

/// One direction's conditions, chance and queue.
struct Lane {
    conditions: Conditions,
    rng: ChaCha8Rng,
    /// When the rate-limited link is free again.
    free_at: Option<Instant>,
}

impl Lane {
    fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self {
            conditions: Conditions::default(),
            rng,
            free_at: None,
        }
    }

    fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.random_bool(probability.min(1.0))
    }

    fn lose(&mut self) -> bool {
        self.chance(self.conditions.drop)
    }

    fn fate(&mut self) -> Fate {
        let reordered = self.chance(self.conditions.reorder);
        let jitter = self.conditions.jitter.mul_f64(self.rng.random::<f64>());
        let behind = if reordered {
            REORDER_BY
        } else {
            Duration::ZERO
        };
        Fate {
            later: self.conditions.delay + jitter + behind,
            reordered,
            duplicated: self.chance(self.conditions.duplicate),
            corrupted: self.chance(self.conditions.corrupt),
        }
    }

    /// When the link has carried so many bytes; `None` when its queue is full.
    fn carried_at(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        let Some(rate) = self.conditions.rate else {
            return Some(now);
        };
        let starts = self.free_at.map_or(now, |free| free.max(now));
        if starts - now > QUEUE_MAX {
            return None;
        }
        let carried = starts + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        self.free_at = Some(carried);
        Some(carried)
    }

    fn flip_a_bit(&mut self, data: &[u8]) -> Bytes {
        let mut flipped = data.to_vec();
        if !flipped.is_empty() {
            let bit = self.rng.random_range(0..flipped.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
        }
        flipped.into()
    }
}

/// What chance decided for one datagram that is not lost.
struct Fate {
    later: Duration,
    reordered: bool,
    duplicated: bool,
    corrupted: bool,
}

/// A datagram on its way.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    due: Instant,
    /// Breaks ties in the order of arrival.
    number: u64,
    up: bool,
    device: SocketAddr,
    data: Bytes,
}

/// The socket that stands for one device towards the gateway, and the task that listens to it.
struct Device {
    socket: Arc<UdpSocket>,
    listener: JoinHandle<()>,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

struct Worker {
    gateway: SocketAddr,
    public: Arc<UdpSocket>,
    devices: BTreeMap<SocketAddr, Device>,
    heard: mpsc::Sender<(SocketAddr, Bytes)>,
    lanes: [Lane; 2],
    held: BinaryHeap<Reverse<Held>>,
    held_ever: u64,
    counts: watch::Sender<[Counts; 2]>,
    /// Connection ids that were seen behind short headers (RFC 9000 §17.3).
    connections: BTreeSet<[u8; CID_BYTES]>,
    /// Those of connections that were severed.
    severed: Option<BTreeSet<[u8; CID_BYTES]>>,
}

impl Worker {
    /// Whether the datagram belongs to a connection that was severed.
    fn is_severed(&mut self, data: &[u8]) -> bool {
        let short = data.first().is_some_and(|first| first & 0x80 == 0);
        let Some(id) = data.get(1..=CID_BYTES).filter(|_| short) else {
            return false;
        };
        let Ok(id) = <[u8; CID_BYTES]>::try_from(id) else {
            return false;
        };
        if self.severed.as_ref().is_some_and(|ids| ids.contains(&id)) {
            return true;
        }
        if self.connections.len() < CIDS_MAX {
            self.connections.insert(id);
        }
        false
    }

    async fn run(
        mut self,
        mut commands: mpsc::Receiver<(Command, oneshot::Sender<()>)>,
        mut answers: mpsc::Receiver<(SocketAddr, Bytes)>,
    ) {
        let mut buf = vec![0; DATAGRAM_BYTES_MAX];
        let public = Arc::clone(&self.public);
        loop {
            let due = self.held.peek().map(|Reverse(held)| held.due);
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some((command, done)) => {
                        self.carry_out(command).await;
                        let _ = done.send(());
                    }
                    None => return,
                },
                () = until(due) => self.release().await,
                Some((device, data)) = answers.recv() => {
                    self.arrive(Way::Down, device, data).await;
                }
                // An ICMP error of an earlier send comes out here: nothing to do about it.
                received = public.recv_from(&mut buf) => if let Ok((length, device)) = received {
                    let data = Bytes::copy_from_slice(&buf[..length]);
                    self.arrive(Way::Up, device, data).await;
                },
            }
        }
    }

    async fn carry_out(&mut self, command: Command) {
        match command {
            Command::Set(way, conditions) => {
                self.lanes[way as usize].conditions = conditions;
                self.lanes[way as usize].free_at = None;
            }
            Command::Sever => self.severed = Some(std::mem::take(&mut self.connections)),
            Command::PointAt(gateway) => self.gateway = gateway,
            Command::Rebind => {
                let devices: Vec<_> = self.devices.keys().copied().collect();
                for device in devices {
                    self.devices.remove(&device);
                    self.map(device).await;
                }
            }
        }
    }

    /// Makes a device's socket towards the gateway if it has none; whether it has one.
    async fn map(&mut self, device: SocketAddr) -> bool {
        if self.devices.contains_key(&device) {
            return true;
        }
        if self.devices.len() >= DEVICES_MAX {
            return false;
        }
        let Ok(socket) = bind().await else {
            return false;
        };
        let socket = Arc::new(socket);
        let listener = tokio::spawn(listen(Arc::clone(&socket), device, self.heard.clone()));
        self.devices.insert(device, Device { socket, listener });
        true
    }

    fn count(&self, way: usize, what: impl FnOnce(&mut Counts)) {
        self.counts.send_modify(|counts| what(&mut counts[way]));
    }

    /// A datagram arrived: its fate is decided here.
    async fn arrive(&mut self, way: Way, device: SocketAddr, data: Bytes) {
        let up = way == Way::Up;
        let known = !self.is_severed(&data) && (!up || self.map(device).await);
        let room = self.held.len() < HELD_MAX;
        let lane = &mut self.lanes[way as usize];
        let lost = !known || !room || lane.conditions.black || lane.lose();
        let due = if lost {
            None
        } else {
            lane.carried_at(Instant::now(), data.len())
        };
        let Some(due) = due else {
            self.count(way as usize, |counts| {
                counts.received += 1;
                counts.dropped += 1;
            });
            return;
        };
        let fate = lane.fate();
        let data = if fate.corrupted {
            lane.flip_a_bit(&data)
        } else {
            data
        };
        for _ in 0..if fate.duplicated { 2 } else { 1 } {
            self.held_ever += 1;
            let held = Held {
                due: due + fate.later,
                number: self.held_ever,
                up,
                device,
                data: data.clone(),
            };
            self.held.push(Reverse(held));
        }
        self.count(way as usize, |counts| {
            counts.received += 1;
            counts.duplicated += u64::from(fate.duplicated);
            counts.reordered += u64::from(fate.reordered);
            counts.corrupted += u64::from(fate.corrupted);
        });
        // A datagram without a delay leaves in the same turn.
        self.release().await;
    }

    /// Sends what is due.
    async fn release(&mut self) {
        let now = Instant::now();
        while self
            .held
            .peek()
            .is_some_and(|Reverse(held)| held.due <= now)
        {
            let Some(Reverse(held)) = self.held.pop() else {
                return;
            };
            let way = usize::from(!held.up);
            let sent = if self.lanes[way].conditions.black {
                false
            } else if held.up {
                match self.devices.get(&held.device) {
                    Some(device) => device
                        .socket
                        .send_to(&held.data, self.gateway)
                        .await
                        .is_ok(),
                    None => false,
                }
            } else {
                self.public.send_to(&held.data, held.device).await.is_ok()
            };
            // A refused send is a lost datagram, as on any network.
            self.count(way, |counts| {
                if sent {
                    counts.sent += 1;
                    counts.bytes += held.data.len() as u64;
                } else {
                    counts.dropped += 1;
                }
            });
        }
    }
}

/// Hears what the gateway sends to one device's socket.
async fn listen(
    socket: Arc<UdpSocket>,
    device: SocketAddr,
    heard: mpsc::Sender<(SocketAddr, Bytes)>,
) {
    let mut buf = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        if let Ok((length, _)) = socket.recv_from(&mut buf).await
            && heard
                .send((device, Bytes::copy_from_slice(&buf[..length])))
                .await
                .is_err()
        {
            return;
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
