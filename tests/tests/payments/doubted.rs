//! Words that are lost, come while Stripe is away, are forged or do not fit what was asked for.

use mesh_tests::stripe::{Fault, post_webhook};
use serde_json::json;

use super::{DOLLAR, begun, movements, secrets_are_nowhere, topup, with_stripe};

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
