//! Gateways that go away in good order, and that read their settings anew: real processes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use mesh_core::device::State;
use mesh_core::escalation::context::Question;
use mesh_core::identity::join::JoinLine;
use mesh_test_postgres::{Disk, Server};
use mesh_tests::cluster::{Cluster, Setup};
use mesh_tests::process::PATIENCE;
use mesh_tests::upstream::{Answer, Event, FakeUpstream, Gate};
use mesh_tokio::Client;
use mesh_tokio::device::enrol::enrol;
use mesh_tokio::gateway::store::verify_at;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// What the scripted answer costs: 12 × $3/M + 2 × $15/M, and 3 % on it.
const CHARGE_NANOS: i64 = 67_980;
/// The same at ten times the price.
const TENFOLD_NANOS: i64 = 679_800;
const TENFOLD: &str = "input_per_million = \"30\"\noutput_per_million = \"150\"";
const PIECES: &[&str] = &["first ", "second"];

/// A gateway, and a question of which the first piece is there.
async fn in_the_middle(setup: impl FnOnce(&FakeUpstream) -> Setup) -> Scene {
    let upstream = FakeUpstream::start().await.unwrap();
    upstream.always(Answer::of(PIECES).into());
    let cluster = Cluster::start(setup(&upstream)).await;
    cluster.enrol("laptop").await;
    let gate = Gate::closed();
    upstream.once(Answer::of(PIECES).gated(&gate).into());
    let mut command = cluster.command("laptop");
    command.args(["cloud", "ask", "Why?"]);
    let asking = cluster.spawn("ask", command, None);
    upstream.wait_for(Event::Waiting(0)).await;
    gate.let_through(1);
    asking.line_with("first").await;
    Scene {
        upstream,
        cluster,
        gate,
        asking,
    }
}

struct Scene {
    upstream: FakeUpstream,
    cluster: Cluster,
    gate: Gate,
    asking: mesh_tests::process::Process,
}

#[tokio::test(flavor = "multi_thread")]
async fn at_sigterm_the_answer_is_finished_nothing_new_is_begun_and_the_gateway_exits_cleanly() {
    let mut scene = in_the_middle(Setup::with_upstream).await;
    scene.cluster.gateway().terminate();
    scene.cluster.gateway_says("going away").await;
    // Who is not there yet is refused, and tries again.
    let _late = scene.cluster.asking("laptop", "And now?", &[]);
    scene.cluster.gateway_says("handshake refused").await;
    scene.gate.open();
    let ended = scene.asking.ended().await.succeeded();
    assert_eq!(ended.stdout, "first second\n");
    assert_eq!(scene.cluster.gateway_ended().await.code, Some(0));
    let charges = scene.cluster.charges().await;
    assert_eq!(charges.len(), 1);
    assert_eq!(charges[0].charge.0, CHARGE_NANOS);
    let verified = scene.cluster.at_gateway("ledger", &["verify"]).await;
    let _ = verified.succeeded();
    assert_eq!(scene.upstream.questions().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_cuts_the_answer_off_which_is_the_operators_loss() {
    let mut scene = in_the_middle(Setup::with_upstream).await;
    scene.cluster.gateway().interrupt();
    scene.cluster.gateway_says("going away").await;
    scene.cluster.gateway().interrupt();
    assert_eq!(scene.cluster.gateway_ended().await.code, Some(0));
    let ended = scene.asking.ended().await;
    assert_ne!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("it is free"), "{}", ended.stderr);
    assert_eq!(scene.cluster.charges().await.len(), 0);
    let records = scene.cluster.records().await;
    let losses = records.iter().filter(|record| record.loss().is_some());
    assert_eq!(losses.count(), 1);
    let verified = scene.cluster.at_gateway("ledger", &["verify"]).await;
    let _ = verified.succeeded();
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_limit_what_still_runs_is_cut_off() {
    let setup =
        |upstream: &FakeUpstream| Setup::with_upstream(upstream).set("drain.limit_secs", "1");
    let mut scene = in_the_middle(setup).await;
    assert_eq!(scene.cluster.stop_gateway().await.code, Some(0));
    let ended = scene.asking.ended().await;
    assert!(ended.stderr.contains("it is free"), "{}", ended.stderr);
    assert_eq!(scene.cluster.charges().await.len(), 0);
}

/// Another process holds the store's file for itself, for longer than the gateway waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_stays_away_does_not_keep_a_gateway_from_its_end_which_says_what_is_left() {
    let setup = |upstream: &FakeUpstream| {
        let setup = Setup::with_upstream(upstream).set("drain.limit_secs", "1");
        setup.set("drain.store_secs", "1")
    };
    let mut scene = in_the_middle(setup).await;
    let holder = rusqlite::Connection::open(scene.cluster.store_path()).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    scene.cluster.gateway().terminate();
    scene.cluster.gateway_says("is not written down").await;
    holder.execute_batch("ROLLBACK").unwrap();
    drop(holder);
    let ended = scene.cluster.gateway_ended().await;
    assert_eq!(ended.code, Some(17), "{ended:?}");
    assert!(ended.stderr.contains("the store stayed away"), "{ended:?}");
    assert!(ended.stderr.contains("the ends of 1 answers"), "{ended:?}");
    scene.cluster.restart_gateway().await;
    assert_eq!(scene.cluster.charges().await.len(), 0);
    let verified = scene.cluster.at_gateway("ledger", &["verify"]).await;
    let _ = verified.succeeded();
}

#[tokio::test(flavor = "multi_thread")]
async fn at_sighup_new_prices_apply_to_the_next_question_and_wrong_settings_to_none() {
    let scene = in_the_middle(Setup::with_upstream).await;
    let cluster = &scene.cluster;
    cluster.edit_config("price = \"claude_sonnet\"", TENFOLD);
    cluster.add_config("[http]\npublic_url = \"http://elsewhere:1\"\n");
    cluster.reload_gateway().await;
    cluster.gateway_says("needs a new start").await;
    cluster.gateway_says("changed=\"[[model]]\"").await;
    scene.gate.open();
    let ended = scene.asking.ended().await.succeeded();
    assert_eq!(ended.stdout, "first second\n");
    let next = cluster.ask("laptop", "And why that?", &[]).await;
    assert_eq!(next.charge_nanos(), Some(TENFOLD_NANOS), "{next:?}");

    for (old, wrong) in [
        (TENFOLD, "price = \"no-such-price\""),
        ("price = \"no-such-price\"", "nonsense"),
    ] {
        cluster.edit_config(old, wrong);
        let before = refusals(cluster);
        cluster.gateway().hang_up();
        let refused = async {
            while refusals(cluster) == before {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, refused).await.unwrap();
        let next = cluster.ask("laptop", "And still?", &[]).await;
        assert_eq!(next.charge_nanos(), Some(TENFOLD_NANOS), "{next:?}");
    }
    let charges = cluster.charges().await;
    assert_eq!(charges[0].charge.0, CHARGE_NANOS, "as it was held");
}

fn refusals(cluster: &Cluster) -> usize {
    let printed = cluster.gateway().printed().stderr;
    printed.matches("the old ones stay in force").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn at_sighup_another_log_filter_and_other_limits_are_in_force_with_the_tunnels_untouched() {
    let upstream = FakeUpstream::start().await.unwrap();
    let cluster = Cluster::start(Setup::with_upstream(&upstream)).await;
    cluster.enrol("laptop").await;
    let _agent = cluster.agent("laptop").await;
    cluster.add_config("[answers]\ndevice_per_minute = 1\naccount_per_minute = 1\n");
    cluster.reload_gateway().await;
    let first = cluster.ask("laptop", "Why?", &[]).await;
    assert!(first.charge_nanos().is_some(), "{first:?}");
    let second = cluster.ask("laptop", "Why?", &["--timeout", "2"]).await;
    assert_eq!(second.code(), Some("RATE_LIMITED"), "{second:?}");
    let printed = cluster.gateway().printed().stderr;
    assert_eq!(printed.matches("tunnel up").count(), 1);
    assert_eq!(printed.matches("tunnel down").count(), 0);
}

const FLEET: usize = 200;
const SPREAD: Duration = Duration::from_secs(3);
/// Reconnects are counted in so many windows of the spread.
const WINDOWS: usize = 10;

/// One device of the fleet: its connection, and when it left its first gateway.
struct Member {
    client: Client,
    left: tokio::task::JoinHandle<Instant>,
}

async fn fleet(cluster: &Cluster) -> Vec<Client> {
    let (_, key) = cluster.new_key().await;
    let mut joining = JoinSet::new();
    let mut clients = Vec::new();
    for n in 0..FLEET {
        let join = JoinLine {
            url: cluster.http_url().to_owned(),
            key: key.parse().unwrap(),
            ca: None,
        };
        joining.spawn(async move { Client::connect(enrol(&join).await.unwrap()).await.unwrap() });
        if n >= 16 {
            clients.push(joining.join_next().await.unwrap().unwrap());
        }
    }
    clients.extend(joining.join_all().await);
    clients
}

/// Two gateways, one database, one authority: the proof that an upgrade loses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_devices_with_running_answers_move_to_the_other_gateway_and_lose_nothing() {
    let Some(server) = Server::start(Disk::Unsafe) else {
        return;
    };
    let upstream = FakeUpstream::start().await.unwrap();
    let setup = Setup::with_upstream(&upstream)
        .logging("info")
        .set("store.url", &server.database())
        .set("answers.account_per_minute", "10000")
        .set("drain.spread_secs", &SPREAD.as_secs().to_string());
    let mut cluster = Cluster::start(setup).await;
    let second = cluster.second_gateway().await;
    cluster.add_config(&format!("[drain]\nalternates = [\"{}\"]\n", second.tunnel));
    cluster.reload_gateway().await;

    let clients = fleet(&cluster).await;
    let gates: Vec<Gate> = (0..FLEET).map(|_| Gate::closed()).collect();
    for gate in &gates {
        gate.let_through(1);
        upstream.once(Answer::of(PIECES).gated(gate).into());
    }
    let mut answers = JoinSet::new();
    let mut members = Vec::new();
    for client in clients {
        let mut answer = client.escalate_stream(Question::new("Why?")).await.unwrap();
        assert_eq!(
            answer.recv_chunk().await.unwrap().as_deref(),
            Some("first ")
        );
        answers.spawn(async move {
            let rest = answer.collect().await.unwrap();
            (rest.content, rest.receipt.request_id)
        });
        let mut standing = client.subscribe();
        let left = tokio::spawn(async move {
            // The move may be over before anybody looks.
            let moves = |state: State| !matches!(state, State::Connected { .. });
            let moved = standing.wait_for(|standing| {
                moves(standing.state) || standing.statistics.reconnections > 0
            });
            moved.await.unwrap();
            Instant::now()
        });
        members.push(Member { client, left });
    }

    let begun = Instant::now();
    cluster.gateway().terminate();
    // Half of the answers end while the devices move, half when all have moved.
    for gate in gates.iter().step_by(2) {
        gate.open();
    }
    let mut said = second.process.output();
    let arrived = said.wait_for(|said| said.stderr.matches("tunnel up").count() >= FLEET);
    drop(timeout(PATIENCE, arrived).await.unwrap().unwrap());
    for gate in &gates {
        gate.open();
    }
    let mut requests = Vec::new();
    while let Some(answered) = answers.join_next().await {
        let (text, request) = answered.unwrap();
        assert_eq!(text, PIECES[1]);
        requests.push(request);
    }
    assert_eq!(requests.len(), FLEET);
    assert_eq!(cluster.gateway_ended().await.code, Some(0));

    // Every device is at the other gateway, and asks on.
    for member in members.iter().take(20) {
        let next = member.client.escalate(Question::new("And now?")).await;
        assert_eq!(next.unwrap().content, Answer::default().text());
    }
    let charges = cluster.charges().await;
    assert_eq!(charges.len(), FLEET + 20);
    for request in requests {
        let of = charges.iter().filter(|charge| charge.request == request);
        assert_eq!(of.count(), 1, "{request}");
    }
    assert!(
        cluster
            .records()
            .await
            .iter()
            .all(|record| record.loss().is_none())
    );
    assert!(verify_at(&cluster.store(), None).await.unwrap().is_sound());

    let mut windows = [0; WINDOWS];
    let (mut first, mut last) = (Duration::MAX, Duration::ZERO);
    for member in members {
        let after = member.left.await.unwrap().duration_since(begun);
        (first, last) = (first.min(after), last.max(after));
        let window = after.as_millis() * WINDOWS as u128 / SPREAD.as_millis();
        windows[usize::try_from(window).unwrap().min(WINDOWS - 1)] += 1;
    }
    println!(
        "{FLEET} devices left between {first:?} and {last:?}: {windows:?} in each tenth of {SPREAD:?}"
    );
    assert!(
        windows.iter().all(|&count| count <= FLEET / 2),
        "{windows:?}"
    );
    assert!(
        windows.iter().filter(|&&count| count > 0).count() >= WINDOWS / 2,
        "{windows:?}"
    );
}
