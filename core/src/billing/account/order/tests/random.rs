//! Random orders and commands, looked at after each of them.

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::*;
use crate::billing::ledger::Refunded;

#[derive(Clone, Debug)]
pub(super) enum Step {
    Order(u32, What),
    Hold(u128, u64, bool),
    Settle(u128, u64),
    Release(u128),
    Days(u64),
    Close,
}

const GUEST: GuestId = GuestId::from_u128(9);

pub(super) fn step() -> impl Strategy<Value = Step> {
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
        (0u128..20, 1i64..2000).prop_map(|(id, amount)| refund(id, amount)),
        (0u32..40, 1i64..2000).prop_map(|(number, amount)| reverse(number, amount)),
        (1i64..2000).prop_map(|nanos| What::Collect {
            amount: Nanos(nanos)
        }),
        prop::option::of(0i64..3000).prop_map(|cap| What::SetGuest {
            guest: GUEST,
            cap: cap.map(Nanos)
        }),
    ];
    prop_oneof![
        3 => (0u32..40, what).prop_map(|(number, what)| Step::Order(number, what)),
        3 => (0u128..20, 0u64..2000, any::<bool>()).prop_map(|(id, nanos, guest)| Step::Hold(id, nanos, guest)),
        3 => (0u128..20, 0u64..2500).prop_map(|(id, nanos)| Step::Settle(id, nanos)),
        1 => (0u128..20).prop_map(Step::Release),
        1 => (0u64..20).prop_map(Step::Days),
        1 => Just(Step::Close),
    ]
}

/// Runs the steps and looks after each of them whether what the account says of itself is what the list
/// of movements adds up to.
fn play(steps: Vec<Step>) -> Result<Books, TestCaseError> {
    let mut books = Books::new(3000);
    for step in steps {
        books.play(step)?;
        books.agree()?;
    }
    Ok(books)
}

impl Books {
    pub(super) fn play(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Order(number, what) => {
                let _refused = self.order(&order(number, what));
            }
            Step::Hold(id, nanos, guest) => {
                let before = self.account.summary(self.now)?;
                if self.hold_of(id, nanos, guest.then_some(GUEST)).is_ok() {
                    let after = self.account.summary(self.now)?;
                    let taken = after.held.minus(before.held)?;
                    prop_assert_eq!(after.available.plus(taken)?, before.available);
                }
            }
            Step::Settle(id, nanos) => {
                let before = self.account.clone();
                let charge = self.settle(id, nanos);
                // Spending never grows beyond the ceiling: what does not fit is owed.
                let fits = self.account.spent <= self.account.ceiling;
                prop_assert!(fits || charge.postpaid()? == Nanos::ZERO || before == self.account);
            }
            Step::Release(id) => {
                let request = RequestId::from_u128(id);
                let held = self.account.holds.get(&request);
                let hold = held.map(|held| held.id).unwrap_or_default();
                self.command(id, Command::Release(Release { request, hold }))
                    .unwrap();
            }
            Step::Days(days) => self.now = UnixMillis(self.now.0 + days * DAY),
            Step::Close => {
                for month in due(&self.account, self.now) {
                    prop_assert_eq!(self.order(&Order::close(month)).is_ok(), true);
                }
            }
        }
        Ok(())
    }

    fn agree(&self) -> Result<(), TestCaseError> {
        let account = &self.account;
        let sum = |amounts: Vec<Nanos>| amounts.iter().map(|n| i128::from(n.0)).sum::<i128>();
        let credits = account.credits.iter().map(|credit| credit.left).collect();
        let unbilled = account.unbilled.values().copied().collect();
        prop_assert_eq!(self.book(Book::Prepaid), -i128::from(account.balance.0));
        prop_assert_eq!(self.book(Book::Credits), -sum(credits));
        prop_assert_eq!(self.book(Book::Owed), i128::from(account.owed.0));
        prop_assert_eq!(self.book(Book::Receivable), i128::from(account.invoiced.0));
        prop_assert_eq!(
            self.book(Book::Postpaid),
            sum(unbilled) + i128::from(account.residue.0)
        );
        let figures = [
            account.balance,
            account.owed,
            account.invoiced,
            account.spent,
            account.used,
        ];
        prop_assert!(figures.iter().all(|figure| *figure >= Nanos::ZERO));
        prop_assert!(
            account
                .credits
                .iter()
                .all(|credit| credit.left >= Nanos::ZERO)
        );
        for charge in self.charges.values() {
            let parts = [
                charge.prepaid,
                charge.credited()?,
                charge.postpaid()?,
                charge.overage,
            ];
            prop_assert!(parts.iter().all(|part| *part >= Nanos::ZERO));
            prop_assert_eq!(sum(parts.to_vec()), i128::from(charge.charge.0));
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// The model is the list of movements: what an account says of itself is summed up anew from it.
    #[test]
    fn whatever_happens_the_account_is_what_its_movements_add_up_to_and_nothing_is_negative(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut books = play(steps)?;
        let replayed = replay(books.ledger.iter().map(|(at, record)| (*at, record)))?.unwrap();
        books.account.holds.clear();
        prop_assert_eq!(&replayed, &books.account);
    }

    #[test]
    fn debits_equal_credits_in_every_entry(steps in prop::collection::vec(step(), 1..60)) {
        for (_, record) in &play(steps)?.ledger {
            let sum: i128 = record.movements()?.iter().map(|m| i128::from(m.amount.0)).sum();
            prop_assert_eq!(sum, 0);
        }
    }

    #[test]
    fn refunds_are_never_more_than_the_charge_nor_its_parts(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let books = play(steps)?;
        for charge in books.charges.values() {
            let of = |record: &&Record| matches!(record, Record::Refunded(r) if r.undoes == charge.request);
            let refunds: Vec<_> = books.ledger.iter().map(|(_, record)| record).filter(of).collect();
            let sum = |part: fn(&Refunded) -> i64| -> i64 {
                refunds.iter().map(|record| match record {
                    Record::Refunded(refunded) => part(refunded),
                    _ => 0,
                }).sum()
            };
            prop_assert!(sum(|r| r.amount.0) <= charge.charge.0);
            prop_assert!(sum(|r| r.overage.0) <= charge.overage.0);
            prop_assert!(sum(|r| r.postpaid.0) <= charge.postpaid()?.0);
            prop_assert!(sum(|r| r.prepaid.0) <= charge.prepaid.0);
            prop_assert!(sum(|r| r.credits.iter().map(|d| d.amount.0).sum()) <= charge.credited()?.0);
        }
    }

    #[test]
    fn invoices_over_any_split_of_the_time_differ_by_no_nano_in_total(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        // However often months were closed on the way, what was invoiced, carried on and is open is all
        // that was spent within the ceiling and not given back.
        let books = play(steps)?;
        let mut spent = 0i128;
        let mut invoiced = 0i128;
        for (_, record) in &books.ledger {
            match record {
                Record::Charged(charge) => spent += i128::from(charge.postpaid()?.0),
                Record::Refunded(refunded) => spent -= i128::from(refunded.postpaid.0),
                Record::Invoiced(invoice) => {
                    invoiced += i128::from(invoice.cents.0) * 10_000_000;
                    let all = i128::from(invoice.spent.0) + i128::from(invoice.carried_in.0);
                    let parts = i128::from(invoice.cents.0) * 10_000_000 + i128::from(invoice.carried_out.0);
                    prop_assert_eq!(all, parts);
                }
                _ => {}
            }
        }
        let next = books.account.summary(books.now)?.next_invoice;
        prop_assert_eq!(spent, invoiced + i128::from(next.0));
    }

    #[test]
    fn an_order_said_again_changes_nothing(steps in prop::collection::vec(step(), 1..40)) {
        let mut books = play(steps.clone())?;
        let after = books.account.clone();
        for step in steps {
            if let Step::Order(number, what) = step {
                let order = order(number, what);
                if books.orders.contains_key(&order.reference) {
                    let again = books.order(&order);
                    prop_assert!(again == Ok(0) || again == Err(Refused::Conflict));
                }
            }
        }
        prop_assert_eq!(books.account, after);
    }
}
