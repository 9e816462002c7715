//! Questions that outlive the process that asked them.

use std::path::PathBuf;

use mesh_tests::cluster::Cluster;
use mesh_tests::process::{Ended, PATIENCE};
use mesh_tests::upstream::{Answer, Event, Gate};
use serde_json::Value;
use tokio::time::timeout;

use crate::{DEVICE, Shell, scene};

/// What is in the folder of unfinished questions.
fn unfinished(cluster: &Cluster) -> Vec<PathBuf> {
    let folder = cluster.device_folder(DEVICE).join("unfinished");
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Whether one of the files, wholly written, is as wanted.
fn is_written(cluster: &Cluster, wanted: impl Fn(&str) -> bool) -> bool {
    unfinished(cluster).iter().any(|path| {
        let whole = path.extension().is_some_and(|end| end == "json");
        whole && std::fs::read_to_string(path).is_ok_and(|kept| wanted(&kept))
    })
}

/// Waits until one of them is.
async fn written(cluster: &Cluster, wanted: impl Fn(&str) -> bool) {
    let written = async {
        while !is_written(cluster, &wanted) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, written).await.unwrap();
}

async fn resumed(shell: Shell, cluster: &Cluster) -> Ended {
    shell
        .ask(cluster, &["--resume", "--json"], None)
        .ended()
        .await
}

pub(crate) async fn a_question_outlives_the_process_that_asked_it(shell: Shell) {
    let (upstream, cluster) = scene().await;
    let gate = Gate::closed();
    let answer = Answer::of(&["to ada@", "example.com"]);
    upstream.once(answer.clone().gated(&gate).into());
    let asking = shell.ask(&cluster, &["Whom? ada@example.com"], None);
    upstream.wait_for(Event::Waiting(0)).await;
    gate.let_through(1);
    asking.line_with("to ada@").await;
    written(&cluster, |kept| kept.contains("to ada@")).await;
    let _ = asking.kill().await;
    gate.open();
    let ended = resumed(shell, &cluster).await.succeeded();
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["content"], answer.text());
    assert_eq!(upstream.questions().len(), 1);
    let charges = cluster.charges().await;
    assert_eq!(charges.len(), 1);
    assert_eq!(report["charge_nanos"], charges[0].charge.0);
    assert_eq!(unfinished(&cluster), Vec::<PathBuf>::new());

    let nothing = resumed(shell, &cluster).await;
    assert_eq!(nothing.code, Some(20), "{nothing:#?}");
    assert!(nothing.stderr.contains("nothing to resume"), "{nothing:#?}");
}

pub(crate) async fn a_question_outlives_the_agent_it_was_asked_through(shell: Shell) {
    let (upstream, cluster) = scene().await;
    let gates = [Gate::closed(), Gate::closed()];
    let answer = Answer::of(&["first ", "second ", "third"]);
    for gate in &gates {
        upstream.once(answer.clone().gated(gate).into());
    }
    let agent = shell.agent(&cluster).await;
    let asking = shell.ask(&cluster, &["One?"], None);
    upstream.wait_for(Event::Waiting(0)).await;
    let other = shell.ask(&cluster, &["Two?"], None);
    upstream.wait_for(Event::Waiting(1)).await;
    for gate in &gates {
        gate.let_through(1);
    }
    asking.line_with("first").await;
    other.line_with("first").await;
    written(&cluster, |kept| kept.matches("first ").count() == 2).await;
    let _ = agent.kill().await;
    assert_ne!(asking.ended().await.code, Some(0));
    assert_ne!(other.ended().await.code, Some(0));

    let _agent = shell.agent(&cluster).await;
    let several = resumed(shell, &cluster).await;
    assert_eq!(several.code, Some(20), "{several:#?}");
    let listed: Value = serde_json::from_str(&several.stdout).unwrap();
    let listed = listed["unfinished"].as_array().unwrap().clone();
    assert_eq!(listed[0]["title"], "One?");
    for gate in &gates {
        gate.open();
    }
    for one in &listed {
        let arguments = ["--resume", one["id"].as_str().unwrap()];
        let ended = shell.ask(&cluster, &arguments, None).ended().await;
        assert_eq!(ended.succeeded().stdout.trim_end(), answer.text());
    }
    assert_eq!(upstream.questions().len(), 2);
    assert_eq!(cluster.charges().await.len(), 2);
}

pub(crate) async fn a_file_that_is_not_understood_is_set_aside(shell: Shell) {
    let (_upstream, cluster) = scene().await;
    let folder = cluster.device_folder(DEVICE).join("unfinished");
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("0.json");
    std::fs::write(&file, "{\"half\": \"s3cret").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, mode).unwrap();
    let ended = resumed(shell, &cluster).await;
    assert_eq!(ended.code, Some(20), "{ended:#?}");
    assert!(ended.stderr.contains("damaged"), "{ended:#?}");
    assert!(!ended.stderr.contains("s3cret"), "{ended:#?}");
    assert_eq!(unfinished(&cluster), [folder.join("0.json.set-aside")]);
    let ended = shell.ask(&cluster, &["Why?"], None).ended().await;
    assert_eq!(
        ended.succeeded().stdout.trim_end(),
        Answer::default().text()
    );
}
