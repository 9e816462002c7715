//! Several gateways on one database.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_admit_exactly_what_the_ceiling_covers() {
    let fresh = fresh!();
    let stores = [fresh.gateway().await, fresh.gateway().await];
    let ceiling = Nanos(33 * HELD);
    let account = NewAccount {
        ceiling,
        ..NewAccount::managed(ACCOUNT, "ada")
    };
    stores[0].create_account(account, NOW).await.unwrap();
    let next = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for client in 0..64 {
        let (store, next) = (stores[client % 2].clone(), Arc::clone(&next));
        clients.spawn(async move {
            let mut admitted = 0;
            loop {
                let request = next.fetch_add(1, Ordering::Relaxed);
                if request >= 200 {
                    return (client % 2, admitted);
                }
                match store.hold(ACCOUNT, hold(request.into()), NOW).await {
                    Ok(_) => admitted += 1,
                    Err(StoreError::Denied(Denied::Insufficient { needed, available })) => {
                        assert_eq!((needed, available), (Nanos(HELD), Nanos(0)));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    let by_gateway = clients.join_all().await;
    assert_eq!(by_gateway.iter().map(|(_, count)| count).sum::<i32>(), 33);
    for store in &stores {
        let summary = store.summary(ACCOUNT, NOW).await.unwrap();
        assert_eq!((summary.held, summary.available), (ceiling, Nanos(0)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_is_one_chain_whichever_gateway_writes() {
    let fresh = fresh!();
    let stores = [fresh.gateway().await, fresh.gateway().await];
    furnish(&stores[0]).await;
    let mut clients = JoinSet::new();
    for client in 0..16_u128 {
        let stores = stores.clone();
        clients.spawn(async move {
            for round in 0..10_u128 {
                let request = client * 10 + round;
                let (here, there) = (&stores[usize::from(request % 2 == 1)], &stores[0]);
                here.hold(ACCOUNT, hold(request), NOW).await.unwrap();
                // Settled by either: the account knows of the hold wherever it was made.
                let charge = settled(there, request).await;
                assert_eq!((charge.charge, charge.overage), (Nanos(CHARGED), Nanos(0)));
                assert_eq!(settled(here, request).await, charge);
            }
        });
    }
    clients.join_all().await;
    let summary = stores[1].summary(ACCOUNT, NOW).await.unwrap();
    assert_eq!(
        (summary.held, summary.spent),
        (Nanos(0), Nanos(160 * CHARGED))
    );
    let report = fresh.verify().await;
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.entries(), 161);
}

#[tokio::test]
async fn a_gateway_that_has_gone_sets_nothing_aside_for_ever() {
    let fresh = fresh!();
    let (silent, other) = (fresh.gateway().await, fresh.gateway().await);
    furnish(&silent).await;
    let order = Order {
        reference: Reference::new("terms:1").unwrap(),
        what: What::SetCeiling {
            ceiling: Nanos(HELD),
        },
    };
    other.order(ACCOUNT, order, NOW).await.unwrap();
    silent.hold(ACCOUNT, hold(1), NOW).await.unwrap();
    let refused = other.hold(ACCOUNT, hold(2), NOW).await.unwrap_err();
    assert!(matches!(
        refused,
        StoreError::Denied(Denied::Insufficient { .. })
    ));
    let silent_id = fresh.sql("SELECT gateway FROM synesis.holds");
    // As after a minute and a second without a sign of it.
    let age = |ms: i32| {
        let sql = "UPDATE synesis.gateways SET renewed_at = renewed_at - (";
        fresh.sql(&format!("{sql}{ms}) WHERE id = '{}'", silent_id.trim()));
    };
    age(61_000);
    // Nobody judges who came when the other was silent already.
    assert!(other.hold(ACCOUNT, hold(2), NOW).await.is_err());
    fresh.sql("UPDATE synesis.gateways SET since = since - 3600000");
    assert_eq!(other.summary(ACCOUNT, NOW).await.unwrap().held, Nanos(0));
    age(-3_000);
    assert!(other.hold(ACCOUNT, hold(2), NOW).await.is_err());
    age(3_000);
    assert_eq!(other.summary(ACCOUNT, NOW).await.unwrap().held, Nanos(0));
    // To itself it has not gone.
    assert_eq!(
        silent.summary(ACCOUNT, NOW).await.unwrap().held,
        Nanos(HELD)
    );
    other.hold(ACCOUNT, hold(2), NOW).await.unwrap();
    assert_eq!(fresh.sql("SELECT count(*) FROM synesis.holds").trim(), "1");
    // It comes back, and says what it used: recorded, and beyond any hold.
    assert_eq!(settled(&silent, 1).await.overage, Nanos(CHARGED));
    assert!(fresh.verify().await.is_sound());
}

#[tokio::test]
async fn a_release_voids_its_own_gateways_hold_only() {
    let fresh = fresh!();
    let (first, second) = (fresh.gateway().await, fresh.gateway().await);
    furnish(&first).await;
    let release = Release {
        request: RequestId::from_u128(1),
        hold: HoldId(1),
    };
    first.hold(ACCOUNT, hold(1), NOW).await.unwrap();
    first.release(ACCOUNT, release, NOW).await.unwrap();
    // The same question, asked again at the other gateway, which numbers its holds alike.
    second.hold(ACCOUNT, hold(1), NOW).await.unwrap();
    first.release(ACCOUNT, release, NOW).await.unwrap();
    assert_eq!(first.summary(ACCOUNT, NOW).await.unwrap().held, Nanos(HELD));
    second.release(ACCOUNT, release, NOW).await.unwrap();
    assert_eq!(first.summary(ACCOUNT, NOW).await.unwrap().held, Nanos(0));
}

#[tokio::test]
async fn a_gateway_that_ends_leaves_what_was_settled_and_no_hold() {
    let fresh = fresh!();
    let (ending, other) = (fresh.gateway().await, fresh.gateway().await);
    furnish(&ending).await;
    charge(&ending, 1).await;
    ending.hold(ACCOUNT, hold(2), NOW).await.unwrap();
    assert_eq!(other.summary(ACCOUNT, NOW).await.unwrap().held, Nanos(HELD));
    let waiting = ending.clone();
    let mut call = Box::pin(async move { waiting.hold(ACCOUNT, hold(3), NOW).await });
    assert!(poll_once(&mut call).is_none());
    drop(ending);
    assert!(call.await.is_ok(), "what waits is still carried out");
    let summary = other.summary(ACCOUNT, NOW).await.unwrap();
    assert_eq!((summary.held, summary.spent), (Nanos(0), Nanos(CHARGED)));
    assert_eq!(
        fresh.sql("SELECT count(*) FROM synesis.gateways").trim(),
        "1"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_gateways_start_at_once_on_an_empty_database() {
    let fresh = fresh!();
    let mut opening = JoinSet::new();
    for _ in 0..8 {
        let place = fresh.place();
        opening.spawn(async move { Store::open_at(&place, Role::Gateway).await.unwrap() });
    }
    let stores = opening.join_all().await;
    furnish(&stores[0]).await;
    assert_eq!(stores[7].accounts().await.unwrap().len(), 1);
}

#[tokio::test]
async fn administration_works_beside_gateways_and_moves_no_money() {
    let fresh = fresh!();
    let gateway = fresh.gateway().await;
    let desk = Store::open_at(&fresh.place(), Role::Administration)
        .await
        .unwrap();
    furnish(&desk).await;
    assert_eq!(
        desk.hold(ACCOUNT, hold(1), NOW).await,
        Err(StoreError::NotTheGateway)
    );
    assert_eq!(
        desk.admit(DEVICE, CERTIFICATE, NOW).await,
        Err(StoreError::NotTheGateway)
    );
    gateway.hold(ACCOUNT, hold(1), NOW).await.unwrap();
    assert_eq!(desk.summary(ACCOUNT, NOW).await.unwrap().held, Nanos(HELD));
    let pay = Order {
        reference: Reference::new("pay:1").unwrap(),
        what: What::Pay { amount: Nanos(7) },
    };
    desk.order(ACCOUNT, pay, NOW).await.unwrap();
    drop(desk);
    let summary = gateway.summary(ACCOUNT, NOW).await.unwrap();
    assert_eq!((summary.held, summary.balance), (Nanos(HELD), Nanos(7)));
    assert_eq!(
        fresh.sql("SELECT count(*) FROM synesis.gateways").trim(),
        "1"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_follows_revocations_misses_none() {
    let fresh = fresh!();
    let stores = [fresh.gateway().await, fresh.gateway().await];
    furnish(&stores[0]).await;
    let devices: Vec<_> = (100..140).map(DeviceId::from_u128).collect();
    for id in &devices {
        let device = NewDevice {
            id: *id,
            key: KEY,
            certificate: CERTIFICATE,
            not_after: NOW,
        };
        stores[0].enrol(device, NOW).await.unwrap();
    }
    let mut revoking = JoinSet::new();
    for (at, id) in devices.iter().copied().enumerate() {
        let store = stores[at % 2].clone();
        revoking.spawn(async move { store.revoke_device(id, NOW).await.unwrap() });
    }
    let (mut seen, mut followed) = (0, Vec::new());
    while followed.len() < devices.len() {
        for revocation in stores[1].revocations(seen).await.unwrap() {
            seen = revocation.sequence;
            followed.push(revocation.device);
        }
    }
    revoking.join_all().await;
    followed.sort();
    assert_eq!(followed, devices);
    assert_eq!(seen, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_of_one_batch_are_locked_in_one_order_by_all() {
    let fresh = fresh!();
    let stores = [fresh.gateway().await, fresh.gateway().await];
    let accounts: Vec<_> = (1..=24).map(|n| AccountId::from_u128(n * 4)).collect();
    for id in &accounts {
        let account = NewAccount::managed(*id, id.to_string());
        stores[0].create_account(account, NOW).await.unwrap();
    }
    // All of them are of one lane, in each gateway, and asked for in opposite orders.
    let mut clients = JoinSet::new();
    for client in 0..24 {
        let (store, mut accounts) = (stores[client % 2].clone(), accounts.clone());
        if client % 2 == 0 {
            accounts.reverse();
        }
        clients.spawn(async move {
            for id in accounts {
                let request = u128::try_from(client).unwrap();
                store.hold(id, hold(request), NOW).await.unwrap();
                store.settle(id, settle(request), NOW).await.unwrap();
            }
        });
    }
    clients.join_all().await;
    let report = fresh.verify().await;
    assert!(report.is_sound());
    assert_eq!(report.entries(), 24 * 25);
}

#[tokio::test]
async fn a_hold_keeps_what_the_rules_know_of_it() {
    let fresh = fresh!();
    let (first, second) = (fresh.gateway().await, fresh.gateway().await);
    furnish(&first).await;
    let odd = Hold {
        id: HoldId(u64::MAX),
        price: Price::CLAUDE_OPUS,
        ..hold(u128::MAX >> 1)
    };
    let denied = |why| Err(StoreError::Denied(why));
    first.hold(ACCOUNT, odd.clone(), NOW).await.unwrap();
    assert_eq!(
        second.hold(ACCOUNT, odd.clone(), NOW).await,
        denied(Denied::InProgress)
    );
    let other = Hold {
        body: [9; 32],
        ..odd.clone()
    };
    assert_eq!(
        second.hold(ACCOUNT, other, NOW).await,
        denied(Denied::Conflict)
    );
    let (request, hold) = (odd.request, odd.id);
    first
        .release(ACCOUNT, Release { request, hold }, NOW)
        .await
        .unwrap();
    assert_eq!(second.summary(ACCOUNT, NOW).await.unwrap().held, Nanos(0));
}

#[tokio::test]
async fn what_a_gateway_was_in_the_middle_of_is_lost_when_it_has_gone_and_not_before() {
    let fresh = fresh!();
    let (gone, other) = (fresh.gateway().await, fresh.gateway().await);
    furnish(&gone).await;
    let lose = |request| Lose {
        request: RequestId::from_u128(request),
        body: [5; 32],
        tier: mesh_core::billing::tier::Tier::MANAGED,
        model: "claude_sonnet".to_owned(),
        price: Price::CLAUDE_SONNET,
        tokens: settle(request).tokens,
        device: Some(DEVICE),
    };
    for request in 1..=3 {
        gone.hold(ACCOUNT, hold(request), NOW).await.unwrap();
        gone.checkpoint(ACCOUNT, lose(request)).await.unwrap();
    }
    // What is not held, or by another, is not under way here.
    gone.checkpoint(ACCOUNT, lose(9)).await.unwrap();
    other.checkpoint(ACCOUNT, lose(1)).await.unwrap();
    settled(&gone, 1).await;
    let running = "SELECT count(*) FROM synesis.running";
    assert_eq!(fresh.sql(running).trim(), "2");
    assert_eq!(other.lose_all(NOW).await, Ok(0));
    fresh.sql(
        "UPDATE synesis.gateways SET since = since - 3600000; \
         UPDATE synesis.gateways SET renewed_at = renewed_at - 61000 \
         WHERE id = (SELECT gateway FROM synesis.holds LIMIT 1)",
    );
    // Asked again elsewhere meanwhile, the second is under way and not lost.
    other.hold(ACCOUNT, hold(2), NOW).await.unwrap();
    assert_eq!(other.lose_all(NOW).await, Ok(1));
    assert_eq!(fresh.sql(running).trim(), "0");
    assert_eq!(settled(&other, 2).await.overage, Nanos(0));
    assert_eq!(recall(&other, 3, NOW).await, Recalled::Lost);
    let (stranger, request) = (DeviceId::from_u128(8), RequestId::from_u128(3));
    let strangers = other.recall(ACCOUNT, stranger, request, NOW).await;
    assert_eq!(strangers, Ok(Recalled::NotYours));
    // Free for the account, for ever.
    let again = gone.settle(ACCOUNT, settle(3), NOW).await;
    assert!(matches!(again, Err(StoreError::Denied(_))), "{again:?}");
    let summary = other.summary(ACCOUNT, NOW).await.unwrap();
    assert_eq!(
        (summary.held, summary.spent),
        (Nanos(0), Nanos(2 * CHARGED))
    );
    let report = fresh.verify().await;
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.entries(), 4);
}

#[tokio::test]
async fn what_became_of_a_question_is_known_to_every_gateway() {
    let fresh = fresh!();
    let (first, other) = (fresh.gateway().await, fresh.gateway().await);
    furnish(&first).await;
    let kept = charge_and_keep(&first, 1, Duration::from_secs(60)).await;
    let told = recall(&other, 1, NOW).await;
    assert!(matches!(told, Recalled::Kept { charge, .. } if *charge == kept));
    first.hold(ACCOUNT, hold(2), NOW).await.unwrap();
    assert_eq!(recall(&other, 2, NOW).await, Recalled::Elsewhere);
    // Its gateway has gone: nothing will come of it, and then it is booked.
    fresh.sql(
        "UPDATE synesis.gateways SET renewed_at = renewed_at - 3600000 \
         WHERE id IN (SELECT gateway FROM synesis.holds); \
         UPDATE synesis.gateways SET since = since - 3600000",
    );
    assert_eq!(recall(&other, 2, NOW).await, Recalled::Lost);
    // The text goes by the server's clock, and does not survive the server's own end.
    fresh.sql("UPDATE synesis.answers SET ends_at = ends_at - 60000");
    assert_eq!(
        recall(&other, 1, NOW).await,
        Recalled::Charged(Box::new(kept))
    );
    assert_eq!(other.forget_answers(NOW).await, Ok(1));
    let logged = "SELECT relpersistence FROM pg_class WHERE oid = 'synesis.answers'::regclass";
    assert_eq!(fresh.sql(logged).trim(), "u");
    assert!(fresh.verify().await.is_sound());
}
