//! The gateway is killed in the middle of its work, again and again, on either store: no charge that was
//! reported is lost, nothing is charged twice, and no hold is left behind.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use mesh_test_postgres::{Disk, Server};
use mesh_tests::cluster::{Answered, Cluster, Setup};
use mesh_tests::process::{Ended, PATIENCE};
use mesh_tests::upstream::{Event, FakeUpstream};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Each asks over a tunnel of its own. One device's tunnels would throw each other out, and whoever was
/// replaced waits a second and more before it comes back: more waiting than work.
const DEVICES: [&str; 3] = ["laptop", "desk", "workshop"];

fn answered(ended: Ended) -> Answered {
    let json = serde_json::from_str(&ended.stdout).unwrap_or_default();
    Answered { json, ended }
}

/// What stands in the ledger by request, nano-dollars.
async fn charges(cluster: &Cluster) -> BTreeMap<String, i64> {
    let mut charged = BTreeMap::new();
    for charge in cluster.charges().await {
        let again = charged.insert(charge.request.to_string(), charge.charge.0);
        assert_eq!(again, None, "charged twice: {charge:?}");
    }
    charged
}

async fn balance(cluster: &Cluster) -> Value {
    let mut command = cluster.command(DEVICES[0]);
    command.args(["cloud", "balance", "--json"]);
    let ended = cluster.spawn("balance", command, None).ended().await;
    serde_json::from_str(&ended.succeeded().stdout).unwrap()
}

/// Kills the gateway under load, as often as that, and holds what was answered against the ledger.
async fn killed_under_load(cluster: &mut Cluster, upstream: &FakeUpstream, kills: usize) {
    for device in DEVICES {
        cluster.enrol(device).await;
    }
    let mut answers: Vec<Answered> = Vec::new();
    for kill in 0..kills {
        // Questions are on their way, being held, called, streamed and settled; each round the blow falls
        // a little later, at what the model server has seen by then.
        let mut asked = JoinSet::new();
        let seen = upstream.events().len();
        for device in DEVICES {
            asked.spawn(cluster.asking(device, "Why?", &["--timeout", "30"]).ended());
        }
        let pieces = kill % 7;
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
        let device = DEVICES[kill % DEVICES.len()];
        let between = cluster.ask(device, "Why?", &["--timeout", "30"]).await;
        let _ = between.ended.clone().succeeded();
        answers.push(between);
    }
    let charged = charges(cluster).await;
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
    assert!(whole >= kills, "{whole} answers came through");
    let spent = balance(cluster).await["spent"].as_i64();
    assert_eq!(spent, Some(charged.values().sum()));
    let _ = cluster.at_gateway("ledger", &["verify"]).await.succeeded();
}

#[tokio::test]
async fn twenty_kills_under_load_lose_no_charge_and_charge_nothing_twice() {
    let upstream = FakeUpstream::start().await.unwrap();
    let mut cluster = Cluster::start(Setup::with_upstream(&upstream).through_relay()).await;
    killed_under_load(&mut cluster, &upstream, 20).await;
    assert_eq!(balance(&cluster).await["held"], 0);
}

#[tokio::test]
async fn twelve_kills_on_postgres_do_no_more_and_what_the_dead_held_is_free_a_minute_later() {
    let Some(server) = Server::start(Disk::Unsafe) else {
        return;
    };
    let upstream = FakeUpstream::start().await.unwrap();
    let database = server.database();
    let setup = Setup::with_upstream(&upstream).set("store.url", &database);
    let mut cluster = Cluster::start(setup.through_relay()).await;
    killed_under_load(&mut cluster, &upstream, 12).await;
    // A lease is by the database's clock and a minute long. Instead of waiting for it, what is written of
    // it is moved into the past: the last gateway has lived for that long, the others have been silent. It
    // writes down itself at any moment what it read a moment before, so once may not be enough.
    let free = async {
        loop {
            server.sql(
                &database,
                "UPDATE synesis.gateways SET since = since - 61000, renewed_at = renewed_at - \
                 CASE WHEN since = (SELECT max(since) FROM synesis.gateways) THEN 0 ELSE 61000 END",
            );
            if balance(&cluster).await["held"] == 0 {
                return;
            }
        }
    };
    timeout(PATIENCE, free).await.unwrap();
}
