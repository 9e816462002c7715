//! The heartbeats on the simulator's own queue, links and trace: no machine of ours above them.

use mesh_sim::chance::Chance;
use mesh_sim::net::{Bursts, Link, Lost, Passage, Pipe};
use mesh_sim::queue::{MILLI, Queue, SECOND};
use mesh_sim::trace::Trace;

use crate::message::{APART_MS, BYTES, EVERY_MS, Known, LATENCY_MAX_MS, LATENCY_MIN_MS, Message};
use crate::{Broken, World};

/// turmoil's delay is exponentially distributed with its mean at a fifth of the range.
const JITTER_OF_RANGE: u64 = 5;
/// The server's number in the trace.
const SERVER: u64 = u32::MAX as u64;

#[derive(Clone, Copy, Debug)]
enum Event {
    Beat(usize),
    AtServer([u8; BYTES]),
    AtClient([u8; BYTES]),
}

#[derive(Debug)]
struct Client {
    up: Pipe,
    down: Pipe,
    known: Known,
}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Pingers {
    queue: Queue<Event>,
    trace: Trace,
    clients: Vec<Client>,
    faults: bool,
    answered: u64,
}

impl Pingers {
    /// One server and so many clients; with mild faults of every kind that a link has, or on links
    /// that only take time.
    pub(crate) fn new(clients: usize, faults: bool) -> Self {
        let link = link(faults);
        let pipe =
            |client: usize, way| Pipe::new(link, Chance::of(1, &format!("client {client}"), way));
        let mut queue = Queue::default();
        for client in 0..clients {
            queue.put((client as u64) * APART_MS * MILLI, Event::Beat(client));
        }
        Self {
            queue,
            trace: Trace::new(false),
            clients: (0..clients)
                .map(|client| Client {
                    up: pipe(client, "up"),
                    down: pipe(client, "down"),
                    known: Known::default(),
                })
                .collect(),
            faults,
            answered: 0,
        }
    }

    fn client(&mut self, at: usize) -> Result<&mut Client, Broken> {
        let unknown = || format!("there is no client {at}");
        self.clients.get_mut(at).ok_or_else(unknown)
    }

    fn step(&mut self, event: Event) -> Result<(), Broken> {
        let now = self.queue.now();
        match event {
            Event::Beat(at) => {
                let client = self.client(at)?;
                let message = Message {
                    client: at,
                    number: client.known.say(),
                };
                let passage = client.up.carry(now, BYTES);
                self.send(at as u64, SERVER, message, passage, Event::AtServer);
                self.queue.put(now + EVERY_MS * MILLI, Event::Beat(at));
            }
            Event::AtServer(bytes) => {
                let Some(message) = Message::decode(&bytes) else {
                    return Ok(());
                };
                let in_order = !self.faults;
                let client = self.client(message.client)?;
                client.known.hear(message.number, in_order)?;
                let passage = client.down.carry(now, BYTES);
                let to = message.client as u64;
                self.send(SERVER, to, message, passage, Event::AtClient);
            }
            Event::AtClient(bytes) => {
                let Some(message) = Message::decode(&bytes) else {
                    return Ok(());
                };
                let in_order = !self.faults;
                let known = &mut self.client(message.client)?.known;
                let is_new = known.answer(message.number, in_order)?;
                self.answered += u64::from(is_new);
            }
        }
        Ok(())
    }

    fn send(
        &mut self,
        from: u64,
        to: u64,
        message: Message,
        passage: Result<Passage, Lost>,
        arrives: fn([u8; BYTES]) -> Event,
    ) {
        let mut bytes = message.encode();
        self.trace.datagram(self.queue.now(), from, to, &bytes);
        let Ok(passage) = passage else { return };
        if let Some(bit) = passage.damaged_bit
            && let Some(byte) = bytes.get_mut(usize::try_from(bit / 8).unwrap_or(usize::MAX))
        {
            *byte ^= 1 << (bit % 8);
        }
        for at in [Some(passage.at), passage.again].into_iter().flatten() {
            self.queue.put(at, arrives(bytes));
        }
    }

    /// See [`Trace::digest`].
    #[cfg(test)]
    fn digest(&self) -> String {
        self.trace.digest()
    }
}

fn link(faults: bool) -> Link {
    let calm = Link {
        jitter_us: (LATENCY_MAX_MS - LATENCY_MIN_MS) * MILLI / JITTER_OF_RANGE,
        ..Link::of_latency(LATENCY_MIN_MS * MILLI)
    };
    if !faults {
        return calm;
    }
    Link {
        loss_ppm: 10_000,
        bursts: Bursts {
            enter_ppm: 1_000,
            leave_ppm: 200_000,
            loss_ppm: 800_000,
        },
        bytes_per_s: 125_000,
        queue_bytes: 16_000,
        reorder_ppm: 10_000,
        reorder_us: 20 * MILLI,
        duplicate_ppm: 10_000,
        corrupt_ppm: 1_000,
        mtu: 1_452,
        ..calm
    }
}

impl World for Pingers {
    fn run(&mut self, seconds: u64) -> Result<(), Broken> {
        // An event at the very end belongs to the next run.
        let end = self.queue.now() + seconds * SECOND;
        while let Some(event) = self.queue.take(end - 1) {
            self.step(event)?;
        }
        let _none_is_due = self.queue.take(end - 1);
        Ok(())
    }

    fn events(&self) -> u64 {
        self.queue.taken()
    }

    fn beats(&self) -> u64 {
        self.answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_world_has_the_same_history_whatever_pieces_it_runs_in() -> Result<(), Broken> {
        let run = |pieces: &[u64], faults| -> Result<String, Broken> {
            let mut world = Pingers::new(9, faults);
            for &seconds in pieces {
                world.run(seconds)?;
            }
            Ok(world.digest())
        };
        assert_eq!(run(&[100], true)?, run(&[100], true)?);
        assert_ne!(run(&[100], true)?, run(&[100], false)?);
        Ok(())
    }

    #[test]
    fn faults_lose_about_as_much_as_they_are_set_to() -> Result<(), Broken> {
        let mut world = Pingers::new(10, true);
        world.run(10_000)?;
        // 1 % by chance, 0.4 % in bursts and 0.1 % damaged, each way: 3 % of 100 000; an answer that
        // was overtaken by the next heartbeat's is not counted, and there is none.
        assert!(
            (96_300..97_700).contains(&world.beats()),
            "{}",
            world.beats()
        );
        Ok(())
    }
}
