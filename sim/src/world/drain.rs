//! Gateways that go away in good order: what they are told, and what is known of it.

use std::time::Duration;

use mesh_core::gateway::{Drain, Input};
use mesh_core::ids::DeviceId;

use super::{World, alternate_name, device_id};
use crate::invariants::Seen;
use crate::queue::Micros;
use crate::record::GoingAway;
use crate::wire::Wire;

impl<W: Wire> World<W> {
    pub(super) fn stop_gateway(&mut self, gateway: usize) {
        self.goes_away(gateway, 0, 0);
        self.give_gateway(gateway, Input::Stop);
    }

    pub(super) fn drain_gateway(
        &mut self,
        gateway: usize,
        (limit_us, spread_us): (Micros, Micros),
        elsewhere: bool,
    ) {
        let others = (0..self.gateways.len()).filter(|&other| elsewhere && other != gateway);
        let drain = Drain {
            limit: Duration::from_micros(limit_us),
            spread: Duration::from_micros(spread_us),
            store: Drain::default().store,
            alternates: others.map(alternate_name).collect(),
        };
        self.goes_away(gateway, limit_us, spread_us);
        self.give_gateway(gateway, Input::Drain(drain));
    }

    /// One that goes away already only has less time, if any.
    fn goes_away(&mut self, gateway: usize, limit: Micros, spread: Micros) {
        self.record.gateways_ended += 1;
        let now = self.queue.now();
        let Some(machine) = &self.gateways[gateway].machine else {
            return;
        };
        if machine.answers_under_way() > 0 && limit > 0 {
            self.sometimes
                .saw("a gateway went away while it worked on an answer");
        }
        let devices = machine.sessions() as u64;
        let known = self.record.going_away.entry(gateway);
        let known = known.or_insert(GoingAway {
            until: now + limit,
            step: spread.min(limit) / devices.max(1),
            last_sent: None,
        });
        if limit == 0 {
            known.until = known.until.min(now);
        }
    }

    pub(super) fn sent_away(&mut self, gateway: usize, device: DeviceId, reconnect_in: Duration) {
        let after = Micros::try_from(reconnect_in.as_micros()).unwrap_or(Micros::MAX);
        self.see(&Seen::SentAway(gateway, after));
        if let Some(going) = self.record.going_away.get_mut(&gateway) {
            going.last_sent = Some(after);
        }
        let at = (0..self.devices.len()).find(|&at| device_id(at) == device);
        if let Some(tunnel) = at.and_then(|at| self.record.tunnels.get_mut(at)) {
            tunnel.moves_from = Some(self.queue.now() + after);
        }
    }

    /// A gateway gives answers up: whatever it had produced of them is lost, and free.
    pub(super) fn cut_off(&mut self, gateway: usize) {
        self.see(&Seen::CutOff(gateway));
        self.sometimes
            .saw("an answer was cut off by a gateway that went away");
        for asked in self.record.questions.values_mut() {
            if asked.called_at == Some(gateway) && asked.counted.is_none() && !asked.calling {
                asked.orphaned = asked.produced.len();
            }
        }
    }
}
