//! The invariants themselves: ledgers written by hand, and what each of them says to a wrong line.

use super::*;

/// 2026-11-18.
const NOW: u64 = 1_795_000_000_000;

fn line(record: &str, movements: &str) -> Line {
    let text =
        format!(r#"{{"sequence":0,"at":{NOW},"record":{{{record}}},"movements":[{movements}]}}"#);
    Line::read(&text).unwrap()
}

fn broken(ledger: &Ledger, line: &Line) -> Option<&'static str> {
    let mut broken = ENTRY
        .iter()
        .filter(|(_, holds)| holds(ledger, line).is_err());
    broken.next().map(|(name, _)| *name)
}

fn opened(ceiling: i64) -> Ledger {
    let mut ledger = Ledger::default();
    ledger.read(&line(
        &format!(r#""kind":"opened","tier":{{"tier":"managed"}},"ceiling":{ceiling}"#),
        "",
    ));
    ledger
}

fn charged(request: &str, charge: i64, overage: i64, prepaid: i64) -> Line {
    let postpaid = charge - overage - prepaid;
    line(
        &format!(
            r#""kind":"charged","request":"{request}","charge":{charge},"overage":{overage},"prepaid":{prepaid},"base":0"#
        ),
        &format!(
            r#"{{"book":"postpaid","amount":{postpaid}}},{{"book":"owed","amount":{overage}}},{{"book":"prepaid","amount":{prepaid}}},{{"book":"provider","amount":{}}}"#,
            -charge
        ),
    )
}

fn paid(number: u32, amount: i64) -> Line {
    line(
        &format!(r#""kind":"paid","reference":"pay:{number}","amount":{amount},"settled":0"#),
        &format!(
            r#"{{"book":"cash","amount":{amount}}},{{"book":"prepaid","amount":{}}}"#,
            -amount
        ),
    )
}

fn refunded(number: u32, request: &str, postpaid: i64) -> Line {
    line(
        &format!(
            r#""kind":"refunded","reference":"refund:{number}","undoes":"{request}","amount":{postpaid},"postpaid":{postpaid},"month":24322"#
        ),
        "",
    )
}

fn hold(ledger: &mut Ledger, request: &str, charge: i128) {
    let held = Held { at_ms: NOW, charge };
    ledger.held.insert(request.to_owned(), held);
}

#[test]
fn a_charge_within_its_hold_is_fine_once_and_never_again() {
    let mut ledger = opened(1000);
    hold(&mut ledger, "a", 600);
    let charge = charged("a", 600, 0, 0);
    assert_eq!(broken(&ledger, &charge), None);
    ledger.read(&charge);
    assert_eq!(
        (ledger.spent, ledger.postpaid, ledger.month),
        (600, 600, 24_322)
    );
    let again = Some("one_request_is_charged_or_lost_once_for_ever");
    assert_eq!(broken(&ledger, &charge), again);
    // 401 more are beyond the ceiling; 401 of 400 set aside are beyond the hold.
    hold(&mut ledger, "b", 500);
    assert_eq!(
        broken(&ledger, &charged("b", 401, 0, 0)),
        Some("spending_within_the_ceiling_never_grows_beyond_it")
    );
    hold(&mut ledger, "b", 399);
    assert_eq!(
        broken(&ledger, &charged("b", 400, 0, 0)),
        Some("nothing_beyond_what_was_set_aside_is_taken_from_any_fund")
    );
    assert_eq!(broken(&ledger, &charged("b", 400, 1, 0)), None);
}

#[test]
fn funds_are_taken_in_their_order() {
    let mut ledger = opened(1000);
    ledger.read(&paid(1, 50));
    hold(&mut ledger, "a", 100);
    let order = Some("credits_are_spent_before_what_was_paid_and_that_before_the_ceiling");
    assert_eq!(broken(&ledger, &charged("a", 100, 0, 0)), order);
    assert_eq!(broken(&ledger, &charged("a", 100, 0, 51)), order);
    assert_eq!(broken(&ledger, &charged("a", 100, 0, 50)), None);
    // One that ends a moment after the hold comes first, one that ended at that moment pays nothing.
    let granted = |ends: u64| {
        line(
            &format!(
                r#""kind":"granted","reference":"credit:{ends}","amount":10,"expires_at":{ends}"#
            ),
            "",
        )
    };
    ledger.read(&granted(NOW));
    assert_eq!(broken(&ledger, &charged("a", 100, 0, 50)), None);
    ledger.read(&granted(NOW + 1));
    assert_eq!(broken(&ledger, &charged("a", 100, 0, 50)), order);
}

#[test]
fn what_is_said_twice_or_given_back_too_often_is_noticed() {
    let mut ledger = opened(1000);
    ledger.read(&paid(1, 50));
    let again = Some("an_order_is_carried_out_once_however_often_it_is_said");
    assert_eq!(broken(&ledger, &paid(1, 50)), again);
    hold(&mut ledger, "a", 100);
    ledger.read(&charged("a", 100, 0, 50));
    let too_much = Some("refunds_never_exceed_the_charge_nor_its_parts");
    assert_eq!(broken(&ledger, &refunded(1, "a", 50)), None);
    assert_eq!(broken(&ledger, &refunded(1, "a", 51)), too_much);
    assert_eq!(broken(&ledger, &refunded(1, "b", 1)), too_much);
    ledger.read(&refunded(1, "a", 30));
    assert_eq!(broken(&ledger, &refunded(2, "a", 21)), too_much);
}

#[test]
fn an_invoice_has_every_nano_and_its_month_is_over() {
    let mut ledger = opened(1_000_000_000);
    hold(&mut ledger, "a", 24_720_000);
    ledger.read(&charged("a", 24_720_000, 0, 0));
    // 2.472 cents: two are invoiced, the rest is carried on.
    let invoice = |at: u64, cents: u32, rest: u32| {
        Line::read(&format!(
            r#"{{"at":{at},"record":{{"kind":"invoiced","reference":"i","month":24322,"spent":24720000,"carried_in":0,"cents":{cents},"carried_out":{rest}}},"movements":[]}}"#
        ))
        .unwrap()
    };
    let december = 1_796_083_200_000;
    assert_eq!(broken(&ledger, &invoice(december, 2, 4_720_000)), None);
    assert_eq!(
        broken(&ledger, &invoice(december, 2, 0)),
        Some("an_invoice_is_whole_cents_of_what_was_spent_and_carried")
    );
    let closed = Some("no_month_that_was_invoiced_is_touched_again");
    assert_eq!(
        broken(&ledger, &invoice(december - 1, 2, 4_720_000)),
        closed
    );
    ledger.read(&invoice(december, 2, 4_720_000));
    assert_eq!(
        (ledger.month, ledger.spent, ledger.closed),
        (24_323, 0, 24_322)
    );
    assert_eq!(broken(&ledger, &refunded(9, "a", 1)), closed);
}

#[test]
fn a_loss_is_the_operators() {
    let ledger = opened(0);
    let lost = |book: &str| {
        line(
            r#""kind":"lost","request":"a""#,
            &format!(r#"{{"book":"{book}","amount":5}},{{"book":"provider","amount":-5}}"#),
        )
    };
    assert_eq!(broken(&ledger, &lost("losses")), None);
    assert_eq!(
        broken(&ledger, &lost("owed")),
        Some("an_answer_that_a_crash_cut_off_costs_the_account_nothing")
    );
}
