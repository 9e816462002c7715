//! The gateway in front of a model server that misbehaves in every way the two formats allow:
//! streamed and whole, each failure with its code, its charge and the text that had come.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use mesh_core::billing::money::Nanos;
use mesh_tests::cluster::{Answered, Cluster, Setup};
use mesh_tests::endpoint::{ANTHROPIC, COUNT, OPENAI, World};
use mesh_tests::llama::LlamaServer;
use mesh_tests::upstream::{Answer, Behaviour, Ending, Event, FakeUpstream, Gate, LineEnds, Usage};
use serde_json::{Value, json};

/// 12 prompt and 4 completion tokens at $3 and $15 per million, and 3 % on it.
const CHARGE_NANOS: i64 = 98_880;

const MODELS: [&str; 2] = ["openai", "anthropic"];
const WAYS: [&[&str]; 2] = [&[], &["--no-stream"]];

struct Scene {
    upstream: FakeUpstream,
    cluster: Cluster,
}

impl Scene {
    async fn new() -> Self {
        let upstream = FakeUpstream::start().await.unwrap();
        let cluster = Cluster::start(Setup::with_upstream(&upstream)).await;
        cluster.enrol("laptop").await;
        Self { upstream, cluster }
    }

    async fn ask(&self, model: &str, more: &[&str]) -> Answered {
        let arguments = [&["--model", model][..], more].concat();
        self.cluster.ask("laptop", "Why?", &arguments).await
    }

    /// Asks in both formats, streamed and whole.
    async fn ask_each(&self, behaviour: impl Fn() -> Behaviour) -> Vec<Answered> {
        let mut answers = Vec::new();
        for model in MODELS {
            for way in WAYS {
                self.upstream.once(behaviour());
                answers.push(self.ask(model, way).await);
            }
        }
        answers
    }

    fn asked(&self) -> usize {
        self.upstream.questions().len()
    }
}

fn assert_whole(answered: &Answered, text: &str) {
    let _ = answered.ended.clone().succeeded();
    assert_eq!(answered.content(), text);
    assert_eq!(answered.json["finish_reason"], "stop");
    assert_eq!(answered.charge_nanos(), Some(CHARGE_NANOS));
}

#[tokio::test]
async fn a_wrong_key_is_final_free_and_the_operators_business() {
    let scene = Scene::new().await;
    for refused in scene.ask_each(|| Behaviour::refuse(401)).await {
        assert_eq!(
            (refused.code(), refused.ended.code),
            (Some("UPSTREAM_ERROR"), Some(16))
        );
        assert!(
            refused.ended.stderr.contains("operator"),
            "{}",
            refused.ended.stderr
        );
    }
    assert_eq!(scene.asked(), 4, "never tried again");
    assert!(scene.cluster.charges().await.is_empty());
}

#[tokio::test]
async fn a_rate_limit_is_waited_out_as_long_as_the_provider_asks() {
    let scene = Scene::new().await;
    for model in MODELS {
        let message = "slow down".to_owned();
        scene.upstream.once(Behaviour::Refuse {
            status: 429,
            retry_after: Some(1),
            message,
        });
        let asked = Instant::now();
        let answered = scene.ask(model, &[]).await;
        assert!(
            asked.elapsed() >= Duration::from_secs(1),
            "{:?}",
            asked.elapsed()
        );
        assert_whole(&answered, &Answer::default().text());
    }
    assert_eq!(scene.asked(), 4);
    assert_eq!(scene.cluster.charges().await.len(), 2);
}

#[tokio::test]
async fn a_rate_limit_past_the_deadline_is_passed_on_at_once() {
    let scene = Scene::new().await;
    let message = || "come back later".to_owned();
    let limited = || Behaviour::Refuse {
        status: 429,
        retry_after: Some(120),
        message: message(),
    };
    for refused in scene.ask_each(limited).await {
        assert_eq!(refused.code(), Some("UPSTREAM_ERROR"));
        assert_eq!(refused.ended.code, Some(16));
    }
    assert_eq!(scene.asked(), 4);
    assert!(scene.cluster.charges().await.is_empty());
}

#[tokio::test]
async fn a_server_error_is_tried_again_and_charged_once() {
    let scene = Scene::new().await;
    for model in MODELS {
        scene.upstream.once(Behaviour::refuse(500));
        scene.upstream.once(Behaviour::Drop);
        let answered = scene.ask(model, &[]).await;
        assert_whole(&answered, &Answer::default().text());
    }
    assert_eq!(scene.asked(), 6);
    assert_eq!(scene.cluster.charges().await.len(), 2);
}

#[tokio::test]
async fn a_server_error_that_stays_is_reported_after_three_attempts() {
    let scene = Scene::new().await;
    scene.upstream.always(Behaviour::refuse(500));
    for model in MODELS {
        let refused = scene.ask(model, &[]).await;
        assert_eq!(
            (refused.code(), refused.ended.code),
            (Some("UPSTREAM_ERROR"), Some(16))
        );
    }
    assert_eq!(scene.asked(), 6);
    assert!(scene.cluster.charges().await.is_empty());
}

#[tokio::test]
async fn a_server_that_hangs_before_the_first_token_is_given_up_and_hung_up_on() {
    let scene = Scene::new().await;
    let mut n = 0;
    for hanging in [Behaviour::Hang, Behaviour::HangAfterHead] {
        for model in MODELS {
            scene.upstream.once(hanging.clone());
            let refused = scene.ask(model, &["--timeout", "1"]).await;
            assert_eq!(
                refused.code(),
                Some("UPSTREAM_TIMEOUT"),
                "{}",
                refused.ended.stderr
            );
            assert_eq!(refused.ended.code, Some(15));
            scene.upstream.wait_for(Event::Disconnected(n)).await;
            n += 1;
        }
    }
    assert!(scene.cluster.charges().await.is_empty());
}

#[tokio::test]
async fn a_stream_that_breaks_off_keeps_its_text_and_charges_what_was_produced() {
    let scene = Scene::new().await;
    // 32 bytes of text: eight tokens by the estimate of four bytes each.
    let answer = || Answer::of(&["0123456789abcdef", "0123456789abcdef"]);
    let endings = [
        Ending::Cut,
        Ending::Reset,
        Ending::Malformed,
        Ending::Truncated,
        Ending::ErrorEvent("overloaded".to_owned()),
    ];
    for ending in &endings {
        for model in MODELS {
            scene.upstream.once(answer().ending(ending.clone()).into());
            let broken = scene.ask(model, &[]).await;
            assert_eq!(
                broken.code(),
                Some("UPSTREAM_ERROR"),
                "{ending:?} {}",
                broken.ended.stderr
            );
            assert_eq!(broken.ended.code, Some(16), "{ending:?}");
            assert_eq!(broken.content(), answer().text(), "{ending:?}");
        }
    }
    assert_eq!(scene.asked(), 10, "never tried again after the first piece");
    let charges = scene.cluster.charges().await;
    assert_eq!(charges.len(), 10);
    for charge in charges {
        assert!(charge.estimated);
        assert_eq!(charge.tokens.completion, 8);
        if charge.model == "anthropic" {
            // The prompt was counted: 12 × 3 000 + 8 × 15 000 = 156 000; × 1.03 = 160 680.
            assert_eq!(charge.charge, Nanos(160_680));
        }
    }
}

#[tokio::test]
async fn an_unstreamed_answer_that_breaks_off_keeps_its_text_too() {
    let scene = Scene::new().await;
    for model in MODELS {
        let answer = Answer::of(&["what there is"]);
        scene
            .upstream
            .once(answer.clone().ending(Ending::Cut).into());
        let broken = scene.ask(model, &["--no-stream"]).await;
        assert_eq!(
            broken.code(),
            Some("UPSTREAM_ERROR"),
            "{}",
            broken.ended.stderr
        );
        assert_eq!(broken.content(), answer.text());
    }
    assert_eq!(scene.cluster.charges().await.len(), 2);
}

#[tokio::test]
async fn carriage_returns_split_characters_and_comments_change_nothing() {
    let scene = Scene::new().await;
    let text = ["Blau ", "– 青い ", "🌌", "!"];
    let crlf = || Answer {
        line_ends: LineEnds::Crlf,
        ..Answer::of(&text)
    };
    let split = || Answer {
        write_bytes: Some(1),
        ..crlf()
    };
    let comments = || Answer {
        comments: true,
        ..split()
    };
    for odd in [&crlf as &dyn Fn() -> Answer, &split, &comments] {
        for answered in scene.ask_each(|| odd().into()).await {
            assert_whole(&answered, &text.concat());
        }
    }
    assert_eq!(scene.cluster.charges().await.len(), 12);
}

#[tokio::test]
async fn an_answer_without_usage_is_charged_by_an_estimate_that_says_so() {
    let scene = Scene::new().await;
    let silent = || Answer {
        usage: None,
        ..Answer::of(&["0123456789abcdef"])
    };
    for answered in scene.ask_each(|| silent().into()).await {
        let _ = answered.ended.clone().succeeded();
        assert_eq!(answered.json["estimated"], true);
        assert_eq!(answered.json["tokens"]["completion"], 4);
        let prompt = answered.json["tokens"]["prompt"].as_i64().unwrap();
        // To the tenth of a nano: (prompt × 3 000 + 4 × 15 000) × 1.03 is whole here.
        assert_eq!(
            answered.charge_nanos(),
            Some((prompt * 3000 + 60_000) * 103 / 100)
        );
    }
}

#[tokio::test]
async fn cumulative_usage_is_counted_once() {
    let scene = Scene::new().await;
    let usage = Usage {
        prompt: 100,
        completion: 40,
        reasoning: 30,
        ..Usage::default()
    };
    let answer = || Answer {
        usage: Some(usage),
        finish: "length",
        ..Answer::of(&["short"])
    };
    for answered in scene.ask_each(|| answer().into()).await {
        let _ = answered.ended.clone().succeeded();
        assert_eq!(answered.json["finish_reason"], "length");
        // 100 × 3 000 + 40 × 15 000 = 900 000; × 1.03 = 927 000.
        assert_eq!(answered.charge_nanos(), Some(927_000));
    }
}

#[tokio::test]
async fn a_gateway_that_is_told_to_stop_at_once_stops_the_provider_and_books_its_loss() {
    let scene = Scene::new().await;
    let gate = Gate::closed();
    scene.upstream.once(
        Answer::of(&["0123456789abcdef", "never"])
            .gated(&gate)
            .into(),
    );
    let mut command = scene.cluster.command("laptop");
    command.args(["cloud", "ask", "Why?"]);
    let asking = scene.cluster.spawn("ask", command, None);
    scene.upstream.wait_for(Event::Waiting(0)).await;
    gate.let_through(1);
    asking.line_with("0123456789abcdef").await;
    scene.cluster.gateway().terminate();
    scene.cluster.gateway().line_with("going away").await;
    scene.cluster.gateway().terminate();
    scene.upstream.wait_for(Event::Disconnected(0)).await;
    let _ = asking.ended().await;
    scene.cluster.gateway().line_with("Stopping now").await;
    let records = scene.cluster.records().await;
    assert!(records.iter().all(|record| record.charge().is_none()));
    let losses: Vec<_> = records.iter().filter_map(|record| record.loss()).collect();
    // Sixteen bytes are four tokens, by the usual estimate.
    assert_eq!(losses.len(), 1);
    assert_eq!(losses[0].tokens.completion, 4);
}

#[tokio::test]
async fn a_real_servers_transcripts_come_through_whole() {
    let scene = Scene::new().await;
    let recorded = [
        include_str!("../../core/src/dialect/testdata/openai-stream.sse"),
        include_str!("../../core/src/dialect/testdata/anthropic-stream.sse"),
    ];
    for (model, recorded) in MODELS.into_iter().zip(recorded) {
        scene
            .upstream
            .once(Behaviour::Transcript(recorded.to_owned()));
        let answered = scene.ask(model, &[]).await;
        let _ = answered.ended.clone().succeeded();
        assert_eq!(
            answered.json["tokens"]["completion"], 12,
            "{}",
            answered.json
        );
        assert_eq!(answered.json["estimated"], false);
        assert!(
            answered.content().starts_with(" over"),
            "{}",
            answered.content()
        );
    }
}

/// llama.cpp's own server, asked through a device's endpoint and a tunnel, in each client's format and
/// each of the server's.
#[tokio::test]
async fn a_real_model_server_answers_in_both_formats() {
    let Some(server) = LlamaServer::start().await else {
        return;
    };
    let world = World::before(server.address(), "").await;
    for model in MODELS {
        for streamed in [true, false] {
            for path in [OPENAI, ANTHROPIC] {
                let mut body = json!({"model": model, "max_tokens": 12, "stream": streamed});
                body["messages"] = json!([{"role": "user", "content": "Why is the sky blue?"}]);
                let reply = world.ask(path, "", &body).await;
                assert_eq!(reply.status, 200, "{model} {path}: {}", reply.body);
                assert_eq!(reply.header("x-synesis-route"), Some("cloud"));
                let text = if streamed {
                    assert!(reply.body.contains("length") || reply.body.contains("max_tokens"));
                    said(&reply.body, path)
                } else if path == OPENAI {
                    assert_eq!(reply.json()["usage"]["completion_tokens"], 12);
                    whole(&reply.json()["choices"][0]["message"]["content"])
                } else {
                    assert_eq!(reply.json()["usage"]["output_tokens"], 12);
                    whole(&reply.json()["content"][0]["text"])
                };
                assert_eq!(text.split_whitespace().count(), 12, "{text}");
            }
        }
        // And what `cloud ask` says of it.
        let answered = world
            .cluster
            .ask(
                "laptop",
                "Why is the sky blue?",
                &["--model", model, "--max-tokens", "12"],
            )
            .await;
        let _ = answered.ended.clone().succeeded();
        let tokens = |of: &str| answered.json["tokens"][of].as_i64().unwrap();
        assert_eq!(tokens("completion"), 12);
        assert!(tokens("prompt") > 20 && answered.json["estimated"] == false);
    }
    let charges = world.cluster.charges().await;
    assert_eq!(charges.len(), 10);
    assert!(charges.iter().all(|charge| !charge.estimated));
    let mut body = json!({"model": "anthropic"});
    body["messages"] = json!([{"role": "user", "content": "Why is the sky blue?"}]);
    let counted = world.ask(COUNT, "", &body).await;
    assert!(
        counted.json()["input_tokens"].as_u64().unwrap() > 20,
        "{}",
        counted.body
    );
    assert_eq!(world.cluster.charges().await.len(), 10, "a count is free");
}

/// The same server as this device's own: nothing of the question reaches the gateway.
#[tokio::test]
async fn a_real_model_server_on_the_device_is_asked_first_and_nothing_leaves() {
    let Some(server) = LlamaServer::start().await else {
        return;
    };
    for (dialect, version) in [("openai", "/v1"), ("anthropic", "")] {
        let settings = format!(
            "[local]\nbase_url = \"http://{}{version}\"\ndialect = \"{dialect}\"\n",
            server.address()
        );
        let world = World::with(&settings).await;
        for model in ["local/tiny", "auto"] {
            for path in [OPENAI, ANTHROPIC] {
                let mut body = json!({"model": model, "max_tokens": 12});
                body["messages"] = json!([{"role": "user", "content": "Why is the sky blue?"}]);
                let reply = world.ask(path, "", &body).await;
                assert_eq!(reply.status, 200, "{dialect} {path}: {}", reply.body);
                assert_eq!(reply.header("x-synesis-route"), Some("local"));
                body["stream"] = true.into();
                let reply = world.ask(path, "", &body).await;
                let text = said(&reply.body, path);
                assert_eq!(text.split_whitespace().count(), 12, "{text}");
            }
        }
        let listed = world.get("/v1/models/local/tiny", "").await;
        assert_eq!(listed.json()["id"], "local/tiny", "{}", listed.body);
        assert!(world.upstream.questions().is_empty());
        assert!(world.cluster.charges().await.is_empty());
    }
}

fn whole(text: &Value) -> String {
    text.as_str().unwrap().to_owned()
}

/// The text of an event stream.
fn said(events: &str, path: &str) -> String {
    let data = events
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    data.filter_map(|data| {
        let data: Value = serde_json::from_str(data).ok()?;
        let text = match path {
            OPENAI => &data["choices"][0]["delta"]["content"],
            _ => &data["delta"]["text"],
        };
        text.as_str().map(str::to_owned)
    })
    .collect()
}
