//! A real gateway on a PostgreSQL server: killed, and left by its database.

use mesh_test_postgres::{Disk, PASSWORD, Server};
use mesh_tests::cluster::{Cluster, Setup};
use mesh_tests::upstream::FakeUpstream;
use mesh_tokio::gateway::store::verify_at;

/// What the scripted answer costs: 12 × $3/M + 4 × $15/M, and 3 % on it.
const CHARGE_NANOS: i64 = 98_880;

#[tokio::test]
async fn questions_are_charged_once_whoever_dies_and_the_password_is_printed_nowhere() {
    let Some(server) = Server::start(Disk::Safe) else {
        return;
    };
    let upstream = FakeUpstream::start().await.unwrap();
    let setup = Setup::with_upstream(&upstream).set("store.url", &server.database());
    let mut cluster = Cluster::start(setup.through_relay()).await;
    cluster.enrol("laptop").await;
    let answered = cluster.ask("laptop", "Why?", &[]).await;
    assert_eq!(answered.charge_nanos(), Some(CHARGE_NANOS), "{answered:?}");

    // The gateway dies; another takes its place at once, since nothing is locked.
    cluster.restart_gateway().await;
    let answered = cluster.ask("laptop", "And why that?", &[]).await;
    assert_eq!(answered.charge_nanos(), Some(CHARGE_NANOS), "{answered:?}");

    // The database dies; questions are refused until it is back, by a gateway that goes on.
    let _agent = cluster.agent("laptop").await;
    server.crash();
    let refused = cluster.ask("laptop", "Are you there?", &[]).await;
    assert!(refused.code().is_some(), "{refused:?}");
    assert_eq!(upstream.questions().len(), 2, "nothing was spent");
    server.restart();
    let answered = loop {
        let answered = cluster.ask("laptop", "Are you back?", &[]).await;
        if answered.charge_nanos().is_some() {
            break answered;
        }
    };
    assert_eq!(answered.charge_nanos(), Some(CHARGE_NANOS));

    assert_eq!(cluster.charges().await.len(), 3);
    let _ = cluster.at_gateway("ledger", &["verify"]).await.succeeded();
    let report = verify_at(&cluster.store(), None).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
    let printed = cluster.everything_printed();
    assert!(
        !printed.is_empty() && !printed.contains(PASSWORD),
        "{printed}"
    );
}
