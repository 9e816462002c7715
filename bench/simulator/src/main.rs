//! The simulator against turmoil: how much virtual time, and how many events, a second of one core
//! carries.
//!
//! Everyone plays one server and its clients, and is asked for so many virtual seconds a round:
//!
//! * turmoil and `pingers` play the same thing, of the same messages with the same checks
//!   ([`message`]): a heartbeat a second from each client, acknowledged, 5–50 ms each way.
//! * the fleets are the devices and the gateway of production, with faults and every invariant.
//!   Their heartbeat comes every [`fleet::BEAT_S`] seconds, as the gateway tells them.
//!
//! An event is a message delivered or a timer fired. A fleet's queue also counts the store's answers
//! and the plan's happenings, both rare.
//!
//! `cargo run --release -p mesh-bench-simulator -- [--json] [ROUNDS]`

mod fleet;
mod message;
mod peer;
mod pingers;

use std::error::Error;
use std::time::Duration;

use mesh_bench::harness::{Contender, Rounds, Table, machine, take_turns};
use mesh_core::quic::Quic;
use mesh_sim::wire::plain::Plain;
use serde_json::json;

use self::fleet::Fleet;
use self::peer::Peer;
use self::pingers::Pingers;

const ROUNDS_DEFAULT: usize = 11;
/// Virtual seconds that nobody counts: sessions are made, clients have begun.
const WARM_UP_S: u64 = 120;

/// What went wrong in a world, in words.
type Broken = String;

/// Somebody who lets virtual time pass.
trait World {
    /// Lets so many virtual seconds pass.
    fn run(&mut self, seconds: u64) -> Result<(), Broken>;
    /// Messages delivered and timers fired so far.
    fn events(&self) -> u64;
    /// Heartbeats so far: those answered; of a fleet, those that were due.
    fn beats(&self) -> u64;
}

/// A world in the comparison, and what it came to.
struct Entry {
    name: &'static str,
    clients: usize,
    /// Virtual seconds in a round, so that a round is some tenths of a second.
    round_s: u64,
    world: Box<dyn World>,
    broken: Option<Broken>,
    ran_s: u64,
}

impl Entry {
    /// A world that has warmed up for `warm_up_s`.
    fn new(
        name: &'static str,
        clients: usize,
        (warm_up_s, round_s): (u64, u64),
        mut world: impl World + 'static,
    ) -> Result<Self, Broken> {
        world.run(warm_up_s)?;
        Ok(Self {
            name,
            clients,
            round_s,
            world: Box::new(world),
            broken: None,
            ran_s: 0,
        })
    }

    fn round(&mut self) {
        if self.broken.is_none() {
            self.broken = self.world.run(self.round_s).err();
            self.ran_s += self.round_s;
        }
    }
}

/// What an entry's rounds came to.
struct Speed {
    name: &'static str,
    clients: usize,
    virtual_per_s: f64,
    events_per_s: f64,
    beats_per_s: f64,
    spread: f64,
    rounds: Vec<Duration>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut as_json, mut rounds) = (false, ROUNDS_DEFAULT);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--json" => as_json = true,
            number => rounds = number.parse()?,
        }
    }
    let speeds = measure(rounds)?;
    if as_json {
        println!("{}", in_json(&speeds, rounds));
    } else {
        println!("{}; medians of {rounds} rounds\n", machine());
        println!("{}", in_words(&speeds));
    }
    Ok(())
}

fn entries() -> Result<Vec<Entry>, Broken> {
    let fine = Duration::from_millis(1);
    let coarse = Duration::from_millis(10);
    let warm = WARM_UP_S;
    Ok(vec![
        // It is warm once every client has begun.
        Entry::new("turmoil", 99, (2, 2), Peer::new(99, fine)?)?,
        Entry::new("turmoil, 10 ms ticks", 99, (2, 20), Peer::new(99, coarse)?)?,
        Entry::new(
            "the same on our links",
            99,
            (warm, 20_000),
            Pingers::new(99, false),
        )?,
        Entry::new("… and faults", 99, (warm, 20_000), Pingers::new(99, true))?,
        Entry::new(
            "real fleet on plain, faults",
            99,
            (warm, 7_200),
            Fleet::<Plain>::new(99)?,
        )?,
        Entry::new(
            "real fleet on QUIC, faults",
            99,
            (warm, 3_600),
            Fleet::<Quic>::new(99)?,
        )?,
        Entry::new("turmoil", 9, (2, 200), Peer::new(9, fine)?)?,
        Entry::new(
            "the same on our links",
            9,
            (warm, 200_000),
            Pingers::new(9, false),
        )?,
    ])
}

fn measure(rounds: usize) -> Result<Vec<Speed>, Broken> {
    let mut entries = entries()?;
    let before: Vec<(u64, u64)> = entries
        .iter()
        .map(|entry| (entry.world.events(), entry.world.beats()))
        .collect();
    let mut contenders: Vec<Contender<'_>> = entries
        .iter_mut()
        .map(|entry| Contender::new(entry.name, || entry.round()))
        .collect();
    let results = take_turns(rounds, &mut contenders);
    drop(contenders);
    let mut speeds = Vec::new();
    for ((entry, rounds), (events, beats)) in entries.into_iter().zip(&results).zip(before) {
        if let Some(broken) = entry.broken {
            return Err(format!("{}: {broken}", entry.name));
        }
        let events = entry.world.events() - events;
        let beats = entry.world.beats() - beats;
        speeds.push(speed(&entry, rounds, events, beats));
    }
    Ok(speeds)
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn speed(entry: &Entry, rounds: &Rounds, events: u64, beats: u64) -> Speed {
    let virtual_per_s = entry.round_s as f64 / rounds.wall().as_secs_f64();
    let ran_s = entry.ran_s as f64;
    Speed {
        name: entry.name,
        clients: entry.clients,
        virtual_per_s,
        events_per_s: events as f64 / ran_s * virtual_per_s,
        beats_per_s: beats as f64 / ran_s * virtual_per_s,
        spread: rounds.spread(),
        rounds: rounds.samples.iter().map(|sample| sample.wall).collect(),
    }
}

/// turmoil at its default tick, with as many clients.
fn peer_of<'a>(speeds: &'a [Speed], of: &Speed) -> Option<&'a Speed> {
    speeds.iter().find(|speed| speed.clients == of.clients)
}

fn in_words(speeds: &[Speed]) -> Table {
    let mut table = Table::new(&[
        "",
        "clients",
        "virtual s/s",
        "ratio",
        "heartbeats/s",
        "ratio",
        "events/s",
        "spread",
    ]);
    for speed in speeds {
        let times = |of: fn(&Speed) -> f64| {
            let peer = peer_of(speeds, speed).map_or(f64::NAN, of);
            format!("{:.0}×", of(speed) / peer)
        };
        table.row([
            speed.name.to_owned(),
            speed.clients.to_string(),
            format!("{:.1}", speed.virtual_per_s),
            times(|speed| speed.virtual_per_s),
            format!("{:.0}", speed.beats_per_s),
            times(|speed| speed.beats_per_s),
            format!("{:.0}", speed.events_per_s),
            format!("±{:.0} %", speed.spread * 100.0),
        ]);
    }
    table
}

fn in_json(speeds: &[Speed], rounds: usize) -> serde_json::Value {
    let all: Vec<_> = speeds
        .iter()
        .map(|speed| {
            let walls: Vec<f64> = speed.rounds.iter().map(Duration::as_secs_f64).collect();
            json!({
                "name": speed.name,
                "clients": speed.clients,
                "virtual_seconds_per_second": speed.virtual_per_s,
                "heartbeats_per_second": speed.beats_per_s,
                "events_per_second": speed.events_per_s,
                "spread": speed.spread,
                "round_seconds": walls,
            })
        })
        .collect();
    json!({ "machine": machine(), "rounds": rounds, "worlds": all })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turmoil_and_ours_play_the_same_thing() -> Result<(), Broken> {
        let mut theirs = Peer::new(5, Duration::from_millis(1))?;
        let mut ours = Pingers::new(5, false);
        // Half a second past the last beat, so that every answer has come.
        theirs.run(60)?;
        ours.run(60)?;
        // Begun 10 ms apart, each of 5 clients beats 60 times in 60 s, three events to a heartbeat; a
        // beat at the very end may still be on its way.
        for world in [&theirs as &dyn World, &ours] {
            assert!((299..=300).contains(&world.beats()), "{}", world.beats());
            assert!((895..=900).contains(&world.events()), "{}", world.events());
        }
        Ok(())
    }
}
