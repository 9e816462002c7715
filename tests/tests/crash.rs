//! The gateway is killed in the middle of its work, again and again: no charge that was reported is
//! lost, nothing is charged twice, and no hold is left behind.

use std::collections::BTreeMap;

use mesh_tests::cluster::{Answered, Cluster, Setup};
use mesh_tests::process::Ended;
use mesh_tests::upstream::{Event, FakeUpstream};
use serde_json::Value;
use tokio::task::JoinSet;

const KILLS: usize = 20;
const CLIENTS: usize = 3;

fn answered(ended: Ended) -> Answered {
    let json = serde_json::from_str(&ended.stdout).unwrap_or_default();
    Answered { json, ended }
}

async fn client(cluster: &Cluster) -> Answered {
    cluster.ask("laptop", "Why?", &["--timeout", "30"]).await
}

#[tokio::test]
async fn twenty_kills_under_load_lose_no_charge_and_charge_nothing_twice() {
    let upstream = FakeUpstream::start().await.unwrap();
    let mut cluster = Cluster::start(Setup::with_upstream(&upstream).through_relay()).await;
    cluster.enrol("laptop").await;
    let mut answers: Vec<Answered> = Vec::new();
    for kill in 0..KILLS {
        // Questions are on their way, being held, called, streamed and settled; each round the blow falls
        // a little later, at what the model server has seen by then.
        let mut asked = JoinSet::new();
        for _ in 0..CLIENTS {
            asked.spawn(
                cluster
                    .asking("laptop", "Why?", &["--timeout", "30"])
                    .ended(),
            );
        }
        let pieces = kill % 7;
        let seen = upstream.events().len();
        let written = upstream.wait_until(|events| {
            let new = events.iter().skip(seen);
            let written = new.filter(|event| matches!(event, Event::Piece(_))).count();
            written >= pieces
        });
        let mut ended = Vec::new();
        tokio::select! {
            () = written => {}
            // None of them came as far as that.
            () = async { while let Some(one) = asked.join_next().await { ended.push(one); } } => {}
        }
        cluster.restart_gateway().await;
        // Whoever still waits would notice within seconds and ask anew; it goes down as well, so that the
        // next blow is not held up. What was reported before counts.
        asked.abort_all();
        for ended in ended {
            answers.push(answered(ended.unwrap()));
        }
        let between = client(&cluster).await;
        let _ = between.ended.clone().succeeded();
        answers.push(between);
    }
    let mut charged: BTreeMap<String, i64> = BTreeMap::new();
    for charge in cluster.charges().await {
        let again = charged.insert(charge.request.to_string(), charge.charge.0);
        assert_eq!(again, None, "charged twice: {charge:?}");
    }
    let mut whole = 0;
    for answer in answers.iter().filter(|answer| answer.ended.code == Some(0)) {
        whole += 1;
        let id = answer.json["request_id"].as_str().unwrap_or_default();
        assert_eq!(
            charged.get(id).copied(),
            answer.charge_nanos(),
            "{answer:?}"
        );
    }
    assert!(whole >= KILLS, "{whole} answers came through");
    let mut command = cluster.command("laptop");
    command.args(["cloud", "balance", "--json"]);
    let balance = cluster
        .spawn("balance", command, None)
        .ended()
        .await
        .succeeded();
    let balance: Value = serde_json::from_str(&balance.stdout).unwrap();
    assert_eq!(balance["held"], 0);
    assert_eq!(balance["spent"], charged.values().sum::<i64>());
    let _ = cluster.at_gateway("ledger", &["verify"]).await.succeeded();
}
