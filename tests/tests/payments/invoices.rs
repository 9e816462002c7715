//! Months that are over, counted on a meter of Stripe's.

use std::time::Duration;

use mesh_core::billing::account::{Hold, HoldId, Month, Settle};
use mesh_core::billing::ledger::Record;
use mesh_core::billing::price::Price;
use mesh_core::ids::RequestId;
use mesh_core::time::UnixMillis;
use mesh_core::wire::message::TokensUsed;
use mesh_tests::cluster::{Cluster, Setup};
use mesh_tests::stripe::{FakeStripe, Fault};
use mesh_tokio::gateway::store::{Role, Store};
use serde_json::Value;

use super::{begun, secrets_are_nowhere};

const DAY: u64 = 24 * 60 * 60 * 1000;

fn now() -> UnixMillis {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    UnixMillis(u64::try_from(since.as_millis()).unwrap())
}

/// The last day of the month before the one of `at`.
fn month_before(at: UnixMillis) -> UnixMillis {
    let earlier = (1..=31).map(|days| UnixMillis(at.0 - days * DAY));
    let mut earlier = earlier.skip_while(|day| Month::of(*day) == Month::of(at));
    earlier.next().unwrap()
}

/// Charges the account, as its gateway did then.
async fn charged(store: &Store, at: UnixMillis, numbers: std::ops::Range<u128>) {
    let account = store.account_named("home").await.unwrap().id;
    for number in numbers {
        let request = RequestId::from_u128(number);
        let hold = Hold {
            id: HoldId(1),
            request,
            body: [1; 32],
            price: Price::CLAUDE_SONNET,
            input_tokens_max: 1000,
            output_tokens_max: 1000,
            provider: "anthropic".to_owned(),
            guest: None,
            device: None,
        };
        store.hold(account, hold, at).await.unwrap();
        let settle = Settle {
            request,
            body: [1; 32],
            model: "claude_sonnet".to_owned(),
            price: Price::CLAUDE_SONNET,
            tokens: TokensUsed {
                prompt: 1000,
                completion: 500,
                ..TokensUsed::default()
            },
            estimated: false,
            device: None,
            project: None,
        };
        store.settle(account, settle, at).await.unwrap();
    }
}

#[tokio::test]
async fn months_that_are_over_are_collected_to_the_cent_and_a_doubtful_event_is_not_doubled() {
    let stripe = FakeStripe::start().await;
    let setup = Setup::with_echo()
        .through_relay()
        .paid_through(&stripe)
        .set("stripe.meter_event_name", "synesis_cents")
        .set("stripe.meter_id", "mtr_1");
    let mut cluster = Cluster::start(setup).await;
    cluster.enrol("laptop").await;
    cluster.stop_gateway().await;
    // Three charges of $0.010815 in one month and seven in the next: 3.2445 ¢, of which 3 are invoiced;
    // 7.5705 ¢ and the 0.2445 that were left over, of which 7 are.
    let last = month_before(now());
    let earlier = month_before(last);
    let store = Store::open_at(&cluster.store(), Role::Gateway)
        .await
        .unwrap();
    charged(&store, earlier, 1..4).await;
    charged(&store, last, 4..11).await;
    drop(store);
    cluster.restart_gateway().await;
    let months = [earlier, last].map(Month::of);
    for month in months {
        cluster
            .gateway_says(&format!(
                "invoiced account={} month={month}",
                home(&cluster).await
            ))
            .await;
    }
    // Who it is at Stripe is known from its first top-up on.
    let session = begun(&cluster, "20").await;
    // The first event is counted and nobody learns of it, the second never arrives.
    stripe.goes_wrong(&[Fault::LosesAnswer, Fault::LosesRequest]);
    assert_eq!(stripe.pay(&session).deliver(cluster.http_url()).await, 200);
    cluster.restart_gateway().await;
    stripe.asked("POST /v1/billing/meter_events", 2).await;
    let counted = |stripe: &FakeStripe| {
        stripe
            .counted()
            .iter()
            .map(|event| event.value)
            .collect::<Vec<_>>()
    };
    assert_eq!(counted(&stripe), [3]);

    // Nothing was confirmed. The gateway is away for two days, and Stripe forgets what it was told.
    cluster.stop_gateway().await;
    stripe.passes(Duration::from_secs(25 * 60 * 60));
    let store = Store::open_at(&cluster.store(), Role::Gateway)
        .await
        .unwrap();
    let tasks = store.tasks("stripe-meter").await.unwrap();
    assert_eq!(tasks.len(), 2);
    for task in tasks {
        let mut body: Value = serde_json::from_str(&task.body).unwrap();
        for moment in ["first", "last"] {
            let sent = &mut body["state"]["sent"][moment];
            *sent = (sent.as_u64().unwrap() - 2 * DAY).into();
        }
        store
            .update_task("stripe-meter", task.key, body.to_string(), None)
            .await
            .unwrap();
    }
    drop(store);
    cluster.restart_gateway().await;
    for month in months {
        let invoice = format!("{}:{month}", home(&cluster).await);
        cluster
            .gateway_says(&format!("collected through Stripe invoice=\"{invoice}\""))
            .await;
    }
    assert_eq!(counted(&stripe), [3, 7]);
    let customers: Vec<String> = stripe
        .counted()
        .into_iter()
        .map(|event| event.customer)
        .collect();
    assert_eq!(customers[0], customers[1]);
    // And never again.
    let told = |stripe: &FakeStripe| {
        stripe
            .requests()
            .iter()
            .filter(|path| path.contains("/billing/"))
            .count()
    };
    let before = told(&stripe);
    cluster.restart_gateway().await;
    let _ = begun(&cluster, "1").await;
    assert_eq!(told(&stripe), before);

    let records = cluster.records().await;
    let invoices = records.iter().filter_map(|record| {
        let Record::Invoiced(invoice) = record else {
            return None;
        };
        Some((invoice.month, invoice.cents.0, invoice.carried_out.0))
    });
    let expected = [(months[0], 3, 2_445_000), (months[1], 7, 8_150_000)];
    assert_eq!(invoices.collect::<Vec<_>>(), expected);
    let _ = cluster.at_gateway("ledger", &["verify"]).await.succeeded();
    secrets_are_nowhere(&cluster);
}

/// The account's id.
async fn home(cluster: &Cluster) -> String {
    let store = Store::open_at(&cluster.store(), Role::Administration)
        .await
        .unwrap();
    store.account_named("home").await.unwrap().id.to_string()
}
