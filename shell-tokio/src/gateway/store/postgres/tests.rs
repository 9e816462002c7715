use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mesh_core::billing::account::order::{Order, Reference, What};
use mesh_core::billing::account::{Denied, Hold, HoldId, Lose, Release};
use mesh_core::billing::money::Nanos;
use mesh_core::billing::price::Price;
use mesh_core::gateway::Recalled;
use mesh_core::ids::{AccountId, DeviceId, RequestId};
use mesh_test_postgres::{Disk, PASSWORD, Server};
use tokio::task::JoinSet;

use super::connection::Link;
use crate::gateway::store::conformance::{
    self, ACCOUNT, CERTIFICATE, CHARGED, DEVICE, HELD, KEY, NOW,
};
use crate::gateway::store::conformance::{
    charge, charge_and_keep, furnish, hold, recall, settle, settled,
};
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

// After the macros that they use.
mod gateways;
mod trouble;

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

/// What the first schema computed of an entry's text.
const PARSED: &str = "DROP INDEX synesis.entries_by_request, synesis.entries_by_reference, synesis.entries_by_undoes; \
    ALTER TABLE synesis.entries DROP COLUMN request, DROP COLUMN reference, DROP COLUMN undoes; \
    ALTER TABLE synesis.entries \
      ADD COLUMN request text GENERATED ALWAYS AS (canonical::json #>> '{record,request}') STORED, \
      ADD COLUMN reference text GENERATED ALWAYS AS (canonical::json #>> '{record,reference}') STORED, \
      ADD COLUMN undoes text GENERATED ALWAYS AS (canonical::json #>> '{record,undoes}') STORED; \
    UPDATE synesis.about SET version = 1";

#[tokio::test]
async fn entries_are_filed_as_ever_after_the_step_from_the_first_schema() {
    let fresh = fresh!();
    let store = fresh.gateway().await;
    furnish(&store).await;
    charge(&store, 1).await;
    let order = |name: &str, what| Order {
        reference: Reference::new(name).unwrap(),
        what,
    };
    let refund = What::Refund {
        charge: RequestId::from_u128(1),
        amount: Nanos(CHARGED),
    };
    store
        .order(ACCOUNT, order("refund:1", refund.clone()), NOW)
        .await
        .unwrap();
    drop(store);
    let filed =
        "SELECT sequence, request, reference, undoes FROM synesis.entries ORDER BY sequence";
    let cut = fresh.sql(filed);
    fresh.sql(PARSED);
    fresh.sql("DROP TABLE synesis.answers, synesis.authorities");
    assert_eq!(fresh.sql(filed), cut);
    let store = fresh.gateway().await;
    assert_eq!(fresh.sql(filed), cut);
    assert_eq!(cut.lines().count(), 3);
    assert_eq!(settled(&store, 1).await.charge, Nanos(CHARGED));
    let again = order("refund:2", refund);
    assert!(store.order(ACCOUNT, again, NOW).await.is_err());
    assert!(fresh.verify().await.is_sound());
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
