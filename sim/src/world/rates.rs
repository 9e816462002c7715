//! How much is asked of gateways, and what they refuse for that.

use mesh_core::billing::account::Denied;
use mesh_core::error::ErrorCode;
use mesh_core::gateway::{Ask, HoldFailed, Rates, SettleFailed, Told};
use mesh_core::ids::{AccountId, DeviceId, RequestId};

use super::{Event, World, account_id, device_id};
use crate::invariants::Seen;
use crate::plan::RatesPlan;
use crate::queue::{Micros, SECOND};
use crate::record::Outcome;
use crate::record::rates::Asking;
use crate::wire::Wire;

/// Where there are limits, the questions that probe at the end wait until every bucket is full again, and
/// come one by one.
const PROBES_AFTER: Micros = 60 * SECOND;
const PROBES_EVERY: Micros = 10 * SECOND;

/// A gateway waits so long for the store's word.
const WAITS_FOR_THE_STORE: Micros = 10 * SECOND;

/// What a gateway is told of it.
pub(super) fn rates(plan: Option<RatesPlan>) -> Rates {
    plan.map_or_else(Rates::default, |plan| Rates {
        device_per_minute: plan.device_per_minute,
        account_per_minute: plan.account_per_minute,
        device_at_once: plan.device_at_once,
        account_at_once: plan.account_at_once,
    })
}

impl<W: Wire> World<W> {
    /// What the questions that probe take longer where there are limits.
    pub(super) const fn probes_take(&self) -> Micros {
        if self.plan.rates.is_some() {
            PROBES_AFTER + PROBES_EVERY * self.plan.devices.len() as u64
        } else {
            0
        }
    }

    pub(super) fn put_probes(&mut self, at: Micros) {
        if self.plan.rates.is_none() {
            self.queue.put(at, Event::Probe(None));
            return;
        }
        for device in 0..self.plan.devices.len() {
            let at = at + PROBES_AFTER + PROBES_EVERY * device as u64;
            self.queue.put(at, Event::Probe(Some(device)));
        }
    }

    /// A gateway asks something of the store.
    pub(super) fn question_begins(&mut self, gateway: usize, ask: &Ask) {
        let Ask::Hold { account, hold } = ask else {
            return;
        };
        let Some(device) = hold.device else {
            return;
        };
        let asking = Asking {
            gateway,
            account: *account,
            device,
            request: hold.request,
        };
        self.see(&Seen::Begun(&asking));
        let now = self.queue.now();
        self.record.rates.begin(now, asking, hold.id);
    }

    /// A gateway has refused a question.
    pub(super) fn question_refused(
        &mut self,
        gateway: usize,
        (device, request): (DeviceId, RequestId),
        code: ErrorCode,
    ) {
        let account = self.account_of(device);
        let (ErrorCode::RateLimited, Some(account)) = (code, account) else {
            return;
        };
        let asking = Asking {
            gateway,
            account,
            device,
            request,
        };
        self.see(&Seen::Refused(&asking));
        let now = self.queue.now();
        if self.record.rates.wait(now, &asking).is_none() {
            self.sometimes
                .saw("a question was refused for concurrent answers");
        }
        let heard_by = self.record.heard_by(request);
        self.record.rates.refuse(now, &asking, heard_by);
        let question = self.record.question_of(request);
        if let Some(asked) = self.record.questions.get_mut(&question) {
            asked.refused = true;
        }
    }

    fn account_of(&self, device: DeviceId) -> Option<AccountId> {
        let at = (0..self.devices.len()).find(|&at| device_id(at) == device)?;
        Some(account_id(self.plan.devices[at].account))
    }

    /// The store gives its word, after so long: what it has ended runs no more, if its gateway still waits
    /// for the word; else it asks again.
    pub(super) fn running_told(
        &mut self,
        gateway: usize,
        (ask, took): (&Ask, Micros),
        told: Option<&Told>,
    ) {
        let (now, late) = (self.queue.now(), took >= WAITS_FOR_THE_STORE);
        let rates = &mut self.record.rates;
        match (ask, told) {
            (
                Ask::Hold { hold, .. },
                Some(Told::Held(Err(HoldFailed::Denied(
                    Denied::InProgress | Denied::Expired { .. } | Denied::Interrupted { .. },
                )))),
            ) if !late => rates.known(now, gateway, hold.id),
            (Ask::Hold { hold, .. }, Some(Told::Held(Err(_)))) => rates.unheld(gateway, hold.id),
            (Ask::Release { release, .. }, Some(Told::Released(Ok(())))) => {
                rates.released(gateway, release.hold, late);
            }
            (
                Ask::Settle { settle, .. },
                Some(Told::Settled(Ok(_) | Err(SettleFailed::Denied(_)))),
            ) => rates.written(gateway, settle.request, late),
            (Ask::Lose { lose, .. }, Some(Told::Lost(Ok(())))) => {
                rates.written(gateway, lose.request, late);
            }
            _ => {}
        }
    }

    pub(super) fn count_refused(&mut self, request: RequestId, outcome: &Outcome) {
        use mesh_core::device::AskError;
        let refused = self.record.questions.get(&request);
        if !refused.is_some_and(|asked| asked.refused) {
            return;
        }
        match outcome {
            Outcome::Answered { .. } => self
                .sometimes
                .saw("a question was refused for its rate, and answered after waiting"),
            Outcome::Failed(AskError::Remote(error)) if error.code == ErrorCode::RateLimited => {
                self.sometimes
                    .saw("a question was refused for its rate, and had no time to wait");
            }
            Outcome::Failed(_) | Outcome::DeviceDied => {}
        }
    }
}
