//! Money that goes back: refunds and disputes, before and after it was spent.

use mesh_tests::cluster::{Cluster, Setup};
use mesh_tests::stripe::FakeStripe;
use mesh_tests::upstream::FakeUpstream;

use super::{DOLLAR, balance, begun, movements, with_stripe};

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
