//! Money that has nothing to do with a question: orders as they come in, what gateways do for the
//! accounts from time to time, and the watch over the ledgers.

use std::collections::BTreeMap;

use mesh_core::billing::account::order::{Order, Reference, Refused, What};
use mesh_core::billing::ledger::seal::{Seal, SealKey};
use mesh_core::billing::money::Nanos;
use mesh_core::billing::tier::Tier;
use mesh_core::gateway::{Ask, Told};
use mesh_core::ids::{AccountId, RequestId};
use mesh_core::time::UnixMillis;

use super::{Event, World, account_id, request_id};
use crate::chance::Chance;
use crate::invariants::money::at_end::{self, Said};
use crate::invariants::money::{Held, Ledgers};
use crate::outside::store::Ordered;
use crate::plan::{Deed, Happening, TierPlan};
use crate::queue::{Micros, SECOND};
use crate::record::Violation;
use crate::wire::{Unbuildable, Wire};

/// A gateway looks after the accounts so often.
pub(super) const ROUNDS_EVERY: Micros = 20 * SECOND;
/// Whoever says an order says it again after so long if nobody took it.
const SAID_AGAIN_AFTER: Micros = 5 * SECOND;
/// An estimate may be as old as this when its gateway goes down: a second, and what the store takes.
const LOSS_AGE: Micros = SECOND + SECOND / 5;
/// The longest that the word of a slow store is under way, over its own slowness.
const STORE_LAG: Micros = 30 * SECOND;

/// What is known of the money from outside of the store.
#[derive(Debug)]
pub(super) struct Watch {
    ledgers: Ledgers,
    /// What each call had produced when, bytes.
    calls: BTreeMap<RequestId, Vec<(Micros, usize)>>,
    said: Said,
    key: SealKey,
    seals: Vec<Seal>,
}

/// What a loss has to say at least and at most, tokens written.
struct Due {
    account: AccountId,
    request: RequestId,
    least: i128,
    most: i128,
}

impl Watch {
    pub(super) fn new(seed: u64) -> Result<Self, Unbuildable> {
        let secret = Chance::of(seed, "store", "seal").bytes();
        let key = SealKey::from_seed(&secret);
        Ok(Self {
            ledgers: Ledgers::default(),
            calls: BTreeMap::new(),
            said: Said::new(),
            key: key.ok_or_else(|| Unbuildable("no key to seal with".to_owned()))?,
            seals: Vec::new(),
        })
    }

    /// A model is called.
    pub(super) fn called(&mut self, now: Micros, request: RequestId) {
        self.calls.insert(request, vec![(now, 0)]);
    }

    /// A model server has produced so many bytes of text in its call.
    pub(super) fn produced(&mut self, now: Micros, request: RequestId, bytes: usize) {
        if let Some(call) = self.calls.get_mut(&request) {
            call.push((now, bytes));
        }
    }
}

fn reference(kind: &str, number: u32) -> Option<Reference> {
    Reference::new(format!("{kind}:{number}")).ok()
}

impl<W: Wire> World<W> {
    /// Somebody says an order to one of the gateways; they say it again until one takes it.
    pub(super) fn order(&mut self, index: usize, account: usize, deed: &Deed) {
        let id = account_id(account);
        if let Deed::Pay { payment, nanos } = deed {
            let name = (id, format!("pay:{payment}"));
            self.money.said.entry(name).or_default().insert(*nanos);
        }
        let alive = |gateway: &usize| self.gateways[*gateway].machine.is_some();
        let taker = (0..self.gateways.len()).find(alive);
        let works = self.queue.now() >= self.store_broken_until;
        let Some(gateway) = taker.filter(|_| works) else {
            let again = self.queue.now() + SAID_AGAIN_AFTER;
            return self.queue.put(again, Event::Happening(index));
        };
        let Some(order) = self.written_out(id, deed) else {
            return;
        };
        let now = self.gateway_now(gateway).wall;
        match self.store.order(now, id, &order) {
            Ok(word) => self.ordered(&order, word),
            Err(broken) => self.note("store", format!("broken: {broken}")),
        }
        self.look_at_ledgers();
    }

    fn ordered(&mut self, order: &Order, word: Result<Ordered, Refused>) {
        match word {
            Ok(Ordered::Now) => {}
            Ok(Ordered::Before) => self.sometimes.saw("an order was said twice"),
            Err(Refused::Conflict) => self
                .sometimes
                .saw("a reference was used for something else"),
            Err(Refused::MoreThanThere { .. }) => self
                .sometimes
                .saw("more was to be given back than there was"),
            Err(_) => {}
        }
        self.note("store", format!("{}: {word:?}", order.reference));
    }

    fn written_out(&self, account: AccountId, deed: &Deed) -> Option<Order> {
        let (reference, what) = match *deed {
            Deed::Pay { payment, nanos } => {
                let amount = Nanos(nanos);
                (reference("pay", payment)?, What::Pay { amount })
            }
            Deed::Grant {
                credit,
                nanos,
                ends_ms,
            } => {
                let (amount, expires_at) = (Nanos(nanos), UnixMillis(ends_ms));
                let what = What::Grant { amount, expires_at };
                (reference("credit", credit)?, what)
            }
            Deed::Refund {
                refund,
                question,
                share_ppm,
            } => {
                let charge = request_id(question);
                let charged = self.store.charge(account, charge);
                let charged = charged.map_or(0, |charge| i128::from(charge.charge.0));
                let amount = (charged * i128::from(share_ppm) / 1_000_000).max(1);
                let amount = Nanos(i64::try_from(amount).unwrap_or(i64::MAX));
                let what = What::Refund { charge, amount };
                (reference("refund", refund)?, what)
            }
            Deed::Dispute {
                dispute,
                payment,
                nanos,
            } => {
                let (payment, amount) = (reference("pay", payment)?, Nanos(nanos));
                let what = What::Reverse { payment, amount };
                (reference("dispute", dispute)?, what)
            }
            Deed::SetTier { change, tier } => {
                let tier = match tier {
                    TierPlan::Free => Tier::Free {
                        monthly_quota: Nanos(1_000_000_000),
                    },
                    TierPlan::Managed => Tier::MANAGED,
                    TierPlan::Byok => Tier::BYOK,
                };
                (reference("terms", change)?, What::SetTier { tier })
            }
            Deed::SetCeiling { change, nanos } => {
                let ceiling = Nanos(nanos);
                (reference("terms", change)?, What::SetCeiling { ceiling })
            }
        };
        Some(Order { reference, what })
    }

    /// What a living gateway does for the accounts from time to time: months that are over are
    /// invoiced, credits that have ended leave the books, all ledgers are sealed.
    pub(super) fn rounds(&mut self, gateway: usize) {
        let next = self.queue.now() + ROUNDS_EVERY;
        self.queue.put(next, Event::Rounds(gateway));
        let works = self.queue.now() >= self.store_broken_until;
        if self.gateways[gateway].machine.is_none() || !works {
            return;
        }
        let now = self.gateway_now(gateway).wall;
        if let Err(broken) = self.store.close_and_lapse(now) {
            self.note("store", format!("broken: {broken}"));
        }
        self.forget_answers();
        self.look_at_ledgers();
        // A fleet that only beats is sealed no further.
        let seal = self.store.seal(now, &self.money.key);
        let last = self.money.seals.last();
        if last.is_none_or(|last| last.heads != seal.heads) {
            self.money.seals.push(seal);
        }
    }

    /// A gateway died: its holds are void, and what its answers had used is the operator's loss.
    pub(super) fn lose_all_of(&mut self, gateway: usize) {
        let due = self.losses_due(gateway);
        let now = self.gateway_now(gateway).wall;
        if let Err(broken) = self.store.lose_all_of(now, gateway) {
            self.note("store", format!("broken: {broken}"));
        }
        self.look_at_ledgers();
        for due in due {
            let ledger = self.money.ledgers.of(due.account);
            let lost = ledger.and_then(|ledger| ledger.lost(due.request));
            if !lost.is_some_and(|lost| (due.least..=due.most).contains(&lost)) {
                let found = format!(
                    "{}: {lost:?} tokens, {} to {} were written",
                    due.request, due.least, due.most
                );
                self.break_off(
                    "the loss booked at a crash is an estimate at most a second old",
                    found,
                );
            }
        }
    }

    /// What has to be booked for the calls that a gateway has under way. A store that was in trouble
    /// meanwhile owes nothing.
    fn losses_due(&self, gateway: usize) -> Vec<Due> {
        let now = self.queue.now();
        let calls = self.calls.values().filter(|call| call.gateway == gateway);
        let due = calls.filter_map(|call| {
            let asked = self.record.questions.get(&call.request)?;
            let steps = self.money.calls.get(&call.request)?;
            let since = steps.first()?.0;
            let before = steps.iter().rfind(|(at, _)| at + LOSS_AGE <= now)?.1;
            let whole = asked.produced.last().is_some_and(|text| {
                text.split_whitespace().count() >= usize::try_from(asked.words).unwrap_or(0)
            });
            if !asked.calling || whole || self.was_in_trouble(since, now) {
                return None;
            }
            // Four bytes are a token, up to the longest answer that is asked for; a provider may say how
            // many a whole answer has.
            let tokens = |bytes: usize| i128::try_from(bytes.div_ceil(4).min(4000)).unwrap_or(0);
            let said = i128::from(asked.usage.completion);
            Some(Due {
                account: asked.account,
                request: asked.wire,
                least: tokens(before),
                most: tokens(steps.last()?.1).max(said),
            })
        });
        due.collect()
    }

    /// Whether the store was slow or broken between these moments.
    fn was_in_trouble(&self, from: Micros, to: Micros) -> bool {
        self.plan.happenings.iter().any(|timed| {
            let (Happening::SlowStore { until, .. } | Happening::BrokenStore { until }) =
                timed.what
            else {
                return false;
            };
            timed.at <= to && until + STORE_LAG >= from
        })
    }

    /// The store gave its word on a question.
    pub(super) fn money_told(&mut self, gateway: usize, ask: &Ask, told: Option<&Told>) {
        self.look_at_ledgers();
        let (Ask::Hold { account, hold }, Some(Told::Held(Ok(_)))) = (ask, told) else {
            return;
        };
        let charge = self.store.held(*account, hold.request);
        let held = Held {
            at_ms: self.gateway_now(gateway).wall.0,
            charge: charge.map_or(0, |charge| i128::from(charge.0)),
        };
        let Some((_, books)) = self.store.books().find(|(id, _)| id == account) else {
            return;
        };
        let judged = self.money.ledgers.held(books, *account, hold.request, held);
        if let Err(Violation { invariant, found }) = judged {
            self.break_off(&invariant, found);
        }
    }

    /// Reads what is new in every ledger.
    fn look_at_ledgers(&mut self) {
        let mut broken = None;
        for (id, books) in self.store.books() {
            match self.money.ledgers.read(id, books) {
                Ok(rare) => rare.into_iter().for_each(|state| self.sometimes.saw(state)),
                Err(violation) => broken = broken.or(Some(violation)),
            }
        }
        if let Some(Violation { invariant, found }) = broken {
            self.break_off(&invariant, found);
        }
    }

    /// An invariant does not hold: the first ends the run.
    pub(super) fn break_off(&mut self, invariant: &str, found: String) {
        if self.violation.is_none() {
            self.note("invariant", format!("BROKEN: {invariant}"));
            self.violation = Some(Violation {
                invariant: invariant.to_owned(),
                found,
            });
        }
    }

    /// What must hold of money at the end.
    pub(super) fn judge_money(&mut self) -> Result<(), Violation> {
        self.look_at_ledgers();
        at_end::check(&at_end::End {
            store: &self.store,
            ledgers: &self.money.ledgers,
            said: &self.money.said,
            seals: &self.money.seals,
            key: self.money.key.public(),
            wall_ms: self.wall().0,
        })
    }
}
