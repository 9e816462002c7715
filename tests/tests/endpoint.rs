//! The device's local endpoint by hand, over raw sockets, through a real tunnel to a scripted model
//! server.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::sync::Arc;

use mesh_tests::endpoint::{ANTHROPIC, MAIL, OPENAI, World, openai};
use mesh_tests::upstream::{Answer, Behaviour, Event, Gate};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

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
            404,
            "invalid_request_error",
        ),
        (
            world.post(OPENAI, "", "{\"model\":\"local/x\",\"messages\":[]}"),
            404,
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
    let world = Arc::new(World::start().await);
    world.upstream.always(Behaviour::Echo);
    let prompts = prompts();
    assert!(prompts.len() >= 200);
    let mut asking = JoinSet::new();
    for (number, (text, _)) in prompts.clone().into_iter().enumerate() {
        if asking.len() >= 4 {
            asking.join_next().await.unwrap().unwrap();
        }
        let world = Arc::clone(&world);
        asking.spawn(async move {
            let mut body = json!({"model": "openai", "user": number.to_string()});
            body["messages"] = json!([{"role": "user", "content": text}]);
            let reply = world.ask(OPENAI, "", &body).await;
            assert_eq!(reply.status, 200, "{}", reply.body);
            // The server says what it was asked, and the client gets back what it wrote.
            let answer = reply.json()["choices"][0]["message"]["content"].clone();
            assert_eq!(answer, text);
        });
    }
    asking.join_all().await;
    let questions = world.upstream.questions();
    assert_eq!(questions.len(), prompts.len());
    let printed = world.cluster.everything_printed();
    for question in questions {
        let seen = String::from_utf8_lossy(&question.body).into_owned();
        let number = question.json()["user"].as_str().map(str::parse::<usize>);
        let (text, planted) = &prompts[number.unwrap().unwrap()];
        for value in planted {
            assert!(
                !seen.contains(value.as_str()),
                "{value} of {text} was sent: {seen}"
            );
            assert!(!printed.contains(value.as_str()), "{value} was printed");
        }
    }
}
