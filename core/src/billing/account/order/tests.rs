use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::{
    Command, Entry, Facts, Hold, HoldId, Release, Settle, apply, decide as decide_command, replay,
    replay_one,
};
use super::*;
use crate::billing::ledger::{Book, Charge};
use crate::billing::price::Price;
use crate::ids::RequestId;
use crate::wire::message::TokensUsed;

const NOW: UnixMillis = UnixMillis(1_795_000_000_000);
const DAY: u64 = 24 * 60 * 60 * 1000;

fn reference(number: u32) -> Reference {
    Reference::new(format!("test:{number}")).unwrap()
}

fn order(number: u32, what: What) -> Order {
    Order {
        reference: reference(number),
        what,
    }
}

fn days(days: u64) -> UnixMillis {
    UnixMillis(NOW.0 + days * DAY)
}

fn grant(amount: i64, ends: u64) -> What {
    What::Grant {
        amount: Nanos(amount),
        expires_at: days(ends),
    }
}

fn pay(amount: i64) -> What {
    What::Pay {
        amount: Nanos(amount),
    }
}

/// An account with the ledger that made it.
#[derive(Clone)]
struct Books {
    account: Account,
    ledger: Vec<(UnixMillis, Record)>,
    charges: BTreeMap<u128, Charge>,
    orders: BTreeMap<Reference, Record>,
    now: UnixMillis,
    holds: u64,
}

impl Books {
    fn new(ceiling: i64) -> Self {
        let (tier, ceiling) = (Tier::MANAGED, Nanos(ceiling));
        Self {
            account: Account::new(tier, ceiling),
            ledger: vec![(NOW, Record::Opened { tier, ceiling })],
            charges: BTreeMap::new(),
            orders: BTreeMap::new(),
            now: NOW,
            holds: 0,
        }
    }

    fn order(&mut self, order: &Order) -> Result<usize, Refused> {
        let prior = self.orders.get(&order.reference);
        let records = decide(&self.account, self.now, prior, order)?;
        for record in &records {
            let next = replay_one(Some(self.account.clone()), self.now, record)
                .unwrap()
                .unwrap();
            let holds = std::mem::take(&mut self.account.holds);
            self.account = Account { holds, ..next };
            self.ledger.push((self.now, record.clone()));
        }
        if let Some(record) = records.last() {
            self.orders.insert(order.reference.clone(), record.clone());
        }
        Ok(records.len())
    }

    fn command(&mut self, id: u128, command: Command) -> Result<(), super::super::Denied> {
        let facts = Facts {
            now: self.now,
            prior: self.charges.get(&id).cloned(),
        };
        for entry in decide_command(&self.account, &facts, command)? {
            apply(&mut self.account, self.now, &entry).unwrap();
            if let Entry::Charged(charge) = entry {
                self.ledger
                    .push((self.now, Record::Charged(charge.clone())));
                self.charges.insert(id, charge);
            }
        }
        Ok(())
    }

    /// Holds the worst case of one output token for each nano-dollar.
    fn hold(&mut self, id: u128, nanos: u64) -> Result<(), super::super::Denied> {
        self.holds += 1;
        let hold = Hold {
            id: HoldId(self.holds),
            request: RequestId::from_u128(id),
            body: [0; 32],
            price: nano_price(),
            input_tokens_max: 0,
            output_tokens_max: nanos,
        };
        self.command(id, Command::Hold(hold))
    }

    fn settle(&mut self, id: u128, nanos: u64) -> Charge {
        let settle = Settle {
            request: RequestId::from_u128(id),
            body: [0; 32],
            model: "m".to_owned(),
            price: nano_price(),
            tokens: TokensUsed {
                completion: nanos,
                ..TokensUsed::default()
            },
            estimated: false,
        };
        self.command(id, Command::Settle(settle)).unwrap();
        self.charges[&id].clone()
    }

    /// What the movements of the whole ledger add up to in one account of the books.
    fn book(&self, book: Book) -> i128 {
        let movements = self
            .ledger
            .iter()
            .flat_map(|(_, record)| record.movements().unwrap());
        let of = movements.filter(|movement| movement.book == book);
        of.map(|movement| i128::from(movement.amount.0)).sum()
    }
}

/// One nano-dollar for a token of output, its markup apart: $0.001 per million at 10 300 bps would not
/// be whole.
fn nano_price() -> Price {
    Price {
        output: 1000,
        ..Price::FREE
    }
}

#[test]
fn a_reference_is_a_short_plain_word() {
    for fine in ["a", "stripe:cs_test_a1B2", "2026-11-24.x", &"r".repeat(120)] {
        assert_eq!(Reference::new(fine).unwrap().as_str(), fine);
    }
    for bad in ["", " ", "a b", "ä", "a\n", "a/b", &"r".repeat(121)] {
        assert!(Reference::new(bad).is_err(), "{bad:?}");
        let json = serde_json::to_string(bad).unwrap();
        assert!(serde_json::from_str::<Reference>(&json).is_err());
    }
}

#[test]
fn a_payment_pays_what_is_owed_and_the_rest_is_spent_before_the_ceiling() {
    let mut books = Books::new(0);
    assert_eq!(
        books.hold(1, 100),
        Err(super::super::Denied::Insufficient {
            needed: Nanos(103),
            available: Nanos::ZERO,
        })
    );
    // Without a hold everything is owed: 1 000 tokens at one nano, 3 % on top.
    assert_eq!(books.settle(2, 1000).overage, Nanos(1030));
    books.order(&order(1, pay(1500))).unwrap();
    assert_eq!(
        (books.account.owed, books.account.balance),
        (Nanos::ZERO, Nanos(470))
    );
    books.hold(1, 100).unwrap();
    let charge = books.settle(1, 100);
    assert_eq!(
        (charge.prepaid, charge.postpaid()),
        (Nanos(103), Ok(Nanos::ZERO))
    );
    assert_eq!(
        (books.account.balance, books.account.spent),
        (Nanos(367), Nanos::ZERO)
    );
}

#[test]
fn credits_are_spent_by_the_earliest_end_then_the_balance_then_the_ceiling() {
    let mut books = Books::new(1_000_000);
    books.order(&order(1, grant(100, 20))).unwrap();
    books.order(&order(2, grant(50, 10))).unwrap();
    books.order(&order(3, pay(70))).unwrap();
    books.hold(1, 1000).unwrap();
    // 1 000 × 1.03 = 1 030: 50 of the one that ends first, 100, 70, and 810 within the ceiling.
    let charge = books.settle(1, 1000);
    let drawn: Vec<_> = charge
        .credits
        .iter()
        .map(|d| (d.credit.as_str(), d.amount.0))
        .collect();
    assert_eq!(drawn, [("test:2", 50), ("test:1", 100)]);
    assert_eq!(
        (charge.prepaid, charge.postpaid()),
        (Nanos(70), Ok(Nanos(810)))
    );
    let summary = books.account.summary(NOW).unwrap();
    assert_eq!((summary.spent, summary.balance), (Nanos(810), Nanos::ZERO));
    assert_eq!(summary.credits, []);
}

#[test]
fn a_credit_that_ended_serves_what_was_set_aside_before_and_nothing_after() {
    let mut books = Books::new(0);
    books.order(&order(1, grant(1000, 1))).unwrap();
    books.hold(1, 100).unwrap();
    books.now = days(1);
    assert_eq!(
        books.account.summary(books.now).unwrap().available,
        Nanos::ZERO
    );
    assert!(books.hold(2, 1).is_err());
    let charge = books.settle(1, 100);
    assert_eq!(
        (charge.credits[0].amount, charge.overage),
        (Nanos(103), Nanos::ZERO)
    );
    // A day later it leaves the books, before the next order.
    books.now = days(2);
    assert_eq!(books.order(&order(2, pay(5))), Ok(2));
    assert_eq!(books.account.credits, []);
    assert_eq!(books.book(Book::Credits), 0);
}

#[test]
fn said_again_an_order_changes_nothing_and_with_other_contents_it_is_refused() {
    for (what, other) in [
        (pay(5), pay(6)),
        (grant(5, 1), grant(5, 2)),
        (
            What::SetTier { tier: Tier::BYOK },
            What::SetTier {
                tier: Tier::MANAGED,
            },
        ),
        (What::SetCeiling { ceiling: Nanos(1) }, pay(1)),
    ] {
        let mut books = Books::new(10);
        assert_eq!(books.order(&order(1, what)), Ok(1));
        let after = books.account.clone();
        assert_eq!(books.order(&order(1, what)), Ok(0));
        assert_eq!(books.order(&order(1, other)), Err(Refused::Conflict));
        assert_eq!(books.account, after);
    }
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let mut books = Books::new(10);
    let before = books.account.clone();
    for (what, refused) in [
        (pay(0), Refused::NotPositive),
        (pay(-1), Refused::NotPositive),
        (grant(0, 1), Refused::NotPositive),
        (grant(1, 0), Refused::EndsTooEarly),
        (
            What::SetCeiling { ceiling: Nanos(-1) },
            Refused::NegativeCeiling,
        ),
    ] {
        assert_eq!(books.order(&order(1, what)), Err(refused));
    }
    assert_eq!(books.account, before);
    books.order(&order(2, pay(i64::MAX - 10))).unwrap();
    assert_eq!(
        books.order(&order(3, pay(1))),
        Err(Refused::Overflow),
        "more than can be summed up"
    );
    let mut many = Books::new(0);
    for number in 0..64 {
        many.order(&order(number, grant(1, 1))).unwrap();
    }
    assert_eq!(
        many.order(&order(64, grant(1, 1))),
        Err(Refused::TooManyCredits)
    );
    many.order(&order(65, pay(1))).unwrap();
}

#[test]
fn an_account_written_down_before_there_were_funds_is_still_read() {
    let old = r#"{"tier":{"tier":"managed","markup_bps":300},"ceiling":5,"month":24322,"spent":1,"used":1,"owed":0}"#;
    let account: Account = serde_json::from_str(old).unwrap();
    assert_eq!((account.balance, account.credits.len()), (Nanos::ZERO, 0));
}

#[derive(Clone, Debug)]
enum Step {
    Order(u32, What),
    Hold(u128, u64),
    Settle(u128, u64),
    Release(u128),
    Days(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let what = prop_oneof![
        (1i64..3000).prop_map(pay),
        (1i64..3000, 1u64..60).prop_map(|(amount, ends)| grant(amount, ends)),
        (0i64..5000).prop_map(|nanos| What::SetCeiling {
            ceiling: Nanos(nanos)
        }),
        Just(What::SetTier { tier: Tier::BYOK }),
        Just(What::SetTier {
            tier: Tier::MANAGED
        }),
    ];
    prop_oneof![
        2 => (0u32..40, what).prop_map(|(number, what)| Step::Order(number, what)),
        3 => (0u128..20, 0u64..2000).prop_map(|(id, nanos)| Step::Hold(id, nanos)),
        3 => (0u128..20, 0u64..2500).prop_map(|(id, nanos)| Step::Settle(id, nanos)),
        1 => (0u128..20).prop_map(Step::Release),
        1 => (0u64..20).prop_map(Step::Days),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// The model is the list of movements: what an account says of itself is summed up anew from it.
    #[test]
    fn whatever_happens_the_account_is_what_its_movements_add_up_to_and_nothing_is_negative(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut books = Books::new(3000);
        for step in steps {
            match step {
                Step::Order(number, what) => {
                    let _refused = books.order(&order(number, what));
                }
                Step::Hold(id, nanos) => {
                    let before = books.account.summary(books.now)?;
                    if books.hold(id, nanos).is_ok() {
                        let after = books.account.summary(books.now)?;
                        prop_assert_eq!(after.available.plus(after.held.minus(before.held)?)?, before.available);
                    }
                }
                Step::Settle(id, nanos) => {
                    books.settle(id, nanos);
                }
                Step::Release(id) => {
                    let request = RequestId::from_u128(id);
                    let hold = books.account.holds.get(&request).map(|held| held.id).unwrap_or_default();
                    books.command(id, Command::Release(Release { request, hold })).unwrap();
                }
                Step::Days(days) => books.now = UnixMillis(books.now.0 + days * DAY),
            }
            let account = &books.account;
            let left: i128 = account.credits.iter().map(|credit| i128::from(credit.left.0)).sum();
            prop_assert_eq!(books.book(Book::Prepaid), -i128::from(account.balance.0));
            prop_assert_eq!(books.book(Book::Credits), -left);
            prop_assert_eq!(books.book(Book::Owed), i128::from(account.owed.0));
            prop_assert!(account.balance >= Nanos::ZERO && account.owed >= Nanos::ZERO);
            prop_assert!(account.credits.iter().all(|credit| credit.left >= Nanos::ZERO));
            for charge in books.charges.values() {
                let parts = [charge.prepaid, charge.credited()?, charge.postpaid()?, charge.overage];
                prop_assert!(parts.iter().all(|part| *part >= Nanos::ZERO));
                prop_assert_eq!(parts.iter().map(|part| part.0).sum::<i64>(), charge.charge.0);
            }
        }
        let replayed = replay(books.ledger.iter().map(|(at, record)| (*at, record)))?.unwrap();
        let holds = std::mem::take(&mut books.account.holds);
        prop_assert_eq!(&replayed, &books.account);
        drop(holds);
        for (_, record) in &books.ledger {
            let sum: i128 = record.movements()?.iter().map(|m| i128::from(m.amount.0)).sum();
            prop_assert_eq!(sum, 0);
        }
    }
}
