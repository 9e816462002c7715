//! Whole worlds: the same seed gives the same history, and every invariant holds in a few of them.

use std::process::Command;
use std::time::{Duration, Instant};

use mesh_sim::draw;
use mesh_sim::plan::Plan;
use mesh_sim::swarm::run;

/// A seed with several devices, crashes and questions.
const SEED: u64 = 8;

fn report_of_another_process(seed: u64, transport: &str) -> serde_json::Value {
    let output = Command::new(env!("CARGO_BIN_EXE_mesh-sim"))
        .args(["run", "--json", "--transport", transport])
        .args(["--seed", &seed.to_string()])
        .output();
    output
        .ok()
        .and_then(|output| serde_json::from_slice(&output.stdout).ok())
        .unwrap_or_default()
}

/// What TLS and tokens are stamped with has a resolution of a second: runs a moment apart would not
/// show a clock that was forgotten.
fn until_the_next_second(from: Instant) {
    while from.elapsed() < Duration::from_millis(1100) {
        std::hint::spin_loop();
    }
}

#[test]
fn one_seed_is_one_history_in_this_process_and_in_another_a_second_later() {
    for transport in ["quic", "plain"] {
        let plan = draw::plan(SEED, transport);
        let began = Instant::now();
        let first = run(&plan, false).unwrap().finished;
        assert_eq!(first.violation, None);
        assert!(first.datagrams > 1000, "{}", first.datagrams);
        until_the_next_second(began);
        let second = run(&plan, true).unwrap().finished;
        assert_eq!(first.digest, second.digest);
        let elsewhere = report_of_another_process(SEED, transport);
        assert_eq!(elsewhere["digest"], first.digest);
    }
}

#[test]
fn another_seed_is_another_history() {
    let digest = |seed| {
        run(&draw::plan(seed, "quic"), false)
            .unwrap()
            .finished
            .digest
    };
    assert_ne!(digest(1), digest(2));
}

#[test]
fn a_plan_that_was_saved_and_read_again_is_the_same_history() {
    let plan = draw::plan(3, "quic");
    let text = serde_json::to_string_pretty(&plan).unwrap();
    let again: Plan = serde_json::from_str(&text).unwrap();
    let digest = |plan| run(plan, false).unwrap().finished.digest;
    assert_eq!(digest(&plan), digest(&again));
}

#[test]
fn every_invariant_holds_in_the_first_worlds() {
    for seed in 1..=12 {
        let finished = run(&draw::plan(seed, "quic"), false).unwrap().finished;
        assert_eq!(finished.violation, None, "seed {seed}");
    }
}

#[test]
fn an_unknown_transport_and_a_damaged_plan_are_refused_in_words() {
    let error = run(&draw::plan(1, "pigeon"), false).unwrap_err();
    assert!(error.to_string().contains("pigeon"), "{error}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "{\"seed\": 1").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_mesh-sim"))
        .arg("replay")
        .arg(file.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.contains("is no plan"), "{words}");
}
