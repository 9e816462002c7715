//! An answer of two thousand pieces, and everything that can happen to a device while it comes: the
//! network goes black five times, the device is killed and started again, and its address changes.

use std::time::Duration;

use mesh_tests::cluster::{Cluster, Setup};
use mesh_tests::process::PATIENCE;
use mesh_tests::upstream::{Answer, Event, FakeUpstream, Gate};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use serde_json::Value;
use tokio::time::{Instant, interval, sleep_until, timeout};

const PIECES: usize = 2000;
/// The model server's pace: an answer of some eight seconds.
const AT_ONCE: usize = 5;
const EVERY: Duration = Duration::from_millis(20);
/// Where in the answer something may happen: not before it began, and while there is more to come.
const FROM: usize = 100;
const TO: usize = 1700;
const BLACK_OUTS: usize = 5;

#[derive(Clone, Copy, Debug)]
enum Blow {
    /// Nothing passes for so long; then all does.
    Black(Duration),
    /// The same, and the connections that there were stay dead: the tunnel has to be made anew.
    Severed(Duration),
    /// The device's process is killed, and another is started.
    Killed,
    /// Another source address.
    Moved,
}

/// What happens, each at a piece of its own, in order.
fn blows(seed: u64) -> Vec<(usize, Blow)> {
    let mut chance = ChaCha20Rng::seed_from_u64(seed);
    let mut blows = vec![Blow::Killed, Blow::Moved];
    for number in 0..BLACK_OUTS {
        let span = Duration::from_millis(chance.random_range(100..900));
        blows.push(if number == 0 {
            Blow::Severed(span)
        } else {
            Blow::Black(span)
        });
    }
    let mut blows: Vec<_> = blows
        .into_iter()
        .map(|blow| (chance.random_range(FROM..TO), blow))
        .collect();
    blows.sort_by_key(|&(at, _)| at);
    blows
}

/// `TEST_SEED`, or one that differs from run to run.
fn seed() -> u64 {
    let given = std::env::var("TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        u64::from(now.unwrap_or_default().subsec_nanos())
    })
}

fn answer() -> Answer {
    let pieces: Vec<String> = (0..PIECES).map(|n| format!("piece {n}, ")).collect();
    let shown: Vec<&str> = pieces.iter().map(String::as_str).collect();
    Answer::of(&shown)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_pieces_survive_black_outs_a_kill_and_another_address() {
    let seed = seed();
    let blows = blows(seed);
    println!("TEST_SEED={seed}: {blows:?}");
    let upstream = FakeUpstream::start().await.unwrap();
    let setup = Setup::with_upstream(&upstream)
        .environment("SYNESIS_TUNNEL_SILENCE", "1")
        .through_relay();
    let cluster = Cluster::start(setup).await;
    cluster.enrol("laptop").await;
    let mut agent = cluster.agent("laptop").await;
    let gate = Gate::closed();
    let whole = answer();
    upstream.once(whole.clone().gated(&gate).into());

    let asked = Instant::now();
    let asking = cluster.asking("laptop", "Tell me everything.", &[]);
    let mut resumed = None;
    upstream.wait_for(Event::Waiting(0)).await;
    let pace = gate.clone();
    let paced = tokio::spawn(async move {
        let mut ticks = interval(EVERY);
        for _ in 0..PIECES / AT_ONCE {
            ticks.tick().await;
            pace.let_through(AT_ONCE);
        }
    });
    for (at, blow) in blows {
        let said = |events: &[Event]| {
            let pieces = events.iter().filter(|event| **event == Event::Piece(0));
            pieces.count() >= at
        };
        upstream.wait_until(said).await;
        println!("{:?}: piece {at}: {blow:?}", asked.elapsed());
        let relay = cluster.relay();
        match blow {
            Blow::Black(span) => {
                relay.go_black().await;
                sleep_until(Instant::now() + span).await;
                relay.heal().await;
            }
            Blow::Severed(span) => {
                relay.go_black().await;
                sleep_until(Instant::now() + span).await;
                relay.sever().await;
                relay.heal().await;
            }
            Blow::Killed => {
                agent.end_now().await;
                agent = cluster.agent("laptop").await;
                let mut command = cluster.command("laptop");
                command.args(["cloud", "ask", "--resume", "--json"]);
                resumed = Some(cluster.spawn("resume", command, None));
            }
            Blow::Moved => relay.rebind().await,
        }
    }
    let first = timeout(PATIENCE, asking.ended()).await.unwrap();
    assert_ne!(first.code, Some(0), "its agent was killed: {first:#?}");
    let resumed = timeout(PATIENCE, resumed.unwrap().ended()).await.unwrap();
    paced.await.unwrap();
    println!("{:?}: there", asked.elapsed());

    let report: Value = serde_json::from_str(&resumed.stdout).unwrap();
    assert_eq!(report["content"], whole.text(), "{}", resumed.stderr);
    let _ = resumed.succeeded();
    assert_eq!(upstream.questions().len(), 1, "one call");
    let charges = cluster.charges().await;
    assert_eq!(charges.len(), 1, "one charge: {charges:?}");
    assert_eq!(charges[0].tokens.completion, PIECES as u64);
    assert_eq!(report["charge_nanos"], charges[0].charge.0);
    let _ = cluster.at_gateway("ledger", &["verify"]).await.succeeded();
    // It was handed over: nothing of it is kept.
    agent.terminate();
    let _ = agent.ended().await;
    let kept = std::fs::read_dir(cluster.device_folder("laptop").join("unfinished"));
    let kept: Vec<_> = kept.unwrap().collect();
    assert!(kept.is_empty(), "{kept:?}");
}
