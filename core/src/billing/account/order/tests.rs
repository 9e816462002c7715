#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "looks for a few kinds of records among many"
)]

mod ends;
mod given_back;
mod months;
mod random;

use std::collections::BTreeMap;

use super::super::{
    Command, Entry, Facts, Hold, HoldId, Lose, Prior, Release, Settle, apply,
    decide as decide_command, replay, replay_one,
};
use super::*;
use crate::billing::ledger::{Book, Charge, Loss, Refunded};
use crate::billing::price::{Price, Rates};
use crate::ids::{GuestId, RequestId};
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
    losses: BTreeMap<u128, Loss>,
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
            losses: BTreeMap::new(),
            orders: BTreeMap::new(),
            now: NOW,
            holds: 0,
        }
    }

    fn order(&mut self, order: &Order) -> Result<usize, Refused> {
        let known = self.known(order);
        let records = decide(&self.account, &known, order)?;
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

    /// Looks up what a store would.
    fn known(&self, order: &Order) -> Known {
        let subject = order.subject().map(|subject| subject.to_string());
        let mut records = self.ledger.iter();
        let found = records.find(|(_, record)| match record {
            Record::Charged(charge) => Some(charge.request.to_string()) == subject,
            Record::Paid { reference, .. } => Some(reference.to_string()) == subject,
            _ => false,
        });
        let undoes = |record: &&Record| match record {
            Record::Refunded(refunded) => Some(refunded.undoes.to_string()) == subject,
            Record::Reversed { undoes, .. } => Some(undoes.to_string()) == subject,
            _ => false,
        };
        Known {
            now: self.now,
            prior: self.orders.get(&order.reference).cloned(),
            subject: found.cloned(),
            undone: self
                .ledger
                .iter()
                .map(|(_, record)| record)
                .filter(undoes)
                .cloned()
                .collect(),
        }
    }

    fn command(&mut self, id: u128, command: Command) -> Result<(), super::super::Denied> {
        self.carry_out(id, command).map(drop)
    }

    /// What has become of a request for ever.
    fn prior(&self, id: u128) -> Option<Prior> {
        let charged = self.charges.get(&id).cloned().map(Prior::Charged);
        charged.or_else(|| self.losses.get(&id).cloned().map(Prior::Lost))
    }

    fn carry_out(
        &mut self,
        id: u128,
        command: Command,
    ) -> Result<Vec<Entry>, super::super::Denied> {
        let facts = Facts {
            now: self.now,
            prior: self.prior(id),
            provider_key: true,
        };
        let entries = decide_command(&self.account, &facts, command)?;
        for entry in &entries {
            apply(&mut self.account, self.now, entry).unwrap();
            if let Some(record) = entry.record() {
                self.ledger.push((self.now, record));
            }
            match entry {
                Entry::Charged(charge) => drop(self.charges.insert(id, charge.clone())),
                Entry::Lost(loss) => drop(self.losses.insert(id, loss.clone())),
                Entry::Held(..) | Entry::Released(_) => {}
            }
        }
        Ok(entries)
    }

    /// Holds the worst case of one output token for each nano-dollar.
    fn hold(&mut self, id: u128, nanos: u64) -> Result<(), super::super::Denied> {
        self.hold_of(id, nanos, None)
    }

    fn hold_of(
        &mut self,
        id: u128,
        nanos: u64,
        guest: Option<GuestId>,
    ) -> Result<(), super::super::Denied> {
        self.holds += 1;
        let hold = Hold {
            guest,
            ..a_hold(self.holds, id, nanos)
        };
        self.command(id, Command::Hold(hold))
    }

    fn settle(&mut self, id: u128, nanos: u64) -> Charge {
        self.command(id, Command::Settle(a_settle(id, nanos)))
            .unwrap();
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

fn a_hold(hold: u64, id: u128, nanos: u64) -> Hold {
    Hold {
        id: HoldId(hold),
        request: RequestId::from_u128(id),
        body: [0; 32],
        price: nano_price(),
        input_tokens_max: 0,
        output_tokens_max: nanos,
        provider: "anthropic".to_owned(),
        device: None,
        guest: None,
    }
}

fn a_settle(id: u128, nanos: u64) -> Settle {
    Settle {
        request: RequestId::from_u128(id),
        body: [0; 32],
        model: "m".to_owned(),
        price: nano_price(),
        tokens: written(nanos),
        estimated: false,
        device: None,
        project: None,
    }
}

fn written(tokens: u64) -> TokensUsed {
    TokensUsed {
        completion: tokens,
        ..TokensUsed::default()
    }
}

/// One nano-dollar for a token of output, its markup apart: $0.001 per million at 10 300 bps would not
/// be whole.
fn nano_price() -> Price {
    let rates = Rates {
        output: 1000,
        ..Rates::default()
    };
    Price::flat(1, rates)
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
        assert_eq!(books.order(&order(1, what.clone())), Ok(1));
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

fn refund(id: u128, amount: i64) -> What {
    What::Refund {
        charge: RequestId::from_u128(id),
        amount: Nanos(amount),
    }
}

fn reverse(number: u32, amount: i64) -> What {
    What::Reverse {
        payment: reference(number),
        amount: Nanos(amount),
    }
}

#[test]
fn a_guest_spends_the_hosts_money_within_a_cap() {
    let mut books = Books::new(1_000_000);
    let guest = GuestId::from_u128(9);
    let denied = books.hold_of(1, 100, Some(guest));
    assert_eq!(denied, Err(super::super::Denied::UnknownGuest));
    let cap = Some(Nanos(206));
    books
        .order(&order(1, What::SetGuest { guest, cap }))
        .unwrap();
    books.hold_of(1, 100, Some(guest)).unwrap();
    books.hold_of(2, 100, Some(guest)).unwrap();
    let full = books.hold_of(3, 1, Some(guest));
    let (needed, available) = (Nanos(1), Nanos(0));
    assert_eq!(
        full,
        Err(super::super::Denied::GuestCap { needed, available })
    );
    assert_eq!(books.settle(1, 50).guest, Some(guest));
    // 51.5 rounded to the even 52 were spent, 103 are held: 51 are left.
    books.hold_of(3, 50, Some(guest)).unwrap_err();
    books.hold_of(3, 49, Some(guest)).unwrap();
    books.hold(4, 1000).unwrap();
    books
        .order(&order(2, What::SetGuest { guest, cap: None }))
        .unwrap();
    assert_eq!(books.settle(2, 100).charge, Nanos(103));
    assert!(books.hold_of(5, 1, Some(guest)).is_err());
}

#[test]
fn an_answer_that_a_crash_cut_off_costs_the_account_nothing_and_is_final() {
    let mut books = Books::new(1_000_000);
    books.hold(1, 100).unwrap();
    let lose = Lose {
        request: RequestId::from_u128(1),
        body: [0; 32],
        tier: Tier::MANAGED,
        model: "m".to_owned(),
        price: nano_price(),
        tokens: TokensUsed {
            completion: 40,
            ..TokensUsed::default()
        },
        device: None,
    };
    let facts = Facts {
        now: NOW,
        prior: None,
        provider_key: false,
    };
    let entries = decide_command(&books.account, &facts, Command::Lose(lose.clone())).unwrap();
    for entry in &entries {
        apply(&mut books.account, NOW, entry).unwrap();
    }
    let Some(record @ Record::Lost(loss)) = &entries[0].record() else {
        panic!("{entries:?}");
    };
    assert_eq!(loss.base, Nanos(40));
    let movements = record.movements().unwrap();
    assert_eq!(
        movements.iter().map(|m| m.amount.0).collect::<Vec<_>>(),
        [40, -40]
    );
    assert_eq!(
        (books.account.spent, books.account.holds.len()),
        (Nanos(0), 0)
    );
    let lost = Facts {
        prior: Prior::of(record),
        ..facts
    };
    assert_eq!(
        decide_command(&books.account, &lost, Command::Lose(lose)),
        Ok(vec![])
    );
    let settle = Settle {
        request: RequestId::from_u128(1),
        body: [0; 32],
        model: "m".to_owned(),
        price: nano_price(),
        tokens: TokensUsed::default(),
        estimated: false,
        device: None,
        project: None,
    };
    let denied = decide_command(&books.account, &lost, Command::Settle(settle));
    assert!(matches!(
        denied,
        Err(super::super::Denied::Interrupted { .. })
    ));
}

#[test]
fn an_account_that_pays_its_provider_needs_a_key_for_what_costs() {
    let account = Account::new(Tier::BYOK, Nanos(1_000_000));
    let hold = |price| {
        Command::Hold(Hold {
            id: HoldId(1),
            request: RequestId::from_u128(1),
            body: [0; 32],
            price,
            input_tokens_max: 0,
            output_tokens_max: 10,
            provider: "anthropic".to_owned(),
            device: None,
            guest: None,
        })
    };
    let facts = |provider_key| Facts {
        now: NOW,
        prior: None,
        provider_key,
    };
    let provider = "anthropic".to_owned();
    let denied = decide_command(&account, &facts(false), hold(nano_price()));
    assert_eq!(
        denied,
        Err(super::super::Denied::NoProviderKey { provider })
    );
    assert!(decide_command(&account, &facts(true), hold(nano_price())).is_ok());
    assert!(decide_command(&account, &facts(false), hold(Price::FREE)).is_ok());
}

#[test]
fn a_request_is_charged_in_the_tier_that_it_was_held_in() {
    let mut books = Books::new(1_000_000);
    books.hold(1, 1000).unwrap();
    books
        .order(&order(1, What::SetTier { tier: Tier::BYOK }))
        .unwrap();
    assert_eq!(books.settle(1, 1000).charge, Nanos(1030));
}

#[test]
fn a_quota_that_is_reset_begins_anew() {
    let mut books = Books::new(0);
    let tier = Tier::Free {
        monthly_quota: Nanos(100),
    };
    books.order(&order(1, What::SetTier { tier })).unwrap();
    books.hold(1, 100).unwrap();
    books.settle(1, 100);
    assert!(books.hold(2, 1).is_err());
    books.order(&order(2, What::ResetQuota)).unwrap();
    books.hold(2, 100).unwrap();
}
