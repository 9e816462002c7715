//! Local first: this device's own model server beside the tunnel, counts of tokens, and the endpoint's
//! Unix socket.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::os::unix::fs::PermissionsExt as _;

use mesh_tests::cluster::{ACCOUNT, Setup};
use mesh_tests::endpoint::{ANTHROPIC, COUNT, MAIL, OPENAI, Reply, World, openai, send_to_socket};
use mesh_tests::upstream::{Answer, Behaviour, Dialect, Ending, Event, FakeUpstream, Gate};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A world whose device has a scripted server of its own, in one of the formats.
async fn with_local(dialect: Dialect, more: &str) -> (World, FakeUpstream) {
    let local = FakeUpstream::start().await.unwrap();
    local.always(Answer::of(&["from here"]).into());
    let name = match dialect {
        Dialect::OpenAi => "openai",
        Dialect::Anthropic => "anthropic",
    };
    let url = dialect.base_url(local.address());
    let settings = format!("[local]\nbase_url = \"{url}\"\ndialect = \"{name}\"\n{more}");
    let world = World::with(&settings).await;
    world.upstream.always(Answer::of(&["from afar"]).into());
    (world, local)
}

fn text(reply: &Reply) -> String {
    let json = reply.json();
    let text = match json["choices"].is_array() {
        true => &json["choices"][0]["message"]["content"],
        false => &json["content"][0]["text"],
    };
    text.as_str().unwrap_or(&reply.body).to_owned()
}

fn route(reply: &Reply) -> (Option<&str>, Option<&str>) {
    (
        reply.header("x-synesis-route"),
        reply.header("x-synesis-escalated"),
    )
}

fn anthropic(model: &str) -> Value {
    let mut body = openai(model);
    body["max_tokens"] = 50.into();
    body
}

#[tokio::test]
async fn what_is_asked_of_this_devices_server_stays_on_the_device() {
    for dialect in Dialect::ALL {
        let (world, local) = with_local(dialect, "").await;
        for model in ["local/scripted", "auto"] {
            for (path, body) in [(OPENAI, openai(model)), (ANTHROPIC, anthropic(model))] {
                let reply = world.ask(path, "", &body).await;
                assert_eq!(reply.status, 200, "{dialect:?} {path}: {}", reply.body);
                assert_eq!(text(&reply), "from here");
                assert_eq!(route(&reply), (Some("local"), None));
                assert!(reply.header("x-request-id").is_some());
                let mut streamed = body.clone();
                streamed["stream"] = true.into();
                let reply = world.ask(path, "", &streamed).await;
                assert!(reply.body.contains("from here"), "{}", reply.body);
                assert_eq!(route(&reply), (Some("local"), None));
            }
        }
        // Here it needs no disguise; and it goes nowhere else.
        for question in local.questions() {
            let body = String::from_utf8_lossy(&question.body).into_owned();
            assert!(body.contains(MAIL), "{body}");
            assert_eq!(question.json()["model"], "scripted");
        }
        assert_eq!(local.questions().len(), 8);
        assert!(world.upstream.questions().is_empty());
        assert!(world.cluster.charges().await.is_empty());
        assert!(!world.cluster.everything_printed().contains(MAIL));
        // Names of the cloud go there.
        for model in ["openai", "cloud/anthropic", "cloud/auto"] {
            let reply = world.ask(OPENAI, "", &openai(model)).await;
            assert_eq!(text(&reply), "from afar");
            assert_eq!(route(&reply), (Some("cloud"), None), "{model}");
        }
        assert_eq!(local.questions().len(), 8);
    }
}

#[tokio::test]
async fn whichever_can_goes_to_the_cloud_when_this_devices_server_cannot() {
    let (world, local) = with_local(Dialect::OpenAi, "timeout_secs = 1\n").await;
    for (behaviour, why) in [
        (Behaviour::refuse(500), "failed"),
        (Behaviour::refuse(400), "failed"),
        (Behaviour::refuse(401), "failed"),
        (Behaviour::refuse(429), "failed"),
        (Behaviour::Drop, "failed"),
        (
            Behaviour::Raw("HTTP/1.1 200 OK\r\n\r\n<html>".into()),
            "failed",
        ),
        (Behaviour::Raw("nonsense\r\n\r\n".into()), "failed"),
        (Behaviour::Hang, "late"),
        (Behaviour::HangAfterHead, "late"),
    ] {
        for streamed in [false, true] {
            local.once(behaviour.clone());
            let mut body = openai("auto");
            body["stream"] = streamed.into();
            let reply = world.ask(OPENAI, "", &body).await;
            assert!(reply.body.contains("from afar"), "{}", reply.body);
            assert_eq!(route(&reply), (Some("cloud"), Some(why)), "{behaviour:?}");
        }
    }
    // What leaves is disguised as ever.
    for question in world.upstream.questions() {
        let body = String::from_utf8_lossy(&question.body).into_owned();
        assert!(body.contains("[EMAIL_1]") && !body.contains(MAIL), "{body}");
    }
    // A name of this device never takes that way: the client is told.
    for (behaviour, status) in [
        (Behaviour::refuse(500), 502),
        (Behaviour::refuse(400), 400),
        (Behaviour::refuse(429), 429),
        (Behaviour::Drop, 502),
        (Behaviour::Hang, 504),
    ] {
        for (path, body) in [
            (OPENAI, openai("local/scripted")),
            (ANTHROPIC, anthropic("local/scripted")),
        ] {
            local.once(behaviour.clone());
            let before = world.upstream.questions().len();
            let reply = world.ask(path, "", &body).await;
            assert_eq!(reply.status, status, "{behaviour:?}: {}", reply.body);
            assert!(reply.json()["error"]["message"].is_string());
            assert_eq!(world.upstream.questions().len(), before);
        }
    }
    // After its first piece nothing takes another way.
    let broken = Answer::of(&["half"]).ending(Ending::Cut);
    local.once(broken.into());
    let mut body = openai("auto");
    body["stream"] = true.into();
    let before = world.upstream.questions().len();
    let reply = world.ask(OPENAI, "", &body).await;
    assert!(reply.body.contains("half") && reply.body.contains("\"error\""));
    assert_eq!(route(&reply), (Some("local"), None));
    assert_eq!(world.upstream.questions().len(), before);
    // And when it is not there at all.
    drop(local);
    let reply = world.ask(OPENAI, "", &openai("auto")).await;
    assert_eq!(text(&reply), "from afar");
    assert_eq!(route(&reply), (Some("cloud"), Some("missing")));
    let reply = world.ask(OPENAI, "", &openai("local/scripted")).await;
    assert_eq!(reply.status, 503, "{}", reply.body);
}

#[tokio::test]
async fn both_kinds_of_models_are_listed_and_what_nobody_has_is_not_found() {
    let (world, local) = with_local(Dialect::OpenAi, "").await;
    let listed = world.get("/v1/models", "").await.json();
    let ids = |listed: &Value| -> Vec<String> {
        let data = listed["data"].as_array().unwrap().iter();
        data.map(|model| model["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = ["auto", "anthropic", "loopback", "openai", "local/scripted"];
    assert_eq!(ids(&listed), all);
    let headers = "anthropic-version: 2023-06-01\r\n";
    let listed = world.get("/v1/models", headers).await.json();
    assert_eq!(ids(&listed), all);
    assert_eq!(listed["last_id"], "local/scripted");
    let one = world.get("/v1/models/local/scripted", "").await;
    assert_eq!(one.json()["id"], "local/scripted");
    for name in ["nobody", "local/nobody", "cloud/nobody", "local/"] {
        assert_eq!(
            world.get(&format!("/v1/models/{name}"), "").await.status,
            404
        );
        // Whatever else is wrong with the question.
        let mut body = anthropic(name);
        body["mcp_servers"] = json!([]);
        body["max_tokens"] = 128_000.into();
        let reply = world.ask(OPENAI, "", &body).await;
        assert_eq!(reply.status, 404, "{name}: {}", reply.body);
        assert_eq!(reply.json()["error"]["code"], "model_not_found");
        assert_eq!(reply.json()["error"]["param"], "model");
        let reply = world.ask(ANTHROPIC, "", &body).await;
        assert_eq!(reply.status, 404, "{name}: {}", reply.body);
        assert_eq!(reply.json()["error"]["type"], "not_found_error");
        let reply = world.ask(COUNT, "", &body).await;
        assert_eq!(reply.status, 404, "{name}: {}", reply.body);
    }
    assert!(local.questions().is_empty() && world.upstream.questions().is_empty());
}

#[tokio::test]
async fn without_a_gateway_this_devices_server_still_answers() {
    let (mut world, _local) = with_local(Dialect::OpenAi, "").await;
    world.cluster.stop_gateway().await;
    let reply = world.ask(OPENAI, "", &openai("auto")).await;
    assert_eq!((reply.status, text(&reply).as_str()), (200, "from here"));
    let listed = world.get("/v1/models", "").await.json();
    assert_eq!(listed["data"][1]["id"], "local/scripted", "{listed}");
}

#[tokio::test]
async fn a_client_that_leaves_hangs_up_on_this_devices_server() {
    let (world, local) = with_local(Dialect::OpenAi, "").await;
    for (number, pieces) in [(0, 0), (1, 1)] {
        let gate = Gate::closed();
        gate.let_through(pieces);
        local.once(Answer::of(&["one", "two"]).gated(&gate).into());
        let mut body = openai("local/scripted");
        body["stream"] = true.into();
        let mut stream = world.connect().await;
        let request = world.post(OPENAI, "", &body.to_string());
        stream.write_all(request.as_bytes()).await.unwrap();
        // The list of models is a request too.
        local.wait_for(Event::Waiting(number + 1)).await;
        if pieces > 0 {
            let mut seen = [0; 64];
            assert_ne!(stream.read(&mut seen).await.unwrap(), 0);
        }
        drop(stream);
        local.wait_for(Event::Disconnected(number + 1)).await;
    }
}

#[tokio::test]
async fn a_server_may_count_tokens_and_a_count_is_free_and_disguised() {
    let world = World::start().await;
    let body = openai("anthropic");
    let reply = world.ask(COUNT, "", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(reply.json(), json!({"input_tokens": 12}));
    assert_eq!(route(&reply), (Some("cloud"), None));
    let seen = world.upstream.questions().remove(0);
    assert_eq!(seen.path, COUNT);
    assert_eq!(seen.json()["model"], "scripted-anthropic");
    assert_eq!(seen.json()["messages"][0]["content"], "Write to [EMAIL_1].");
    assert!(seen.header("anthropic-version").is_some());
    // OpenAI's format has no such question.
    for model in ["openai", "auto", "loopback"] {
        let reply = world.ask(COUNT, "", &openai(model)).await;
        assert_eq!(reply.status, 404, "{model}: {}", reply.body);
        assert_eq!(reply.json()["error"]["type"], "not_found_error");
    }
    for (behaviour, status) in [
        (Behaviour::refuse(404), 404),
        (Behaviour::refuse(400), 400),
        (Behaviour::refuse(401), 502),
        (Behaviour::refuse(500), 502),
        (Behaviour::Drop, 502),
        (
            Behaviour::Raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]".into()),
            502,
        ),
    ] {
        world.upstream.once(behaviour.clone());
        let reply = world.ask(COUNT, "", &body).await;
        assert_eq!(reply.status, status, "{behaviour:?}: {}", reply.body);
        assert_eq!(reply.json()["type"], "error");
    }
    for (bad, status) in [
        ("", 400),
        ("[]", 400),
        ("{\"model\":\"anthropic\"}", 400),
        ("{\"messages\":[]}", 400),
        ("{\"model\":7,\"messages\":[]}", 400),
        (&"x".repeat(11 * 1024 * 1024), 413),
    ] {
        let reply = world.send(&world.post(COUNT, "", bad)).await;
        assert_eq!(reply.status, status, "{}", reply.body);
        assert_eq!(reply.json()["type"], "error", "{}", reply.body);
    }
    let largest = "y".repeat(230 * 1024);
    let large = json!({"model": "anthropic", "messages": [{"role": "user", "content": largest}]});
    assert_eq!(world.ask(COUNT, "", &large).await.status, 200);
    let larger = "y".repeat(250 * 1024);
    let large = json!({"model": "anthropic", "messages": [{"role": "user", "content": larger}]});
    let refused = world.ask(COUNT, "", &large).await;
    assert_eq!(refused.status, 413, "{}", refused.body);
    assert!(
        refused.body.contains("counted in the cloud"),
        "{}",
        refused.body
    );
    assert!(world.cluster.charges().await.is_empty());
    assert!(!world.cluster.everything_printed().contains(MAIL));
}

/// What never leaves the device is bounded as a question is.
#[tokio::test]
async fn this_devices_server_counts_what_the_tunnel_would_not_take() {
    let (world, local) = with_local(Dialect::Anthropic, "").await;
    let long = "y".repeat(1 << 20);
    let body = json!({"model": "local/scripted", "messages": [{"role": "user", "content": long}]});
    let reply = world.ask(COUNT, "", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(route(&reply), (Some("local"), None));
    assert_eq!(local.questions().remove(0).path, COUNT);
}

#[tokio::test]
async fn an_account_that_pays_its_provider_counts_with_its_own_key() {
    const OWN_KEY: &str = "sk-own-7c1d";
    let world = World::start().await;
    let reply = world.ask(COUNT, "", &openai("anthropic")).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let operators = world.upstream.questions().remove(0);
    let tier = ["account", "tier", ACCOUNT, "byok"];
    let _ = world.cluster.admin(&tier).await.succeeded();
    let mut command = world.cluster.command("laptop");
    command.args(["cloud", "provider-key", "set", "anthropic-provider"]);
    let setting = world.cluster.spawn("provider-key", command, Some(OWN_KEY));
    let _ = setting.ended().await.succeeded();
    let reply = world.ask(COUNT, "", &openai("anthropic")).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let own = world.upstream.questions().remove(1);
    assert_eq!(own.header("x-api-key"), Some(OWN_KEY));
    assert_ne!(operators.header("x-api-key"), Some(OWN_KEY));
}

#[tokio::test]
async fn a_count_takes_a_turn_as_a_question_does() {
    let upstream = FakeUpstream::start().await.unwrap();
    let setup = Setup::with_upstream(&upstream).set("answers.device_per_minute", "2");
    let world = World::of(setup, upstream, "").await;
    let count = async || world.ask(COUNT, "", &openai("anthropic")).await;
    assert_eq!([count().await.status, count().await.status], [200, 200]);
    let refused = count().await;
    assert_eq!(refused.status, 429, "{}", refused.body);
    assert!(refused.header("retry-after").is_some());
    // So is a question, whose client has a patience of its own.
    for (path, body) in [(OPENAI, openai("openai")), (ANTHROPIC, anthropic("openai"))] {
        let refused = world.ask(path, "", &body).await;
        assert_eq!(refused.status, 429, "{}", refused.body);
        let secs = refused.header("retry-after").unwrap().parse::<u32>();
        assert!((1..=60).contains(&secs.unwrap()));
        assert_eq!(refused.header("x-should-retry"), None);
        assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
    }
    assert_eq!(world.upstream.questions().len(), 2);
}

#[tokio::test]
async fn this_devices_server_counts_what_is_for_it() {
    let (world, local) = with_local(Dialect::Anthropic, "").await;
    for model in ["local/scripted", "auto"] {
        let reply = world.ask(COUNT, "", &openai(model)).await;
        assert_eq!(reply.json(), json!({"input_tokens": 12}), "{}", reply.body);
        assert_eq!(route(&reply), (Some("local"), None));
    }
    assert_eq!(local.questions().len(), 2);
    assert!(world.upstream.questions().is_empty());
    // One that cannot: the cloud's `auto` is OpenAI's here, which cannot either.
    local.always(Behaviour::refuse(404));
    for model in ["local/scripted", "auto"] {
        let reply = world.ask(COUNT, "", &openai(model)).await;
        assert_eq!(reply.status, 404, "{model}: {}", reply.body);
    }
}

#[tokio::test]
async fn programs_of_the_same_user_need_no_key_on_the_unix_socket() {
    let world = World::with("[endpoint]\nsocket = \"endpoint.sock\"\n").await;
    let path = world.file("endpoint.sock");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let body = openai("openai").to_string();
    let length = body.len();
    // No key, and a host as curl's --unix-socket has it.
    let ask = format!(
        "POST {OPENAI} HTTP/1.1\r\nHost: synesis\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let reply = send_to_socket(&path, &ask).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(route(&reply), (Some("cloud"), None));
    for hostile in [
        "GET / HTTP/9.9",
        "\u{0}\u{1}\u{2}",
        "POST / HTTP/1.1\r\nContent-Length: x",
    ] {
        let reply = send_to_socket(&path, &format!("{hostile}\r\n\r\n")).await;
        assert_ne!(reply.status, 200, "{hostile:?}");
    }
    // The port still wants one.
    let reply = world
        .send(&ask.replace("Host: synesis", "Host: localhost"))
        .await;
    assert_eq!(reply.status, 401);
    let reply = send_to_socket(&path, &ask).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    world.agent.terminate();
    let _ = world.agent.ended().await;
    assert!(!path.exists(), "it goes with its agent");
}
