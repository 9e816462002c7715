//! The process harness itself, on the smallest program there is.

#![cfg(unix)]

use std::process::Command;

use mesh_tests::process::Process;

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[tokio::test]
async fn a_line_is_awaited_and_the_end_brings_everything() {
    let process = Process::start(
        "sh",
        shell("read a; echo got $a; echo done >&2; exit 3"),
        Some("x\n"),
    );
    assert_eq!(process.line_with("got").await, "got x");
    let ended = process.ended().await;
    assert_eq!(
        (ended.code, ended.stdout.as_str(), ended.stderr.as_str()),
        (Some(3), "got x\n", "done\n")
    );
}

#[tokio::test]
async fn a_character_cut_in_two_is_put_together_again() {
    let script = r"printf '\342\202'; printf ready >&2; read a; printf '\254\n'";
    let process = Process::start("sh", shell(script), Some("go\n"));
    assert_eq!(process.line_with("€").await, "€");
}

#[tokio::test]
async fn a_process_is_asked_to_end_or_made_to() {
    let asked = Process::start(
        "sh",
        shell("trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"),
        None,
    );
    asked.line_with("up").await;
    asked.terminate();
    assert_eq!(asked.ended().await.code, Some(7));
    let made = Process::start("sh", shell("echo up; exec sleep 1000"), None);
    made.line_with("up").await;
    assert_eq!(made.kill().await.code, None);
}
