//! A question is held, charged or released; once for each id.

use super::*;

pub(in crate::gateway::store) async fn a_request_is_held_then_charged_and_the_rest_is_void(
    store: Store,
) {
    furnish(&store).await;
    store.hold(ACCOUNT, hold(1), NOW).await.unwrap();
    let summary = store.summary(ACCOUNT, NOW).await.unwrap();
    assert_eq!((summary.held, summary.spent), (Nanos(HELD), Nanos(0)));
    let charge = settled(&store, 1).await;
    assert_eq!(
        (charge.base, charge.charge),
        (Nanos(10_500_000), Nanos(CHARGED))
    );
    let summary = store.summary(ACCOUNT, NOW).await.unwrap();
    assert_eq!((summary.held, summary.spent), (Nanos(0), Nanos(CHARGED)));
    assert_eq!(summary.available, Nanos(CEILING_DEFAULT.0 - CHARGED));
    let booked = store
        .booked(ACCOUNT, RequestId::from_u128(1))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (booked.sequence, booked.at, booked.charge),
        (1, NOW, charge)
    );
}

pub(in crate::gateway::store) async fn a_repeated_settle_charges_nothing_more(store: Store) {
    furnish(&store).await;
    let charge = charge(&store, 1).await;
    assert_eq!(settled(&store, 1).await, charge);
    // Not even with other tokens: what is recorded stands.
    let dearer = Settle {
        tokens: TokensUsed {
            prompt: 9,
            completion: 9,
            ..TokensUsed::default()
        },
        ..settle(1)
    };
    let again = store.settle(ACCOUNT, dearer, NOW).await.unwrap();
    assert_eq!(*again.charge, charge);
    assert_eq!(
        store.summary(ACCOUNT, NOW).await.unwrap().spent,
        Nanos(CHARGED)
    );
    assert_eq!(store.entries(ACCOUNT, 0).await.unwrap().len(), 2);
}

pub(in crate::gateway::store) async fn an_id_is_good_for_one_question(store: Store) {
    furnish(&store).await;
    let denied = |why| Err(StoreError::Denied(why));
    let other = || Hold {
        body: [9; 32],
        ..hold(1)
    };
    store.hold(ACCOUNT, hold(1), NOW).await.unwrap();
    assert_eq!(
        store.hold(ACCOUNT, hold(1), NOW).await,
        denied(Denied::InProgress)
    );
    assert_eq!(
        store.hold(ACCOUNT, other(), NOW).await,
        denied(Denied::Conflict)
    );
    let charge = Box::new(settled(&store, 1).await);
    assert_eq!(
        store.hold(ACCOUNT, hold(1), NOW).await,
        denied(Denied::Expired { charge })
    );
    assert_eq!(
        store.hold(ACCOUNT, other(), NOW).await,
        denied(Denied::Conflict)
    );
    // Another account has ids of its own.
    let bob = AccountId::from_u128(7);
    store
        .create_account(NewAccount::managed(bob, "bob"), NOW)
        .await
        .unwrap();
    let granted = store.hold(bob, hold(1), NOW).await.unwrap();
    assert_eq!(granted.tier, Tier::MANAGED);
    let nobody = AccountId::from_u128(9);
    assert_eq!(
        store.hold(nobody, hold(1), NOW).await,
        Err(StoreError::UnknownAccount)
    );
}

pub(in crate::gateway::store) async fn what_people_write_files_an_entry_under_no_other_name(
    store: Store,
) {
    furnish(&store).await;
    let forged = RequestId::from_u128(2);
    let written = [
        format!(r#"","request":"{forged}"#),
        format!(r#"request":"{forged}","reference":"pay:2","undoes":"pay:1"#),
        format!(r#"\","request":"{forged}","x":"\"#),
        format!(r#""request":"{forged}""#),
        "\u{1}\\\"request\\\":".to_owned(),
    ];
    for (written, request) in written.into_iter().zip(10..) {
        let settle = Settle {
            model: written.clone(),
            project: Some(written),
            ..settle(request)
        };
        store.hold(ACCOUNT, hold(request), NOW).await.unwrap();
        let settled = store.settle(ACCOUNT, settle.clone(), NOW).await.unwrap();
        let request = RequestId::from_u128(request);
        let booked = store.booked(ACCOUNT, request).await.unwrap().unwrap();
        assert_eq!(*settled.charge, booked.charge);
        // Said again, it is found.
        assert_eq!(
            store.settle(ACCOUNT, settle, NOW).await.unwrap().charge,
            settled.charge
        );
    }
    assert_eq!(store.booked(ACCOUNT, forged).await, Ok(None));
    for number in 1..=2 {
        let order = Order {
            reference: Reference::new(format!("pay:{number}")).unwrap(),
            what: What::Pay { amount: Nanos(1) },
        };
        assert!(!store.order(ACCOUNT, order, NOW).await.unwrap().repeated);
    }
    charge(&store, 2).await;
}

pub(in crate::gateway::store) async fn a_released_id_is_free_again(store: Store) {
    furnish(&store).await;
    store.hold(ACCOUNT, hold(1), NOW).await.unwrap();
    let first = Release {
        request: RequestId::from_u128(1),
        hold: hold(1).id,
    };
    for _ in 0..2 {
        store.release(ACCOUNT, first, NOW).await.unwrap();
    }
    assert_eq!(store.summary(ACCOUNT, NOW).await.unwrap().held, Nanos(0));
    let later = Hold {
        id: HoldId(2),
        body: [9; 32],
        ..hold(1)
    };
    store.hold(ACCOUNT, later, NOW).await.unwrap();
    // Said once more, late: the later hold is not the one meant.
    store.release(ACCOUNT, first, NOW).await.unwrap();
    assert_eq!(store.summary(ACCOUNT, NOW).await.unwrap().held, Nanos(HELD));
}

pub(in crate::gateway::store) async fn sixty_four_clients_get_exactly_what_the_ceiling_covers(
    store: Store,
) {
    let ceiling = Nanos(33 * HELD);
    let account = NewAccount {
        ceiling,
        ..NewAccount::managed(ACCOUNT, "ada")
    };
    store.create_account(account, NOW).await.unwrap();
    let next = Arc::new(AtomicU64::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (store, next) = (store.clone(), Arc::clone(&next));
        clients.spawn(async move {
            let mut admitted = 0;
            loop {
                let request = next.fetch_add(1, Ordering::Relaxed);
                if request >= 200 {
                    return admitted;
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
    assert_eq!(clients.join_all().await.iter().sum::<i32>(), 33);
    let summary = store.summary(ACCOUNT, NOW).await.unwrap();
    assert_eq!((summary.held, summary.available), (ceiling, Nanos(0)));
}

pub(in crate::gateway::store) async fn an_account_that_pays_its_provider_needs_a_key_of_its_own(
    store: Store,
) {
    furnish(&store).await;
    let byok = What::SetTier { tier: Tier::BYOK };
    store
        .order(ACCOUNT, ordered("tier:1", byok), NOW)
        .await
        .unwrap();
    let provider = || "anthropic".to_owned();
    let denied = Denied::NoProviderKey {
        provider: provider(),
    };
    let refused = Err(StoreError::Denied(denied));
    assert_eq!(store.hold(ACCOUNT, hold(1), NOW).await, refused);
    let key = Some(vec![1, 2, 3]);
    store
        .set_provider_key(ACCOUNT, provider(), key.clone(), NOW)
        .await
        .unwrap();
    assert_eq!(store.provider_key(ACCOUNT, provider()).await, Ok(key));
    assert_eq!(
        store.provider_key(ACCOUNT, "openai".to_owned()).await,
        Ok(None)
    );
    let granted = store.hold(ACCOUNT, hold(1), NOW).await.unwrap();
    assert_eq!(granted.tier, Tier::BYOK);
    // 30 % of $0.0105, and nothing for the provider.
    let charge = settled(&store, 1).await;
    assert_eq!(
        (charge.base, charge.charge),
        (Nanos(10_500_000), Nanos(3_150_000))
    );
    store
        .set_provider_key(ACCOUNT, provider(), None, NOW)
        .await
        .unwrap();
    assert_eq!(store.hold(ACCOUNT, hold(2), NOW).await, refused);
    let nobody = AccountId::from_u128(9);
    let unknown = store.set_provider_key(nobody, provider(), None, NOW).await;
    assert_eq!(unknown, Err(StoreError::UnknownAccount));
}

pub(in crate::gateway::store) async fn a_limit_that_comes_near_is_told_of_once(store: Store) {
    let account = NewAccount {
        // Four charges are within it, and the fourth passes 80 %; a fifth fits its hold.
        ceiling: Nanos(4 * CHARGED + HELD),
        ..NewAccount::managed(ACCOUNT, "ada")
    };
    store.create_account(account, NOW).await.unwrap();
    let mut told = Vec::new();
    for request in 1..=5 {
        store.hold(ACCOUNT, hold(request), NOW).await.unwrap();
        let settled = store.settle(ACCOUNT, settle(request), NOW).await.unwrap();
        told.push(settled.alert.map(|alert| alert.percent));
    }
    // 10.815 of 62.5725 each: 17 %, 35 %, 52 %, 69 %, 86 %.
    assert_eq!(told, [None, None, None, None, Some(80)]);
}
