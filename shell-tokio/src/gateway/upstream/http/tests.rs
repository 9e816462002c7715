use bytes::Bytes;
use mesh_core::wire::message::DialectName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::gateway::upstream::{Call, ProviderKey, Upstreams};

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    (listener, base_url)
}

fn upstreams(base_url: &str, auth: AuthStyle) -> Upstreams {
    let mut config = ProviderConfig::new(
        "p",
        DialectName::Anthropic,
        base_url,
        ProviderKey::new("sk-canary"),
    );
    config.auth = auth;
    Upstreams::new([config]).unwrap()
}

fn request() -> ModelRequest {
    ModelRequest {
        dialect: DialectName::Anthropic,
        path: "/v1/messages",
        headers: &[
            ("content-type", "application/json"),
            ("anthropic-version", "2023-06-01"),
        ],
        body: Bytes::from_static(b"{\"x\":1}"),
        input_tokens_max: 1,
    }
}

fn call(upstreams: &Upstreams, credit: usize) -> (Call, mpsc::Receiver<News>) {
    let (sink, news) = mpsc::channel(64);
    let call = upstreams.call("p", CallKey::Configured, request(), sink, |news| news);
    call.credit(credit);
    (call, news)
}

/// Reads one request, whose body is the seven bytes of [`request`].
async fn read_request(stream: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    while !seen.ends_with(b"{\"x\":1}") {
        let mut buffer = [0; 1024];
        let length = stream.read(&mut buffer).await.unwrap();
        assert_ne!(length, 0, "the request ended early");
        seen.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8(seen).unwrap()
}

/// The rest of a call: its body and how it ended.
async fn rest(news: &mut mpsc::Receiver<News>) -> (Vec<u8>, Result<(), Broken>) {
    let mut body = Vec::new();
    loop {
        match news.recv().await.unwrap() {
            News::Head(_) => {}
            News::Body(bytes) => body.extend_from_slice(&bytes),
            News::End(end) => {
                assert!(news.recv().await.is_none(), "the end is the last");
                return (body, end);
            }
        }
    }
}

#[tokio::test]
async fn a_request_carries_its_headers_and_the_key_and_the_response_comes_back() {
    for (auth, field) in [
        (AuthStyle::XApiKey, "x-api-key: sk-canary\r\n"),
        (AuthStyle::Bearer, "authorization: Bearer sk-canary\r\n"),
    ] {
        let (listener, base_url) = listen().await;
        let upstreams = upstreams(&base_url, auth);
        let (_call, mut news) = call(&upstreams, 1000);
        let (mut stream, _) = listener.accept().await.unwrap();
        let seen = read_request(&mut stream).await;
        assert!(seen.starts_with("POST /v1/messages HTTP/1.1\r\n"), "{seen}");
        assert!(seen.contains(field) && seen.contains("anthropic-version: 2023-06-01\r\n"));
        let response = "HTTP/1.1 429 Too Many\r\nretry-after: 7\r\ncontent-type: text/plain\r\n\
                        transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        stream.write_all(response.as_bytes()).await.unwrap();
        let Some(News::Head(head)) = news.recv().await else {
            panic!("the head comes first")
        };
        assert_eq!(
            (head.status, head.content_type.as_deref()),
            (429, Some("text/plain"))
        );
        assert_eq!(head.retry_after, Some(Duration::from_secs(7)));
        assert_eq!(rest(&mut news).await, (b"abcde".to_vec(), Ok(())));
    }
}

/// Lets the client's own tasks put a connection back into the pool. The runtime has one thread, and
/// everything they wait for has happened.
async fn settle() {
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let (listener, base_url) = listen().await;
    let upstreams = upstreams(&base_url, AuthStyle::Bearer);
    let (mut first, mut news) = call(&upstreams, 1000);
    let (mut stream, _) = listener.accept().await.unwrap();
    for _ in 0..3 {
        // Only the first connection is ever listened to.
        read_request(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await
            .unwrap();
        assert_eq!(rest(&mut news).await, (b"ok".to_vec(), Ok(())));
        settle().await;
        (first, news) = call(&upstreams, 1000);
    }
    drop(first);
}

#[tokio::test]
async fn a_warm_connection_is_the_one_that_is_used() {
    let (listener, base_url) = listen().await;
    let mut http = HttpUpstreams::new().unwrap();
    let key = ProviderKey::new("sk-canary");
    let config = ProviderConfig::new("p", DialectName::Openai, base_url, key);
    let provider = http.provider(config).unwrap();
    let warming = http.warm(&provider).unwrap();
    assert!(http.warm(&provider).is_none(), "it is warm already");
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut buffer = [0; 1024];
    let length = stream.read(&mut buffer).await.unwrap();
    let seen = String::from_utf8_lossy(&buffer[..length]);
    assert!(
        seen.starts_with("HEAD / HTTP/1.1\r\n") && !seen.contains("canary"),
        "{seen}"
    );
    stream
        .write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\n\r\n")
        .await
        .unwrap();
    warming.await.unwrap();
    settle().await;
    let start = http.start(&provider, &CallKey::Configured, request());
    let sent = tokio::spawn(start.request.send());
    assert!(
        read_request(&mut stream)
            .await
            .starts_with("POST /v1/messages")
    );
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    assert!(sent.await.unwrap().is_ok());
}

#[tokio::test]
async fn without_credit_no_more_than_one_piece_is_read() {
    let (listener, base_url) = listen().await;
    let upstreams = upstreams(&base_url, AuthStyle::Bearer);
    let (call, mut news) = call(&upstreams, 0);
    let (mut stream, _) = listener.accept().await.unwrap();
    read_request(&mut stream).await;
    let body = vec![b'x'; 8 * 1024 * 1024];
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    let writer = tokio::spawn(async move {
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        body.len()
    });
    assert!(matches!(news.recv().await, Some(News::Head(_))));
    let Some(News::Body(first)) = news.recv().await else {
        panic!("the first piece needs no credit")
    };
    // The server cannot get rid of its body, however long it is given.
    for _ in 0..100 {
        tokio::task::yield_now().await;
        assert!(news.try_recv().is_err() && !writer.is_finished());
    }
    call.credit(usize::MAX);
    let (body, end) = rest(&mut news).await;
    assert_eq!(
        (first.len() + body.len(), end),
        (writer.await.unwrap(), Ok(()))
    );
}

#[tokio::test]
async fn dropping_a_call_closes_its_connection_and_still_ends_it() {
    let (listener, base_url) = listen().await;
    let upstreams = upstreams(&base_url, AuthStyle::Bearer);
    let (call, mut news) = call(&upstreams, 1000);
    let (mut stream, _) = listener.accept().await.unwrap();
    read_request(&mut stream).await;
    drop(call);
    assert_eq!(rest(&mut news).await, (vec![], Err(Broken::Reset)));
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_connection_that_is_refused_or_breaks_is_told_as_such() {
    let (listener, base_url) = listen().await;
    let upstreams = upstreams(&base_url, AuthStyle::Bearer);
    let (_call, mut news) = call(&upstreams, 1000);
    let (mut stream, _) = listener.accept().await.unwrap();
    read_request(&mut stream).await;
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
        .await
        .unwrap();
    drop(stream);
    assert_eq!(
        rest(&mut news).await,
        (b"half".to_vec(), Err(Broken::Reset))
    );

    drop(listener);
    let (_call, mut news) = call(&upstreams, 1000);
    assert_eq!(rest(&mut news).await, (vec![], Err(Broken::Connect)));
}

#[tokio::test]
async fn a_provider_that_does_not_exist_cannot_be_reached() {
    let upstreams = Upstreams::new([]).unwrap();
    let (_call, mut news) = call(&upstreams, 1000);
    assert_eq!(rest(&mut news).await, (vec![], Err(Broken::Connect)));
}

#[tokio::test]
async fn the_echo_model_is_always_there() {
    let upstreams = Upstreams::new([]).unwrap();
    let (sink, mut news) = mpsc::channel(1);
    let body =
        Bytes::from_static(br#"{"messages":[{"role":"user","content":"hi"}],"max_tokens":4}"#);
    let request = ModelRequest { body, ..request() };
    let call = upstreams.call("loopback", CallKey::Configured, request, sink, |news| news);
    call.credit(100_000);
    let (body, end) = rest(&mut news).await;
    assert!(body.ends_with(b"data: [DONE]\n\n"));
    assert_eq!(end, Ok(()));
}

#[test]
fn settings_that_would_leak_a_key_or_lead_nowhere_are_refused() {
    let refused = |base_url: &str, key: &str| {
        let dialect = DialectName::Openai;
        let config = ProviderConfig::new("p", dialect, base_url, ProviderKey::new(key));
        Upstreams::new([config]).unwrap_err().to_string()
    };
    assert!(refused("http://llm.example/v1", "sk-canary").contains("https"));
    assert!(refused("http://localhost.example/v1", "sk-canary").contains("https"));
    for url in [
        "",
        "llm",
        "ftp://x",
        "https://u:p@x/",
        "https://x/?key=1",
        "https://x/#a",
    ] {
        assert!(refused(url, "").contains("base_url"), "{url}");
    }
    let error = refused("http://127.0.0.1:1/v1", "sk-canary\u{7f}\u{0}");
    assert!(
        error.contains("header") && !error.contains("canary"),
        "{error}"
    );
    let twice = ProviderConfig::new("loopback", DialectName::Openai, "http://127.0.0.1", None);
    assert!(Upstreams::new([twice]).is_err());
}

#[test]
fn nothing_prints_a_key() {
    let key = ProviderKey::new("sk-canary");
    let config = ProviderConfig::new("p", DialectName::Openai, "http://127.0.0.1:1", key);
    let mut http = HttpUpstreams::new().unwrap();
    let printed = format!("{config:?} {:?}", http.provider(config.clone()).unwrap());
    assert!(!printed.contains("canary"), "{printed}");
}
