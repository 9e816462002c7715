//! Accounts, keys, devices, and the deployment they belong to.

use super::*;

pub(in crate::gateway::store) async fn an_account_is_found_by_its_name_and_names_are_unique(
    store: Store,
) {
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

pub(in crate::gateway::store) async fn a_key_is_known_by_its_hash_until_it_is_revoked(
    store: Store,
) {
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

pub(in crate::gateway::store) async fn a_device_is_enrolled_once_and_only_with_a_living_key(
    store: Store,
) {
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

pub(in crate::gateway::store) async fn each_session_of_a_device_has_a_higher_number(store: Store) {
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

pub(in crate::gateway::store) async fn a_device_is_refused_for_the_reason_that_holds(store: Store) {
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

pub(in crate::gateway::store) async fn revocations_can_be_followed_in_their_order(store: Store) {
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

pub(in crate::gateway::store) async fn the_first_authorities_are_the_stores_until_others_are_adopted(
    store: Store,
) {
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
