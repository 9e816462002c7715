//! The model server that everybody stands before: OpenAI's streamed chat, a token an event, an event
//! a write; at once, or a token every 20 ms for a question that says [`SLOWLY`].

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};

/// Tokens of an answer, and bytes of each.
pub(crate) const TOKENS: usize = 20;
pub(crate) const TOKEN_BYTES: usize = 5;
/// Between tokens, and before the first, of an answer that takes its time.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);
/// What a question says that wants such an answer.
pub(crate) const SLOWLY: &str = "slowly";
/// A question is a few hundred bytes, whatever a gateway makes of it.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Prints its address and serves until it is killed.
pub(crate) async fn serve() -> io::Result<()> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", listener.local_addr()?)?;
        out.flush()?;
    }
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(connection(stream));
    }
}

/// Answers what comes on one connection until its other side has gone.
async fn connection(stream: TcpStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(body) = request(&mut stream).await? {
        answer(stream.get_mut(), &body).await?;
    }
    Ok(())
}

/// The body of the next request; none at the end of the connection.
async fn request(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Value>> {
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let header = line.trim_end();
        if header.is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    if length == 0 || length > BODY_BYTES_MAX {
        return Err(io::Error::other("a question without a length"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    serde_json::from_slice(&body)
        .map(Some)
        .map_err(io::Error::other)
}

async fn answer(stream: &mut TcpStream, question: &Value) -> io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                transfer-encoding: chunked\r\n\r\n";
    let said = question["messages"][0]["content"].as_str();
    let slowly = said.is_some_and(|said| said.contains(SLOWLY));
    stream.write_all(head.as_bytes()).await?;
    let mut due = Instant::now();
    for _ in 0..TOKENS {
        if slowly {
            due += PAUSE;
            sleep_until(due).await;
        }
        let delta = json!({"role": "assistant", "content": "x".repeat(TOKEN_BYTES)});
        event(stream, &chunk(&delta, None).to_string()).await?;
        // A turn of the scheduler, so that each token leaves as a segment of its own.
        tokio::task::yield_now().await;
    }
    event(stream, &chunk(&json!({}), Some("stop")).to_string()).await?;
    if question["stream_options"]["include_usage"] == true {
        let mut usage = chunk(&json!({}), None);
        usage["choices"] = json!([]);
        usage["usage"] = json!({
            "prompt_tokens": 10, "completion_tokens": TOKENS, "total_tokens": 10 + TOKENS,
        });
        event(stream, &usage.to_string()).await?;
    }
    event(stream, "[DONE]").await?;
    stream.write_all(b"0\r\n\r\n").await
}

fn chunk(delta: &Value, finish: Option<&str>) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "scripted",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    })
}

/// One event as one chunk.
async fn event(stream: &mut TcpStream, data: &str) -> io::Result<()> {
    let data = format!("data: {data}\n\n");
    let chunk = format!("{:x}\r\n{data}\r\n", data.len());
    stream.write_all(chunk.as_bytes()).await
}
