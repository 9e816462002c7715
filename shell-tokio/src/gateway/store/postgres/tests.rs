use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mesh_core::billing::account::order::{Order, Reference, What};
use mesh_core::billing::account::{Denied, Hold, HoldId, Lose, Release};
use mesh_core::billing::money::Nanos;
use mesh_core::billing::price::Price;
use mesh_test_postgres::{Disk, PASSWORD, Server};
use tokio::task::JoinSet;

use super::connection::Link;
use crate::gateway::store::conformance::{
    self, ACCOUNT, CERTIFICATE, CHARGED, DEVICE, HELD, KEY, NOW,
};
use crate::gateway::store::conformance::{charge, furnish, hold, settle, settled};
use crate::gateway::store::*;

/// A database of the test's own.
struct Fresh {
    server: &'static Server,
    url: String,
}

impl Fresh {
    fn new() -> Option<Self> {
        let server = Server::shared()?;
        let url = server.database();
        Some(Self { server, url })
    }

    fn place(&self) -> Place {
        Place::Database(Database::parse(&self.url, None, false).unwrap())
    }

    async fn gateway(&self) -> Store {
        Store::open_at(&self.place(), Role::Gateway).await.unwrap()
    }

    async fn verify(&self) -> Report {
        verify_at(&self.place(), None).await.unwrap()
    }

    fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.url, sql)
    }

    async fn only_fault(&self) -> (u64, &'static str) {
        let report = self.verify().await;
        assert!(!report.is_sound());
        let [fault] = *report.faults().collect::<Vec<_>>() else {
            panic!("{report:?}")
        };
        assert_eq!(fault.account, ACCOUNT);
        (fault.sequence, fault.what)
    }
}

macro_rules! fresh {
    () => {
        match Fresh::new() {
            Some(fresh) => fresh,
            None => return,
        }
    };
}

macro_rules! conforms {
    ($($name:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                let fresh = fresh!();
                let store = fresh.gateway().await;
                conformance::$name(store).await;
                assert!(fresh.verify().await.is_sound());
            }
        )+
    };
}

conformance::every_case!(conforms);

/// A transaction by hand that keeps an account locked until it is ended.
async fn lock(fresh: &Fresh) -> Link {
    let Place::Database(database) = fresh.place() else {
        unreachable!()
    };
    let link = Link::connect(&database).await.unwrap();
    let sql = "BEGIN; SELECT FROM accounts FOR UPDATE";
    link.client.batch_execute(sql).await.unwrap();
    link
}

fn poll_once<T>(call: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(call).poll(&mut context) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}

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
async fn a_settle_repeated_over_a_crash_of_the_server_is_charged_once() {
    let Some(server) = Server::start(Disk::Unsafe) else {
        return;
    };
    let database = Database::parse(&server.database(), None, false).unwrap();
    let place = Place::Database(database);
    let store = Store::open_at(&place, Role::Gateway).await.unwrap();
    furnish(&store).await;
    for request in 1..=200 {
        store.hold(ACCOUNT, hold(request), NOW).await.unwrap();
    }
    charge(&store, 1000).await;
    let next = Arc::new(AtomicU64::new(1));
    let (half, mut is_half) = tokio::sync::watch::channel(0_u32);
    let half = Arc::new(half);
    let mut clients = JoinSet::new();
    for _ in 0..16 {
        let (store, next, half) = (store.clone(), Arc::clone(&next), Arc::clone(&half));
        clients.spawn(async move {
            let mut failed = 0;
            loop {
                let request = next.fetch_add(1, Ordering::Relaxed);
                if request > 200 {
                    return failed;
                }
                // As a gateway does.
                loop {
                    match store.settle(ACCOUNT, settle(request.into()), NOW).await {
                        Ok(settled) => {
                            assert_eq!(settled.charge.overage, Nanos(0));
                            half.send_modify(|done| *done += 1);
                            break;
                        }
                        Err(error) => {
                            assert!(error.is_unavailable(), "{error}");
                            failed += 1;
                            tokio::task::yield_now().await;
                        }
                    }
                }
            }
        });
    }
    is_half.wait_for(|done| *done >= 40).await.unwrap();
    server.crash();
    let refused = store.hold(ACCOUNT, hold(2000), NOW).await.unwrap_err();
    assert!(refused.is_unavailable(), "{refused}");
    assert!(!refused.to_string().contains(PASSWORD), "{refused}");
    server.restart();
    let all = tokio::time::timeout(Duration::from_secs(60), clients.join_all());
    let failed: u64 = all.await.unwrap().iter().sum();
    assert!(failed > 0, "the crash was in the middle");
    let summary = store.summary(ACCOUNT, NOW).await.unwrap();
    assert_eq!(
        (summary.held, summary.spent),
        (Nanos(0), Nanos(201 * CHARGED))
    );
    let report = verify_at(&place, None).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.entries(), 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_written_in_one_transaction_and_in_its_order() {
    let fresh = fresh!();
    let store = fresh.gateway().await;
    furnish(&store).await;
    for request in 0..=64 {
        store.hold(ACCOUNT, hold(request), NOW).await.unwrap();
    }
    let busy = lock(&fresh).await;
    let before = store.load();
    let mut waiting = Vec::new();
    for request in 0..=64 {
        let settling = store.clone();
        // Polled once each, in order, so that they stand in the queue in that order.
        let mut call =
            Box::pin(async move { settling.settle(ACCOUNT, settle(request), NOW).await });
        assert!(poll_once(&mut call).is_none());
        waiting.push(call);
    }
    busy.client.batch_execute("COMMIT").await.unwrap();
    for call in waiting {
        call.await.unwrap();
    }
    let after = store.load();
    assert_eq!(after.calls - before.calls, 65);
    assert!(after.batches - before.batches <= 3, "{before:?} {after:?}");
    for request in 0..=64 {
        let booked = store
            .booked(ACCOUNT, RequestId::from_u128(request))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(u128::from(booked.sequence), request + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_the_database_refuses_takes_none_of_its_batch_along() {
    let fresh = fresh!();
    let store = fresh.gateway().await;
    furnish(&store).await;
    fresh.sql("ALTER TABLE synesis.entries ADD CHECK (canonical NOT LIKE '%\"model\":\"bad\"%')");
    for request in 1..=8 {
        store.hold(ACCOUNT, hold(request), NOW).await.unwrap();
    }
    let busy = lock(&fresh).await;
    let mut waiting = Vec::new();
    for request in 1..=8 {
        let store = store.clone();
        let mut settle = settle(request);
        if request % 3 == 0 {
            settle.model = "bad".to_owned();
        }
        let mut call = Box::pin(async move { store.settle(ACCOUNT, settle, NOW).await });
        assert!(poll_once(&mut call).is_none());
        waiting.push((request, call));
    }
    busy.client.batch_execute("COMMIT").await.unwrap();
    for (request, call) in waiting {
        let outcome = call.await;
        if request % 3 == 0 {
            assert!(matches!(outcome, Err(StoreError::Failed(_))), "{outcome:?}");
        } else {
            assert_eq!(outcome.unwrap().charge.charge, Nanos(CHARGED));
        }
    }
    let summary = store.summary(ACCOUNT, NOW).await.unwrap();
    assert_eq!(
        (summary.spent, summary.held),
        (Nanos(6 * CHARGED), Nanos(2 * HELD))
    );
    assert!(fresh.verify().await.is_sound());
}

#[tokio::test]
async fn a_row_that_was_changed_cut_or_taken_out_is_named() {
    let missing = "missing, or out of order";
    let cut = "missing: the account knows of more entries, or of others";
    let balance = "what the account says it spent is not what its entries add up to";
    let altered = "altered, or not the one that followed";
    let fresh = fresh!();
    let store = fresh.gateway().await;
    furnish(&store).await;
    for request in 1..=5 {
        charge(&store, request).await;
    }
    drop(store);
    for (change, found) in [
        ("DELETE FROM entries WHERE sequence = 2", (2, missing)),
        ("DELETE FROM entries WHERE sequence = 5", (5, cut)),
        ("DELETE FROM entries", (0, cut)),
        (
            "UPDATE entries SET sequence = 9 WHERE sequence = 5",
            (5, missing),
        ),
        (
            "UPDATE accounts SET state = replace(state, '\"spent\":', '\"spent\":1')",
            (6, balance),
        ),
        ("UPDATE accounts SET state = ''", (6, balance)),
        (
            "UPDATE entries SET canonical = replace(canonical, '10815000', '10815001') \
             WHERE sequence = 4",
            (4, altered),
        ),
        (
            "UPDATE entries SET canonical = overlay(canonical placing ' ' from 12 for 0) \
             WHERE sequence = 3",
            (3, altered),
        ),
        (
            "UPDATE entries SET hash = set_byte(hash, 7, 255 - get_byte(hash, 7)) \
             WHERE sequence = 1",
            (1, altered),
        ),
    ] {
        fresh.sql(&format!(
            "SET search_path = synesis; CREATE TABLE e AS SELECT * FROM entries; \
             CREATE TABLE a AS SELECT * FROM accounts; \
             ALTER TABLE entries DISABLE TRIGGER ALL; {change}"
        ));
        assert_eq!(fresh.only_fault().await, found, "{change}");
        fresh.sql(
            "SET search_path = synesis; DELETE FROM entries; \
             INSERT INTO entries SELECT account, sequence, canonical, hash FROM e; \
             UPDATE accounts SET state = a.state FROM a WHERE a.id = accounts.id; \
             ALTER TABLE entries ENABLE TRIGGER ALL; DROP TABLE e, a",
        );
        assert!(fresh.verify().await.is_sound());
    }
}

#[tokio::test]
async fn an_account_that_was_taken_out_leaves_its_entries_behind() {
    let fresh = fresh!();
    furnish(&fresh.gateway().await).await;
    fresh.sql(
        "SET search_path = synesis; ALTER TABLE accounts DISABLE TRIGGER USER; \
         DELETE FROM devices; DELETE FROM keys; DELETE FROM accounts",
    );
    assert_eq!(
        fresh.only_fault().await,
        (0, "the account that it belongs to is missing")
    );
}

#[tokio::test]
async fn the_database_itself_refuses_to_change_its_ledger() {
    let fresh = fresh!();
    furnish(&fresh.gateway().await).await;
    for change in [
        "UPDATE synesis.entries SET sequence = 7",
        "DELETE FROM synesis.entries",
        "TRUNCATE synesis.entries",
        "DELETE FROM synesis.accounts",
    ] {
        let refused = format!(
            "DO $$ BEGIN {change}; RAISE 'it was done'; \
             EXCEPTION WHEN raise_exception THEN RAISE NOTICE '%', sqlerrm; \
             IF sqlerrm <> 'the ledger is append only' THEN RAISE; END IF; END $$"
        );
        fresh.sql(&refused);
    }
}

#[tokio::test]
async fn a_schema_that_is_newer_or_somebody_elses_is_refused() {
    let fresh = fresh!();
    drop(fresh.gateway().await);
    fresh.sql("UPDATE synesis.about SET version = 99");
    for refused in [
        Store::open_at(&fresh.place(), Role::Gateway)
            .await
            .unwrap_err(),
        match verify_at(&fresh.place(), None).await {
            Err(AuditError::Open(error)) => error,
            other => panic!("{other:?}"),
        },
    ] {
        assert!(
            matches!(&refused, OpenError::Newer { found: 99, .. }),
            "{refused}"
        );
        assert!(!refused.to_string().contains(PASSWORD), "{refused}");
    }
    for theirs in [
        "CREATE SCHEMA synesis; CREATE TABLE synesis.orders (n int)",
        "CREATE SCHEMA synesis; CREATE TABLE synesis.about (n int)",
    ] {
        let other = fresh!();
        other.sql(theirs);
        let refused = Store::open_at(&other.place(), Role::Gateway)
            .await
            .unwrap_err();
        assert!(
            matches!(refused, OpenError::ForeignSchema { .. }),
            "{refused}"
        );
        let tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'synesis'::regnamespace";
        assert_eq!(other.sql(tables).trim(), "1", "nothing was added");
    }
    // Other schemas of the database are nobody's business; an empty one of our name is filled.
    let beside = fresh!();
    beside.sql("CREATE SCHEMA synesis; CREATE TABLE public.accounts (n int)");
    furnish(&beside.gateway().await).await;
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
async fn a_server_that_is_not_there_is_said_without_the_password() {
    let url = format!("postgres://ada:{PASSWORD}@%2Fnowhere/mesh");
    let place = Place::Database(Database::parse(&url, None, false).unwrap());
    let refused = Store::open_at(&place, Role::Gateway).await.unwrap_err();
    let shown = format!("{refused} {refused:?} {place:?}");
    assert!(shown.contains("cannot be reached"), "{shown}");
    assert!(!shown.contains(PASSWORD), "{shown}");
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
async fn a_server_of_a_known_authority_is_reached_over_tls_and_another_is_not() {
    let authority = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let certificate = parameters.self_signed(&key).unwrap();
        (certificate.pem(), rcgen::Issuer::new(parameters, key))
    };
    let (known, issuer) = authority("known");
    let (stranger, _) = authority("stranger");
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = parameters.signed_by(&key, &issuer).unwrap();
    let Some(server) = Server::start_encrypted(&certificate.pem(), &key.serialize_pem()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str, authority: &str, url: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, authority).unwrap();
        Place::Database(Database::parse(url, Some(&file), false).unwrap())
    };
    let url = server.database();
    let store = Store::open_at(&place("known", &known, &url), Role::Gateway)
        .await
        .unwrap();
    furnish(&store).await;
    charge(&store, 1).await;
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE application_name = 'synesis' AND NOT ssl";
    assert_eq!(server.sql(&url, encrypted).trim(), "0");

    let elsewhere = url.replace("localhost", "127.0.0.1");
    for refused in [
        place("stranger", &stranger, &url),
        place("known", &known, &elsewhere),
        place("nobody", "", &url),
    ] {
        let refused = Store::open_at(&refused, Role::Gateway).await.unwrap_err();
        let words = refused.to_string();
        assert!(words.contains("certificate"), "{words}");
        assert!(!words.contains(PASSWORD), "{words}");
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn refunds_that_wait_together_give_back_no_more_than_there_was() {
    let fresh = fresh!();
    let store = fresh.gateway().await;
    furnish(&store).await;
    charge(&store, 1).await;
    let busy = lock(&fresh).await;
    let mut waiting = Vec::new();
    for number in 0..5 {
        let store = store.clone();
        let order = Order {
            reference: Reference::new(format!("refund:{number}")).unwrap(),
            what: What::Refund {
                charge: RequestId::from_u128(1),
                amount: Nanos(CHARGED / 2),
            },
        };
        let mut call = Box::pin(async move { store.order(ACCOUNT, order, NOW).await });
        assert!(poll_once(&mut call).is_none());
        waiting.push(call);
    }
    busy.client.batch_execute("COMMIT").await.unwrap();
    let mut given = 0;
    for call in waiting {
        given += i32::from(call.await.is_ok());
    }
    assert_eq!(given, 2);
    assert!(fresh.verify().await.is_sound());
}
