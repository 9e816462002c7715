//! Invoices on their way to a Stripe that forgets, with a real store and a clock in the test's hands.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use mesh_core::billing::account::Month;
use mesh_core::billing::account::order::Reference;
use mesh_core::billing::ledger::Invoiced;
use mesh_core::billing::money::{Cents, Nanos};
use mesh_core::billing::tier::Tier;
use serde_json::json;

use super::*;
use crate::gateway::store::{NewAccount, NewTask, Role};

/// 2026-11-18T11:06:40Z.
const NOW: UnixMillis = UnixMillis(1_795_000_000_000);
const HOUR: Duration = Duration::from_secs(60 * 60);
const ACCOUNT: AccountId = AccountId::from_u128(5);

/// What goes wrong with the next event.
#[derive(Clone, Copy, Debug)]
enum Fault {
    LosesRequest,
    LosesAnswer,
}

#[derive(Debug, Default)]
struct Counted {
    cents: i64,
    /// The identifiers that are known; the test forgets them.
    known: Vec<String>,
    fault: Option<Fault>,
    looks: usize,
}

/// A meter in memory.
#[derive(Clone, Debug, Default)]
struct FakeMeter(Arc<Mutex<Counted>>);

impl FakeMeter {
    fn with<T>(&self, work: impl FnOnce(&mut Counted) -> T) -> T {
        work(&mut self.0.lock().unwrap())
    }

    fn answer(&self, request: &Request) -> Result<Bytes, Failure> {
        let field = |name: &str| {
            let pairs = request
                .form
                .split('&')
                .filter_map(|pair| pair.split_once('='));
            pairs
                .into_iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value.to_owned())
        };
        self.with(|counted| {
            if !request.post {
                counted.looks += 1;
                let data = json!([{"aggregated_value": counted.cents}]);
                let list = if counted.cents == 0 { json!([]) } else { data };
                return Ok(Bytes::from(json!({"data": list}).to_string()));
            }
            let fault = counted.fault.take();
            if matches!(fault, Some(Fault::LosesRequest)) {
                return Err(Failure::Unknown);
            }
            let identifier = field("identifier").unwrap();
            if counted.known.contains(&identifier) {
                return Err(Failure::Repeated);
            }
            counted.known.push(identifier);
            counted.cents += field("payload%5Bvalue%5D").unwrap().parse::<i64>().unwrap();
            match fault {
                Some(_) => Err(Failure::Unknown),
                None => Ok(Bytes::from_static(b"{}")),
            }
        })
    }
}

impl PaymentProvider for FakeMeter {
    fn exchange<'a>(&'a self, request: &'a Request) -> Exchange<'a> {
        Box::pin(std::future::ready(self.answer(request)))
    }
}

struct Desk {
    _folder: tempfile::TempDir,
    store: Store,
    stripe: FakeMeter,
    payments: Payments,
    meter: Meter,
}

impl Desk {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.sqlite");
        let store = Store::open(&path, Role::Gateway).unwrap();
        let account = NewAccount {
            id: ACCOUNT,
            name: "home".to_owned(),
            tier: Tier::MANAGED,
            ceiling: Nanos(100_000_000_000),
        };
        store.create_account(account, NOW).await.unwrap();
        let stripe = FakeMeter::default();
        let meter = Meter {
            event_name: "synesis_cents".to_owned(),
            id: "mtr_1".parse().unwrap(),
        };
        let config = Stripe {
            key: SecretKey::new("sk_test_x").unwrap(),
            webhook_secret: None,
            api_base: String::new(),
            success_url: None,
            cancel_url: None,
            meter: Some(meter.clone()),
        };
        let payments = Payments::new(config, Box::new(stripe.clone()), store.clone(), "http://x");
        Self {
            _folder: folder,
            store,
            stripe,
            payments,
            meter,
        }
    }

    /// As the store does when a month is closed.
    async fn invoice(&self, month: i32, cents: i64) {
        let month = Month::from_index(month);
        let invoiced = Invoiced {
            reference: Reference::of_invoice(month),
            month,
            after: Month::from_index(0),
            spent: Cents(cents).to_nanos().unwrap(),
            carried_in: Nanos::ZERO,
            cents: Cents(cents),
            carried_out: Nanos::ZERO,
        };
        let task = NewTask {
            kind: "invoice".to_owned(),
            key: format!("{ACCOUNT}:{month}"),
            account: ACCOUNT,
            body: serde_json::to_string(&invoiced).unwrap(),
        };
        self.store.put_task(task, NOW).await.unwrap();
    }

    async fn paid_once(&self) {
        let customer = serde_json::from_value(json!("cus_1")).unwrap();
        let seen = self.payments.customer_seen(ACCOUNT, Some(customer), NOW);
        seen.await.unwrap();
    }

    async fn round(&self, after: Duration) {
        let now = NOW.saturating_add(after);
        self.payments.collect(&self.meter, now).await.unwrap();
    }

    async fn left(&self) -> usize {
        let invoices = self.store.tasks("invoice").await.unwrap().len();
        invoices + self.store.tasks("stripe-meter").await.unwrap().len()
    }
}

#[tokio::test]
async fn each_invoice_is_collected_once_from_whoever_has_paid_before() {
    let desk = Desk::new().await;
    desk.invoice(24_321, 10_815).await;
    desk.round(Duration::ZERO).await;
    assert_eq!(
        (desk.stripe.with(|c| c.cents), desk.left().await),
        (0, 1),
        "nobody to be asked"
    );
    desk.paid_once().await;
    desk.invoice(24_322, 0).await;
    for hours in 0..3 {
        desk.round(HOUR * hours).await;
    }
    assert_eq!(
        (desk.stripe.with(|c| c.cents), desk.left().await),
        (10_815, 0)
    );
    desk.invoice(24_321, 10_815).await;
    desk.round(HOUR * 100).await;
    assert_eq!(
        desk.stripe.with(|c| c.cents),
        10_815,
        "an invoice is one task for ever"
    );
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_counts_once() {
    let desk = Desk::new().await;
    desk.paid_once().await;
    desk.invoice(24_321, 103).await;
    desk.stripe.with(|c| c.fault = Some(Fault::LosesAnswer));
    desk.round(Duration::ZERO).await;
    assert_eq!((desk.stripe.with(|c| c.cents), desk.left().await), (103, 1));
    desk.round(Duration::from_secs(30)).await;
    assert_eq!((desk.stripe.with(|c| c.cents), desk.left().await), (103, 0));
}

#[tokio::test]
async fn after_a_day_without_a_word_it_is_looked_up_before_it_is_sent_again() {
    for (fault, expected_looks) in [(Fault::LosesAnswer, 1), (Fault::LosesRequest, 1)] {
        let desk = Desk::new().await;
        desk.paid_once().await;
        desk.invoice(24_321, 103).await;
        desk.stripe.with(|c| c.fault = Some(fault));
        desk.round(Duration::ZERO).await;
        // The gateway was down for two days, and Stripe has forgotten.
        desk.stripe.with(|c| c.known.clear());
        for minutes in 0..3 {
            desk.round(HOUR * 48 + Duration::from_secs(60 * minutes))
                .await;
        }
        let looks = desk.stripe.with(|c| c.looks);
        assert_eq!(
            (desk.stripe.with(|c| c.cents), desk.left().await),
            (103, 0),
            "{fault:?}"
        );
        assert_eq!(looks, expected_looks, "{fault:?}");
    }
}
