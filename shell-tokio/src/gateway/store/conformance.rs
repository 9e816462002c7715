//! What every store must do, whatever it is made of. A store's own tests run all of it; each gets a
//! fresh, empty store.

mod answers;
mod directory;
mod orders;
mod questions;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mesh_core::billing::account::order::{Order, Reference, Refused, What};
use mesh_core::billing::account::{Day, Denied, Hold, HoldId, Month, Release, Settle};
use mesh_core::billing::ledger::seal::Head;
use mesh_core::billing::ledger::{self, Charge, Record};
use mesh_core::billing::money::Nanos;
use mesh_core::billing::price::Price;
use mesh_core::billing::tier::Tier;
use mesh_core::gateway::{Admitted, Keep, NotAdmitted, Recalled, Transcript};
use mesh_core::identity::Fingerprint;
use mesh_core::identity::api_key::{Scope, Scopes};
use mesh_core::ids::{AccountId, DeviceId, KeyId, RequestId};
use mesh_core::time::UnixMillis;
use mesh_core::wire::message::TokensUsed;

pub(super) use self::answers::*;
pub(super) use self::directory::*;
pub(super) use self::orders::*;
pub(super) use self::questions::*;
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
