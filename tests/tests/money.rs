//! Money that an operator gives while the gateway runs: it counts at the device's next question.

use mesh_core::billing::money::Nanos;
use mesh_tests::cluster::{ACCOUNT, Cluster, Setup};
use mesh_tests::upstream::FakeUpstream;
use serde_json::Value;

/// What the scripted answer costs: 12 × $3/M + 4 × $15/M, and 3 % on it.
const CHARGE_NANOS: i64 = 98_880;
/// 2100-01-01, the moment at which a credit that lasts through 2099 ends.
const CENTURY: &str = "2100-01-01T00:00:00Z";

async fn balance(cluster: &Cluster) -> Value {
    let mut command = cluster.command("laptop");
    command.args(["cloud", "balance", "--json"]);
    let ended = cluster.spawn("balance", command, None).ended().await;
    serde_json::from_str(&ended.succeeded().stdout).unwrap_or_default()
}

async fn given(cluster: &Cluster, arguments: &[&str]) -> Value {
    let all = [&["credit", ACCOUNT][..], arguments, &["--json"]].concat();
    let ended = cluster.admin(&all).await.succeeded();
    serde_json::from_str(&ended.stdout).unwrap_or_default()
}

#[tokio::test]
async fn what_was_given_and_paid_is_spent_before_the_ceiling_and_blocks_nobody_who_has_it() {
    let upstream = FakeUpstream::start().await.unwrap();
    let cluster = Cluster::start(Setup::with_upstream(&upstream)).await;
    cluster.enrol("laptop").await;
    let _ = cluster
        .admin(&["account", "ceiling", ACCOUNT, "0"])
        .await
        .succeeded();

    let refused = cluster.ask("laptop", "Why?", &[]).await;
    assert_eq!(refused.code(), Some("PAYMENT_REQUIRED"), "{refused:?}");
    assert!(cluster.charges().await.is_empty());

    // A credit of 50 000 nanos, and a dollar paid in advance; each said twice.
    let credit = ["0.00005", "--expires", "2099-12-31", "--reference", "gift"];
    let first = given(&cluster, &credit).await;
    assert_eq!(
        (&first["repeated"], &first["expires_at"]),
        (&Value::Bool(false), &CENTURY.into())
    );
    assert_eq!(given(&cluster, &credit).await["repeated"], true);
    let paid = given(&cluster, &["1", "--reference", "invoice-7"]).await;
    assert_eq!(paid["available_nanos"], 1_000_050_000);
    assert_eq!(
        given(&cluster, &["1", "--reference", "invoice-7"]).await["repeated"],
        true
    );

    let answered = cluster.ask("laptop", "Why?", &[]).await;
    let _ = answered.ended.clone().succeeded();
    assert_eq!(answered.charge_nanos(), Some(CHARGE_NANOS));
    let charges = cluster.charges().await;
    assert_eq!(charges[0].credited(), Ok(Nanos(50_000)));
    assert_eq!(charges[0].prepaid, Nanos(CHARGE_NANOS - 50_000));
    assert_eq!(charges[0].postpaid(), Ok(Nanos::ZERO));

    let now = balance(&cluster).await;
    assert_eq!(now["balance"], 1_000_000_000 - (CHARGE_NANOS - 50_000));
    assert_eq!(now["available"], now["balance"]);
    assert_eq!(
        (&now["spent"], &now["credits"]),
        (&0.into(), &Value::Array(vec![]))
    );
    let _ = cluster.at_gateway("ledger", &["verify"]).await.succeeded();
}

#[tokio::test]
async fn money_that_makes_no_sense_is_refused_in_words_and_changes_nothing() {
    let cluster = Cluster::start(Setup::with_echo()).await;
    cluster.enrol("laptop").await;
    let before = balance(&cluster).await;
    let long = "r".repeat(121);
    for (arguments, word) in [
        (&["credit", ACCOUNT, "0"][..], "more than nothing"),
        (&["credit", ACCOUNT, "1.0000000001"], "nine decimals"),
        (&["credit", ACCOUNT, "NaN"], "not an amount"),
        (
            &["credit", ACCOUNT, "99999999999999999999"],
            "not an amount",
        ),
        (
            &["credit", ACCOUNT, "1", "--expires", "2026-02-30"],
            "YYYY-MM-DD",
        ),
        (
            &["credit", ACCOUNT, "1", "--expires", "2001-01-01"],
            "ended already",
        ),
        (
            &["credit", ACCOUNT, "1", "--reference", "a b"],
            "letters, digits",
        ),
        (
            &["credit", ACCOUNT, "1", "--reference", &long],
            "letters, digits",
        ),
        (&["credit", "nobody", "1"], "no account"),
        (&["account", "ceiling", ACCOUNT, "x"], "not an amount"),
    ] {
        let ended = cluster.admin(arguments).await;
        assert!(
            !matches!(ended.code, Some(0) | None),
            "{arguments:?}: {ended:?}"
        );
        assert!(
            ended.stderr.contains(word),
            "{arguments:?}: {}",
            ended.stderr
        );
    }
    let _ = given(&cluster, &["1", "--reference", "one"]).await;
    let other = cluster
        .admin(&["credit", ACCOUNT, "2", "--reference", "one"])
        .await;
    assert!(other.stderr.contains("something else"), "{}", other.stderr);
    let after = balance(&cluster).await;
    assert_eq!(after["balance"], 1_000_000_000);
    assert_eq!(after["ceiling"], before["ceiling"]);
}
