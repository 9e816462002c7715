//! The real thing: devices and a gateway of production on a transport, on links with mild faults of
//! every kind and with cuts, every invariant asked.

use mesh_sim::chance::Chance;
use mesh_sim::net::{Bursts, Link};
use mesh_sim::plan::{Happening, Plan, Timed};
use mesh_sim::queue::{MILLI, Micros, SECOND};
use mesh_sim::scenario;
use mesh_sim::wire::Wire;
use mesh_sim::world::World as Simulated;

use crate::{Broken, World};

/// From one heartbeat of a device to the next, virtual seconds: what the gateway tells its devices.
pub(crate) const BEAT_S: u64 = 30;
/// So far faults are planned, virtual seconds: beyond what is ever run.
const PLANNED_S: u64 = 200_000;
/// A device's link is cut once in so long, virtual seconds.
const CUT_EVERY_S: u64 = 3_600;
/// A cut lasts at most so long, virtual seconds: sometimes too short to notice, sometimes fatal to a
/// session.
const CUT_MAX_S: u64 = 60;

/// See the module documentation.
pub(crate) struct Fleet<W: Wire> {
    world: Simulated<W>,
    devices: u64,
    ran_s: u64,
    events: u64,
}

impl<W: Wire> Fleet<W> {
    /// So many devices and their gateway.
    pub(crate) fn new(devices: usize) -> Result<Self, Broken> {
        let world = Simulated::new(plan(W::NAME, devices), false).map_err(|e| e.to_string())?;
        Ok(Self {
            world,
            devices: devices as u64,
            ran_s: 0,
            events: 0,
        })
    }
}

fn troubled(link: Link) -> Link {
    Link {
        jitter_us: 2 * MILLI,
        loss_ppm: 1_000,
        bursts: Bursts {
            enter_ppm: 1_000,
            leave_ppm: 200_000,
            loss_ppm: 500_000,
        },
        bytes_per_s: 1_000_000,
        queue_bytes: 64_000,
        reorder_ppm: 1_000,
        reorder_us: 20 * MILLI,
        duplicate_ppm: 1_000,
        corrupt_ppm: 1_000,
        ..link
    }
}

/// An idle fleet, 5–50 ms away, with trouble.
fn plan(transport: &str, devices: usize) -> Plan {
    let mut plan = scenario::fleet(transport, devices);
    for device in &mut plan.devices {
        device.up = troubled(device.up);
        device.down = troubled(device.down);
    }
    let mut chance = Chance::of(plan.seed, "fleet", "cuts");
    let mut cut = |device, from: Micros| {
        let at = from + chance.below((CUT_EVERY_S - CUT_MAX_S) * SECOND);
        let until = at + chance.between(SECOND, CUT_MAX_S * SECOND);
        let (up, down) = (true, chance.happens(500_000));
        Timed {
            at,
            what: Happening::Cut {
                device,
                up,
                down,
                until,
            },
        }
    };
    for hour in 0..PLANNED_S / CUT_EVERY_S {
        for device in 0..devices {
            plan.happenings
                .push(cut(device, hour * CUT_EVERY_S * SECOND));
        }
    }
    plan.happenings.sort_by_key(|timed| timed.at);
    plan
}

impl<W: Wire> World for Fleet<W> {
    fn run(&mut self, seconds: u64) -> Result<(), Broken> {
        if self.ran_s + seconds > PLANNED_S {
            return Err(format!("faults are planned for {PLANNED_S} s only"));
        }
        let ran = self.world.run_for(seconds * SECOND);
        let ran = ran.map_err(|error| error.to_string())?;
        self.ran_s += seconds;
        self.events = ran.events;
        match ran.violation {
            Some(violation) => Err(format!("{}: {}", violation.invariant, violation.found)),
            None => Ok(()),
        }
    }

    fn events(&self) -> u64 {
        self.events
    }

    fn beats(&self) -> u64 {
        self.ran_s * self.devices / BEAT_S
    }
}

#[cfg(test)]
mod tests {
    use mesh_sim::wire::plain::Plain;

    use super::*;

    #[test]
    fn cuts_end_sessions_and_the_fleet_comes_back() -> Result<(), Broken> {
        let mut fleet = Fleet::<Plain>::new(9)?;
        fleet.run(2 * CUT_EVERY_S)?;
        assert!(fleet.world.record().reconnects > 0);
        // Whoever is away is so for a cut's length and the longest backoff, of an hour.
        fleet.run(CUT_EVERY_S)?;
        assert!(fleet.world.connected() > 0);
        Ok(())
    }
}
