//! What gateways have let devices and accounts ask, counted from outside of them: each bucket as a count of
//! tokens, in whole numbers, and each answer that runs from what its gateway says to the store.
//!
//! A gateway's process begins with full buckets and no answers.

use std::collections::BTreeMap;

use mesh_core::billing::account::HoldId;
use mesh_core::ids::{AccountId, DeviceId, RequestId};

use crate::plan::RatesPlan;
use crate::queue::{Micros, SECOND};

/// One token, in parts of which a bucket of `n` a minute gets `n` back each µs.
const TOKEN: u64 = 60 * SECOND;
/// Questions of one asker that are remembered, the latest.
const BEGUN_MAX: usize = 1000;

/// Whose questions are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// One device's.
    Device(DeviceId),
    /// All of one account's.
    Account(AccountId),
}

/// A question that has come to a gateway and is not one that it knows.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    /// Which gateway.
    pub gateway: usize,
    /// Whose device.
    pub account: AccountId,
    /// Which device.
    pub device: DeviceId,
    /// Under which id.
    pub request: RequestId,
}

impl Asking {
    const fn whose(&self) -> [Whose; 2] {
        [Whose::Device(self.device), Whose::Account(self.account)]
    }
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    parts: u64,
    at: Micros,
}

/// An answer that a gateway works on.
#[derive(Clone, Copy, Debug)]
struct Running {
    asking: Asking,
    hold: HoldId,
    at: Micros,
    /// Whether a model has been called for it: until then its gateway may have given it up unseen.
    called: bool,
    /// Whether the store has written its end, and its gateway may have heard of that too late and asks again.
    ending: bool,
}

impl Running {
    fn is_of(&self, gateway: usize, whose: Whose) -> bool {
        self.asking.gateway == gateway && self.asking.whose().contains(&whose)
    }
}

/// The last refusal of a question for a rate, or for too many answers at once.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    /// When.
    pub at: Micros,
    /// After how many seconds it may be asked again.
    pub secs: u32,
    /// Which process of its device could hear of it, and over which state of its tunnel, each by number.
    pub heard_by: (u32, u32),
}

/// See the module documentation.
#[derive(Debug)]
pub struct Rates {
    /// What each gateway allows.
    pub limits: RatesPlan,
    buckets: BTreeMap<(usize, Whose), Bucket>,
    begun: BTreeMap<(usize, Whose), Vec<Micros>>,
    running: Vec<Running>,
    refused: BTreeMap<RequestId, Refusal>,
}

impl Default for Rates {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Rates {
    /// Of gateways that are told this.
    #[must_use]
    pub fn new(limits: Option<RatesPlan>) -> Self {
        Self {
            limits: limits.unwrap_or(RatesPlan::UNTOLD),
            buckets: BTreeMap::new(),
            begun: BTreeMap::new(),
            running: Vec::new(),
            refused: BTreeMap::new(),
        }
    }

    /// Questions in a minute, and answers at once.
    #[must_use]
    pub const fn limits_of(&self, whose: Whose) -> (u32, u32) {
        let limits = &self.limits;
        match whose {
            Whose::Device(_) => (limits.device_per_minute, limits.device_at_once),
            Whose::Account(_) => (limits.account_per_minute, limits.account_at_once),
        }
    }

    fn bucket(&self, now: Micros, gateway: usize, whose: Whose) -> Bucket {
        let rate = u64::from(self.limits_of(whose).0);
        let full = rate * TOKEN;
        let known = self.buckets.get(&(gateway, whose));
        let parts = known.map_or(full, |bucket| {
            full.min(bucket.parts + (now - bucket.at) * rate)
        });
        Bucket { parts, at: now }
    }

    /// For whose rate a question has to wait, and how many seconds, if it has to: the device's own bucket
    /// is looked at first.
    #[must_use]
    pub fn wait(&self, now: Micros, asking: &Asking) -> Option<(Whose, u32)> {
        asking.whose().into_iter().find_map(|whose| {
            let lacks = TOKEN.saturating_sub(self.bucket(now, asking.gateway, whose).parts);
            let in_a_second = u64::from(self.limits_of(whose).0) * SECOND;
            let secs = u32::try_from(lacks.div_ceil(in_a_second.max(1))).unwrap_or(u32::MAX);
            (lacks > 0).then_some((whose, secs))
        })
    }

    /// Who has as many answers running as they may: `surely` counts only those that no gateway can have
    /// given up unseen.
    #[must_use]
    pub fn too_many(&self, asking: &Asking, surely: bool) -> Option<Whose> {
        asking.whose().into_iter().find(|&whose| {
            let runs = |one: &&Running| {
                one.is_of(asking.gateway, whose) && (one.called && !one.ending || !surely)
            };
            self.running.iter().filter(runs).count() >= self.limits_of(whose).1 as usize
        })
    }

    /// Who has had more questions begun by this life of the gateway than a bucket gives, in some span of
    /// time that ends now and with the one that is asked: how many, in how long, µs.
    #[must_use]
    pub fn over_the_rate(&self, now: Micros, asking: &Asking) -> Option<(Whose, u64, Micros)> {
        asking.whose().into_iter().find_map(|whose| {
            let rate = u64::from(self.limits_of(whose).0);
            let begun = self.begun.get(&(asking.gateway, whose));
            let before = begun.map_or(&[][..], Vec::as_slice);
            let spans = std::iter::once(0).chain(before.iter().rev().map(|at| now - at));
            // Tokens may come back a µs early.
            let over = |&(count, span): &(u64, Micros)| count * TOKEN > rate * (TOKEN + span + 1);
            let (count, span) = (1..).zip(spans).find(over)?;
            Some((whose, count, span))
        })
    }

    /// The last time that a question was refused under this id, if it has not begun since.
    #[must_use]
    pub fn refusal(&self, request: RequestId) -> Option<&Refusal> {
        self.refused.get(&request)
    }

    /// Whether an answer under this id is under way at this gateway.
    #[must_use]
    pub fn runs(&self, gateway: usize, request: RequestId) -> bool {
        self.running
            .iter()
            .any(|one| one.asking.gateway == gateway && one.asking.request == request && one.called)
    }

    fn take(&mut self, now: Micros, asking: &Asking) {
        for whose in asking.whose() {
            let mut bucket = self.bucket(now, asking.gateway, whose);
            bucket.parts = bucket.parts.saturating_sub(TOKEN);
            self.buckets.insert((asking.gateway, whose), bucket);
        }
    }

    /// A gateway begins with a question: it asks for a hold.
    pub fn begin(&mut self, now: Micros, asking: Asking, hold: HoldId) {
        self.take(now, &asking);
        for whose in asking.whose() {
            let begun = self.begun.entry((asking.gateway, whose)).or_default();
            if begun.len() >= BEGUN_MAX {
                begun.remove(0);
            }
            begun.push(now);
        }
        self.refused.remove(&asking.request);
        self.running.push(Running {
            asking,
            hold,
            at: now,
            called: false,
            ending: false,
        });
    }

    /// A gateway refuses a question as one too many. One that is within its rate has too many answers
    /// beside it, and is told to come back after a second.
    pub fn refuse(&mut self, now: Micros, asking: &Asking, heard_by: (u32, u32)) {
        let wait = self.wait(now, asking);
        let refusal = Refusal {
            at: now,
            secs: wait.map_or(1, |(_, secs)| secs),
            heard_by,
        };
        self.refused.insert(asking.request, refusal);
    }

    /// A gateway calls a model for it.
    pub fn called(&mut self, gateway: usize, request: RequestId) {
        let of =
            |one: &&mut Running| one.asking.gateway == gateway && one.asking.request == request;
        if let Some(one) = self.running.iter_mut().rfind(of) {
            one.called = true;
        }
    }

    /// The store said no to this hold.
    pub fn unheld(&mut self, gateway: usize, hold: HoldId) {
        self.running
            .retain(|one| one.asking.gateway != gateway || one.hold != hold);
    }

    /// The store knows the question, which is another gateway's: it is none of this one.
    pub fn known(&mut self, now: Micros, gateway: usize, hold: HoldId) {
        let of = |one: &&Running| one.asking.gateway == gateway && one.hold == hold;
        let Some(&Running { asking, at, .. }) = self.running.iter().find(of) else {
            return;
        };
        for whose in asking.whose() {
            let full = u64::from(self.limits_of(whose).0) * TOKEN;
            let mut bucket = self.bucket(now, gateway, whose);
            bucket.parts = full.min(bucket.parts + TOKEN);
            self.buckets.insert((gateway, whose), bucket);
            if let Some(begun) = self.begun.get_mut(&(gateway, whose))
                && let Some(index) = begun.iter().rposition(|&begun| begun == at)
            {
                begun.remove(index);
            }
        }
        self.unheld(gateway, hold);
    }

    /// The store has written what was charged or lost.
    pub fn written(&mut self, gateway: usize, request: RequestId, late: bool) {
        self.end(late, |one| {
            one.asking.gateway == gateway && one.asking.request == request && one.called
        });
    }

    /// The store has taken this hold back.
    pub fn released(&mut self, gateway: usize, hold: HoldId, late: bool) {
        self.end(late, |one| {
            one.asking.gateway == gateway && one.hold == hold
        });
    }

    fn end(&mut self, late: bool, is: impl Fn(&Running) -> bool) {
        if late {
            let ending = self.running.iter_mut().filter(|one| is(one));
            ending.for_each(|one| one.ending = true);
        } else {
            self.running.retain(|one| !is(one));
        }
    }

    /// A gateway's process has ended.
    pub fn forget(&mut self, gateway: usize) {
        self.running.retain(|one| one.asking.gateway != gateway);
        self.buckets.retain(|&(at, _), _| at != gateway);
        self.begun.retain(|&(at, _), _| at != gateway);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(request: u128) -> Asking {
        Asking {
            gateway: 0,
            account: AccountId::from_u128(1),
            device: DeviceId::from_u128(1),
            request: RequestId::from_u128(request),
        }
    }

    #[test]
    fn seven_a_minute_come_back_one_every_eight_seconds_and_four_sevenths() {
        let mut rates = Rates::new(Some(RatesPlan {
            device_per_minute: 7,
            ..RatesPlan::UNTOLD
        }));
        for request in 1..=7 {
            assert_eq!(rates.wait(0, &asking(request)), None);
            assert_eq!(rates.over_the_rate(0, &asking(request)), None);
            rates.begin(0, asking(request), HoldId(1));
        }
        let device = Whose::Device(DeviceId::from_u128(1));
        assert_eq!(rates.wait(0, &asking(8)), Some((device, 9)));
        assert_eq!(rates.over_the_rate(0, &asking(8)), Some((device, 8, 0)));
        // 60 / 7 s are 8 571 428 µs and four sevenths.
        assert_eq!(rates.wait(8_571_428, &asking(8)), Some((device, 1)));
        assert_eq!(rates.wait(8_571_429, &asking(8)), None);
        assert!(rates.over_the_rate(8_571_427, &asking(8)).is_some());
        assert!(rates.over_the_rate(8_571_429, &asking(8)).is_none());
        rates.forget(0);
        assert_eq!(rates.wait(0, &asking(8)), None);
    }

    #[test]
    fn an_answer_surely_runs_from_its_call_to_the_stores_word() {
        let mut rates = Rates::new(Some(RatesPlan {
            device_at_once: 1,
            ..RatesPlan::UNTOLD
        }));
        let device = Whose::Device(DeviceId::from_u128(1));
        rates.begin(0, asking(1), HoldId(1));
        assert_eq!(rates.too_many(&asking(2), true), None);
        assert_eq!(rates.too_many(&asking(2), false), Some(device));
        rates.called(0, RequestId::from_u128(1));
        assert_eq!(rates.too_many(&asking(2), true), Some(device));
        rates.written(0, RequestId::from_u128(1), true);
        assert_eq!(rates.too_many(&asking(2), true), None);
        assert_eq!(rates.too_many(&asking(2), false), Some(device));
        rates.written(0, RequestId::from_u128(1), false);
        assert_eq!(rates.too_many(&asking(2), false), None);
    }
}
