//! What finished answers said: kept for their device alone, and then deleted.

use super::*;

/// What every case's answer said.
fn said() -> Transcript {
    Transcript::from_bytes(Bytes::from_static(b"{\"said\":\"The sky\xc3\xa4\"}"))
}

fn keep(kept: Duration) -> Option<Box<Keep>> {
    let transcript = said();
    Some(Box::new(Keep { transcript, kept }))
}

/// Charges a request, and keeps what its answer said for so long.
pub(in crate::gateway::store) async fn charge_and_keep(
    store: &Store,
    request: u128,
    kept: Duration,
) -> Charge {
    store.hold(ACCOUNT, hold(request), NOW).await.unwrap();
    let settled = store.settle_and_keep(ACCOUNT, settle(request), keep(kept), NOW);
    *settled.await.unwrap().charge
}

pub(in crate::gateway::store) async fn recall(
    store: &Store,
    request: u128,
    now: UnixMillis,
) -> Recalled {
    let request = RequestId::from_u128(request);
    store.recall(ACCOUNT, DEVICE, request, now).await.unwrap()
}

/// Times are the store's own, which is the gateway's for a file and the server's for a server: a minute
/// from now is after neither of them has begun, and no time at all is over at once for both.
pub(in crate::gateway::store) async fn what_a_finished_answer_said_is_kept_for_its_device_and_then_deleted(
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

pub(in crate::gateway::store) async fn a_repeated_settle_keeps_no_other_text(store: Store) {
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

pub(in crate::gateway::store) async fn what_became_of_a_question_is_told_to_its_device_alone(
    store: Store,
) {
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

pub(in crate::gateway::store) async fn a_revoked_devices_answers_are_deleted(store: Store) {
    furnish(&store).await;
    charge_and_keep(&store, 1, Duration::from_secs(60)).await;
    store.revoke_device(DEVICE, NOW).await.unwrap();
    assert!(matches!(recall(&store, 1, NOW).await, Recalled::Charged(_)));
}
