//! What every store must do, whatever it is made of. A store's own tests run all of it; each gets a
//! fresh, empty store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mesh_core::billing::account::order::{Order, Reference, Refused, What};
use mesh_core::billing::account::{Day, Denied, Hold, HoldId, Release, Settle};
use mesh_core::billing::ledger::{self, Charge};
use mesh_core::billing::money::Nanos;
use mesh_core::billing::price::Price;
use mesh_core::billing::tier::Tier;
use mesh_core::gateway::{NotAdmitted, Transcript};
use mesh_core::identity::api_key::{Scope, Scopes};
use mesh_core::wire::message::TokensUsed;

use super::*;

/// Hands the names of all cases to a macro of a store's tests.
macro_rules! every_case {
    ($conforms:ident) => {
        $conforms!(
            an_account_is_found_by_its_name_and_names_are_unique,
            a_key_is_known_by_its_hash_until_it_is_revoked,
            a_device_is_enrolled_once_and_only_with_a_living_key,
            each_session_of_a_device_has_a_higher_number,
            a_device_is_refused_for_the_reason_that_holds,
            revocations_can_be_followed_in_their_order,
            a_request_is_held_then_charged_and_the_rest_is_void,
            a_repeated_settle_charges_nothing_more,
            an_id_is_good_for_one_question,
            what_people_write_files_an_entry_under_no_other_name,
            a_released_id_is_free_again,
            an_order_is_carried_out_once_and_found_in_the_ledger,
            an_order_leaves_what_is_held_alone,
            sixty_four_clients_get_exactly_what_the_ceiling_covers,
            the_ledger_can_be_read_from_any_entry_on_and_verifies,
            what_was_charged_is_given_back_once_and_never_more,
            what_was_used_is_added_up_as_it_is_charged,
            a_month_that_is_over_is_invoiced_once_and_becomes_a_task,
            credits_that_have_ended_leave_the_books,
            heads_are_where_the_chains_end,
            an_account_that_pays_its_provider_needs_a_key_of_its_own,
            a_limit_that_comes_near_is_told_of_once,
            what_a_finished_answer_said_is_kept_for_its_device_and_then_deleted,
            a_repeated_settle_keeps_no_other_text,
            what_became_of_a_question_is_told_to_its_device_alone,
            a_revoked_devices_answers_are_deleted,
            the_first_authorities_are_the_stores_until_others_are_adopted,
        );
    };
}
pub(super) use every_case;

/// 2026-11-18T11:06:40Z.
pub(super) const NOW: UnixMillis = UnixMillis(1_795_000_000_000);
pub(super) const ACCOUNT: AccountId = AccountId::from_u128(1);
pub(super) const KEY: KeyId = KeyId::from_u128(2);
pub(super) const DEVICE: DeviceId = DeviceId::from_u128(3);
pub(super) const CERTIFICATE: Fingerprint = Fingerprint([4; 32]);
/// The worst case of [`hold`]: 1 000 in at $3.75/M (cache write), 1 000 out at $15/M, 3 % on top.
pub(super) const HELD: i64 = 19_312_500;
/// The charge of [`settle`]: 1 000 in at $3/M, 500 out at $15/M, 3 % on top.
pub(super) const CHARGED: i64 = 10_815_000;

pub(super) fn hold(request: u128) -> Hold {
    Hold {
        id: HoldId(1),
        request: RequestId::from_u128(request),
        body: [5; 32],
        price: Price::CLAUDE_SONNET,
        input_tokens_max: 1000,
        output_tokens_max: 1000,
        provider: "anthropic".to_owned(),
        device: Some(DEVICE),
        guest: None,
    }
}

pub(super) fn settle(request: u128) -> Settle {
    Settle {
        request: RequestId::from_u128(request),
        body: [5; 32],
        model: "claude_sonnet".to_owned(),
        price: Price::CLAUDE_SONNET,
        tokens: TokensUsed {
            prompt: 1000,
            completion: 500,
            ..TokensUsed::default()
        },
        estimated: false,
        device: Some(DEVICE),
        project: Some("valves".to_owned()),
    }
}

fn new_key(id: KeyId, hash: u8) -> NewKey {
    let (label, scopes) = ("laptop".to_owned(), Scopes::DEFAULT);
    NewKey {
        id,
        account: ACCOUNT,
        label,
        hash: [hash; 32],
        scopes,
    }
}

fn new_device(id: DeviceId) -> NewDevice {
    NewDevice {
        id,
        key: KEY,
        certificate: CERTIFICATE,
        not_after: UnixMillis(NOW.0 + 1),
    }
}

/// One account on the usual terms, with a key and a device.
pub(super) async fn furnish(store: &Store) {
    store
        .create_account(NewAccount::managed(ACCOUNT, "ada"), NOW)
        .await
        .unwrap();
    store.create_key(new_key(KEY, 6), NOW).await.unwrap();
    assert_eq!(store.enrol(new_device(DEVICE), NOW).await, Ok(ACCOUNT));
}

pub(super) async fn charge(store: &Store, request: u128) -> Charge {
    store.hold(ACCOUNT, hold(request), NOW).await.unwrap();
    settled(store, request).await
}

/// What a request that is held is charged.
pub(super) async fn settled(store: &Store, request: u128) -> Charge {
    let settled = store.settle(ACCOUNT, settle(request), NOW).await;
    *settled.unwrap().charge
}

pub(super) async fn an_account_is_found_by_its_name_and_names_are_unique(store: Store) {
    furnish(&store).await;
    let ada = store.account_named("ada").await.unwrap();
    assert_eq!(
        (ada.id, ada.ceiling, ada.tier),
        (ACCOUNT, CEILING_DEFAULT, Tier::MANAGED)
    );
    assert_eq!(store.accounts().await, Ok(vec![ada]));
    let again = NewAccount::managed(AccountId::from_u128(9), "ada");
    assert_eq!(
        store.create_account(again, NOW).await,
        Err(StoreError::NameTaken)
    );
    for name in ["", "a\nb", &"x".repeat(129)] {
        let odd = NewAccount::managed(AccountId::from_u128(9), name);
        assert_eq!(
            store.create_account(odd, NOW).await,
            Err(StoreError::BadName)
        );
    }
    assert_eq!(
        store.account_named("bob").await,
        Err(StoreError::UnknownAccount)
    );
}

pub(super) async fn a_key_is_known_by_its_hash_until_it_is_revoked(store: Store) {
    furnish(&store).await;
    let key = store.key([6; 32]).await.unwrap();
    assert_eq!((key.id, key.account, key.revoked_at), (KEY, ACCOUNT, None));
    assert!(key.scopes.allow(Scope::Escalate) && !key.scopes.allow(Scope::Admin));
    assert_eq!(store.key([7; 32]).await, Err(StoreError::UnknownKey));
    store.revoke_key(KEY, false, NOW).await.unwrap();
    assert_eq!(store.key([6; 32]).await, Err(StoreError::KeyRevoked));
    assert_eq!(
        store.keys(Some(ACCOUNT)).await.unwrap()[0].revoked_at,
        Some(NOW)
    );
    assert_eq!(store.keys(Some(AccountId::from_u128(9))).await, Ok(vec![]));
    let foreign = NewKey {
        account: AccountId::from_u128(9),
        ..new_key(KEY, 8)
    };
    assert_eq!(
        store.create_key(foreign, NOW).await,
        Err(StoreError::UnknownAccount)
    );
}

pub(super) async fn a_device_is_enrolled_once_and_only_with_a_living_key(store: Store) {
    furnish(&store).await;
    assert_eq!(
        store.enrol(new_device(DEVICE), NOW).await,
        Err(StoreError::DeviceTaken)
    );
    let other = new_device(DeviceId::from_u128(8));
    let keyless = NewDevice {
        key: KeyId::from_u128(9),
        ..other.clone()
    };
    assert_eq!(store.enrol(keyless, NOW).await, Err(StoreError::UnknownKey));
    store.revoke_key(KEY, false, NOW).await.unwrap();
    assert_eq!(store.enrol(other, NOW).await, Err(StoreError::KeyRevoked));
    let devices = store.devices(None).await.unwrap();
    assert_eq!(
        (devices.len(), devices[0].id, devices[0].seen_at),
        (1, DEVICE, None)
    );
}

pub(super) async fn each_session_of_a_device_has_a_higher_number(store: Store) {
    furnish(&store).await;
    for epoch in 1..=3 {
        let admitted = store.admit(DEVICE, CERTIFICATE, NOW).await;
        assert_eq!(
            admitted,
            Ok(Admitted {
                account: ACCOUNT,
                epoch
            })
        );
    }
    assert_eq!(
        store.devices(Some(ACCOUNT)).await.unwrap()[0].seen_at,
        Some(NOW)
    );
}

pub(super) async fn a_device_is_refused_for_the_reason_that_holds(store: Store) {
    furnish(&store).await;
    let refused = |why| Err(StoreError::NotAdmitted(why));
    let stranger = DeviceId::from_u128(9);
    assert_eq!(
        store.admit(stranger, CERTIFICATE, NOW).await,
        refused(NotAdmitted::Unknown)
    );
    let other = Fingerprint([9; 32]);
    assert_eq!(
        store.admit(DEVICE, other, NOW).await,
        refused(NotAdmitted::Mismatched)
    );
    store.revoke_device(DEVICE, NOW).await.unwrap();
    assert_eq!(
        store.admit(DEVICE, CERTIFICATE, NOW).await,
        refused(NotAdmitted::Revoked)
    );
    assert_eq!(
        store.revoke_device(stranger, NOW).await,
        Err(StoreError::UnknownDevice)
    );
}

pub(super) async fn revocations_can_be_followed_in_their_order(store: Store) {
    furnish(&store).await;
    let second = DeviceId::from_u128(8);
    store.enrol(new_device(second), NOW).await.unwrap();
    assert_eq!(store.last_revocation().await, Ok(0));
    store.revoke_device(second, NOW).await.unwrap();
    store.revoke_device(second, NOW).await.unwrap();
    // The key names the device that is left, and takes it along only when told to.
    assert_eq!(
        store.revoke_key(KEY, false, NOW).await.unwrap()[0].id,
        DEVICE
    );
    assert_eq!(store.last_revocation().await, Ok(1));
    assert_eq!(
        store.revoke_key(KEY, true, NOW).await.unwrap()[0].id,
        DEVICE
    );
    let devices = |seen: Vec<Revocation>| -> Vec<_> {
        seen.iter()
            .map(|revocation| (revocation.sequence, revocation.device))
            .collect()
    };
    assert_eq!(
        devices(store.revocations(0).await.unwrap()),
        [(1, second), (2, DEVICE)]
    );
    assert_eq!(devices(store.revocations(1).await.unwrap()), [(2, DEVICE)]);
    assert_eq!(store.revoke_key(KEY, true, NOW).await, Ok(vec![]));
}

pub(super) async fn a_request_is_held_then_charged_and_the_rest_is_void(store: Store) {
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

pub(super) async fn a_repeated_settle_charges_nothing_more(store: Store) {
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

pub(super) async fn an_id_is_good_for_one_question(store: Store) {
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

pub(super) async fn what_people_write_files_an_entry_under_no_other_name(store: Store) {
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

pub(super) async fn a_released_id_is_free_again(store: Store) {
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

pub(super) async fn an_order_is_carried_out_once_and_found_in_the_ledger(store: Store) {
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

pub(super) async fn an_order_leaves_what_is_held_alone(store: Store) {
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

pub(super) async fn sixty_four_clients_get_exactly_what_the_ceiling_covers(store: Store) {
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

pub(super) async fn the_ledger_can_be_read_from_any_entry_on_and_verifies(store: Store) {
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

fn reference(text: &str) -> Reference {
    Reference::new(text).unwrap()
}

fn ordered(name: &str, what: What) -> Order {
    let reference = reference(name);
    Order { reference, what }
}

pub(super) async fn what_was_charged_is_given_back_once_and_never_more(store: Store) {
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

pub(super) async fn what_was_used_is_added_up_as_it_is_charged(store: Store) {
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

pub(super) async fn a_month_that_is_over_is_invoiced_once_and_becomes_a_task(store: Store) {
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

pub(super) async fn credits_that_have_ended_leave_the_books(store: Store) {
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

pub(super) async fn heads_are_where_the_chains_end(store: Store) {
    furnish(&store).await;
    charge(&store, 1).await;
    let last = store.entries(ACCOUNT, 1).await.unwrap().remove(0);
    let head = Head {
        entries: 2,
        hash: last.hash,
    };
    assert_eq!(store.heads().await, Ok([(ACCOUNT, head)].into()));
}

pub(super) async fn an_account_that_pays_its_provider_needs_a_key_of_its_own(store: Store) {
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

pub(super) async fn a_limit_that_comes_near_is_told_of_once(store: Store) {
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

/// What every case's answer said.
fn said() -> Transcript {
    Transcript::from_bytes(Bytes::from_static(b"{\"said\":\"The sky\xc3\xa4\"}"))
}

fn keep(kept: Duration) -> Option<Box<Keep>> {
    let transcript = said();
    Some(Box::new(Keep { transcript, kept }))
}

/// Charges a request, and keeps what its answer said for so long.
pub(super) async fn charge_and_keep(store: &Store, request: u128, kept: Duration) -> Charge {
    store.hold(ACCOUNT, hold(request), NOW).await.unwrap();
    let settled = store.settle_and_keep(ACCOUNT, settle(request), keep(kept), NOW);
    *settled.await.unwrap().charge
}

pub(super) async fn recall(store: &Store, request: u128, now: UnixMillis) -> Recalled {
    let request = RequestId::from_u128(request);
    store.recall(ACCOUNT, DEVICE, request, now).await.unwrap()
}

/// Times are the store's own, which is the gateway's for a file and the server's for a server: a minute
/// from now is after neither of them has begun, and no time at all is over at once for both.
pub(super) async fn what_a_finished_answer_said_is_kept_for_its_device_and_then_deleted(
    store: Store,
) {
    furnish(&store).await;
    let kept = charge_and_keep(&store, 1, Duration::from_secs(60)).await;
    let over = charge_and_keep(&store, 2, Duration::ZERO).await;
    let unkept = charge(&store, 3).await;
    let recalled = recall(&store, 1, NOW).await;
    let (charge, transcript) = (Box::new(kept), said());
    assert_eq!(recalled, Recalled::Kept { charge, transcript });
    for charge in [over, unkept] {
        let request = charge.request.as_u128();
        let recalled = recall(&store, request, NOW).await;
        assert_eq!(recalled, Recalled::Charged(Box::new(charge)));
    }
    assert_eq!(store.forget_answers(NOW).await, Ok(1));
    assert_eq!(store.forget_answers(NOW).await, Ok(0));
    assert!(matches!(
        recall(&store, 1, NOW).await,
        Recalled::Kept { .. }
    ));
    // The ledger knows nothing of it.
    let entries = store.entries(ACCOUNT, 0).await.unwrap();
    assert!(entries.iter().all(|entry| !entry.canonical.contains("sky")));
    assert_eq!(ledger::verify(ACCOUNT, entries).unwrap().entries, 4);
}

pub(super) async fn a_repeated_settle_keeps_no_other_text(store: Store) {
    furnish(&store).await;
    charge_and_keep(&store, 1, Duration::from_secs(60)).await;
    charge(&store, 2).await;
    let other = Transcript::from_bytes(Bytes::from_static(b"another"));
    for request in [1, 2] {
        let keep = Keep {
            transcript: other.clone(),
            kept: Duration::from_secs(60),
        };
        let keep = Some(Box::new(keep));
        let again = store.settle_and_keep(ACCOUNT, settle(request), keep, NOW);
        again.await.unwrap();
    }
    let Recalled::Kept { transcript, .. } = recall(&store, 1, NOW).await else {
        panic!("it is kept")
    };
    assert_eq!(transcript, said());
    assert!(matches!(recall(&store, 2, NOW).await, Recalled::Charged(_)));
}

pub(super) async fn what_became_of_a_question_is_told_to_its_device_alone(store: Store) {
    furnish(&store).await;
    let stranger = DeviceId::from_u128(8);
    let asked_by = async |device, request| {
        let request = RequestId::from_u128(request);
        store.recall(ACCOUNT, device, request, NOW).await.unwrap()
    };
    assert_eq!(asked_by(DEVICE, 1).await, Recalled::Nothing);
    store.hold(ACCOUNT, hold(1), NOW).await.unwrap();
    assert_eq!(asked_by(DEVICE, 1).await, Recalled::Elsewhere);
    assert_eq!(asked_by(stranger, 1).await, Recalled::NotYours);
    let settled = store.settle_and_keep(ACCOUNT, settle(1), keep(Duration::from_secs(60)), NOW);
    settled.await.unwrap();
    assert!(matches!(asked_by(DEVICE, 1).await, Recalled::Kept { .. }));
    assert_eq!(asked_by(stranger, 1).await, Recalled::NotYours);
    charge(&store, 2).await;
    assert!(matches!(asked_by(DEVICE, 2).await, Recalled::Charged(_)));
    assert_eq!(asked_by(stranger, 2).await, Recalled::NotYours);
    let request = RequestId::from_u128(1);
    let bob = AccountId::from_u128(7);
    let of_bob = store.recall(bob, DEVICE, request, NOW).await;
    assert_eq!(of_bob, Ok(Recalled::Nothing));
    // Released, it is as if it had never been.
    store.hold(ACCOUNT, hold(3), NOW).await.unwrap();
    let (request, hold) = (RequestId::from_u128(3), hold(3).id);
    let release = Release { request, hold };
    store.release(ACCOUNT, release, NOW).await.unwrap();
    assert_eq!(asked_by(DEVICE, 3).await, Recalled::Nothing);
}

pub(super) async fn a_revoked_devices_answers_are_deleted(store: Store) {
    furnish(&store).await;
    charge_and_keep(&store, 1, Duration::from_secs(60)).await;
    store.revoke_device(DEVICE, NOW).await.unwrap();
    assert!(matches!(recall(&store, 1, NOW).await, Recalled::Charged(_)));
}

pub(super) async fn the_first_authorities_are_the_stores_until_others_are_adopted(store: Store) {
    let [first, second] = [6, 7].map(|byte| Fingerprint([byte; 32]));
    assert_eq!(store.authorities().await, Ok(None));
    assert_eq!(store.claim_authorities(first).await, Ok(first));
    assert_eq!(store.claim_authorities(second).await, Ok(first));
    assert_eq!(store.authorities().await, Ok(Some(first)));
    store.adopt_authorities(second).await.unwrap();
    store.adopt_authorities(second).await.unwrap();
    assert_eq!(store.claim_authorities(first).await, Ok(second));
    assert_eq!(store.claim_authorities(second).await, Ok(second));
}
