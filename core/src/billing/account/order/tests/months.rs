//! The end of a month: what is invoiced, and what is carried on.

use super::*;

#[test]
fn a_month_is_invoiced_in_whole_cents_and_the_rest_is_carried_on() {
    let mut books = Books::new(1_000_000_000);
    // Twice 12 000 000 tokens at 1.03 nanos: 24 720 000 are 2.472 cents.
    for id in [1, 2] {
        books.hold(id, 12_000_000).unwrap();
        books.settle(id, 12_000_000);
    }
    let november = Month::of(NOW);
    let not_over = Err(Refused::MonthNotOver { month: november });
    assert_eq!(books.order(&Order::close(november)), not_over);
    books.now = days(13);
    assert_eq!(due(&books.account, books.now), [november]);
    assert_eq!(books.order(&Order::close(november)), Ok(1));
    assert_eq!(books.order(&Order::close(november)), Ok(0));
    let Some((_, Record::Invoiced(invoiced))) = books.ledger.last().cloned() else {
        panic!("no invoice");
    };
    assert_eq!(
        (invoiced.spent.0, invoiced.cents.0, invoiced.carried_out.0),
        (24_720_000, 2, 4_720_000)
    );
    let again = order(1, What::Close { month: november });
    assert_eq!(
        books.order(&again),
        Err(Refused::MonthClosed { month: november })
    );
    // The clock steps back: what comes then counts in the month that is open.
    books.now = NOW;
    books.hold(3, 6_000_000).unwrap();
    books.settle(3, 6_000_000);
    assert_eq!(
        books.account.unbilled,
        [(november.next(), Nanos(6_180_000))].into()
    );
    // 0.472 and 0.618 cents are one.
    books.now = days(44);
    books.order(&Order::close(november.next())).unwrap();
    assert_eq!(books.account.invoiced, Nanos(30_000_000));
    assert_eq!(books.account.residue, Nanos(900_000));
    books
        .order(&order(
            2,
            What::Collect {
                amount: Nanos(30_000_000),
            },
        ))
        .unwrap();
    let more = What::Collect { amount: Nanos(1) };
    assert_eq!(
        books.order(&order(3, more)),
        Err(Refused::MoreThanThere { left: Nanos(0) })
    );
    assert_eq!(books.book(Book::Receivable), 0);
}

#[test]
fn what_is_given_back_of_an_invoiced_month_is_on_the_next_invoice() {
    let mut books = Books::new(1_000_000_000);
    books.hold(1, 20_000_000).unwrap();
    books.settle(1, 20_000_000);
    books.now = days(13);
    books.order(&Order::close(Month::of(NOW))).unwrap();
    books.order(&order(1, refund(1, 20_600_000))).unwrap();
    assert_eq!(books.account.spent, Nanos(0));
    // 0.06 cents were carried on, 2.06 are given back: nothing to pay, and 2.00 to the good.
    books.now = days(44);
    books.order(&Order::close(Month::of(days(13)))).unwrap();
    assert_eq!(
        (books.account.invoiced, books.account.residue),
        (Nanos(20_000_000), Nanos(-20_000_000))
    );
}
