//! As much of HTTP/1.1 (RFC 9112) as a test server needs: requests with a length or chunked, whole
//! replies, and chunked ones.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Head and body of one request may be this large; more ends the connection.
const REQUEST_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A request as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST` …
    pub method: String,
    /// With the query, as sent.
    pub path: String,
    /// In order; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, without chunked framing.
    pub body: Bytes,
}

impl Request {
    /// The first header of that name (lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON; `null` when it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Reads the next request; `None` when the client closed between requests.
pub(crate) async fn read_request(
    stream: &mut TcpStream,
    unread: &mut BytesMut,
) -> io::Result<Option<Request>> {
    let head_end = loop {
        if let Some(at) = find(unread, b"\r\n\r\n") {
            break at;
        }
        if unread.len() > REQUEST_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if stream.read_buf(unread).await? == 0 {
            return Ok(None);
        }
    };
    let head = unread.split_to(head_end);
    unread.advance(4);
    let mut request = parse_head(&head)?;
    request.body = if request
        .header("transfer-encoding")
        .is_some_and(|v| v.contains("chunked"))
    {
        read_chunked(stream, unread).await?
    } else {
        let length = request
            .header("content-length")
            .map_or(Ok(0), str::parse::<usize>);
        let length = length.map_err(|_| io::ErrorKind::InvalidData)?;
        fill(stream, unread, length).await?;
        unread.split_to(length).freeze()
    };
    Ok(Some(request))
}

fn parse_head(head: &[u8]) -> io::Result<Request> {
    let head = std::str::from_utf8(head).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let method = first.next().unwrap_or_default().to_owned();
    let path = first.next().unwrap_or_default().to_owned();
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Ok(Request {
        method,
        path,
        headers,
        body: Bytes::new(),
    })
}

async fn read_chunked(stream: &mut TcpStream, unread: &mut BytesMut) -> io::Result<Bytes> {
    let mut body = BytesMut::new();
    loop {
        let line_end = loop {
            if let Some(at) = find(unread, b"\r\n") {
                break at;
            }
            let have = unread.len();
            fill(stream, unread, have + 1).await?;
        };
        let line = unread.split_to(line_end);
        unread.advance(2);
        let size = std::str::from_utf8(&line)
            .ok()
            .and_then(|s| s.split(';').next());
        let size = size.and_then(|s| usize::from_str_radix(s.trim(), 16).ok());
        let size = size.ok_or(io::ErrorKind::InvalidData)?;
        fill(stream, unread, size + 2).await?;
        body.extend_from_slice(&unread.split_to(size));
        unread.advance(2);
        if size == 0 {
            return Ok(body.freeze());
        }
    }
}

/// Reads until `length` bytes are there.
async fn fill(stream: &mut TcpStream, unread: &mut BytesMut, length: usize) -> io::Result<()> {
    if length > REQUEST_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    while unread.len() < length {
        if stream.read_buf(unread).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes
        .windows(pattern.len())
        .position(|window| window == pattern)
}

/// A whole reply with a length.
pub(crate) fn whole(status: u16, extra: &[(&str, String)], body: &str) -> Bytes {
    let mut head = format!(
        "HTTP/1.1 {status} Scripted\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in extra {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    Bytes::from(head + "\r\n" + body)
}

/// The head of a chunked event stream.
pub(super) fn stream_head() -> Bytes {
    Bytes::from_static(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\
          Transfer-Encoding: chunked\r\n\r\n",
    )
}

/// One chunk (RFC 9112 §7.1); an empty one ends the body.
pub(super) fn chunk(data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(data.len() + 16);
    out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
    out.freeze()
}
