//! What a world tells a recorder, when it has one.

use mesh_core::gateway::{Ask, Told};
use mesh_core::ids::RequestId;

use super::{End, World};
use crate::plan::Plan;
use crate::recorder::{Balance, Node, Phase, Recorder, Text};
use crate::wire::{Unbuildable, Wire};

impl From<End> for Node {
    fn from(end: End) -> Self {
        match end {
            End::Gateway(at) => Self::Gateway(at),
            End::Device(at) => Self::Device(at),
        }
    }
}

impl<W: Wire> World<W> {
    /// The world of a plan, with every note kept and everything recorded.
    ///
    /// # Errors
    ///
    /// As [`World::new`].
    pub fn recorded(plan: Plan, recorder: Recorder) -> Result<Self, Unbuildable> {
        let mut world = Self::with_recorder(plan, true, Some(Box::new(recorder)))?;
        world.look_around();
        Ok(world)
    }

    /// What was recorded.
    #[must_use]
    pub fn recorder(&self) -> Option<&Recorder> {
        self.recorder.as_deref()
    }

    /// Where every account stands.
    #[must_use]
    pub fn balances(&self) -> Vec<Balance> {
        self.store.balances().collect()
    }

    /// Looks how every node is.
    pub(super) fn look_around(&mut self) {
        let now = self.queue.now();
        let Some(recorder) = &mut self.recorder else {
            return;
        };
        for (at, node) in self.gateways.iter().enumerate() {
            let phase = if node.machine.is_some() {
                Phase::Connected
            } else {
                Phase::Dead
            };
            recorder.phase(now, Node::Gateway(at), phase);
        }
        for (at, (node, tunnel)) in self.devices.iter().zip(&self.record.tunnels).enumerate() {
            use mesh_core::device::State;
            let phase = match tunnel.state {
                _ if node.machine.is_none() => Phase::Dead,
                _ if node.asleep_since.is_some() => Phase::Asleep,
                State::Connected { .. } if tunnel.doubted.is_some() => Phase::Doubt,
                State::Connected { .. } => Phase::Connected,
                State::Disconnected => Phase::Disconnected,
                State::Connecting => Phase::Connecting,
                State::Reconnecting { .. } => Phase::Reconnecting,
                State::Failed => Phase::Failed,
            };
            recorder.phase(now, Node::Device(at), phase);
        }
    }

    /// A datagram arrived; whoever should hear it may be dead, asleep or behind a closed port.
    pub(super) fn record_arrival(&mut self, to: End, port: u16) {
        let now = self.queue.now();
        let Some(recorder) = &mut self.recorder else {
            return;
        };
        let heard = match to {
            End::Gateway(at) => self
                .gateways
                .get(at)
                .is_some_and(|node| node.machine.is_some()),
            End::Device(at) => self.devices.get(at).is_some_and(|node| {
                node.machine.is_some() && node.asleep_since.is_none() && node.nat.lets_in(now, port)
            }),
        };
        recorder.arrived(now, to.into(), heard);
    }

    pub(super) fn record_text(&mut self, request: RequestId, text: Text) {
        if let Some(recorder) = &mut self.recorder {
            recorder.text(self.queue.now(), request, text);
        }
    }

    pub(super) fn record_told(&mut self, ask: &Ask, told: Option<&Told>) {
        if let (Some(recorder), Some(told)) = (&mut self.recorder, told) {
            let held = match ask {
                Ask::Hold { account, hold } => self.store.held(*account, hold.request),
                Ask::Settle { .. }
                | Ask::Release { .. }
                | Ask::Admit { .. }
                | Ask::Service { .. }
                | Ask::Checkpoint { .. }
                | Ask::Lose { .. }
                | Ask::Recall { .. }
                | Ask::Call { .. } => None,
            };
            recorder.told(self.queue.now(), ask, told, held);
        }
    }
}
