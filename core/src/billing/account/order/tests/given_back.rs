//! Refunds of charges, and payments that are taken back.

use super::*;

#[test]
fn a_refund_goes_back_to_where_the_charge_came_from_the_last_first() {
    let mut books = Books::new(1_000_000);
    books.order(&order(1, grant(100, 20))).unwrap();
    books.order(&order(2, grant(50, 10))).unwrap();
    books.order(&order(3, pay(70))).unwrap();
    books.hold(1, 1000).unwrap();
    // 50, 100, 70 and 810 of 1 030; see above. Back: 810 within the ceiling, then 40 of what was paid.
    books.settle(1, 1000);
    books.order(&order(4, refund(1, 850))).unwrap();
    let left = |books: &Books| {
        let credits: Vec<_> = books.account.credits.iter().map(|c| c.left.0).collect();
        (books.account.spent.0, books.account.balance.0, credits)
    };
    assert_eq!(left(&books), (0, 40, vec![0, 0]));
    // The other 30, and both credits, which have not ended, their parts.
    books.order(&order(5, refund(1, 180))).unwrap();
    assert_eq!(left(&books), (0, 70, vec![50, 100]));
    assert_eq!(
        books.order(&order(6, refund(1, 1))),
        Err(Refused::MoreThanThere { left: Nanos(0) })
    );
    assert_eq!(
        books.order(&order(7, refund(2, 1))),
        Err(Refused::UnknownCharge)
    );
    assert_eq!(
        (books.book(Book::Refunds), books.book(Book::Credits)),
        (1030, -150)
    );
    // A credit that is still there takes its part back.
    let mut books = Books::new(0);
    books.order(&order(1, grant(2000, 20))).unwrap();
    books.hold(1, 1000).unwrap();
    books.settle(1, 1000);
    books.order(&order(2, refund(1, 1030))).unwrap();
    assert_eq!(left(&books), (0, 0, vec![2000]));
}

#[test]
fn a_refund_to_a_spent_credit_comes_back_until_its_end_and_ends_with_it_after() {
    // Found by the simulator: the order that gave the money back took the credit, which was spent, off
    // the books before, and the money was nowhere.
    let spent = || {
        let mut books = Books::new(0);
        books.order(&order(1, grant(1030, 20))).unwrap();
        books.hold(1, 1000).unwrap();
        books.settle(1, 1000);
        books
    };
    let mut books = spent();
    books.order(&order(2, refund(1, 1030))).unwrap();
    let credits = &books.account.credits;
    assert_eq!((credits.len(), credits[0].left), (1, Nanos(1030)));

    let mut books = spent();
    books.now = days(20);
    assert_eq!(books.order(&order(2, refund(1, 1030))), Ok(2));
    assert_eq!(books.account.credits, []);
    assert!(matches!(
        &books.ledger.last().unwrap().1,
        Record::Refunded(Refunded {
            ended: Nanos(1030),
            ..
        })
    ));
}

#[test]
fn a_refund_of_what_was_owed_and_paid_meanwhile_is_paid_in_advance_now() {
    let mut books = Books::new(0);
    // Nothing was set aside: 1 030 are owed, and 500 of them are paid.
    books.settle(1, 1000);
    books.order(&order(1, pay(500))).unwrap();
    books.order(&order(2, refund(1, 1030))).unwrap();
    assert_eq!(
        (books.account.owed, books.account.balance),
        (Nanos(0), Nanos(500))
    );
}

#[test]
fn a_payment_that_is_taken_back_is_owed_where_it_was_spent() {
    let mut books = Books::new(0);
    books.order(&order(1, pay(1000))).unwrap();
    books.hold(1, 500).unwrap();
    books.settle(1, 500);
    books.order(&order(2, reverse(1, 800))).unwrap();
    assert_eq!(
        (books.account.balance, books.account.owed),
        (Nanos(0), Nanos(315))
    );
    assert!(matches!(
        books.hold(2, 1),
        Err(crate::billing::account::Denied::Owing { .. })
    ));
    assert_eq!(
        books.order(&order(3, reverse(1, 201))),
        Err(Refused::MoreThanThere { left: Nanos(200) })
    );
    assert_eq!(
        books.order(&order(3, reverse(2, 1))),
        Err(Refused::UnknownPayment)
    );
    // Held money that is gone is owed by whoever spends it, and never breaks the ceiling.
    let mut books = Books::new(0);
    books.order(&order(1, pay(1000))).unwrap();
    books.hold(1, 900).unwrap();
    books.order(&order(2, reverse(1, 1000))).unwrap();
    let charge = books.settle(1, 900);
    assert_eq!(
        (charge.overage, charge.postpaid()),
        (Nanos(927), Ok(Nanos(0)))
    );
}
