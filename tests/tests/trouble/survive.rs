//! The gateway is killed as a power cut does: before, during and after an answer. Who had asked gets the
//! answer, its receipt, or the word that it was lost, and the ledger says the same.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use mesh_core::billing::ledger::Record;
use mesh_test_postgres::Server;
use mesh_tests::cluster::{Cluster, Setup};
use mesh_tests::process::Process;
use mesh_tests::upstream::{Answer, Event, FakeUpstream, Gate};

/// What the scripted answer costs: 12 × $3/M + 4 × $15/M, and 3 % on it.
const CHARGE_NANOS: i64 = 98_880;
/// Recognised wherever it turns up.
const CANARY: &str = "canary-answer-41d7aa";

/// A gateway behind a relay, and a device with an agent.
struct Scene {
    upstream: FakeUpstream,
    cluster: Cluster,
    agent: Process,
}

impl Scene {
    async fn new(change: impl FnOnce(Setup) -> Setup) -> Self {
        let upstream = FakeUpstream::start().await.unwrap();
        let setup = change(Setup::with_upstream(&upstream).through_relay());
        let cluster = Cluster::start(setup).await;
        cluster.enrol("laptop").await;
        let agent = cluster.agent("laptop").await;
        Self {
            upstream,
            cluster,
            agent,
        }
    }

    /// A question whose model server waits after the first piece.
    async fn asked(&self, pieces: &[&str], arguments: &[&str]) -> (Process, Gate) {
        let gate = Gate::closed();
        let number = self.upstream.questions().len();
        self.upstream.once(Answer::of(pieces).gated(&gate).into());
        let mut command = self.cluster.command("laptop");
        command.args(["cloud", "ask", "Why?", "--timeout", "60"]);
        command.args(arguments);
        let asking = self.cluster.spawn("ask", command, None);
        self.upstream.wait_for(Event::Waiting(number)).await;
        (asking, gate)
    }

    /// A question of which one piece is at the device, which is cut off then; the rest comes to an end
    /// without it.
    async fn finished_away(&self, pieces: &[&str]) -> Process {
        let (asking, gate) = self.asked(pieces, &[]).await;
        self.goes_away(&asking, &gate, pieces[0]).await;
        self.cluster.gateway_says("charged").await;
        asking
    }

    async fn goes_away(&self, asking: &Process, gate: &Gate, first: &str) {
        gate.let_through(1);
        asking.line_with(first.trim()).await;
        self.cluster.relay().go_black().await;
        gate.open();
    }

    /// The gateway dies and comes back, and the device is let through to it. A device that waits would
    /// notice with its next sign of life; this one has something to say.
    async fn restart(&mut self) -> Process {
        self.cluster.restart_gateway().await;
        self.cluster.relay().heal().await;
        self.poke()
    }

    fn poke(&self) -> Process {
        let mut command = self.cluster.command("laptop");
        command.args(["cloud", "status", "--json"]);
        self.cluster.spawn("status", command, None)
    }

    /// Charges and losses in the ledger, which verifies.
    async fn books(&self) -> (usize, usize) {
        let _ = self
            .cluster
            .at_gateway("ledger", &["verify"])
            .await
            .succeeded();
        let records = self.cluster.records().await;
        let count = |of: fn(&Record) -> bool| records.iter().filter(|record| of(record)).count();
        (
            count(|record| record.charge().is_some()),
            count(|record| record.loss().is_some()),
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_it_has_the_question_the_gateway_answers_it_once() {
    let mut scene = Scene::new(|setup| setup).await;
    scene.cluster.relay().go_black().await;
    let mut command = scene.cluster.command("laptop");
    command.args(["cloud", "ask", "Why?", "--timeout", "60"]);
    let asking = scene.cluster.spawn("ask", command, None);
    scene.agent.line_with("in doubt").await;
    let _status = scene.restart().await;
    let ended = asking.ended().await.succeeded();
    assert_eq!(ended.stdout.trim_end(), Answer::default().text());
    assert_eq!(scene.upstream.questions().len(), 1);
    assert_eq!(scene.books().await, (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_first_piece_the_gateway_answers_after_all_for_one_charge() {
    let mut scene = Scene::new(|setup| setup).await;
    let (asking, _gate) = scene.asked(&["never seen"], &["--json"]).await;
    let _status = scene.restart().await;
    let ended = asking.ended().await.succeeded();
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(json["content"], Answer::default().text());
    assert_eq!(json["charge_nanos"], CHARGE_NANOS);
    assert_eq!(scene.upstream.questions().len(), 2);
    assert_eq!(scene.books().await.0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_the_answer_is_lost_free_and_the_text_so_far_stands() {
    let mut scene = Scene::new(|setup| setup).await;
    let (asking, gate) = scene.asked(&["before ", "after"], &[]).await;
    gate.let_through(1);
    asking.line_with("before").await;
    scene.cluster.gateway_says("checkpoint").await;
    let _status = scene.restart().await;
    let ended = asking.ended().await;
    assert_eq!(ended.stdout.trim_end(), "before");
    assert_ne!(ended.code, Some(0));
    assert!(ended.stderr.contains("it is free"), "{ended:#?}");
    assert_eq!(scene.upstream.questions().len(), 1);
    assert_eq!(scene.books().await, (0, 1));
    let records = scene.cluster.records().await;
    let lost = records.iter().find_map(Record::loss).unwrap();
    // "before " is two tokens by the estimate of four bytes each.
    assert_eq!(lost.tokens.completion, 2);
    let answered = scene.cluster.ask("laptop", "And now?", &[]).await;
    assert_eq!(answered.charge_nanos(), Some(CHARGE_NANOS));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_of_what_nobody_was_shown_it_is_asked_again_under_a_new_id() {
    let mut scene = Scene::new(|setup| setup).await;
    let arguments = ["--json", "--no-stream"];
    let (asking, gate) = scene.asked(&["before ", "after"], &arguments).await;
    gate.let_through(1);
    scene.upstream.wait_for(Event::Piece(0)).await;
    scene.cluster.gateway_says("checkpoint").await;
    let _status = scene.restart().await;
    let ended = asking.ended().await.succeeded();
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(json["content"], Answer::default().text());
    assert_eq!(json["charge_nanos"], CHARGE_NANOS);
    assert_eq!(scene.upstream.questions().len(), 2);
    assert_eq!(scene.books().await, (1, 1));
    let records = scene.cluster.records().await;
    let charged = records.iter().find_map(Record::charge).unwrap();
    let lost = records.iter().find_map(Record::loss).unwrap();
    assert_ne!(charged.request, lost.request);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_end_the_gateway_delivers_what_its_device_has_not_heard() {
    let mut scene = Scene::new(|setup| setup).await;
    let asking = scene.finished_away(&["before ", "and ", "after"]).await;
    let _status = scene.restart().await;
    let ended = asking.ended().await.succeeded();
    assert_eq!(ended.stdout.trim_end(), "before and after");
    assert!(ended.stderr.contains("goes on at piece"), "{ended:#?}");
    assert_eq!(scene.upstream.questions().len(), 1);
    assert_eq!(scene.books().await, (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_no_longer_is_in_no_file_and_its_receipt_is_told() {
    let mut scene = Scene::new(|setup| setup.set("answers.kept_secs", "3")).await;
    let asking = scene.finished_away(&["before ", CANARY]).await;
    assert!(stands_in_a_file(&scene.cluster), "it is kept for a time");
    scene.cluster.gateway_says("has been deleted").await;
    assert!(!stands_in_a_file(&scene.cluster));
    let _status = scene.restart().await;
    let ended = asking.ended().await;
    assert_ne!(ended.code, Some(0));
    assert_eq!(ended.stdout.trim_end(), "before");
    assert!(ended.stderr.contains("no longer kept"), "{ended:#?}");
    assert!(!stands_in_a_file(&scene.cluster));
    assert!(!scene.cluster.everything_printed().contains(CANARY));
    assert_eq!(scene.books().await, (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_gateway_delivers_what_the_first_had_finished_and_waits_for_what_it_has_not() {
    let Some(server) = Server::shared() else {
        return;
    };
    let url = server.database();
    let mut scene = Scene::new(|setup| setup.set("store.url", &url)).await;
    // Under way at the first, and its device comes to another.
    let (asking, gate) = scene.asked(&["before ", "and ", "after"], &[]).await;
    gate.let_through(1);
    asking.line_with("before").await;
    let first = scene.cluster.succeed_gateway().await;
    let _status = scene.poke();
    scene.cluster.gateway_says("known=\"elsewhere\"").await;
    gate.open();
    first.line_with("charged").await;
    let ended = asking.ended().await.succeeded();
    assert_eq!(ended.stdout.trim_end(), "before and after");
    scene.cluster.gateway_says("known=\"kept\"").await;
    assert_eq!(scene.upstream.questions().len(), 1);
    assert_eq!(scene.books().await, (1, 0));

    // Finished, and then the gateway dies.
    let asking = scene.finished_away(&["once ", "more"]).await;
    let _status = scene.restart().await;
    assert_eq!(
        asking.ended().await.succeeded().stdout.trim_end(),
        "once more"
    );
    assert_eq!(scene.books().await, (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gateway_was_in_the_middle_of_when_it_died_another_one_calls_lost() {
    let Some(server) = Server::shared() else {
        return;
    };
    let url = server.database();
    // What dead gateways were in the middle of is looked for with each renewal of a lease.
    let lease = |setup: Setup| setup.set("store.url", &url).set("store.lease_secs", "15");
    let mut scene = Scene::new(lease).await;
    let (asking, gate) = scene.asked(&["before ", "after"], &[]).await;
    gate.let_through(1);
    asking.line_with("before").await;
    scene.cluster.gateway_says("checkpoint").await;
    let mut first = scene.cluster.succeed_gateway().await;
    first.end_now().await;
    // Its lease would end after a minute.
    server.sql(
        &url,
        "DELETE FROM synesis.gateways WHERE id IN (SELECT gateway FROM synesis.holds)",
    );
    let _status = scene.poke();
    let ended = asking.ended().await;
    assert_eq!(ended.stdout.trim_end(), "before");
    assert!(ended.stderr.contains("it is free"), "{ended:#?}");
    scene.cluster.gateway_says("answers were cut off").await;
    assert_eq!(scene.books().await, (0, 1));
}

/// Whether the canary is in the store's file or in its log.
fn stands_in_a_file(cluster: &Cluster) -> bool {
    let file = cluster.store_path();
    let log = file.with_extension("sqlite-wal");
    [file, log].iter().any(|path| {
        let bytes = std::fs::read(path).unwrap_or_default();
        let mut windows = bytes.windows(CANARY.len());
        windows.any(|window| window == CANARY.as_bytes())
    })
}
