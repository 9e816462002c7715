//! What only `synesis-lite` does; what every shell does is in `conformance.rs`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use mesh_tests::cluster::{Cluster, Setup};
use mesh_tests::process::Process;
use mesh_tests::upstream::{Answer, Event, FakeUpstream, Gate};
use serde_json::Value;

const DEVICE: &str = "hub";

async fn scene() -> (FakeUpstream, Cluster) {
    let upstream = FakeUpstream::start().await.unwrap();
    let cluster = Cluster::start(Setup::with_upstream(&upstream)).await;
    cluster.enrol(DEVICE).await;
    (upstream, cluster)
}

fn lite(cluster: &Cluster, arguments: &[&str]) -> Process {
    let mut command = cluster.lite_command(DEVICE);
    command.args(arguments);
    cluster.spawn("synesis-lite", command, None)
}

/// The lines of standard error that are events.
fn events(stderr: &str) -> Vec<Value> {
    let lines = stderr.lines();
    lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

#[tokio::test]
async fn the_tunnels_changes_are_told_as_json_lines() {
    let (_upstream, cluster) = scene().await;
    let agent = lite(&cluster, &["run", "--events"]);
    agent.line_with("\"heartbeats_acked\":1").await;
    let device = cluster.device_id(DEVICE);
    let revoked = cluster.admin(&["device", "revoke", &device]).await;
    let _ = revoked.succeeded();
    agent.line_with("\"state\":\"failed\"").await;
    let told = events(&agent.printed().stderr);
    let states: Vec<&str> = told.iter().filter_map(|e| e["state"].as_str()).collect();
    assert!(states.contains(&"connecting") && states.contains(&"connected"));
    let up = told.iter().find(|event| event["state"] == "connected");
    assert!(up.unwrap()["epoch"].as_u64().unwrap() > 0, "{told:?}");
    let last = told.last().unwrap();
    assert!(last["failure"].as_str().unwrap().contains("revoked"));
    agent.terminate();
    let ended = agent.ended().await.succeeded();
    assert_eq!(
        events(&ended.stderr).len(),
        ended.stderr.lines().count(),
        "nothing else is told: {}",
        ended.stderr
    );
}

#[tokio::test]
async fn a_service_manager_cancels_a_question_too() {
    let (upstream, cluster) = scene().await;
    let gate = Gate::closed();
    upstream.once(Answer::of(&["seen", "never"]).gated(&gate).into());
    let asking = lite(&cluster, &["ask", "Why?"]);
    upstream.wait_for(Event::Waiting(0)).await;
    gate.let_through(1);
    // What is shown was produced, and is charged.
    asking.line_with("seen").await;
    asking.terminate();
    upstream.wait_for(Event::Disconnected(0)).await;
    let ended = asking.ended().await;
    assert_eq!(ended.code, Some(130), "{ended:#?}");
    assert_eq!(ended.stdout, "seen\n");
    assert!(ended.stderr.contains("cancelled"), "{}", ended.stderr);
    assert_eq!(cluster.charges().await.len(), 1);
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_the_question_quietly() {
    let (upstream, cluster) = scene().await;
    let gate = Gate::closed();
    let pieces = vec!["piece ".repeat(1000); 64];
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    upstream.once(Answer::of(&pieces).gated(&gate).into());
    let asking = cluster.lite_command(DEVICE);
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "\"$0\" \"$@\" | head -c 10"])
        .arg(asking.get_program())
        .args(asking.get_args())
        .args(["ask", "Why?"]);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap());
    let shell = cluster.spawn("sh", command, None);
    upstream.wait_for(Event::Waiting(0)).await;
    gate.open();
    let ended = shell.ended().await.succeeded();
    assert_eq!(ended.stdout, "piece piec");
    assert!(!ended.stderr.contains("error"), "{}", ended.stderr);
}

#[tokio::test]
async fn the_version_and_the_help_need_no_enrolment() {
    let (_upstream, cluster) = scene().await;
    let version = lite(&cluster, &["--version"]).ended().await.succeeded();
    assert!(version.stdout.starts_with("synesis-lite 0."));
    let help = lite(&cluster, &["ask", "--help"]).ended().await.succeeded();
    assert!(help.stdout.contains("Examples:"), "{}", help.stdout);
}
