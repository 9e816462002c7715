//! An account's rules under arbitrary commands, clocks and crashes, against a model that keeps its
//! books in wide integers, and the ledger that comes of it.

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use mesh_core::billing::account::{
    Account, Command, Denied, Entry, Facts, Held, Hold, HoldId, Month, Prior, Release, Settle,
    apply, decide, replay,
};
use mesh_core::billing::ledger::{self, Charge, Hash, Record, Stored};
use mesh_core::billing::money::Nanos;
use mesh_core::billing::price::{LongContext, Price, Rates};
use mesh_core::billing::tier::Tier;
use mesh_core::ids::{AccountId, RequestId};
use mesh_core::time::UnixMillis;
use mesh_core::wire::message::TokensUsed;

use crate::steps;

const ACCOUNT: AccountId = AccountId::from_u128(5);

#[derive(Debug, Arbitrary)]
struct Head {
    tier: Kind,
    ceiling: Amount,
}

#[derive(Debug, Arbitrary)]
enum Kind {
    Free { quota: Amount },
    Managed { markup_bps: u16 },
    Byok { fee_bps: u16 },
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Amount {
    Nothing,
    Cents(u8),
    Dollars(u16),
    Most,
}

impl Amount {
    fn nanos(self) -> i64 {
        match self {
            Self::Nothing => 0,
            Self::Cents(cents) => i64::from(cents) * 10_000_000,
            Self::Dollars(dollars) => i64::from(dollars) * 1_000_000_000,
            Self::Most => i64::MAX,
        }
    }
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Count {
    Few(u8),
    Many(u16),
    Millions(u8),
    Any(u64),
}

impl Count {
    fn tokens(self) -> u64 {
        match self {
            Self::Few(count) => u64::from(count),
            Self::Many(count) => u64::from(count),
            Self::Millions(count) => u64::from(count) * 1_000_000,
            Self::Any(count) => count,
        }
    }
}

#[derive(Debug, Arbitrary)]
enum Step {
    Hold {
        request: u8,
        body: bool,
        price: u8,
        input: Count,
        output: Count,
    },
    Settle {
        request: u8,
        body: bool,
        price: u8,
        tokens: [Count; 4],
        estimated: bool,
    },
    Release {
        request: u8,
    },
    /// Days forward, or back.
    Clock {
        days: i8,
    },
    /// Holds are lost, the ledger stays.
    Crash,
}

fn price(number: u8) -> Price {
    let rates = |input, output, cache_read, cache_write| Rates {
        input,
        output,
        cache_read,
        cache_write,
    };
    let of = |input, output, cache_read, cache_write| {
        Price::flat(7, rates(input, output, cache_read, cache_write))
    };
    match number % 7 {
        6 => Price {
            long: Some(LongContext {
                over: 1000,
                rates: rates(6_000_001, 22_500_000, 600_000, 7_500_000),
            }),
            ..of(3_000_000, 15_000_000, 300_000, 3_750_000)
        },
        0 => of(0, 0, 0, 0),
        1 => of(3_000_000, 15_000_000, 300_000, 3_750_000),
        2 => of(1, 1, 1, 1),
        3 => of(0, 333_333, 0, 0),
        4 => of(5, 7, 11, 13),
        _ => of(u64::MAX, u64::MAX, u64::MAX, u64::MAX),
    }
}

/// Half to even, from picos times basis points to nanos, in unsigned arithmetic; `None` when no
/// ledger could hold it.
fn nanos(counts: [(u64, u64); 4], bps: u32) -> Option<i64> {
    let mut sum = 0u128;
    for (count, price) in counts {
        sum = sum.checked_add(u128::from(count).checked_mul(u128::from(price))?)?;
    }
    let scaled = sum.checked_mul(u128::from(bps))?;
    let (whole, rest) = (scaled / 10_000_000, scaled % 10_000_000);
    let up = rest > 5_000_000 || rest == 5_000_000 && whole % 2 == 1;
    i64::try_from(whole + u128::from(up)).ok()
}

fn rates_of(price: &Price, prompt: u64) -> Rates {
    match price.long {
        Some(long) if long.over < prompt => long.rates,
        _ => price.rates,
    }
}

fn used(price: Price, tokens: &TokensUsed, bps: u32) -> Option<i64> {
    let cached = tokens.cache_read.saturating_add(tokens.cache_write);
    let price = rates_of(&price, tokens.prompt.max(cached));
    let counts = [
        (tokens.prompt.saturating_sub(cached), price.input),
        (tokens.cache_read, price.cache_read),
        (tokens.cache_write, price.cache_write),
        (tokens.completion, price.output),
    ];
    nanos(counts, bps)
}

fn worst(price: Price, input: u64, output: u64, bps: u32) -> Option<i64> {
    let price = rates_of(&price, input);
    let dearest = [price.input, price.cache_read, price.cache_write]
        .into_iter()
        .max();
    nanos(
        [(input, dearest?), (output, price.output), (0, 0), (0, 0)],
        bps,
    )
}

/// Months since year 0 of a day since 1970 (H. Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `civil_from_days`).
fn month(days: i64) -> i32 {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    i32::try_from(year * 12 + month - 1).unwrap_or_default()
}

#[derive(Clone, Copy)]
struct ModelHold {
    id: HoldId,
    body: [u8; 32],
    charge: i64,
    base: i64,
    month: i32,
}

struct Model {
    tier: Tier,
    ceiling: i64,
    rate: u32,
    month: i32,
    spent: i128,
    used: i128,
    owed: i128,
    holds: BTreeMap<RequestId, ModelHold>,
    charged: BTreeMap<RequestId, Charge>,
}

/// A sum that the ledger can hold.
fn fits(amount: i128) -> Result<i64, Denied> {
    i64::try_from(amount).map_err(|_| Denied::Overflow)
}

impl Model {
    fn this_month(&self, month: i32) -> (i128, i128) {
        if month > self.month {
            (0, 0)
        } else {
            (self.spent, self.used)
        }
    }

    fn available(&self, month: i32) -> Result<i64, Denied> {
        let (spent, used) = self.this_month(self.judged(month));
        let sum = |of: fn(&ModelHold) -> i64| self.holds.values().map(|h| i128::from(of(h))).sum();
        let (held, held_base): (i128, i128) = (sum(|h| h.charge), sum(|h| h.base));
        fits(held)?;
        fits(held_base)?;
        let left = match self.tier {
            Tier::Free { monthly_quota } => i128::from(monthly_quota.0) - used - held_base,
            Tier::Managed { .. } | Tier::Byok { .. } => i128::from(self.ceiling) - spent - held,
        };
        Ok(fits(left)?.max(0))
    }

    /// A clock that was ahead, and what it set aside, are not forgotten.
    fn judged(&self, month: i32) -> i32 {
        let held = self.holds.values().map(|held| held.month).max();
        held.map_or(month, |held| held.max(month)).max(self.month)
    }

    fn hold(&self, hold: &Hold, month: i32) -> Result<ModelHold, Denied> {
        if let Some(charge) = self.charged.get(&hold.request) {
            return Err(if charge.body == hold.body {
                Denied::Expired {
                    charge: Box::new(charge.clone()),
                }
            } else {
                Denied::Conflict
            });
        }
        if let Some(running) = self.holds.get(&hold.request) {
            let same = running.body == hold.body;
            return Err(if same {
                Denied::InProgress
            } else {
                Denied::Conflict
            });
        }
        let at = |bps| {
            worst(
                hold.price,
                hold.input_tokens_max,
                hold.output_tokens_max,
                bps,
            )
        };
        let (Some(charge), Some(base)) = (at(self.rate), at(10_000)) else {
            return Err(Denied::Overflow);
        };
        let held = ModelHold {
            id: hold.id,
            body: hold.body,
            charge,
            base,
            month: self.judged(month),
        };
        if base == 0 && charge == 0 {
            return Ok(held);
        }
        if self.owed > 0 {
            let owed = Nanos(fits(self.owed)?);
            return Err(Denied::Owing { owed });
        }
        let available = self.available(month)?;
        let left = Nanos(available);
        match self.tier {
            Tier::Free { .. } if base > available => Err(Denied::QuotaSpent {
                needed: Nanos(base),
                available: left,
            }),
            Tier::Managed { .. } | Tier::Byok { .. } if charge > available => {
                Err(Denied::Insufficient {
                    needed: Nanos(charge),
                    available: left,
                })
            }
            Tier::Free { .. } | Tier::Managed { .. } | Tier::Byok { .. } => Ok(held),
        }
    }

    /// What is charged; `None` when it was before.
    fn settle(&self, settle: &Settle, month: i32) -> Result<Option<Charge>, Denied> {
        if let Some(prior) = self.charged.get(&settle.request) {
            let same = prior.body == settle.body;
            return if same {
                Ok(None)
            } else {
                Err(Denied::Conflict)
            };
        }
        let charge = used(settle.price, &settle.tokens, self.rate).ok_or(Denied::Overflow)?;
        let base = used(settle.price, &settle.tokens, 10_000).ok_or(Denied::Overflow)?;
        let hold = self.holds.get(&settle.request);
        let later = hold.map_or(0, |hold| hold.month);
        let held = hold.map_or(0, |hold| hold.charge);
        Ok(Some(Charge {
            request: settle.request,
            body: settle.body,
            model: settle.model.clone(),
            tokens: settle.tokens,
            price: settle.price,
            tier: self.tier,
            base: Nanos(base),
            charge: Nanos(charge),
            overage: Nanos((charge - held).max(0)),
            credits: Vec::new(),
            prepaid: Nanos::ZERO,
            device: None,
            project: None,
            guest: None,
            month: (later > month && later > self.month).then(|| Month::from_index(later)),
            estimated: settle.estimated,
        }))
    }

    /// Books a charge, or says that the books cannot hold it.
    fn book(&mut self, charge: &Charge, month: i32) -> bool {
        let month = charge.month.map_or(month, |later| later.index().max(month));
        let (spent, used) = self.this_month(month);
        let spent = spent + i128::from(charge.charge.0) - i128::from(charge.overage.0);
        let used = used + i128::from(charge.base.0);
        let owed = self.owed + i128::from(charge.overage.0);
        if [spent, used, owed]
            .into_iter()
            .any(|sum| fits(sum).is_err())
        {
            return false;
        }
        (self.spent, self.used, self.owed) = (spent, used, owed);
        self.month = self.month.max(month);
        self.holds.remove(&charge.request);
        self.charged.insert(charge.request, charge.clone());
        true
    }
}

struct World {
    account: Account,
    model: Model,
    days: i64,
    records: Vec<(UnixMillis, Record)>,
    chain: Vec<Stored>,
}

impl World {
    fn new(head: &Head) -> Self {
        let (tier, rate) = match head.tier {
            Kind::Free { quota } => {
                let monthly_quota = Nanos(quota.nanos());
                (Tier::Free { monthly_quota }, 0)
            }
            Kind::Managed { markup_bps } => {
                let markup_bps = u32::from(markup_bps);
                (Tier::Managed { markup_bps }, 10_000 + markup_bps)
            }
            Kind::Byok { fee_bps } => {
                let fee_bps = u32::from(fee_bps);
                (Tier::Byok { fee_bps }, fee_bps)
            }
        };
        let ceiling = head.ceiling.nanos();
        let mut world = Self {
            account: Account::new(tier, Nanos(ceiling)),
            model: Model {
                tier,
                ceiling,
                rate,
                month: 0,
                spent: 0,
                used: 0,
                owed: 0,
                holds: BTreeMap::new(),
                charged: BTreeMap::new(),
            },
            // 2024-02-28: a leap day is near.
            days: 19_781,
            records: Vec::new(),
            chain: Vec::new(),
        };
        world.record(Record::Opened {
            tier,
            ceiling: Nanos(ceiling),
        });
        world
    }

    fn now(&self) -> UnixMillis {
        UnixMillis(u64::try_from(self.days).unwrap_or_default() * 86_400_000 + 1)
    }

    fn record(&mut self, record: Record) {
        let sequence = self.chain.len() as u64;
        let Ok(entry) = ledger::Entry::new(sequence, self.now(), record.clone()) else {
            unreachable!("a charge that the books cannot write");
        };
        let credit = entry.movements.iter().map(|m| i128::from(m.amount.0));
        assert_eq!(credit.sum::<i128>(), 0, "debits are not credits");
        assert!(entry.movements.iter().all(|m| m.amount.0 != 0));
        let Ok(canonical) = entry.canonical() else {
            unreachable!("an entry without a text");
        };
        let previous = self.chain.last().map_or(Hash::START, |last| last.hash);
        self.chain.push(Stored {
            sequence,
            hash: ledger::link(ACCOUNT, previous, &canonical),
            canonical,
        });
        self.records.push((self.now(), record));
    }

    fn facts(&self, request: RequestId) -> Facts {
        Facts {
            now: self.now(),
            prior: self
                .model
                .charged
                .get(&request)
                .cloned()
                .map(Prior::Charged),
            provider_key: true,
        }
    }

    fn hold(&mut self, hold: Hold) {
        let month = month(self.days);
        let expected = self.model.hold(&hold, month);
        let request = hold.request;
        let found = decide(&self.account, &self.facts(request), Command::Hold(hold));
        let expected_entries = expected.clone().map(|held| {
            let held = Held {
                id: held.id,
                body: held.body,
                at: self.now(),
                month: Month::from_index(held.month),
                charge: Nanos(held.charge),
                base: Nanos(held.base),
                tier: self.model.tier,
                guest: None,
            };
            vec![Entry::Held(request, held)]
        });
        assert_eq!(found, expected_entries);
        if let (Ok(entries), Ok(held)) = (found, expected) {
            let now = self.now();
            assert_eq!(apply(&mut self.account, now, &entries[0]), Ok(()));
            self.model.holds.insert(request, held);
        }
    }

    fn settle(&mut self, settle: Settle) {
        let month = month(self.days);
        let expected = self.model.settle(&settle, month);
        let request = settle.request;
        let found = decide(&self.account, &self.facts(request), Command::Settle(settle));
        let entries = expected.clone().map(|charge| match charge {
            Some(charge) => vec![Entry::Charged(charge)],
            None => Vec::new(),
        });
        assert_eq!(found, entries);
        if let Ok(Some(charge)) = expected {
            let before = self.account.clone();
            let now = self.now();
            let applied = apply(&mut self.account, now, &Entry::Charged(charge.clone()));
            let booked = self.model.book(&charge, month);
            assert_eq!(applied.is_ok(), booked);
            if booked {
                self.record(Record::Charged(charge));
            } else {
                assert_eq!(self.account, before, "a charge that failed left something");
            }
        }
    }

    fn release(&mut self, request: RequestId) {
        let hold = self.model.holds.get(&request).map(|held| held.id);
        let release = |hold| Command::Release(Release { request, hold });
        // One of an earlier asking voids nothing.
        let stale = release(HoldId(hold.map_or(0, |hold| hold.0.saturating_sub(1))));
        assert_eq!(
            decide(&self.account, &self.facts(request), stale),
            Ok(Vec::new())
        );
        let held = self.model.holds.remove(&request).is_some();
        let found = decide(
            &self.account,
            &self.facts(request),
            release(hold.unwrap_or_default()),
        );
        let expected = if held {
            vec![Entry::Released(request)]
        } else {
            Vec::new()
        };
        assert_eq!(found, Ok(expected.clone()));
        let now = self.now();
        for entry in &expected {
            assert_eq!(apply(&mut self.account, now, entry), Ok(()));
        }
    }

    fn step(&mut self, step: &Step) {
        let id = |number: u8| RequestId::from_u128(u128::from(number % 8));
        let body = |body: bool| [u8::from(body); 32];
        match step {
            Step::Hold {
                request,
                body: is,
                price: number,
                input,
                output,
            } => self.hold(Hold {
                id: HoldId(
                    u64::try_from(self.model.holds.len() + self.model.charged.len() + 1)
                        .unwrap_or(1),
                ),
                request: id(*request),
                body: body(*is),
                price: price(*number),
                input_tokens_max: input.tokens(),
                output_tokens_max: output.tokens(),
                provider: "p".to_owned(),
                guest: None,
            }),
            Step::Settle {
                request,
                body: is,
                price: number,
                tokens: [prompt, completion, cache_read, cache_write],
                estimated,
            } => self.settle(Settle {
                request: id(*request),
                body: body(*is),
                model: "auto".to_owned(),
                price: price(*number),
                tokens: TokensUsed {
                    prompt: prompt.tokens(),
                    completion: completion.tokens(),
                    cache_read: cache_read.tokens(),
                    cache_write: cache_write.tokens(),
                    reasoning: 0,
                },
                estimated: *estimated,
                device: None,
                project: None,
            }),
            Step::Release { request } => self.release(id(*request)),
            Step::Clock { days } => {
                self.days += i64::from(*days);
            }
            Step::Crash => {
                self.model.holds.clear();
                self.account.holds.clear();
                let records = self.records.iter().map(|(at, record)| (*at, record));
                assert_eq!(replay(records), Ok(Some(self.account.clone())));
            }
        }
        self.agree();
    }

    fn agree(&self) {
        let (account, model) = (&self.account, &self.model);
        let figures = [account.spent, account.used, account.owed].map(|sum| i128::from(sum.0));
        assert_eq!(figures, [model.spent, model.used, model.owed]);
        assert!(figures.into_iter().all(|sum| sum >= 0), "{figures:?}");
        assert_eq!(account.holds.len(), model.holds.len());
        assert!(
            account
                .holds
                .values()
                .all(|h| h.charge.0 >= 0 && h.base.0 >= 0)
        );
        let month = month(self.days);
        let expected = model
            .available(month)
            .map(|left| (left, model.this_month(model.judged(month))));
        match (account.summary(self.now()), expected) {
            (Ok(summary), Ok((available, (spent, used)))) => {
                assert_eq!(summary.available.0, available);
                let sums = (i128::from(summary.spent.0), i128::from(summary.used.0));
                assert_eq!(sums, (spent, used));
                assert!(summary.held.0 >= 0);
                let shown = model.judged(month);
                let shown = format!("{:04}-{:02}", shown / 12, shown % 12 + 1);
                assert_eq!(summary.month, shown);
            }
            (found, expected) => assert_eq!(found.is_err(), expected.is_err()),
        }
        // What is spent and held stays within the ceiling; what went beyond is owed.
        let held: i128 = model
            .holds
            .values()
            .map(|hold| i128::from(hold.charge))
            .sum();
        match model.tier {
            Tier::Managed { .. } | Tier::Byok { .. } => {
                let (spent, _) = model.this_month(model.judged(month));
                assert!(
                    spent + held <= i128::from(model.ceiling),
                    "over the ceiling"
                );
            }
            Tier::Free { .. } => assert_eq!(held, 0),
        }
    }

    /// The chain holds; with one byte changed it does not.
    fn verify(&self, tamper: u16) {
        let charged: i128 = self
            .model
            .charged
            .values()
            .map(|c| i128::from(c.charge.0))
            .sum();
        match ledger::verify(ACCOUNT, self.chain.iter().cloned()) {
            Ok(verified) => {
                assert_eq!(verified.entries, self.chain.len() as u64);
                assert_eq!(i128::from(verified.charged.0), charged);
            }
            Err(fault) => assert!(fits(charged).is_err(), "{fault}"),
        }
        let mut chain = self.chain.clone();
        let at = usize::from(tamper) % chain.len();
        let text = &chain[at].canonical;
        let byte = usize::from(tamper >> 3) % text.len();
        if !text.is_char_boundary(byte) || !text.is_char_boundary(byte + 1) {
            return;
        }
        let other = if text.as_bytes()[byte] == b'0' {
            "1"
        } else {
            "0"
        };
        chain[at].canonical.replace_range(byte..=byte, other);
        assert!(
            ledger::verify(ACCOUNT, chain).is_err(),
            "a changed byte passes"
        );
    }
}

/// See the module documentation.
pub fn run(data: &[u8]) {
    let Some(((head, tamper), steps)) = steps::script::<(Head, u16), Step>(data) else {
        return;
    };
    let mut world = World::new(&head);
    for step in &steps {
        world.step(step);
    }
    world.verify(tamper);
}
