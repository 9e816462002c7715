//! What comes from outside of any question, and what the books say of all of it.

use super::*;

pub(in crate::gateway::store) async fn an_order_is_carried_out_once_and_found_in_the_ledger(
    store: Store,
) {
    furnish(&store).await;
    let order = |what| Order {
        reference: Reference::new("pay:1").unwrap(),
        what,
    };
    let pay = What::Pay {
        amount: Nanos(2 * CHARGED),
    };
    let done = store.order(ACCOUNT, order(pay.clone()), NOW).await.unwrap();
    assert!(!done.repeated);
    let again = store.order(ACCOUNT, order(pay.clone()), NOW).await.unwrap();
    assert_eq!((again.repeated, again.record), (true, done.record));
    let other = What::SetCeiling { ceiling: Nanos(0) };
    assert_eq!(
        store.order(ACCOUNT, order(other), NOW).await,
        Err(StoreError::Refused(Refused::Conflict))
    );
    let nobody = AccountId::from_u128(9);
    assert_eq!(
        store.order(nobody, order(pay), NOW).await,
        Err(StoreError::UnknownAccount)
    );
    assert_eq!(charge(&store, 1).await.prepaid, Nanos(CHARGED));
    let summary = store.summary(ACCOUNT, NOW).await.unwrap();
    assert_eq!((summary.balance, summary.spent), (Nanos(CHARGED), Nanos(0)));
    assert_eq!(store.entries(ACCOUNT, 0).await.unwrap().len(), 3);
}

pub(in crate::gateway::store) async fn an_order_leaves_what_is_held_alone(store: Store) {
    furnish(&store).await;
    store.hold(ACCOUNT, hold(1), NOW).await.unwrap();
    let order = Order {
        reference: Reference::new("terms:1").unwrap(),
        what: What::SetCeiling {
            ceiling: Nanos(HELD),
        },
    };
    store.order(ACCOUNT, order, NOW).await.unwrap();
    let summary = store.summary(ACCOUNT, NOW).await.unwrap();
    assert_eq!((summary.held, summary.available), (Nanos(HELD), Nanos(0)));
    let charged = settled(&store, 1).await;
    assert_eq!(charged.overage, Nanos(0));
}

pub(in crate::gateway::store) async fn the_ledger_can_be_read_from_any_entry_on_and_verifies(
    store: Store,
) {
    furnish(&store).await;
    for request in 1..=4 {
        charge(&store, request).await;
    }
    let all = store.entries(ACCOUNT, 0).await.unwrap();
    assert_eq!(store.entries(ACCOUNT, 3).await.unwrap(), all[3..]);
    assert_eq!(store.entries(ACCOUNT, 5).await.unwrap(), []);
    let verified = ledger::verify(ACCOUNT, all).unwrap();
    assert_eq!(
        (verified.entries, verified.charged),
        (5, Nanos(4 * CHARGED))
    );
}

/// 2026-12-01T00:00:00Z: November is over.
const DECEMBER: UnixMillis = UnixMillis(1_796_083_200_000);

pub(super) fn reference(text: &str) -> Reference {
    Reference::new(text).unwrap()
}

pub(super) fn ordered(name: &str, what: What) -> Order {
    let reference = reference(name);
    Order { reference, what }
}

pub(in crate::gateway::store) async fn what_was_charged_is_given_back_once_and_never_more(
    store: Store,
) {
    furnish(&store).await;
    let pay = What::Pay {
        amount: Nanos(CHARGED),
    };
    store
        .order(ACCOUNT, ordered("pay:1", pay), NOW)
        .await
        .unwrap();
    charge(&store, 1).await;
    let refund = |amount| What::Refund {
        charge: RequestId::from_u128(1),
        amount: Nanos(amount),
    };
    let half = ordered("refund:1", refund(CHARGED / 2));
    for repeated in [false, true] {
        let done = store.order(ACCOUNT, half.clone(), NOW).await.unwrap();
        assert_eq!(done.repeated, repeated);
    }
    let left = Nanos(CHARGED - CHARGED / 2);
    let too_much = ordered("refund:2", refund(left.0 + 1));
    assert_eq!(
        store.order(ACCOUNT, too_much, NOW).await,
        Err(StoreError::Refused(Refused::MoreThanThere { left }))
    );
    store
        .order(ACCOUNT, ordered("refund:2", refund(left.0)), NOW)
        .await
        .unwrap();
    let summary = store.summary(ACCOUNT, NOW).await.unwrap();
    assert_eq!((summary.balance, summary.spent), (Nanos(CHARGED), Nanos(0)));
    // Whoever paid takes it back: all of it, and no more.
    let take_back = |amount| What::Reverse {
        payment: reference("pay:1"),
        amount: Nanos(amount),
    };
    store
        .order(ACCOUNT, ordered("dispute:1", take_back(CHARGED)), NOW)
        .await
        .unwrap();
    assert_eq!(
        store
            .order(ACCOUNT, ordered("dispute:2", take_back(1)), NOW)
            .await,
        Err(StoreError::Refused(Refused::MoreThanThere {
            left: Nanos(0)
        }))
    );
    assert_eq!(store.summary(ACCOUNT, NOW).await.unwrap().balance, Nanos(0));
    let stands = store
        .ordered(ACCOUNT, reference("dispute:1"))
        .await
        .unwrap();
    assert!(matches!(stands, Some(Record::Reversed { .. })));
}

pub(in crate::gateway::store) async fn what_was_used_is_added_up_as_it_is_charged(store: Store) {
    furnish(&store).await;
    for request in 1..=3 {
        charge(&store, request).await;
    }
    let refund = What::Refund {
        charge: RequestId::from_u128(1),
        amount: Nanos(CHARGED),
    };
    store
        .order(ACCOUNT, ordered("refund:1", refund), NOW)
        .await
        .unwrap();
    let mut usage = store.usage(ACCOUNT, Span::All).await.unwrap();
    usage.sort_by(|a, b| a.0.cmp(&b.0));
    let [(key, sums), (back, given_back)] = &usage[..] else {
        panic!("{usage:?}")
    };
    assert_eq!(
        (key.month.to_string(), key.day.to_string()),
        ("2026-11".into(), "2026-11-18".into())
    );
    assert_eq!(
        (key.model.as_str(), key.tier.as_str()),
        ("claude_sonnet", "managed")
    );
    assert_eq!(
        (key.device, key.project.as_deref()),
        (Some(DEVICE), Some("valves"))
    );
    assert_eq!(
        (sums.requests, sums.prompt, sums.completion),
        (3, 3000, 1500)
    );
    assert_eq!(
        (sums.base, sums.charge),
        (Nanos(31_500_000), Nanos(3 * CHARGED))
    );
    assert_eq!((back.device, given_back.refunded), (None, Nanos(CHARGED)));
    assert_eq!(sums.postpaid.0 + given_back.postpaid.0, 2 * CHARGED);
    let none = store.usage(ACCOUNT, Span::Since(Day::of(DECEMBER))).await;
    assert_eq!(none, Ok(vec![]));
    let (after, through) = (key.month.previous(), key.month);
    let month = store.usage(ACCOUNT, Span::Months { after, through }).await;
    assert_eq!(month.unwrap().len(), 2);
}

pub(in crate::gateway::store) async fn a_month_that_is_over_is_invoiced_once_and_becomes_a_task(
    store: Store,
) {
    furnish(&store).await;
    charge(&store, 1).await;
    let november = Month::of(NOW);
    assert_eq!(store.months_due(NOW).await, Ok(vec![]));
    assert_eq!(
        store.months_due(DECEMBER).await,
        Ok(vec![(ACCOUNT, november)])
    );
    for repeated in [false, true] {
        let done = store
            .order(ACCOUNT, Order::close(november), DECEMBER)
            .await
            .unwrap();
        assert_eq!(done.repeated, repeated);
        let Record::Invoiced(invoiced) = done.record else {
            panic!("{:?}", done.record)
        };
        // 1.0815 cents.
        assert_eq!(
            (invoiced.cents.0, invoiced.carried_out),
            (1, Nanos(815_000))
        );
    }
    assert_eq!(store.months_due(DECEMBER).await, Ok(vec![]));
    let tasks = store.tasks("invoice").await.unwrap();
    let [task] = &tasks[..] else {
        panic!("{tasks:?}")
    };
    assert_eq!(
        (task.account, task.key.as_str()),
        (ACCOUNT, &*format!("{ACCOUNT}:2026-11"))
    );
    let half_done = "half done".to_owned();
    store
        .update_task("invoice", task.key.clone(), half_done.clone(), None)
        .await
        .unwrap();
    assert_eq!(store.tasks("invoice").await.unwrap()[0].body, half_done);
    store
        .update_task("invoice", task.key.clone(), half_done, Some(DECEMBER))
        .await
        .unwrap();
    assert_eq!(store.tasks("invoice").await, Ok(vec![]));
    // Put again, it stays done.
    let again = NewTask {
        kind: task.kind.clone(),
        key: task.key.clone(),
        account: ACCOUNT,
        body: String::new(),
    };
    store.put_task(again, DECEMBER).await.unwrap();
    assert_eq!(store.tasks("invoice").await, Ok(vec![]));
}

pub(in crate::gateway::store) async fn credits_that_have_ended_leave_the_books(store: Store) {
    furnish(&store).await;
    let grant = What::Grant {
        amount: Nanos(5),
        expires_at: UnixMillis(NOW.0 + 1),
    };
    store
        .order(ACCOUNT, ordered("grant:1", grant), NOW)
        .await
        .unwrap();
    store.lapse_all(NOW).await.unwrap();
    assert_eq!(store.entries(ACCOUNT, 0).await.unwrap().len(), 2);
    for _ in 0..2 {
        store.lapse_all(DECEMBER).await.unwrap();
        assert_eq!(store.entries(ACCOUNT, 0).await.unwrap().len(), 3);
    }
}

pub(in crate::gateway::store) async fn heads_are_where_the_chains_end(store: Store) {
    furnish(&store).await;
    charge(&store, 1).await;
    let last = store.entries(ACCOUNT, 1).await.unwrap().remove(0);
    let head = Head {
        entries: 2,
        hash: last.hash,
    };
    assert_eq!(store.heads().await, Ok([(ACCOUNT, head)].into()));
}
