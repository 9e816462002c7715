//! The official clients of OpenAI and Anthropic, driving the device's endpoint through a real tunnel.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::Command;

use mesh_tests::cluster::{ACCOUNT, Setup};
use mesh_tests::endpoint::{MAIL, OPENAI, World, openai};
use mesh_tests::upstream::{Answer, Behaviour, Event, FakeUpstream, Gate};
use serde_json::{Value, json};

/// Where the official clients are installed; a line that cannot be overlooked when they are not.
fn clients() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("TEST_CLIENTS_DIR") {
        return Some(folder.into());
    }
    let required = std::env::var("TEST_CLIENTS").is_ok_and(|value| value == "required");
    assert!(
        !required,
        "TEST_CLIENTS_DIR does not say where the official clients are"
    );
    eprintln!(
        "SKIPPED: the official clients are not installed. TEST_CLIENTS_DIR=$(tests/clients/install) runs this test"
    );
    None
}

/// One official client and the dialect that it speaks.
#[derive(Clone, Copy, Debug)]
struct Client {
    script: &'static str,
    anthropic: bool,
}

const CLIENTS: [Client; 4] = [
    Client {
        script: "openai_client.py",
        anthropic: false,
    },
    Client {
        script: "openai_client.mjs",
        anthropic: false,
    },
    Client {
        script: "anthropic_client.py",
        anthropic: true,
    },
    Client {
        script: "anthropic_client.mjs",
        anthropic: true,
    },
];

impl Client {
    /// What the client saw in each scenario, played with a model.
    async fn plays(
        self,
        world: &World,
        folder: &PathBuf,
        scenes: &[(&str, &str)],
    ) -> VecDeque<Value> {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("clients")
            .join(self.script);
        let program = if self.script.ends_with(".py") {
            folder.join("python/bin/python")
        } else {
            PathBuf::from("node")
        };
        let mut command = Command::new(program);
        command
            .arg(script)
            .args(
                scenes
                    .iter()
                    .flat_map(|(scenario, model)| [scenario, model]),
            )
            .env("TEST_CLIENTS_FOLDER", folder)
            .env("OPENAI_BASE_URL", format!("http://{}/v1", world.address))
            .env("ANTHROPIC_BASE_URL", format!("http://{}", world.address))
            .env("OPENAI_API_KEY", &world.key)
            .env("ANTHROPIC_API_KEY", &world.key);
        for proxy in [
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "http_proxy",
            "https_proxy",
            "all_proxy",
        ] {
            command.env_remove(proxy);
        }
        let ended = world
            .cluster
            .spawn("client", command, None)
            .ended()
            .await
            .succeeded();
        let lines = ended.stdout.lines();
        let seen: VecDeque<Value> = lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(seen.len(), scenes.len());
        seen
    }
}

/// What the client's dialect calls an end.
fn end(client: Client, openai: &'static str, anthropic: &'static str) -> &'static str {
    if client.anthropic { anthropic } else { openai }
}

#[tokio::test]
async fn the_official_clients_chat_stream_and_list_models_through_either_server() {
    let Some(folder) = clients() else { return };
    let world = World::start().await;
    world
        .upstream
        .always(Answer::of(&["Dear [EMA", "IL_1],", " hello."]).into());
    let text = format!("Dear {MAIL}, hello.");
    let usage = json!({"prompt": 12, "completion": 3});
    let ways = ["chat", "stream", "stream_with_usage"];
    let mut scenes: Vec<_> = ways.map(|way| (way, "openai")).into();
    scenes.extend(ways.map(|way| (way, "anthropic")));
    scenes.push(("models", "auto"));
    for client in CLIENTS {
        let mut seen = client.plays(&world, &folder, &scenes).await;
        for model in ["openai", "anthropic"] {
            let chat = seen.pop_front().unwrap();
            assert_eq!(chat["text"], text, "{client:?} {model}");
            assert_eq!(chat["finish"], end(client, "stop", "end_turn"));
            assert_eq!(chat["usage"], usage);
            assert!(chat["request_id"].as_str().unwrap().starts_with("req_"));
            let streamed = seen.pop_front().unwrap();
            assert_eq!(streamed["text"], text, "{client:?} {model}");
            assert_eq!(streamed["finish"], end(client, "stop", "end_turn"));
            if !client.anthropic {
                assert_eq!(streamed["ids"], 1);
                assert_eq!(streamed["usage"], Value::Null);
            }
            let streamed = seen.pop_front().unwrap();
            assert_eq!(streamed["usage"], usage, "{client:?} {model}");
        }
        let expected = json!({"models": ["auto", "anthropic", "loopback", "openai"]});
        assert_eq!(seen.pop_front().unwrap(), expected, "{client:?}");
    }
}

/// A tool call as each kind of server streams it, with a token in its arguments.
fn tool_call(model: &str) -> Behaviour {
    let arguments = ["{\"city\":\"Kiel\",\"to\":\"[EMA", "IL_1]\"}"];
    let mut events = String::new();
    if model == "openai" {
        let mut chunk = |delta: Value, finish: Value| {
            let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
            events += &format!("data: {}\n\n", json!({"model": "m", "choices": [choice]}));
        };
        let begin = json!({"name": "weather", "arguments": ""});
        chunk(
            json!({"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": begin}]}),
            Value::Null,
        );
        for part in arguments {
            chunk(
                json!({"tool_calls": [{"index": 0, "function": {"arguments": part}}]}),
                Value::Null,
            );
        }
        chunk(json!({}), json!("tool_calls"));
        events += "data: [DONE]\n\n";
        return Behaviour::Transcript(events);
    }
    let mut event = |data: Value| {
        events += &format!(
            "event: {}\ndata: {data}\n\n",
            data["type"].as_str().unwrap()
        );
    };
    event(
        json!({"type": "message_start", "message": {"model": "m", "content": [],
        "usage": {"input_tokens": 5, "output_tokens": 1}}}),
    );
    event(json!({"type": "content_block_start", "index": 0,
        "content_block": {"type": "tool_use", "id": "c1", "name": "weather", "input": {}}}));
    for part in arguments {
        event(json!({"type": "content_block_delta", "index": 0,
            "delta": {"type": "input_json_delta", "partial_json": part}}));
    }
    event(json!({"type": "content_block_stop", "index": 0}));
    event(
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}}),
    );
    event(json!({"type": "message_stop"}));
    Behaviour::Transcript(events)
}

#[tokio::test]
async fn the_official_clients_call_tools_and_give_their_results_back() {
    let Some(folder) = clients() else { return };
    let world = World::start().await;
    for client in CLIENTS {
        let mut scenes = Vec::new();
        for model in ["openai", "anthropic"] {
            world.upstream.once(tool_call(model));
            world.upstream.once(Answer::of(&["It rains."]).into());
            world.upstream.once(tool_call(model));
            scenes.extend([("tools", model), ("tools_streamed", model)]);
        }
        let before = world.upstream.questions().len();
        let mut seen = client.plays(&world, &folder, &scenes).await;
        let questions = world.upstream.questions().split_off(before);
        for (model, questions) in ["openai", "anthropic"].into_iter().zip(questions.chunks(3)) {
            let called = seen.pop_front().unwrap();
            assert_eq!(called["name"], "weather", "{client:?} {model}");
            assert_eq!(called["arguments"], json!({"city": "Kiel", "to": MAIL}));
            assert_eq!(called["finish"], end(client, "tool_calls", "tool_use"));
            assert_eq!(called["text"], "It rains.");
            let body = String::from_utf8_lossy(&questions[1].body).into_owned();
            assert!(body.contains("rain") && body.contains("c1"), "{body}");
            assert!(!body.contains(MAIL), "{body}");
            assert_eq!(
                seen.pop_front().unwrap(),
                json!({"name": "weather", "arguments": {"city": "Kiel", "to": MAIL}}),
                "{client:?} {model}"
            );
        }
    }
}

#[tokio::test]
async fn the_official_clients_raise_the_exception_that_each_error_deserves() {
    let Some(folder) = clients() else { return };
    let world = World::start().await;
    let ceiling = ["account", "ceiling", ACCOUNT, "1"];
    let _ = world.cluster.admin(&ceiling).await.succeeded();
    for client in CLIENTS {
        world.upstream.once(Behaviour::refuse(400));
        // As often as the gateway asks.
        for _ in 0..3 {
            world.upstream.once(Behaviour::refuse(500));
        }
        let scenes = [
            ("errors", "openai"),
            ("errors", "anthropic"),
            ("unpaid", "openai"),
        ];
        let mut seen = client.plays(&world, &folder, &scenes).await;
        let caught = seen.pop_front().unwrap();
        let class = |name: &str| {
            (
                caught[name]["class"].clone(),
                caught[name]["status"].clone(),
            )
        };
        for (name, expected, status) in [
            ("unauthorized", "AuthenticationError", 401),
            ("forbidden", "PermissionDeniedError", 403),
            ("bad_field", "BadRequestError", 400),
            ("not_found", "NotFoundError", 404),
            ("upstream", "BadRequestError", 400),
        ] {
            assert_eq!(
                class(name),
                (json!(expected), json!(status)),
                "{client:?} {name}: {caught}"
            );
        }
        assert_eq!(class("unpaid").1, 402, "{client:?}: {caught}");
        if !client.anthropic {
            assert_eq!(caught["bad_field"]["param"], "n");
        }
        let caught = seen.pop_front().unwrap();
        assert_eq!(
            caught["upstream"]["class"], "InternalServerError",
            "{client:?}: {caught}"
        );
        // A client that would retry is told that it cannot help.
        let unpaid = seen.pop_front().unwrap();
        assert_eq!(
            (
                &unpaid["status"],
                &unpaid["retries"],
                &unpaid["should_retry"]
            ),
            (&json!(402), &json!(0), &json!("false")),
            "{client:?}: {unpaid}"
        );
    }
}

#[tokio::test]
async fn the_official_clients_wait_for_a_rate_and_not_for_a_quota() {
    let Some(folder) = clients() else { return };
    let upstream = FakeUpstream::start().await.unwrap();
    let setup = Setup::with_upstream(&upstream).set("answers.account_per_minute", "5");
    let world = World::of(setup, upstream, "").await;
    let free = ["account", "tier", ACCOUNT, "free"];
    let _ = world.cluster.admin(&free).await.succeeded();
    // A small one is within the quota of a dollar; the longest answer is not.
    assert_eq!(world.ask(OPENAI, "", &openai("openai")).await.status, 200);
    // Refused for the quota, they count for the rate all the same.
    for client in CLIENTS {
        let quota = &client.plays(&world, &folder, &[("unpaid", "openai")]).await[0];
        assert_eq!(
            (&quota["status"], &quota["retries"], &quota["should_retry"]),
            (&json!(429), &json!(0), &json!("false")),
            "{client:?}: {quota}"
        );
    }
    for client in CLIENTS {
        let limited = &client
            .plays(&world, &folder, &[("limited", "openai")])
            .await[0];
        assert_eq!(
            (
                &limited["class"],
                &limited["status"],
                &limited["should_retry"]
            ),
            (&json!("RateLimitError"), &json!(429), &Value::Null),
            "{client:?}: {limited}"
        );
        let secs: u32 = limited["retry_after"].as_str().unwrap().parse().unwrap();
        assert!((1..=60).contains(&secs), "{secs}");
    }
}

#[tokio::test]
async fn the_official_clients_parameters_pictures_and_counts_arrive() {
    let Some(folder) = clients() else { return };
    let local = FakeUpstream::start().await.unwrap();
    local.always(Answer::of(&["from here"]).into());
    let url = format!("http://{}/v1", local.address());
    let world = World::with(&format!("[local]\nbase_url = \"{url}\"\n")).await;
    for client in CLIENTS {
        let native = end(client, "openai", "anthropic");
        let mut scenes = vec![("fields", native), ("route", "local/scripted")];
        if client.anthropic {
            scenes.extend([("fields", "openai"), ("count", "anthropic")]);
        }
        let before = world.upstream.questions().len();
        let mut seen = client.plays(&world, &folder, &scenes).await;
        let questions = world.upstream.questions().split_off(before);
        let native = questions[0].json();
        assert_eq!(native["temperature"], 0.25, "{client:?}");
        let picture = &native["messages"][0]["content"][1];
        if client.anthropic {
            assert_eq!(native["stop_sequences"], json!(["END"]));
            assert_eq!(native["system"], "Be brief.");
            assert_eq!(picture["source"]["data"], "iVBORw0KGgo=");
            assert_eq!(native["max_tokens"], 33);
            let other = questions[1].json();
            assert_eq!(other["temperature"], 0.25);
            assert_eq!(other["stop"], json!(["END"]));
            let picture = &other["messages"][1]["content"][1]["image_url"]["url"];
            assert_eq!(picture, "data:image/png;base64,iVBORw0KGgo=");
        } else {
            assert_eq!(native["seed"], 7);
            assert_eq!(native["response_format"], json!({"type": "json_object"}));
            assert_eq!(native["max_tokens"], 33);
            let url = &picture["image_url"]["url"];
            assert_eq!(url, "data:image/png;base64,iVBORw0KGgo=");
        }
        let _fields = seen.pop_front().unwrap();
        let route = seen.pop_front().unwrap();
        assert_eq!(route, json!({"route": "local", "text": "from here"}));
        if client.anthropic {
            assert_eq!(seen[1], json!({"tokens": 12}), "{client:?}");
        }
    }
    assert_eq!(local.questions().len(), CLIENTS.len());
}

#[tokio::test]
async fn the_official_clients_close_a_stream_and_the_model_server_sees_it() {
    let Some(folder) = clients() else { return };
    let world = World::start().await;
    for (number, client) in CLIENTS.into_iter().enumerate() {
        let gate = Gate::closed();
        gate.let_through(1);
        world
            .upstream
            .once(Answer::of(&["one", "two"]).gated(&gate).into());
        let closed = &client.plays(&world, &folder, &[("close", "openai")]).await[0];
        assert_eq!(closed, &json!({"closed": true}));
        world.upstream.wait_for(Event::Disconnected(number)).await;
    }
}
