//! One question, one answer, one exact charge: gateway, agent and `cloud ask` as three processes.

use mesh_core::billing::money::Nanos;
use mesh_core::error::ErrorCode;
use mesh_core::escalation::context::Question;
use mesh_tests::cluster::{ACCOUNT, Cluster, PROVIDER_KEY, Setup};
use mesh_tests::upstream::{Answer, Event, FakeUpstream, Gate, Usage};
use mesh_tokio::Client;
use mesh_tokio::device::credentials::Credentials;
use serde_json::Value;

/// What the scripted answer costs at claude_sonnet's price: 12 × $3/M + 4 × $15/M = 96 000 nanos.
const BASE_NANOS: i64 = 96_000;
/// And 3 % on it.
const CHARGE_NANOS: i64 = 98_880;

#[tokio::test]
async fn a_question_through_the_agent_is_answered_and_charged_exactly_once() {
    let upstream = FakeUpstream::start().await.unwrap();
    let cluster = Cluster::start(Setup::with_upstream(&upstream)).await;
    cluster.enrol("laptop").await;
    let agent = cluster.agent("laptop").await;

    let answered = cluster.ask("laptop", "Why is the sky blue?", &[]).await;
    let _ = answered.ended.clone().succeeded();
    assert_eq!(answered.content(), Answer::default().text());
    assert_eq!(answered.json["base_nanos"], BASE_NANOS);
    assert_eq!(answered.json["markup_nanos"], CHARGE_NANOS - BASE_NANOS);
    assert_eq!(answered.json["charge_nanos"], CHARGE_NANOS);
    assert_eq!(answered.json["charge"], "$0.00009888");
    assert_eq!(answered.json["model"], "scripted-openai");
    assert_eq!(answered.json["estimated"], false);

    let charges = cluster.charges().await;
    assert_eq!(charges.len(), 1);
    assert_eq!(
        (charges[0].base, charges[0].charge),
        (Nanos(BASE_NANOS), Nanos(CHARGE_NANOS))
    );
    assert_eq!(
        (charges[0].tokens.prompt, charges[0].tokens.completion),
        (12, 4)
    );
    assert_eq!(charges[0].request.to_string(), answered.json["request_id"]);
    let _ = cluster
        .at_gateway("ledger", &["verify", "--account", ACCOUNT])
        .await
        .succeeded();

    let status = cluster.status("laptop").await;
    assert_eq!(status["state"], "connected");
    assert_eq!(status["agent_pid"], agent.id().unwrap());
    assert_eq!(status["statistics"]["requests_succeeded"], 1);

    agent.terminate();
    assert_eq!(agent.ended().await.code, Some(0));
}

#[tokio::test]
async fn without_an_agent_ask_opens_a_tunnel_of_its_own() {
    let upstream = FakeUpstream::start().await.unwrap();
    let cluster = Cluster::start(Setup::with_upstream(&upstream)).await;
    cluster.enrol("laptop").await;
    for arguments in [&[][..], &["--no-stream"], &["--model", "anthropic"]] {
        let answered = cluster.ask("laptop", "Why?", arguments).await;
        let _ = answered.ended.clone().succeeded();
        assert_eq!(
            answered.content(),
            Answer::default().text(),
            "{arguments:?}"
        );
        assert_eq!(answered.charge_nanos(), Some(CHARGE_NANOS), "{arguments:?}");
    }
    assert_eq!(cluster.charges().await.len(), 3);
}

#[tokio::test]
async fn the_answer_goes_to_stdout_as_it_comes_and_everything_else_to_stderr() {
    let upstream = FakeUpstream::start().await.unwrap();
    let gate = Gate::closed();
    upstream.always(Answer::of(&["first ", "second"]).gated(&gate).into());
    let cluster = Cluster::start(Setup::with_upstream(&upstream)).await;
    cluster.enrol("laptop").await;
    let mut command = cluster.command("laptop");
    command.args(["cloud", "ask", "-"]);
    let asking = cluster.spawn("ask", command, Some("Why?"));
    upstream.wait_for(Event::Waiting(0)).await;
    gate.let_through(1);
    // The second piece is still held: what is seen now came as a stream.
    asking.line_with("first").await;
    assert_eq!(asking.printed().stdout, "first ");
    gate.open();
    let ended = asking.ended().await.succeeded();
    assert_eq!(ended.stdout, "first second\n");
    assert!(ended.stderr.contains("scripted-openai"), "{}", ended.stderr);
}

#[tokio::test]
async fn the_provider_sees_its_key_the_question_and_its_context_and_nothing_of_the_device() {
    let upstream = FakeUpstream::start().await.unwrap();
    let cluster = Cluster::start(Setup::with_upstream(&upstream)).await;
    cluster.enrol("laptop").await;
    let manual = cluster.device_folder("laptop").join("manual.txt");
    std::fs::write(&manual, "The red valve closes the boiler.").unwrap();
    let manual = manual.to_str().unwrap();
    for model in ["openai", "anthropic"] {
        let arguments = [
            "--model",
            model,
            "--system",
            "Be brief.",
            "--context",
            manual,
        ];
        let _ = cluster
            .ask("laptop", "Which valve?", &arguments)
            .await
            .ended
            .succeeded();
    }
    let [openai, anthropic] = &upstream.questions()[..] else {
        panic!("not two questions")
    };
    assert_eq!(
        openai.header("authorization"),
        Some(&*format!("Bearer {PROVIDER_KEY}"))
    );
    assert_eq!(anthropic.header("x-api-key"), Some(PROVIDER_KEY));
    assert_eq!(anthropic.header("anthropic-version"), Some("2023-06-01"));
    for question in [openai, anthropic] {
        let body = String::from_utf8(question.body.to_vec()).unwrap();
        assert!(
            body.contains("Which valve?") && body.contains("Be brief."),
            "{body}"
        );
        assert!(body.contains("The red valve closes the boiler."), "{body}");
        assert!(!body.contains(&cluster.device_id("laptop")), "{body}");
        assert_eq!(question.json()["stream"], true);
    }
    assert_eq!(openai.json()["model"], "scripted-openai");
    assert_eq!(openai.json()["stream_options"]["include_usage"], true);
}

#[tokio::test]
async fn cached_tokens_are_charged_at_their_own_price_in_either_format() {
    let upstream = FakeUpstream::start().await.unwrap();
    let cluster = Cluster::start(Setup::with_upstream(&upstream)).await;
    cluster.enrol("laptop").await;
    // OpenAI: 1 000 prompt of which 600 cached, 500 completion:
    // 400 × 3 000 + 600 × 300 + 500 × 15 000 = 8 880 000; × 1.03 = 9 146 400.
    let usage = Usage {
        prompt: 1000,
        completion: 500,
        cache_read: 600,
        ..Usage::default()
    };
    upstream.once(
        Answer {
            usage: Some(usage),
            ..Answer::default()
        }
        .into(),
    );
    let answered = cluster.ask("laptop", "Why?", &[]).await;
    assert_eq!(answered.json["base_nanos"], 8_880_000);
    assert_eq!(answered.charge_nanos(), Some(9_146_400));
    // Anthropic: 1 000 in all, 600 read and 100 written:
    // 300 × 3 000 + 600 × 300 + 100 × 3 750 + 500 × 15 000 = 8 955 000; × 1.03 = 9 223 650.
    let usage = Usage {
        cache_write: 100,
        ..usage
    };
    upstream.once(
        Answer {
            usage: Some(usage),
            ..Answer::default()
        }
        .into(),
    );
    let answered = cluster
        .ask("laptop", "Why?", &["--model", "anthropic"])
        .await;
    assert_eq!(answered.json["base_nanos"], 8_955_000);
    assert_eq!(answered.charge_nanos(), Some(9_223_650));
    // The published example: 1 000 in, 500 out.
    let usage = Usage {
        prompt: 1000,
        completion: 500,
        ..Usage::default()
    };
    upstream.once(
        Answer {
            usage: Some(usage),
            ..Answer::default()
        }
        .into(),
    );
    assert_eq!(
        cluster.ask("laptop", "Why?", &[]).await.charge_nanos(),
        Some(10_815_000)
    );
}

#[tokio::test]
async fn an_altered_ledger_is_found() {
    let upstream = FakeUpstream::start().await.unwrap();
    let cluster = Cluster::start(Setup::with_upstream(&upstream)).await;
    cluster.enrol("laptop").await;
    let _ = cluster.ask("laptop", "Why?", &[]).await.ended.succeeded();
    let store = rusqlite::Connection::open(cluster.store_path()).unwrap();
    // Whatever forbids it to honest programs: whoever can write the file can drop that.
    let guards: Vec<String> = store
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for guard in guards {
        store
            .execute_batch(&format!("DROP TRIGGER \"{guard}\""))
            .unwrap();
    }
    let altered = store
        .execute(
            "UPDATE entries SET canonical = replace(canonical, '98880', '98881')",
            [],
        )
        .unwrap();
    assert!(altered > 0);
    let ended = cluster.at_gateway("ledger", &["verify", "--json"]).await;
    assert_eq!(ended.code, Some(17), "{}", ended.stderr);
}

#[tokio::test]
async fn a_session_remembers_on_the_device() {
    let upstream = FakeUpstream::start().await.unwrap();
    let cluster = Cluster::start(Setup::with_upstream(&upstream)).await;
    cluster.enrol("laptop").await;
    let session = ["--session", "trip"];
    let _ = cluster
        .ask("laptop", "Where to in May?", &session)
        .await
        .ended
        .succeeded();
    let _ = cluster
        .ask("laptop", "And with children?", &session)
        .await
        .ended
        .succeeded();
    let body = upstream.questions()[1].json();
    let said: Vec<&str> = body["messages"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|m| m["content"].as_str())
        .collect();
    let position = |text: &str| said.iter().position(|s| s.contains(text)).unwrap();
    assert!(position("Where to in May?") < position("The sky is blue"));
    assert!(position("The sky is blue") < position("And with children?"));
}

#[tokio::test]
async fn ctrl_c_stops_the_provider_too_and_what_was_produced_is_charged() {
    let upstream = FakeUpstream::start().await.unwrap();
    let gate = Gate::closed();
    let cluster = Cluster::start(Setup::with_upstream(&upstream)).await;
    cluster.enrol("laptop").await;
    for (n, model) in ["openai", "anthropic"].into_iter().enumerate() {
        upstream.once(
            Answer::of(&["twelve bytes", "never seen"])
                .gated(&gate)
                .into(),
        );
        let mut command = cluster.command("laptop");
        command.args(["cloud", "ask", "Why?", "--model", model]);
        let asking = cluster.spawn("ask", command, None);
        upstream.wait_for(Event::Waiting(n)).await;
        gate.let_through(1);
        asking.line_with("twelve bytes").await;
        asking.interrupt();
        upstream.wait_for(Event::Disconnected(n)).await;
        let ended = asking.ended().await;
        assert_eq!(ended.code, Some(130), "{}", ended.stderr);
        assert_eq!(ended.stdout, "twelve bytes\n");
    }
    let charges = cluster.charges().await;
    assert_eq!(charges.len(), 2);
    // Twelve bytes are three tokens by the estimate of four bytes each.
    assert!(
        charges
            .iter()
            .all(|charge| charge.estimated && charge.tokens.completion == 3)
    );
    // Anthropic had said what the prompt was: 12 × 3 000 + 3 × 15 000 = 81 000; × 1.03 = 83 430.
    assert_eq!(charges[1].charge, Nanos(83_430));
}

#[tokio::test]
async fn an_account_pays_no_more_than_its_ceiling() {
    let upstream = FakeUpstream::start().await.unwrap();
    // One answer of 1 024 tokens may cost 15 810 000 nanos and more: a cent covers none.
    let cluster =
        Cluster::start(Setup::with_upstream(&upstream).set("billing.ceiling", "0.01")).await;
    cluster.enrol("laptop").await;
    let refused = cluster.ask("laptop", "Why?", &[]).await;
    assert_eq!(
        (refused.code(), refused.ended.code),
        (Some("PAYMENT_REQUIRED"), Some(17))
    );
    assert_eq!(upstream.questions().len(), 0);
    let _ = cluster
        .ask("laptop", "Why?", &["--max-tokens", "16"])
        .await
        .ended
        .succeeded();
    assert_eq!(cluster.charges().await.len(), 1);
}

#[tokio::test]
async fn questions_that_break_a_rule_are_refused_before_they_cost_anything() {
    let upstream = FakeUpstream::start().await.unwrap();
    let cluster = Cluster::start(Setup::with_upstream(&upstream)).await;
    cluster.enrol("laptop").await;
    for arguments in [
        ["--max-tokens", "0"],
        ["--max-tokens", "128001"],
        ["--timeout", "601"],
    ] {
        let refused = cluster.ask("laptop", "Why?", &arguments).await;
        assert_eq!(
            refused.ended.code,
            Some(20),
            "{arguments:?}: {}",
            refused.ended.stderr
        );
    }
    let unknown = cluster
        .ask("laptop", "Why?", &["--model", "no-such-model"])
        .await;
    assert_eq!(
        (unknown.code(), unknown.ended.code),
        (Some("INVALID_REQUEST"), Some(20))
    );
    assert!(
        unknown.ended.stderr.contains("anthropic"),
        "the known ones are named"
    );
    assert_eq!(upstream.questions().len(), 0);
    assert_eq!(cluster.charges().await.len(), 0);
}

#[tokio::test]
async fn many_questions_at_once_are_each_answered_and_charged_once() {
    let upstream = FakeUpstream::start().await.unwrap();
    let cluster = Cluster::start(Setup::with_upstream(&upstream)).await;
    cluster.enrol("laptop").await;
    let _agent = cluster.agent("laptop").await;
    let asking: Vec<_> = (0..8)
        .map(|n| cluster.asking("laptop", &format!("{n}?"), &[]))
        .collect();
    for asking in asking {
        let ended = asking.ended().await.succeeded();
        let json: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(json["charge_nanos"], CHARGE_NANOS);
    }
    let charges = cluster.charges().await;
    let mut requests: Vec<_> = charges.iter().map(|charge| charge.request).collect();
    requests.sort_unstable();
    requests.dedup();
    assert_eq!(requests.len(), 8);
    assert_eq!(upstream.questions().len(), 8);
}

#[tokio::test]
async fn up_answers_without_anything_prepared() {
    let folder = tempfile::TempDir::with_prefix("synesis-up-").unwrap();
    let mut command = std::process::Command::new(mesh_tests::process::binary());
    command
        .env_clear()
        .env("HOME", folder.path())
        .arg("--data-dir")
        .arg(folder.path());
    command.args(["up", "--ask", "Why is the sky blue?"]);
    let ended = mesh_tests::process::Process::start("up", command, None)
        .ended()
        .await
        .succeeded();
    assert!(ended.stdout.contains("sky"), "{}", ended.stdout);
    for shown in ["claude_sonnet", "verified"] {
        assert!(ended.stderr.contains(shown), "{shown}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn a_tunnel_takes_many_more_questions_than_it_has_streams() {
    let upstream = FakeUpstream::start().await.unwrap();
    let cluster = Cluster::start(Setup::with_upstream(&upstream)).await;
    cluster.enrol("laptop").await;
    let credentials = Credentials::load(&cluster.device_folder("laptop"));
    let client = Client::connect(credentials.unwrap().unwrap())
        .await
        .unwrap();
    let most = 2 * mesh_core::limits::QUIC_STREAMS_MAX;
    for n in 0..most {
        // Answered streamed, answered whole, and refused: each way a stream can end.
        let question = Question::new("Why?").timeout_secs(5);
        let asked = match n % 3 {
            0 => client.escalate(question).await,
            1 => {
                client
                    .escalate_stream(question)
                    .await
                    .unwrap()
                    .collect()
                    .await
            }
            _ => client.escalate(question.model("no-such-model")).await,
        };
        assert_eq!(asked.is_ok(), n % 3 != 2, "question {n}: {asked:?}");
        if let Err(error) = asked {
            assert_eq!(
                error.code(),
                Some(ErrorCode::InvalidRequest),
                "question {n}: {error}"
            );
        }
    }
    client.close().await;
}
