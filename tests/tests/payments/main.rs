//! Money that is paid in through Stripe, with real processes and a small Stripe: credited once however
//! it is told of, taken back when it goes back, and never for a forged word.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::time::Duration;

use mesh_core::billing::account::{Hold, HoldId, Month, Settle};
use mesh_core::billing::ledger::Record;
use mesh_core::billing::price::Price;
use mesh_core::ids::RequestId;
use mesh_core::time::UnixMillis;
use mesh_core::wire::message::TokensUsed;
use mesh_tests::cluster::{Cluster, Setup};
use mesh_tests::process::Process;
use mesh_tests::stripe::{FakeStripe, Fault, SECRET_KEY, WEBHOOK_SECRET, Webhook, post_webhook};
use mesh_tests::upstream::FakeUpstream;
use mesh_tokio::gateway::store::{Role, Store};
use serde_json::{Value, json};

const DOLLAR: i64 = 1_000_000_000;

async fn with_stripe() -> (FakeStripe, Cluster) {
    let stripe = FakeStripe::start().await;
    let cluster = Cluster::start(Setup::with_echo().paid_through(&stripe)).await;
    cluster.enrol("laptop").await;
    (stripe, cluster)
}

async fn balance(cluster: &Cluster) -> Value {
    let mut command = cluster.command("laptop");
    command.args(["cloud", "balance", "--json"]);
    let ended = cluster.spawn("balance", command, None).ended().await;
    serde_json::from_str(&ended.succeeded().stdout).unwrap_or_default()
}

fn topup(cluster: &Cluster, arguments: &[&str]) -> Process {
    let mut command = cluster.command("laptop");
    command.args(["cloud", "topup"]).args(arguments);
    cluster.spawn("topup", command, None)
}

/// Begins a top-up that nobody waits for: its session.
async fn begun(cluster: &Cluster, dollars: &str) -> String {
    let ended = topup(cluster, &[dollars, "--no-wait", "--json"])
        .ended()
        .await;
    let told: Value = serde_json::from_str(&ended.succeeded().stdout).unwrap_or_default();
    told["session"].as_str().unwrap_or_default().to_owned()
}

/// What was paid in and taken out, in order.
async fn movements(cluster: &Cluster) -> Vec<(String, i64)> {
    let records = cluster.records().await;
    let moved = records.iter().filter_map(|record| {
        if let Record::Paid {
            reference, amount, ..
        } = record
        {
            return Some((reference.to_string(), amount.0));
        }
        if let Record::Reversed {
            reference, amount, ..
        } = record
        {
            return Some((reference.to_string(), -amount.0));
        }
        None
    });
    moved.collect()
}

#[tokio::test]
async fn a_top_up_is_credited_once_however_often_and_in_whatever_order_it_is_told_of() {
    let (stripe, cluster) = with_stripe().await;
    let session = begun(&cluster, "20").await;
    assert_eq!(stripe.sessions(), [(session.clone(), 2000)]);
    let waiting = balance(&cluster).await;
    assert_eq!(waiting["pending"][0]["session"], session.as_str());
    assert_eq!(waiting["pending"][0]["state"], "open");
    assert_eq!(waiting["balance"], 0);

    let paid = stripe.pay(&session);
    // One that says the contrary, and comes when the session is paid.
    let expired = stripe.event(
        "checkout.session.expired",
        &json!({"id": session, "status": "expired"}),
    );
    let other = stripe.event("customer.created", &json!({"id": "cus_1"}));
    let foreign = stripe.event(
        "checkout.session.completed",
        &json!({"id": "cs_somebody_elses"}),
    );
    for webhook in [&other, &foreign, &expired, &paid, &paid, &expired, &paid] {
        assert_eq!(webhook.deliver(cluster.http_url()).await, 200);
    }
    let all = at_once(&paid, cluster.http_url(), 8).await;
    assert_eq!(all, [200; 8]);

    let reference = format!("stripe:{session}");
    assert_eq!(movements(&cluster).await, [(reference, 20 * DOLLAR)]);
    let now = balance(&cluster).await;
    assert_eq!(now["balance"], 20 * DOLLAR);
    assert!(now.get("pending").is_none(), "{now}");
    let _ = cluster.at_gateway("ledger", &["verify"]).await.succeeded();
    secrets_are_nowhere(&cluster);
}

/// The same webhook from several connections at once.
async fn at_once(webhook: &Webhook, gateway: &str, times: usize) -> Vec<u16> {
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..times {
        let (webhook, gateway) = (webhook.clone(), gateway.to_owned());
        all.spawn(async move { webhook.deliver(&gateway).await });
    }
    all.join_all().await
}

#[tokio::test]
async fn whoever_waits_sees_it_credited_also_without_any_webhook() {
    let (stripe, cluster) = with_stripe().await;
    let waiting = topup(&cluster, &["20.50", "--json"]);
    let line = waiting.line(|line| line.starts_with("Pay at ")).await;
    let sessions = stripe.sessions();
    let [(session, cents)] = &sessions[..] else {
        panic!("one session")
    };
    assert_eq!(*cents, 2050);
    assert!(line.ends_with(session.as_str()), "{line}");
    let _lost = stripe.pay(session);
    let ended = waiting.ended().await.succeeded();
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(
        (&told["state"], &told["amount"]),
        (&"credited".into(), &"$20.50".into())
    );
    assert!(ended.stderr.contains("$20.50 credited"), "{}", ended.stderr);
    assert_eq!(balance(&cluster).await["balance"], 20 * DOLLAR + DOLLAR / 2);
}

#[tokio::test]
async fn a_webhook_that_is_lost_and_a_gateway_that_dies_between_cost_nobody_anything() {
    let (stripe, mut cluster) = with_stripe().await;
    let session = begun(&cluster, "20").await;
    let late = stripe.pay(&session);
    let asked = || {
        let requests = stripe.requests();
        requests
            .iter()
            .filter(|path| path.contains(&session))
            .count()
    };
    let before = asked();
    cluster.restart_gateway().await;
    // Nobody tells it; it asks by itself what has become of the top-up.
    let path = format!("GET /v1/checkout/sessions/{session}");
    stripe.asked(&path, before + 1).await;
    cluster.gateway_says(&format!("stripe:{session}")).await;
    assert_eq!(movements(&cluster).await.len(), 1);
    assert_eq!(late.deliver(cluster.http_url()).await, 200);
    assert_eq!(
        movements(&cluster).await,
        [(format!("stripe:{session}"), 20 * DOLLAR)]
    );
}

#[tokio::test]
async fn a_word_that_is_not_stripes_or_not_of_now_changes_nothing() {
    let (stripe, cluster) = with_stripe().await;
    let session = begun(&cluster, "20").await;
    let other = begun(&cluster, "7000").await;
    let paid = stripe.event("checkout.session.completed", &json!({"id": session}));
    let http = cluster.http_url();
    assert_eq!(paid.deliver_changed(http, &session, &other).await, 400);
    assert_eq!(
        paid.deliver_changed(http, "\"livemode\":false", "\"livemode\":true ")
            .await,
        400
    );
    assert_eq!(paid.clone().signed_ago(301 + 5).deliver(http).await, 400);
    assert_eq!(
        paid.clone()
            .signed_with("whsec_somebodyElses")
            .deliver(http)
            .await,
        400
    );
    for signature in ["", "t=1,v1=00", "nonsense", &"x".repeat(8000)] {
        assert_eq!(
            post_webhook(http, signature, b"{}").await.unwrap(),
            400,
            "{signature:.20}"
        );
    }
    let large = vec![b' '; 256 * 1024 + 1];
    assert_eq!(post_webhook(http, "", &large).await.unwrap(), 413);
    // Nor does a right one while nothing is paid, whatever it says.
    assert_eq!(paid.deliver(http).await, 200);
    assert_eq!(movements(&cluster).await, []);
    let _same = stripe.pay(&session);
    assert_eq!(paid.clone().signed_ago(200).deliver(http).await, 200);
    assert_eq!(movements(&cluster).await.len(), 1);
    secrets_are_nowhere(&cluster);
}

#[tokio::test]
async fn what_was_altered_on_the_way_is_not_credited_and_somebody_is_told() {
    let (stripe, cluster) = with_stripe().await;
    for (field, value, words) in [
        ("amount_total", json!(1), "1 cents were paid where 2000"),
        ("currency", json!("eur"), "not in US dollars"),
        (
            "client_reference_id",
            json!("acct_00000000000000000000000000000001"),
            "two accounts",
        ),
    ] {
        let session = begun(&cluster, "20").await;
        stripe.alter(&session, field, value);
        let paid = stripe.pay(&session);
        // Acknowledged, for repeating it would not help.
        assert_eq!(paid.deliver(cluster.http_url()).await, 200);
        cluster.gateway_says(words).await;
    }
    assert_eq!(movements(&cluster).await, []);
}

#[tokio::test]
async fn refunds_and_disputes_take_back_once_and_may_come_before_the_payment() {
    let (stripe, cluster) = with_stripe().await;
    let session = begun(&cluster, "20").await;
    let http = cluster.http_url();
    let paid = stripe.pay(&session);
    let refund = stripe.refund(&session, 500, "pending");
    assert_eq!(refund.deliver(http).await, 200);
    let moved = movements(&cluster).await;
    assert!(
        moved.iter().all(|(_, amount)| *amount > 0),
        "nothing went back yet: {moved:?}"
    );

    // The refund's word comes first, and twice.
    let succeeded = stripe.refund_becomes(&refund.object, "succeeded");
    for webhook in [&succeeded, &paid, &succeeded, &refund] {
        assert_eq!(webhook.deliver(http).await, 200);
    }
    let payment = (format!("stripe:{session}"), 20 * DOLLAR);
    let taken = (format!("stripe:{}", refund.object), -5 * DOLLAR);
    assert_eq!(movements(&cluster).await, [payment.clone(), taken.clone()]);

    let dispute = stripe.dispute(&session, 1500);
    assert_eq!(dispute.deliver(http).await, 200);
    let disputed = (format!("stripe:{}", dispute.object), -15 * DOLLAR);
    assert_eq!(balance(&cluster).await["balance"], 0);
    let won = stripe.dispute_becomes(&dispute.object, "won");
    for webhook in [&won, &dispute, &won] {
        assert_eq!(webhook.deliver(http).await, 200);
    }
    let back = (format!("stripe:{}:won", dispute.object), 15 * DOLLAR);
    assert_eq!(movements(&cluster).await, [payment, taken, disputed, back]);
    assert_eq!(balance(&cluster).await["balance"], 15 * DOLLAR);
    let _ = cluster.at_gateway("ledger", &["verify"]).await.succeeded();
}

#[tokio::test]
async fn what_is_taken_back_after_it_was_spent_is_owed_and_nothing_that_costs_can_be_asked() {
    let (stripe, upstream) = (
        FakeStripe::start().await,
        FakeUpstream::start().await.unwrap(),
    );
    let setup = Setup::with_upstream(&upstream).paid_through(&stripe);
    let cluster = Cluster::start(setup).await;
    cluster.enrol("laptop").await;
    let session = begun(&cluster, "1").await;
    assert_eq!(stripe.pay(&session).deliver(cluster.http_url()).await, 200);
    let answered = cluster.ask("laptop", "Why?", &[]).await;
    let spent = answered.charge_nanos().unwrap();
    let dispute = stripe.dispute(&session, 100);
    assert_eq!(dispute.deliver(cluster.http_url()).await, 200);
    let now = balance(&cluster).await;
    assert_eq!((&now["balance"], &now["owed"]), (&0.into(), &spent.into()));
    let refused = cluster.ask("laptop", "Why?", &[]).await;
    assert_eq!(refused.code(), Some("PAYMENT_REQUIRED"), "{refused:?}");
    // What comes in next pays that first.
    let next = begun(&cluster, "1").await;
    assert_eq!(stripe.pay(&next).deliver(cluster.http_url()).await, 200);
    let now = balance(&cluster).await;
    assert_eq!(
        (&now["balance"], &now["owed"]),
        (&(DOLLAR - spent).into(), &0.into())
    );
    let _ = cluster.at_gateway("ledger", &["verify"]).await.succeeded();
}

#[tokio::test]
async fn a_refund_that_fails_is_given_back_and_one_that_never_was_is_not() {
    let (stripe, cluster) = with_stripe().await;
    let session = begun(&cluster, "20").await;
    let http = cluster.http_url();
    assert_eq!(stripe.pay(&session).deliver(http).await, 200);
    let refund = stripe.refund(&session, 2000, "succeeded");
    assert_eq!(refund.deliver(http).await, 200);
    assert_eq!(balance(&cluster).await["balance"], 0);
    let failed = stripe.refund_becomes(&refund.object, "failed");
    let never = stripe.refund(&session, 100, "canceled");
    for webhook in [&failed, &failed, &never, &refund] {
        assert_eq!(webhook.deliver(http).await, 200);
    }
    assert_eq!(balance(&cluster).await["balance"], 20 * DOLLAR);
    assert_eq!(movements(&cluster).await.len(), 3);
}

#[tokio::test]
async fn while_stripe_cannot_be_asked_a_webhook_is_to_be_repeated_and_a_device_is_told() {
    let (stripe, cluster) = with_stripe().await;
    let session = begun(&cluster, "20").await;
    stripe.goes_down(Some(Fault::Fails(500)));
    let paid = stripe.pay(&session);
    assert_eq!(paid.deliver(cluster.http_url()).await, 503);
    stripe.goes_down(Some(Fault::LosesRequest));
    assert_eq!(paid.deliver(cluster.http_url()).await, 503);
    assert_eq!(movements(&cluster).await, []);
    stripe.goes_down(None);
    assert_eq!(paid.deliver(cluster.http_url()).await, 200);

    // A lost answer is no second session: the same key makes the same one.
    stripe.goes_wrong(&[Fault::LosesAnswer, Fault::Fails(503)]);
    let second = begun(&cluster, "1").await;
    assert_eq!(stripe.sessions().len(), 2);
    assert_ne!(second, session);

    stripe.goes_wrong(&[Fault::Fails(500); 3]);
    let refused = topup(&cluster, &["20"]).ended().await;
    assert_eq!(refused.code, Some(16), "{refused:?}");
    assert!(
        refused.stderr.contains("Stripe cannot be reached"),
        "{}",
        refused.stderr
    );
    assert_eq!(stripe.sessions().len(), 2);
}

#[tokio::test]
async fn what_takes_the_bank_days_is_shown_as_such_and_credited_when_it_says_yes() {
    let (stripe, cluster) = with_stripe().await;
    let (yes, no) = (begun(&cluster, "20").await, begun(&cluster, "7").await);
    let http = cluster.http_url();
    for session in [&yes, &no] {
        assert_eq!(stripe.pay_slowly(session).deliver(http).await, 200);
    }
    let shown = balance(&cluster).await;
    let states: Vec<&Value> = shown["pending"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| &p["state"])
        .collect();
    assert_eq!(states, ["processing"; 2]);
    assert_eq!(stripe.bank_says(&no, false).deliver(http).await, 200);
    assert_eq!(stripe.bank_says(&yes, true).deliver(http).await, 200);
    assert_eq!(
        movements(&cluster).await,
        [(format!("stripe:{yes}"), 20 * DOLLAR)]
    );
    assert!(balance(&cluster).await.get("pending").is_none());
}

#[tokio::test]
async fn interrupted_it_stays_pending_and_a_page_that_expires_is_a_failure() {
    let (stripe, cluster) = with_stripe().await;
    let waiting = topup(&cluster, &["20"]);
    let address = waiting.line(|line| line.starts_with("http://")).await;
    waiting.interrupt();
    let ended = waiting.ended().await;
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(
        ended.stderr.contains("credited all the same"),
        "{}",
        ended.stderr
    );
    let shown = balance(&cluster).await;
    let session = shown["pending"][0]["session"].as_str().unwrap();
    assert!(address.ends_with(session), "{address}");

    let waiting = topup(&cluster, &["20"]);
    let _ = waiting.line(|line| line.starts_with("http://")).await;
    let newest = stripe.sessions().pop().unwrap().0;
    let _lost = stripe.expire(&newest);
    let ended = waiting.ended().await;
    assert_eq!(ended.code, Some(17), "{ended:?}");
    assert!(
        ended.stderr.contains("not paid in time"),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn a_gateway_that_takes_no_payments_says_what_to_do_instead() {
    let cluster = Cluster::start(Setup::with_echo()).await;
    cluster.enrol("laptop").await;
    let ended = topup(&cluster, &["20"]).ended().await;
    assert_eq!(ended.code, Some(16), "{ended:?}");
    assert!(
        ended.stderr.contains("synesis admin credit"),
        "{}",
        ended.stderr
    );
    for (amount, code) in [("0.99", 20), ("10000.01", 20), ("1.001", 2), ("x", 2)] {
        let ended = topup(&cluster, &[amount]).ended().await;
        assert_eq!(ended.code, Some(code), "{amount}: {ended:?}");
    }
    assert_eq!(
        post_webhook(cluster.http_url(), "t=1,v1=0", b"{}")
            .await
            .unwrap(),
        404
    );
}

#[tokio::test]
async fn through_the_agent_and_with_a_browser_it_is_the_same() {
    let (stripe, cluster) = with_stripe().await;
    let agent = cluster.agent("laptop").await;
    let folder = tempfile::tempdir().unwrap();
    let opened = folder.path().join("opened");
    let browser = folder.path().join("xdg-open");
    let script = format!("#!/bin/sh\necho \"$1\" > '{}'\n", opened.display());
    std::fs::write(&browser, script).unwrap();
    let mut mode = std::fs::metadata(&browser).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
    std::fs::set_permissions(&browser, mode).unwrap();
    let path = format!(
        "{}:{}",
        folder.path().display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let mut command = cluster.command("laptop");
    command
        .args(["cloud", "topup", "20", "--open"])
        .env("PATH", path);
    let waiting = cluster.spawn("topup", command, None);
    let address = waiting.line(|line| line.starts_with("http://")).await;
    let session = stripe.sessions().pop().unwrap().0;
    assert_eq!(stripe.pay(&session).deliver(cluster.http_url()).await, 200);
    let ended = waiting.ended().await.succeeded();
    assert!(ended.stderr.contains("$20.00 credited"), "{}", ended.stderr);
    assert_eq!(
        std::fs::read_to_string(&opened).unwrap().trim(),
        address.trim()
    );
    drop(agent);
}

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

/// Neither secret in anything that any process printed, however much it logs.
fn secrets_are_nowhere(cluster: &Cluster) {
    let printed = cluster.everything_printed();
    for secret in [SECRET_KEY, WEBHOOK_SECRET] {
        let tail = &secret[secret.len() - 12..];
        assert!(!printed.contains(tail), "{secret} was printed");
    }
}
