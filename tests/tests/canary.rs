//! Secrets and texts stay out of logs, errors and debug output: canaries in prompts, answers and
//! keys, everything logged that can be.

use mesh_tests::cluster::{Cluster, PROVIDER_KEY, Setup};
use mesh_tests::upstream::{Answer, Behaviour, Ending, FakeUpstream};
use mesh_tokio::device::credentials::Credentials;

const QUESTION: &str = "canary-question-7f31";
const SYSTEM: &str = "canary-system-7f32";
const CONTEXT: &str = "canary-context-7f33";
const CONSTRAINT: &str = "canary-constraint-7f34";
const ANSWER: &str = "canary-answer-7f35";

#[tokio::test]
async fn no_text_and_no_key_is_in_any_log_line_or_error() {
    let upstream = FakeUpstream::start().await.unwrap();
    let cluster = Cluster::start(Setup::with_upstream(&upstream).logging("trace")).await;
    let (_, key) = cluster.new_key().await;
    let _ = cluster.login("laptop", &key).await.succeeded();
    let agent = cluster.agent("laptop").await;

    let answer = || Answer::of(&[ANSWER, " and more"]);
    let behaviours = [
        Behaviour::Answer(answer()),
        Behaviour::Answer(answer().ending(Ending::Cut)),
        Behaviour::Answer(answer().ending(Ending::Malformed)),
        Behaviour::Answer(answer().ending(Ending::ErrorEvent("overloaded".to_owned()))),
        Behaviour::refuse(401),
        Behaviour::refuse(400),
    ];
    let context = cluster.device_folder("laptop").join("notes.txt");
    std::fs::write(&context, CONTEXT).unwrap();
    let context = context.to_str().unwrap();
    for behaviour in behaviours {
        for model in ["openai", "anthropic"] {
            for more in [&[][..], &["--no-stream"]] {
                upstream.once(behaviour.clone());
                let arguments = [
                    &[
                        "--model",
                        model,
                        "--system",
                        SYSTEM,
                        "--constraint",
                        CONSTRAINT,
                    ][..],
                    &["--context", context],
                    more,
                ];
                let asked = cluster.ask("laptop", QUESTION, &arguments.concat()).await;
                assert!(!asked.ended.stdout.contains(&key));
            }
        }
    }
    // What fails before it is sent, and what is refused by the gateway.
    let _ = cluster
        .ask("laptop", QUESTION, &["--max-tokens", "0"])
        .await;
    let _ = cluster
        .ask("laptop", QUESTION, &["--model", "no-such-model"])
        .await;
    let _ = cluster
        .login("other", &key.replace("si_live_", "si_live_x"))
        .await;
    // The same through a tunnel of its own.
    agent.terminate();
    let _ = agent.ended().await;
    let _ = cluster.ask("laptop", QUESTION, &[]).await;
    let _ = cluster.at_gateway("ledger", &["verify"]).await;
    cluster.gateway().terminate();
    cluster.gateway().line_with("Stopping").await;

    let questions = upstream.questions();
    assert!(
        questions
            .iter()
            .any(|q| String::from_utf8_lossy(&q.body).contains(CONTEXT))
    );
    let logged = cluster.all_stderr();
    assert!(logged.contains("TRACE"), "nothing was traced");
    let secret_part = key.trim_start_matches("si_live_");
    for canary in [
        QUESTION,
        SYSTEM,
        CONTEXT,
        CONSTRAINT,
        ANSWER,
        PROVIDER_KEY,
        secret_part,
    ] {
        let told: Vec<&str> = logged
            .lines()
            .filter(|line| line.contains(canary))
            .collect();
        assert!(told.is_empty(), "{canary}: {told:#?}");
    }
}

#[tokio::test]
async fn what_a_gateway_keeps_on_disk_holds_no_text_and_no_key() {
    let upstream = FakeUpstream::start().await.unwrap();
    upstream.always(Answer::of(&[ANSWER]).into());
    // What is kept of answers for devices that come back is text, until its time is over.
    let setup = Setup::with_upstream(&upstream).set("answers.kept_secs", "0");
    let cluster = Cluster::start(setup).await;
    let (_, key) = cluster.new_key().await;
    let _ = cluster.login("laptop", &key).await.succeeded();
    let _ = cluster
        .ask("laptop", QUESTION, &["--system", SYSTEM])
        .await
        .ended
        .succeeded();
    let folder = cluster.store_path();
    let mut folders = vec![folder.parent().unwrap().to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let bytes = std::fs::read(&path).unwrap();
            for canary in [QUESTION, SYSTEM, ANSWER, PROVIDER_KEY, &key] {
                let found = bytes
                    .windows(canary.len())
                    .any(|window| window == canary.as_bytes());
                assert!(!found, "{canary} in {}", path.display());
            }
        }
    }
    assert!(files > 3, "the store and the authorities are there");
}

#[cfg(unix)]
#[tokio::test]
async fn files_with_secrets_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;

    let upstream = FakeUpstream::start().await.unwrap();
    let cluster = Cluster::start(Setup::with_upstream(&upstream)).await;
    cluster.enrol("laptop").await;
    let _agent = cluster.agent("laptop").await;
    let gateway = cluster.store_path().parent().unwrap().to_owned();
    let mut folders = vec![gateway, cluster.device_folder("laptop")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() == "agent.lock" {
                // Empty, and in a folder that is its owner's alone.
                continue;
            }
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{} is {mode:o}", entry.path().display());
            if entry.path().is_dir() {
                folders.push(entry.path());
            }
        }
    }
}

#[tokio::test]
async fn debug_output_of_credentials_shows_no_key() {
    let upstream = FakeUpstream::start().await.unwrap();
    let cluster = Cluster::start(Setup::with_upstream(&upstream)).await;
    cluster.enrol("laptop").await;
    let credentials = Credentials::load(&cluster.device_folder("laptop"))
        .unwrap()
        .unwrap();
    let shown = format!("{credentials:?}");
    assert!(
        shown.contains(&cluster.device_id("laptop")) && !shown.contains("PRIVATE KEY"),
        "{shown}"
    );
}
