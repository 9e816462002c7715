//! A top-up from the command to the credit, told of in any order, and how it ends otherwise.

use mesh_tests::cluster::{Cluster, Setup};
use mesh_tests::stripe::{Webhook, post_webhook};
use serde_json::{Value, json};

use super::{DOLLAR, balance, begun, movements, secrets_are_nowhere, topup, with_stripe};

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
