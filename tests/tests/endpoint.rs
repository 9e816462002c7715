//! The device's local endpoint, through a real tunnel to a scripted model server: by hand over raw
//! sockets, and driven by the official clients of OpenAI and Anthropic.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::path::PathBuf;
use std::process::Command;

use mesh_tests::cluster::{ACCOUNT, Cluster, Setup};
use mesh_tests::process::Process;
use mesh_tests::upstream::{Answer, Behaviour, Event, FakeUpstream, Gate};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const MAIL: &str = "ada@example.com";

/// A gateway, an agent and its endpoint.
struct World {
    upstream: FakeUpstream,
    cluster: Cluster,
    _agent: Process,
    address: String,
    key: String,
}

/// An HTTP answer.
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

impl World {
    async fn start() -> Self {
        let upstream = FakeUpstream::start().await.unwrap();
        let cluster = Cluster::start(
            Setup::with_upstream(&upstream)
                // Hundreds of questions in a minute.
                .set("answers.device_per_minute", "100000")
                .set("answers.account_per_minute", "100000"),
        )
        .await;
        cluster.enrol("laptop").await;
        let agent = cluster.agent("laptop").await;
        let line = agent.line(|line| line.starts_with("Endpoint ")).await;
        let address = line.split("http://").nth(1).unwrap();
        let address = address.split('/').next().unwrap().to_owned();
        let mut command = cluster.command("laptop");
        command.arg("env");
        let printed = cluster
            .spawn("env", command, None)
            .ended()
            .await
            .succeeded();
        let key = printed.stdout.split("OPENAI_API_KEY=\"").nth(1).unwrap();
        let key = key.split('"').next().unwrap().to_owned();
        Self {
            upstream,
            cluster,
            _agent: agent,
            address,
            key,
        }
    }

    /// Head and body of a request with the key and a right host.
    fn post(&self, path: &str, headers: &str, body: &str) -> String {
        let (key, length) = (&self.key, body.len());
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost:4141\r\nAuthorization: Bearer {key}\r\n\
             Connection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        )
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.unwrap()
    }

    async fn send(&self, request: &str) -> Reply {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let _closed = stream.read_to_end(&mut bytes).await;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let head = head.to_ascii_lowercase();
        let chunked = head.contains("transfer-encoding: chunked");
        Reply {
            status: head
                .split(' ')
                .nth(1)
                .and_then(|s| s.parse().ok())
                .unwrap_or(0),
            body: if chunked {
                dechunked(body)
            } else {
                body.to_owned()
            },
            head,
        }
    }

    async fn ask(&self, path: &str, headers: &str, body: &Value) -> Reply {
        self.send(&self.post(path, headers, &body.to_string()))
            .await
    }
}

fn dechunked(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        out.push_str(rest.get(..size).unwrap_or_default());
        body = rest.get(size + 2..).unwrap_or_default();
    }
    out
}

fn openai(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": format!("Write to {MAIL}.")}]})
}

const OPENAI: &str = "/v1/chat/completions";
const ANTHROPIC: &str = "/v1/messages";

#[tokio::test]
async fn either_dialect_reaches_either_kind_of_model_server_and_what_is_private_stays_here() {
    let world = World::start().await;
    world
        .upstream
        .always(Answer::of(&["Dear [EMA", "IL_1], hello."]).into());
    for model in ["openai", "anthropic", "auto", "cloud/anthropic"] {
        let reply = world.ask(OPENAI, "", &openai(model)).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        let message = &reply.json()["choices"][0]["message"];
        assert_eq!(
            message["content"],
            format!("Dear {MAIL}, hello."),
            "{model}"
        );
        assert_eq!(reply.json()["usage"]["total_tokens"], 14);
        assert_eq!(reply.header("x-synesis-route"), Some("cloud"));
        let mut body = openai(model);
        body["max_tokens"] = 50.into();
        let reply = world
            .ask(ANTHROPIC, "anthropic-version: 2023-06-01\r\n", &body)
            .await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        assert_eq!(
            reply.json()["content"][0]["text"],
            format!("Dear {MAIL}, hello.")
        );
        assert_eq!(reply.json()["usage"]["output_tokens"], 2);
        assert!(
            reply
                .header("request-id")
                .is_some_and(|id| id.starts_with("req_"))
        );
    }
    let questions = world.upstream.questions();
    assert_eq!(questions.len(), 8);
    for question in questions {
        let body = String::from_utf8_lossy(&question.body);
        assert!(body.contains("Write to [EMAIL_1]."), "{body}");
        assert!(
            !body.contains("ada") && !body.contains(&world.key),
            "{body}"
        );
    }
    assert_eq!(world.cluster.charges().await.len(), 8);
    assert!(!world.cluster.everything_printed().contains(MAIL));
}

#[tokio::test]
async fn a_stream_comes_piece_by_piece_with_its_dialects_beginning_and_end() {
    let world = World::start().await;
    let gate = Gate::closed();
    world
        .upstream
        .once(Answer::of(&["one", " two"]).gated(&gate).into());
    let mut body = openai("anthropic");
    body["stream"] = true.into();
    let mut stream = world.connect().await;
    let request = world.post(OPENAI, "", &body.to_string());
    stream.write_all(request.as_bytes()).await.unwrap();
    world.upstream.wait_for(Event::Waiting(0)).await;
    gate.let_through(1);
    let mut seen = String::new();
    while !seen.contains("\"one\"") {
        let mut bytes = [0; 4096];
        let length = stream.read(&mut bytes).await.unwrap();
        assert_ne!(length, 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
    // The second piece is still held: what is seen came as a stream.
    assert!(
        seen.contains("text/event-stream") && !seen.contains("two"),
        "{seen}"
    );
    gate.open();
    stream.read_to_string(&mut seen).await.unwrap();
    assert!(
        seen.contains("\" two\"") && seen.contains("data: [DONE]"),
        "{seen}"
    );

    world.upstream.once(Answer::of(&["one"]).into());
    body["max_tokens"] = 9.into();
    let reply = world.ask(ANTHROPIC, "", &body).await;
    assert!(
        reply.body.starts_with("event: message_start\n"),
        "{}",
        reply.body
    );
    assert!(
        reply
            .body
            .trim_end()
            .ends_with("data: {\"type\":\"message_stop\"}"),
        "{}",
        reply.body
    );
}

#[tokio::test]
async fn strangers_and_malformed_requests_are_refused_in_the_dialect_of_the_path() {
    let world = World::start().await;
    let body = openai("auto").to_string();
    let request = world.post(OPENAI, "", &body);
    let length = format!("Content-Length: {}", body.len());
    for (request, status, kind) in [
        (
            request.replace(&world.key, "si_live_nobody"),
            401,
            "authentication_error",
        ),
        (
            request.replace("Authorization", "X-Nothing"),
            401,
            "authentication_error",
        ),
        (
            request.replace("localhost:4141", "evil.example"),
            403,
            "permission_error",
        ),
        (
            request.replace("Host: localhost:4141\r\n", ""),
            403,
            "permission_error",
        ),
        (
            request.replace("Connection", "Origin: https://evil.example\r\nConnection"),
            403,
            "permission_error",
        ),
        (
            request.replace("Connection", "Origin: null\r\nConnection"),
            403,
            "permission_error",
        ),
        (
            request.replace("Connection", "Sec-Fetch-Site: cross-site\r\nConnection"),
            403,
            "permission_error",
        ),
        (
            request
                .replace("POST", "OPTIONS")
                .replace("Connection", "Origin: https://evil.example\r\nConnection"),
            403,
            "permission_error",
        ),
        (
            request.replace("/v1/chat", "/v2/chat"),
            404,
            "invalid_request_error",
        ),
        (request.replace("POST", "PUT"), 405, "invalid_request_error"),
        (
            request.replace(&length, "Content-Length: 99999999999"),
            413,
            "invalid_request_error",
        ),
        (world.post(OPENAI, "", ""), 400, "invalid_request_error"),
        (
            world.post(OPENAI, "", "{\"model\":"),
            400,
            "invalid_request_error",
        ),
        (world.post(OPENAI, "", "[]"), 400, "invalid_request_error"),
        (
            world.post(OPENAI, "", "{\"model\":\"auto\"}"),
            400,
            "invalid_request_error",
        ),
        (
            world.post(OPENAI, "", "{\"model\":\"nobody\",\"messages\":[]}"),
            400,
            "invalid_request_error",
        ),
        (
            world.post(OPENAI, "", "{\"model\":\"local/x\",\"messages\":[]}"),
            400,
            "invalid_request_error",
        ),
        (
            world.post(
                OPENAI,
                &format!("Idempotency-Key: {}\r\n", "x".repeat(300)),
                &body,
            ),
            400,
            "invalid_request_error",
        ),
    ] {
        let shown = request.lines().take(9).collect::<Vec<_>>().join(" | ");
        let reply = world.send(&request).await;
        assert_eq!(reply.status, status, "{shown}: {}", reply.body);
        assert_eq!(
            reply.json()["error"]["type"],
            kind,
            "{shown}: {}",
            reply.body
        );
        assert_eq!(reply.header("x-should-retry"), Some("false"), "{shown}");
    }
    let reply = world.ask(ANTHROPIC, "", &openai("auto")).await;
    assert_eq!(reply.status, 400);
    assert_eq!(reply.json()["type"], "error");
    let message = reply.json()["error"]["message"].clone();
    assert_eq!(message, "max_tokens is required");
    // What ends in the middle of its body hurts nobody else.
    let mut stream = world.connect().await;
    stream
        .write_all(&request.as_bytes()[..request.len() - 5])
        .await
        .unwrap();
    drop(stream);
    assert!(world.upstream.questions().is_empty());
    assert_eq!(world.ask(OPENAI, "", &openai("auto")).await.status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_answer_unless_it_said_otherwise() {
    let world = World::start().await;
    for (number, streamed) in [(0, true), (1, false)] {
        world
            .upstream
            .once(Answer::of(&["one", "two"]).gated(&Gate::closed()).into());
        let mut body = openai("openai");
        body["stream"] = streamed.into();
        let mut stream = world.connect().await;
        let request = world.post(OPENAI, "", &body.to_string());
        stream.write_all(request.as_bytes()).await.unwrap();
        world.upstream.wait_for(Event::Waiting(number)).await;
        drop(stream);
        world.upstream.wait_for(Event::Disconnected(number)).await;
    }
    let gate = Gate::closed();
    world
        .upstream
        .once(Answer::of(&["one", "two"]).gated(&gate).into());
    let mut body = openai("openai");
    body["stream"] = true.into();
    let mut stream = world.connect().await;
    let request = world.post(OPENAI, "x-synesis-detach: true\r\n", &body.to_string());
    stream.write_all(request.as_bytes()).await.unwrap();
    world.upstream.wait_for(Event::Waiting(2)).await;
    drop(stream);
    gate.open();
    world.upstream.wait_for(Event::Finished(2)).await;
}

#[tokio::test]
async fn the_same_idempotency_key_asks_and_charges_once() {
    let world = World::start().await;
    let headers = "Idempotency-Key: order-7\r\n";
    let first = world.ask(OPENAI, headers, &openai("auto")).await;
    let again = world.ask(OPENAI, headers, &openai("auto")).await;
    assert_eq!(first.status, 200);
    assert_eq!(first.header("x-request-id"), again.header("x-request-id"));
    let other = world.ask(OPENAI, headers, &openai("anthropic")).await;
    assert_eq!(other.status, 409, "{}", other.body);
    assert_eq!(world.upstream.questions().len(), 1);
    assert_eq!(world.cluster.charges().await.len(), 1);
}

/// The prompts that core's own tests hide, with what is private in each.
fn prompts() -> Vec<(String, Vec<String>)> {
    let lines = include_str!("../../core/src/privacy/testdata/prompts.jsonl").lines();
    let read = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        // Written backwards, so that nobody's scanner takes them for lost keys.
        let planted = line["backwards"].as_array().unwrap().iter();
        let planted: Vec<String> = planted
            .map(|value| value.as_str().unwrap().chars().rev().collect())
            .collect();
        let text = line["text"].as_str().unwrap().to_owned();
        let text = planted
            .iter()
            .fold(text, |text, value| text.replacen("{}", value, 1));
        (text, planted)
    };
    lines.map(read).collect()
}

#[tokio::test]
async fn of_two_hundred_prompts_no_server_sees_what_is_private_and_the_answers_have_it_all() {
    let world = World::start().await;
    let prompts = prompts();
    assert!(prompts.len() >= 200);
    for (text, _) in &prompts {
        let mut body = json!({"model": "openai", "messages": [{"role": "user", "content": text}]});
        let reply = world.ask(OPENAI, "", &body).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        // The built-in model says what it was asked.
        body["model"] = "loopback".into();
        let reply = world.ask(OPENAI, "", &body).await;
        let answer = reply.json()["choices"][0]["message"]["content"].clone();
        assert!(
            answer.as_str().unwrap_or_default().contains(text.as_str()),
            "{text}: {}",
            reply.body
        );
    }
    let questions = world.upstream.questions();
    assert_eq!(questions.len(), prompts.len());
    let printed = world.cluster.everything_printed();
    for (question, (text, planted)) in questions.iter().zip(&prompts) {
        let seen = question.json()["messages"][0]["content"].clone();
        let seen = seen.as_str().unwrap();
        for value in planted {
            assert!(
                !seen.contains(value.as_str()),
                "{value} of {text} was sent: {seen}"
            );
            assert!(!printed.contains(value.as_str()), "{value} was printed");
        }
    }
}

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
    /// What the client saw.
    async fn plays(self, world: &World, folder: &PathBuf, scenario: &str, model: &str) -> Value {
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
            .args([scenario, model])
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
        serde_json::from_str(ended.stdout.trim()).unwrap()
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
    for client in CLIENTS {
        for model in ["openai", "anthropic"] {
            let chat = client.plays(&world, &folder, "chat", model).await;
            assert_eq!(chat["text"], text, "{client:?} {model}");
            assert_eq!(chat["finish"], end(client, "stop", "end_turn"));
            assert_eq!(chat["usage"], json!({"prompt": 12, "completion": 3}));
            assert!(chat["request_id"].as_str().unwrap().starts_with("req_"));
            let streamed = client.plays(&world, &folder, "stream", model).await;
            assert_eq!(streamed["text"], text, "{client:?} {model}");
            assert_eq!(streamed["finish"], end(client, "stop", "end_turn"));
            if !client.anthropic {
                assert_eq!(
                    (&streamed["ids"], &streamed["usage"]),
                    (&json!(1), &Value::Null)
                );
            }
            let streamed = client
                .plays(&world, &folder, "stream_with_usage", model)
                .await;
            assert_eq!(
                streamed["usage"],
                json!({"prompt": 12, "completion": 3}),
                "{client:?} {model}"
            );
        }
        let models = client.plays(&world, &folder, "models", "auto").await;
        let expected = json!({"models": ["auto", "anthropic", "loopback", "openai"]});
        assert_eq!(models, expected, "{client:?}");
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
        for model in ["openai", "anthropic"] {
            world.upstream.once(tool_call(model));
            world.upstream.once(Answer::of(&["It rains."]).into());
            let before = world.upstream.questions().len();
            let called = client.plays(&world, &folder, "tools", model).await;
            assert_eq!(called["name"], "weather", "{client:?} {model}");
            assert_eq!(called["arguments"], json!({"city": "Kiel", "to": MAIL}));
            assert_eq!(called["finish"], end(client, "tool_calls", "tool_use"));
            assert_eq!(called["text"], "It rains.");
            let second = world.upstream.questions().swap_remove(before + 1);
            let body = String::from_utf8_lossy(&second.body).into_owned();
            assert!(body.contains("rain") && body.contains("c1"), "{body}");
            assert!(!body.contains(MAIL), "{body}");
            world.upstream.once(tool_call(model));
            let streamed = client.plays(&world, &folder, "tools_streamed", model).await;
            assert_eq!(
                streamed,
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
    world.upstream.always(Behaviour::refuse(400));
    for client in CLIENTS {
        let caught = client.plays(&world, &folder, "errors", "openai").await;
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
    }
    world.upstream.always(Behaviour::refuse(500));
    for client in CLIENTS {
        let caught = client.plays(&world, &folder, "errors", "anthropic").await;
        assert_eq!(
            caught["upstream"]["class"], "InternalServerError",
            "{client:?}: {caught}"
        );
    }
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
        let closed = client.plays(&world, &folder, "close", "openai").await;
        assert_eq!(closed, json!({"closed": true}));
        world.upstream.wait_for(Event::Disconnected(number)).await;
    }
}
