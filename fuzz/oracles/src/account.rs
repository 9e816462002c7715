//! An account's rules under arbitrary commands, orders, clocks and crashes, against a model that keeps
//! its books in wide integers, and the ledger, the usage and the invoices that come of it.

mod agree;
mod model;
mod orders;

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use mesh_core::billing::account::order::{self, Known, Subject};
use mesh_core::billing::account::{
    Account, Command, Entry, Facts, Held, Hold, HoldId, Lose, Month, Prior, Release, Settle, apply,
    decide, replay, replay_one,
};
use mesh_core::billing::ledger::{self, Hash, Record, Stored};
use mesh_core::billing::money::Nanos;
use mesh_core::billing::price::{LongContext, Price, Rates};
use mesh_core::billing::tier::Tier;
use mesh_core::billing::usage::{self, Key, Sums};
use mesh_core::ids::{AccountId, RequestId};
use mesh_core::time::UnixMillis;
use mesh_core::wire::message::TokensUsed;

use self::model::Model;
use self::orders::Said;
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
    /// A crash cut it off.
    Lose {
        request: u8,
        body: bool,
        price: u8,
        prompt: Count,
        completion: Count,
    },
    /// Something is ordered under a reference.
    Order {
        number: u8,
        said: Said,
    },
    /// Credits that have ended leave the books.
    Lapse,
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

struct World {
    account: Account,
    model: Model,
    days: i64,
    records: Vec<(UnixMillis, Record)>,
    chain: Vec<Stored>,
    usage: BTreeMap<Key, Sums>,
}

impl World {
    fn new(head: &Head) -> Self {
        let tier = match head.tier {
            Kind::Free { quota } => Tier::Free {
                monthly_quota: Nanos(quota.nanos()),
            },
            Kind::Managed { markup_bps } => Tier::Managed {
                markup_bps: markup_bps.into(),
            },
            Kind::Byok { fee_bps } => Tier::Byok {
                fee_bps: fee_bps.into(),
            },
        };
        let ceiling = head.ceiling.nanos();
        let mut world = Self {
            account: Account::new(tier, Nanos(ceiling)),
            model: Model::new(tier, ceiling),
            // 2024-02-28: a leap day is near.
            days: 19_781,
            records: Vec::new(),
            chain: Vec::new(),
            usage: BTreeMap::new(),
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

    fn now_ms(&self) -> u64 {
        self.now().0
    }

    /// Writes a record that is booked: its entry, and what it adds to what was used.
    fn record(&mut self, record: Record) {
        match usage::added(&record, self.now(), self.account.month) {
            Ok(Some((key, sums))) => {
                let sum = self.usage.entry(key).or_default();
                // Tokens of many charges together may be more than can be counted.
                *sum = sum.plus(&sums).unwrap_or(*sum);
            }
            Ok(None) => {}
            Err(overflow) => unreachable!("{overflow}"),
        }
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
            prior: self.prior(request),
            provider_key: true,
        }
    }

    fn prior(&self, request: RequestId) -> Option<Prior> {
        let charged = self.model.charged.get(&request);
        let charged = charged.map(|(_, charge)| Prior::Charged(charge.clone()));
        charged.or_else(|| self.model.lost.get(&request).cloned().map(Prior::Lost))
    }

    fn hold(&mut self, hold: Hold) {
        let expected = self.model.hold(&hold, self.now_ms());
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
                tier: held.tier,
                device: None,
                guest: None,
            };
            vec![Entry::Held(request, held)]
        });
        assert_eq!(found, expected_entries);
        if let (Ok(entries), Ok(held)) = (found, expected) {
            let now = self.now();
            assert_eq!(apply(&mut self.account, now, &entries[0]), Ok(()));
            self.model.holds.insert(request, held);
            self.enough_is_there(Nanos(held.charge));
        }
    }

    fn settle(&mut self, settle: Settle) {
        let now_ms = self.now_ms();
        let expected = self.model.settle(&settle, now_ms);
        let request = settle.request;
        let found = decide(&self.account, &self.facts(request), Command::Settle(settle));
        let entries = expected.clone().map(|charge| match charge {
            Some(charge) => vec![Entry::Charged(charge)],
            None => Vec::new(),
        });
        assert_eq!(found, entries);
        if let Ok(Some(charge)) = expected {
            let before = self.account.clone();
            let spent = before.spent;
            let now = self.now();
            let applied = apply(&mut self.account, now, &Entry::Charged(charge.clone()));
            let booked = self.model.book(&charge, now_ms);
            assert_eq!(applied.is_ok(), booked);
            if booked {
                let grew = self.account.spent > spent && self.account.month == before.month;
                let within = self.account.spent <= self.account.ceiling;
                assert!(within || !grew, "spending grew beyond the ceiling");
                self.record(Record::Charged(charge));
            } else {
                assert_eq!(self.account, before, "a charge that failed left something");
            }
        }
    }

    fn lose(&mut self, lose: Lose) {
        let expected = self.model.lose(&lose);
        let request = lose.request;
        let found = decide(&self.account, &self.facts(request), Command::Lose(lose));
        let entries = expected.clone().map(|loss| match loss {
            Some(loss) => vec![Entry::Lost(loss)],
            None => Vec::new(),
        });
        assert_eq!(found, entries);
        if let Ok(Some(loss)) = expected {
            let now = self.now();
            let held = self.account.holds.remove(&request);
            let before = self.account.clone();
            if let Some(held) = held {
                self.account.holds.insert(request, held);
            }
            let entry = Entry::Lost(loss.clone());
            assert_eq!(apply(&mut self.account, now, &entry), Ok(()));
            assert_eq!(self.account, before, "a loss cost the account something");
            self.model.holds.remove(&request);
            self.model.lost.insert(request, loss.clone());
            self.record(Record::Lost(loss));
        }
    }

    /// What a store looks up for an order.
    fn known(&self, order: &order::Order) -> Known {
        let orders = &self.model.orders;
        let subject = match order.subject() {
            Some(Subject::Charge(request)) => {
                let charged = self.model.charged.get(&request);
                charged.map(|(at, charge)| (UnixMillis(*at), Record::Charged(charge.clone())))
            }
            Some(Subject::Payment(reference)) => {
                let done = orders.get(&reference);
                done.map(|done| (self.now(), done.record.clone()))
            }
            None => None,
        };
        let undone = self.records.iter().map(|(_, record)| record);
        let undone = undone.filter(|record| match (record, order.subject()) {
            (Record::Refunded(refunded), Some(Subject::Charge(request))) => {
                refunded.undoes == request
            }
            (Record::Reversed { undoes, .. }, Some(Subject::Payment(payment))) => {
                *undoes == payment
            }
            _ => false,
        });
        Known {
            now: self.now(),
            prior: orders.get(&order.reference).map(|done| done.record.clone()),
            subject,
            undone: undone.cloned().collect(),
        }
    }

    fn order(&mut self, number: u8, said: Said) {
        let now_ms = self.now_ms();
        let order = said.order(number, now_ms);
        let known = self.known(&order);
        let expected = self.model.order(&order, now_ms);
        let found = order::decide(&self.account, &known, &order);
        assert_eq!(found, expected, "{order:?}");
        self.book(found.unwrap_or_default());
        // Said again it changes nothing.
        let known = self.known(&order);
        if known.prior.is_some() {
            let again = order::decide(&self.account, &known, &order);
            assert!(again == Ok(Vec::new()) || again == Err(order::Refused::Conflict));
        }
    }

    fn lapse(&mut self) {
        let expected = self.model.lapse(self.now_ms());
        let found = order::lapsed(&self.account, self.now());
        assert_eq!(found, expected);
        self.book(found);
    }

    fn book(&mut self, records: Vec<Record>) {
        for record in records {
            let holds = std::mem::take(&mut self.account.holds);
            match replay_one(Some(self.account.clone()), self.now(), &record) {
                Ok(Some(account)) => self.account = account,
                other => unreachable!("an order that was decided cannot be booked: {other:?}"),
            }
            self.account.holds = holds;
            self.record(record.clone());
            if let Record::Invoiced(invoiced) = &record {
                self.invoice(invoiced);
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
                    u64::try_from(
                        self.model.grants + self.records.len() + self.model.holds.len() + 1,
                    )
                    .unwrap_or(1),
                ),
                request: id(*request),
                body: body(*is),
                price: price(*number),
                input_tokens_max: input.tokens(),
                output_tokens_max: output.tokens(),
                provider: "p".to_owned(),
                device: None,
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
            Step::Lose {
                request,
                body: is,
                price: number,
                prompt,
                completion,
            } => self.lose(Lose {
                request: id(*request),
                body: body(*is),
                tier: self.model.tier,
                model: "auto".to_owned(),
                price: price(*number),
                tokens: TokensUsed {
                    prompt: prompt.tokens(),
                    completion: completion.tokens(),
                    ..TokensUsed::default()
                },
                device: None,
            }),
            Step::Order { number, said } => self.order(*number, *said),
            Step::Lapse => self.lapse(),
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
    world.add_up();
}
