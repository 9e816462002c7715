//! A device's disk: what of its unfinished questions a process that dies leaves to the next.
//!
//! Writes take their time, one after the other; what was not through when the process died never
//! was. A file is written whole or not at all, but disks are broken too: then it is torn.

use mesh_core::device::Input;
use mesh_core::device::unfinished::Unfinished;
use mesh_core::ids::RequestId;

use super::{World, device_id};
use crate::chance::Chance;
use crate::queue::{Micros, SECOND};
use crate::record::Outcome;
use crate::wire::Wire;

/// What a write takes, now and then, µs.
const SLOW_MAX: Micros = SECOND / 2;
const QUICK_MAX: Micros = SECOND / 50;
/// Of a million files that a process leaves, so many are torn.
const TORN: u32 = 60_000;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Disk {
    chance: Chance,
    /// What is on it, and what is being written, each with when it is through.
    writes: Vec<(Micros, Unfinished)>,
}

impl Disk {
    pub(super) const fn new(chance: Chance) -> Self {
        Self {
            chance,
            writes: Vec::new(),
        }
    }

    fn write(&mut self, now: Micros, unfinished: Unfinished) {
        let slow = self.chance.happens(250_000);
        let most = if slow { SLOW_MAX } else { QUICK_MAX };
        let begins = self
            .writes
            .last()
            .map_or(now, |&(through, _)| through.max(now));
        let through = begins + self.chance.below(most);
        let old = self.writes.iter().rposition(|&(through, _)| through <= now);
        self.writes.drain(..old.unwrap_or_default());
        self.writes.push((through, unfinished));
    }

    /// The process died: the file's bytes, if there is one.
    fn left(&mut self, now: Micros, at: usize) -> Option<Vec<u8>> {
        self.writes.retain(|&(through, _)| through <= now);
        let (_, last) = self.writes.pop()?;
        self.writes.clear();
        if last.is_empty() {
            return None;
        }
        let mut bytes = last.encode(device_id(at)).ok()?;
        if self.chance.happens(TORN) {
            let length = self.chance.below(bytes.len() as u64);
            bytes.truncate(usize::try_from(length).unwrap_or_default());
        }
        Some(bytes)
    }
}

impl<W: Wire> World<W> {
    /// A device says what it keeps.
    pub(super) fn keeps(&mut self, at: usize, unfinished: Unfinished) {
        let now = self.queue.now();
        self.devices[at].disk.write(now, unfinished);
    }

    /// Its process is dead. Questions that it has left go on with the next one, whoever read them
    /// before; of the others nobody knows any more.
    pub(super) fn leave_questions(&mut self, at: usize) {
        let now = self.queue.now();
        let open: Vec<RequestId> = self
            .record
            .questions
            .iter()
            .filter(|(_, asked)| asked.device == at && asked.outcome.is_none())
            .map(|(&id, _)| id)
            .collect();
        let left = self.devices[at].disk.left(now, at);
        let read = left.map(|bytes| Unfinished::decode(&bytes, device_id(at)));
        if let Some(Err(_)) = &read {
            self.sometimes
                .saw("a file of unfinished questions was torn");
        }
        let unfinished = read.and_then(Result::ok).unwrap_or_default();
        for id in open {
            let cancelled = self.record.questions.get(&id).is_some_and(|a| a.cancelled);
            if cancelled || unfinished.ids().all(|kept| kept != id) {
                self.ended(id, Outcome::DeviceDied);
            }
        }
        self.devices[at].left = unfinished;
    }

    /// Another process has begun: what the one before left goes on, and is read by whoever asked.
    pub(super) fn go_on_with_questions(&mut self, at: usize) {
        let left = std::mem::take(&mut self.devices[at].left);
        if left.is_empty() {
            return;
        }
        let ids: Vec<RequestId> = left.ids().collect();
        self.give_device(at, Input::Restore(left));
        let machine = self.devices[at].machine.as_ref();
        let listed = machine
            .map(|machine| machine.unfinished())
            .unwrap_or_default();
        for id in ids {
            let known = listed.iter().find(|one| one.id == id);
            let Some(asked) = self.record.questions.get_mut(&id) else {
                continue;
            };
            if asked.outcome.is_some() {
                // Its reader had the end before the process died, and that was not on the disk yet.
                asked.revived = known.is_some_and(|one| one.open);
                self.give_device(at, Input::Taken(id));
                continue;
            }
            if !asked.delivered.is_empty() && known.is_some_and(|one| one.open && one.bytes > 0) {
                self.sometimes
                    .saw("a device that died went on in the middle of an answer");
            }
            if known.is_some_and(|one| !one.open) {
                self.sometimes
                    .saw("an answer was over when its device died, and was had after that");
            }
            // Whoever reads now begins at the first word.
            asked.delivered.clear();
            asked.cut = None;
            asked.restored = Some(self.queue.now());
            self.note(format!("device {at}"), format!("{id} is asked for again"));
            self.give_device(at, Input::Attach(id));
        }
    }
}
