//! The fake model server itself, asked by an ordinary HTTP client.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use mesh_tests::upstream::{
    Answer, Behaviour, Dialect, Ending, Event, FakeUpstream, Gate, LineEnds, Request, Usage,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const BOTH: [&str; 2] = [Dialect::OpenAi.path(), Dialect::Anthropic.path()];

fn question(stream: bool) -> String {
    json!({
        "model": "scripted", "stream": stream, "stream_options": {"include_usage": true},
        "max_tokens": 100, "messages": [{"role": "user", "content": "Why?"}],
    })
    .to_string()
}

/// Posts over a fresh connection and reads until it is closed: head and body as they came, with
/// the chunked framing taken off.
async fn post(upstream: &FakeUpstream, path: &str, body: &str) -> (String, String) {
    let mut stream = TcpStream::connect(upstream.address()).await.unwrap();
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await.unwrap();
    let head_end = reply
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap();
    let head = String::from_utf8(reply[..head_end].to_vec()).unwrap();
    let body = reply.split_off(head_end + 4);
    let body = if head.contains("chunked") {
        unchunk(&body)
    } else {
        body
    };
    (head, String::from_utf8(body).unwrap())
}

fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(line_end) = body.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&body[..line_end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let data = &body[line_end + 2..];
        out.extend_from_slice(&data[..size]);
        body = &data[size + 2..];
    }
    out
}

/// The JSON of every `data:` line.
fn events(body: &str) -> Vec<Value> {
    let data = body.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter_map(|data| serde_json::from_str(data).ok())
        .collect()
}

fn text(events: &[Value]) -> String {
    let openai = |e: &Value| {
        e["choices"][0]["delta"]["content"]
            .as_str()
            .map(str::to_owned)
    };
    let anthropic = |e: &Value| e["delta"]["text"].as_str().map(str::to_owned);
    events
        .iter()
        .filter_map(|e| openai(e).or_else(|| anthropic(e)))
        .collect()
}

#[tokio::test]
async fn both_dialects_stream_the_script_and_its_usage() {
    let upstream = FakeUpstream::start().await.unwrap();
    let usage = Usage {
        prompt: 50,
        completion: 7,
        cache_read: 30,
        cache_write: 0,
        reasoning: 2,
    };
    upstream.always(
        Answer {
            usage: Some(usage),
            ..Answer::of(&["Ray", "leigh ☀"])
        }
        .into(),
    );

    let (head, body) = post(&upstream, BOTH[0], &question(true)).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let openai = events(&body);
    assert_eq!(text(&openai), "Rayleigh ☀");
    assert!(body.ends_with("data: [DONE]\n\n"));
    let counted = &openai.last().unwrap()["usage"];
    assert_eq!(counted["prompt_tokens"], 50);
    assert_eq!(counted["prompt_tokens_details"]["cached_tokens"], 30);

    let (_, body) = post(&upstream, BOTH[1], &question(true)).await;
    let anthropic = events(&body);
    assert_eq!(text(&anthropic), "Rayleigh ☀");
    assert_eq!(anthropic[0]["message"]["usage"]["input_tokens"], 20);
    assert_eq!(
        anthropic[0]["message"]["usage"]["cache_read_input_tokens"],
        30
    );
    assert_eq!(anthropic[anthropic.len() - 2]["usage"]["output_tokens"], 7);
    assert!(body.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
}

#[tokio::test]
async fn both_dialects_answer_whole() {
    let upstream = FakeUpstream::start().await.unwrap();
    let expected = Answer::default().text();
    let (_, body) = post(&upstream, BOTH[0], &question(false)).await;
    let whole: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(whole["choices"][0]["message"]["content"], expected);
    assert_eq!(whole["usage"]["completion_tokens"], 4);
    let (_, body) = post(&upstream, BOTH[1], &question(false)).await;
    let whole: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(whole["content"][0]["text"], expected);
    assert_eq!(whole["usage"]["input_tokens"], 12);
}

#[tokio::test]
async fn a_refusal_comes_once_and_then_the_standing_answer() {
    let upstream = FakeUpstream::start().await.unwrap();
    let message = "slow down".to_owned();
    upstream.once(Behaviour::Refuse {
        status: 429,
        retry_after: Some(2),
        message,
    });
    let (head, body) = post(&upstream, BOTH[1], &question(true)).await;
    assert!(
        head.starts_with("HTTP/1.1 429 ") && head.contains("retry-after: 2"),
        "{head}"
    );
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap()["error"]["type"],
        "rate_limit_error"
    );
    let (head, _) = post(&upstream, BOTH[1], &question(true)).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}

#[tokio::test]
async fn endings_break_off_where_they_say() {
    let upstream = FakeUpstream::start().await.unwrap();
    let answer = Answer::of(&["one ", "two"]);
    for path in BOTH {
        upstream.once(answer.clone().ending(Ending::Cut).into());
        let (_, body) = post(&upstream, path, &question(true)).await;
        assert_eq!(text(&events(&body)), "one two");
        assert!(!body.contains("[DONE]") && !body.contains("message_stop"));

        upstream.once(answer.clone().ending(Ending::Malformed).into());
        let (_, body) = post(&upstream, path, &question(true)).await;
        assert!(body.contains("nope\n\n"));

        upstream.once(
            answer
                .clone()
                .ending(Ending::ErrorEvent("overloaded".into()))
                .into(),
        );
        let (_, body) = post(&upstream, path, &question(true)).await;
        assert_eq!(
            events(&body).last().unwrap()["error"]["message"],
            "overloaded"
        );
    }
}

#[tokio::test]
async fn lines_may_end_with_crlf_and_comments_stand_between_events() {
    let upstream = FakeUpstream::start().await.unwrap();
    let answer = Answer::of(&["a", "b"]);
    upstream.always(
        Answer {
            line_ends: LineEnds::Crlf,
            comments: true,
            ..answer
        }
        .into(),
    );
    let (_, body) = post(&upstream, BOTH[0], &question(true)).await;
    assert_eq!(body.matches(": keep-alive\r\n\r\n").count(), 2);
    assert_eq!(body.matches('\n').count(), body.matches("\r\n").count());
    assert_eq!(text(&events(&body)), "ab");
}

#[tokio::test]
async fn single_byte_writes_split_every_character() {
    let upstream = FakeUpstream::start().await.unwrap();
    upstream.always(
        Answer {
            write_bytes: Some(1),
            ..Answer::of(&["日本語🙂"])
        }
        .into(),
    );
    let (_, body) = post(&upstream, BOTH[1], &question(true)).await;
    assert_eq!(text(&events(&body)), "日本語🙂");
}

#[tokio::test]
async fn a_gate_holds_each_piece_and_a_client_that_leaves_is_noticed() {
    let upstream = FakeUpstream::start().await.unwrap();
    let gate = Gate::closed();
    upstream.always(Answer::default().gated(&gate).into());
    let mut client = TcpStream::connect(upstream.address()).await.unwrap();
    let body = question(true);
    let length = body.len();
    let head = format!(
        "POST {} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n",
        BOTH[0]
    );
    client.write_all((head + &body).as_bytes()).await.unwrap();
    upstream.wait_for(Event::Waiting(0)).await;
    assert!(!upstream.events().contains(&Event::Piece(0)));
    gate.let_through(1);
    upstream.wait_for(Event::Piece(0)).await;
    drop(client);
    upstream.wait_for(Event::Disconnected(0)).await;
}

#[tokio::test]
async fn requests_are_kept_with_their_headers_and_bodies() {
    let upstream = FakeUpstream::start().await.unwrap();
    post(&upstream, BOTH[0], &question(false)).await;
    let requests = upstream.requests();
    let Request {
        method, path, body, ..
    } = &requests[0];
    assert_eq!((method.as_str(), path.as_str()), ("POST", BOTH[0]));
    assert_eq!(body, question(false).as_bytes());
    assert_eq!(requests[0].header("host"), Some("x"));
    assert_eq!(requests[0].json()["messages"][0]["content"], "Why?");
}

#[tokio::test]
async fn one_connection_carries_many_questions() {
    let upstream = FakeUpstream::start().await.unwrap();
    let mut client = TcpStream::connect(upstream.address()).await.unwrap();
    let body = question(false);
    let length = body.len();
    for n in 0..3 {
        let head = format!(
            "POST {} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n",
            BOTH[0]
        );
        client.write_all((head + &body).as_bytes()).await.unwrap();
        upstream.wait_for(Event::Finished(n)).await;
    }
    let waited = tokio::time::timeout(Duration::from_secs(20), client.readable()).await;
    waited.unwrap().unwrap();
}

#[tokio::test]
async fn a_real_servers_transcript_is_replayed_to_the_byte() {
    let upstream = FakeUpstream::start().await.unwrap();
    let recorded = include_str!("../../core/src/dialect/testdata/openai-stream.sse");
    upstream.always(Behaviour::Transcript(recorded.to_owned()));
    let (_, body) = post(&upstream, BOTH[0], &question(true)).await;
    assert_eq!(body, recorded);
}
