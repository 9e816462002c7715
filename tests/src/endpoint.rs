//! A device's local endpoint, and HTTP by hand to ask it with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::cluster::{Cluster, Setup};
use crate::process::Process;
use crate::upstream::FakeUpstream;

/// Something private, in every question of [`openai`].
pub const MAIL: &str = "ada@example.com";
/// Where OpenAI's clients ask.
pub const OPENAI: &str = "/v1/chat/completions";
/// Where Anthropic's do.
pub const ANTHROPIC: &str = "/v1/messages";
/// And count.
pub const COUNT: &str = "/v1/messages/count_tokens";

/// A body of OpenAI's with something private in it.
#[must_use]
pub fn openai(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": format!("Write to {MAIL}.")}]})
}

/// A gateway, an agent and its endpoint.
#[derive(Debug)]
pub struct World {
    /// What the gateway's models are.
    pub upstream: FakeUpstream,
    /// The gateway and its devices, of which there is one, `laptop`.
    pub cluster: Cluster,
    /// The endpoint's process.
    pub agent: Process,
    /// Where it listens.
    pub address: String,
    /// Its first key.
    pub key: String,
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Reply {
    /// Its status; 0 when there was none.
    pub status: u16,
    /// Status line and headers, in lower case.
    pub head: String,
    /// Without chunked framing.
    pub body: String,
}

impl Reply {
    /// The body as JSON; `null` when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// A header by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

impl World {
    /// With the endpoint as it is by itself.
    ///
    /// # Panics
    ///
    /// When any of it does not come up.
    pub async fn start() -> Self {
        Self::with("").await
    }

    /// With what the device's `synesis.toml` says.
    ///
    /// # Panics
    ///
    /// When any of it does not come up.
    pub async fn with(settings: &str) -> Self {
        let upstream = fake().await;
        let setup = Setup::with_upstream(&upstream);
        Self::of(setup, upstream, settings).await
    }

    /// The same, with the gateway's models at another server, which speaks both formats.
    ///
    /// # Panics
    ///
    /// When any of it does not come up.
    pub async fn before(server: SocketAddr, settings: &str) -> Self {
        let upstream = fake().await;
        Self::of(Setup::with_upstream_at(server), upstream, settings).await
    }

    /// The same, of a gateway's own setup.
    ///
    /// # Panics
    ///
    /// When any of it does not come up.
    pub async fn of(setup: Setup, upstream: FakeUpstream, settings: &str) -> Self {
        // Hundreds of questions in a minute, unless the setup says otherwise.
        let setup = setup
            .or("answers.device_per_minute", "100000")
            .or("answers.account_per_minute", "100000");
        let cluster = Cluster::start(setup).await;
        cluster.enrol("laptop").await;
        let file = cluster.device_folder("laptop").join("synesis.toml");
        if let Err(error) = std::fs::write(&file, settings) {
            panic!("{}: {error}", file.display());
        }
        let agent = cluster.agent("laptop").await;
        let line = agent
            .line(|line| line.starts_with("Endpoint http://"))
            .await;
        let address = between(&line, "http://", "/");
        let mut command = cluster.command("laptop");
        command.arg("env");
        let printed = cluster.spawn("env", command, None).ended().await;
        let key = between(&printed.succeeded().stdout, "OPENAI_API_KEY=\"", "\"");
        Self {
            upstream,
            cluster,
            agent,
            address,
            key,
        }
    }

    /// Head and body of a request with the key and a right host.
    #[must_use]
    pub fn post(&self, path: &str, headers: &str, body: &str) -> String {
        let (key, length) = (&self.key, body.len());
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost:4141\r\nAuthorization: Bearer {key}\r\n\
             Connection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        )
    }

    /// A connection to the endpoint.
    ///
    /// # Panics
    ///
    /// When it is refused.
    pub async fn connect(&self) -> TcpStream {
        match TcpStream::connect(&self.address).await {
            Ok(stream) => stream,
            Err(error) => panic!("{}: {error}", self.address),
        }
    }

    /// Sends a request as it is and reads to the end.
    pub async fn send(&self, request: &str) -> Reply {
        exchange(self.connect().await, request).await
    }

    /// Asks with a body.
    pub async fn ask(&self, path: &str, headers: &str, body: &Value) -> Reply {
        self.send(&self.post(path, headers, &body.to_string()))
            .await
    }

    /// `GET`, with the key.
    pub async fn get(&self, path: &str, headers: &str) -> Reply {
        self.send(&format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nx-api-key: {}\r\nConnection: close\r\n{headers}\r\n",
            self.key
        ))
        .await
    }

    /// A file in the device's folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.cluster.device_folder("laptop").join(name)
    }
}

async fn fake() -> FakeUpstream {
    match FakeUpstream::start().await {
        Ok(upstream) => upstream,
        Err(error) => panic!("no model server: {error}"),
    }
}

/// The same as [`World::send`], over a Unix socket.
///
/// # Panics
///
/// When there is none.
pub async fn send_to_socket(path: &Path, request: &str) -> Reply {
    match UnixStream::connect(path).await {
        Ok(stream) => exchange(stream, request).await,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Reply {
    // A server may refuse before it has read everything.
    let _refused = stream.write_all(request.as_bytes()).await;
    let mut bytes = Vec::new();
    let _closed = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let head = head.to_ascii_lowercase();
    let chunked = head.contains("transfer-encoding: chunked");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    Reply {
        status: status.unwrap_or(0),
        body: if chunked {
            dechunked(body)
        } else {
            body.to_owned()
        },
        head,
    }
}

fn between(text: &str, before: &str, after: &str) -> String {
    let rest = text.split_once(before).map(|(_, rest)| rest);
    match rest.and_then(|rest| rest.split_once(after)) {
        Some((found, _)) => found.to_owned(),
        None => panic!("nothing between {before} and {after} in {text}"),
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
