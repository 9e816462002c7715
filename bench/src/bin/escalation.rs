//! What a question costs in time on its way through Synesis: against asking the same model server
//! directly, with an ordinary HTTP client.
//!
//! ```text
//!   direct:   this process ── HTTP, kept alive ──▶ fake-upstream
//!   Synesis:  this process ── QUIC ──▶ synesis gateway ── HTTP, kept alive ──▶ fake-upstream
//! ```
//!
//! Three processes. Both ways ask for the same answer, streamed, in turns. The way through Synesis
//! holds money first and has the charge on disk before it ends; so the time of a flush of the same
//! disk is measured beside it.
//!
//! `cargo run --release -p mesh-bench --bin escalation [QUESTIONS]`

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use mesh_bench::harness::{Table, machine};
use mesh_core::escalation::context::Question;
use mesh_tests::cluster::{Cluster, Setup};
use mesh_tests::process::{Process, build};
use mesh_tokio::Client;
use mesh_tokio::device::credentials::Credentials;
use tokio::task::JoinSet;

/// Pieces of an answer, and bytes of each: a paragraph, token by token.
const PIECES: usize = 100;
const PIECE_BYTES: usize = 5;
/// How many ask at once.
const AT_ONCE: [usize; 2] = [1, 32];
/// Questions each way for a figure, in blocks that take turns.
const QUESTIONS_DEFAULT: usize = 1000;
const BLOCKS: usize = 10;
/// Flushes that are timed.
const FLUSHES: usize = 200;

type Failure = Box<dyn Error + Send + Sync>;

/// From asking to the first content, and to the end.
#[derive(Clone, Copy)]
struct Took {
    first: Duration,
    total: Duration,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let questions = std::env::args().nth(1).and_then(|n| n.parse().ok());
    let questions: usize = questions.unwrap_or(QUESTIONS_DEFAULT);
    // The release build has no other user of it in this process that could have installed one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut command = Command::new(build("mesh-tests", "fake-upstream"));
    command.args([PIECES.to_string(), PIECE_BYTES.to_string()]);
    let upstream = Process::start_with_input("fake-upstream", command);
    let address: SocketAddr = upstream
        .line(|line| line.contains(':'))
        .await
        .trim()
        .parse()?;
    let cluster = Cluster::start(
        Setup::with_upstream_at(address)
            .logging("warn")
            .set("answers.device_per_minute", "1000000")
            .set("answers.account_per_minute", "1000000"),
    )
    .await;
    cluster.enrol("bench").await;
    let folder = cluster.device_folder("bench");
    let credentials = Credentials::load(&folder)?.ok_or("not enrolled")?;
    let through = Through(Client::connect(credentials).await?);
    let direct = Direct::new(address)?;

    println!("{}", machine());
    println!("{questions} questions each way, {PIECES} pieces of {PIECE_BYTES} bytes\n");
    let mut table = Table::new(&[
        "at once",
        "",
        "direct",
        "Synesis",
        "added",
        "p99 direct",
        "p99",
    ]);
    for at_once in AT_ONCE {
        let (mut near, mut far) = (Vec::new(), Vec::new());
        for block in 0..=BLOCKS {
            let of_direct = run(&direct, questions / BLOCKS, at_once).await?;
            let of_through = run(&through, questions / BLOCKS, at_once).await?;
            // The first block opens connections and warms caches.
            if block > 0 {
                near.extend(of_direct);
                far.extend(of_through);
            }
        }
        for (what, of) in [
            (
                "first content",
                (|took| took.first) as fn(&Took) -> Duration,
            ),
            ("whole answer", |took| took.total),
        ] {
            let (near, far) = (sorted(&near, of), sorted(&far, of));
            let added = percentile(&far, 50).saturating_sub(percentile(&near, 50));
            table.row([
                at_once.to_string(),
                what.to_owned(),
                micros(percentile(&near, 50)),
                micros(percentile(&far, 50)),
                micros(added),
                micros(percentile(&near, 99)),
                micros(percentile(&far, 99)),
            ]);
        }
    }
    println!("{table}");
    let flushes = flushes(folder.as_path())?;
    println!(
        "fsync of 4 KiB appended in the same folder: median {}, p99 {}",
        micros(percentile(&flushes, 50)),
        micros(percentile(&flushes, 99))
    );
    through.0.close().await;
    Ok(())
}

/// A way to ask.
trait Way: Clone + Send + Sync + 'static {
    fn ask(&self) -> impl Future<Output = Result<Took, Failure>> + Send;
}

/// Asks so many questions, so many at once.
async fn run(way: &impl Way, questions: usize, at_once: usize) -> Result<Vec<Took>, Failure> {
    let mut askers = JoinSet::new();
    for asker in 0..at_once {
        let way = way.clone();
        let share = questions / at_once + usize::from(asker < questions % at_once);
        askers.spawn(async move {
            let mut took = Vec::with_capacity(share);
            for _ in 0..share {
                took.push(way.ask().await?);
            }
            Ok::<_, Failure>(took)
        });
    }
    let mut all = Vec::with_capacity(questions);
    while let Some(took) = askers.join_next().await {
        all.extend(took??);
    }
    Ok(all)
}

/// Through the tunnel and the gateway.
#[derive(Clone)]
struct Through(Client);

impl Way for Through {
    async fn ask(&self) -> Result<Took, Failure> {
        let asked = Instant::now();
        let mut answer = self
            .0
            .escalate_stream(Question::new("Why is the sky blue?"))
            .await?;
        let mut first = None;
        let mut bytes = 0;
        while let Some(piece) = answer.recv_chunk().await? {
            if !piece.is_empty() {
                first.get_or_insert_with(|| asked.elapsed());
                bytes += piece.len();
            }
        }
        took(asked, first, bytes)
    }
}

/// Straight to the model server.
#[derive(Clone)]
struct Direct {
    client: reqwest::Client,
    url: String,
    body: String,
}

impl Direct {
    fn new(upstream: SocketAddr) -> Result<Self, Failure> {
        let question = serde_json::json!({
            "model": "scripted", "stream": true, "stream_options": {"include_usage": true},
            "max_tokens": 1024,
            "messages": [{"role": "user", "content": "Why is the sky blue?"}],
        });
        Ok(Self {
            client: reqwest::Client::builder()
                .no_proxy()
                .tcp_nodelay(true)
                .build()?,
            url: format!("http://{upstream}/v1/chat/completions"),
            body: question.to_string(),
        })
    }
}

impl Way for Direct {
    async fn ask(&self) -> Result<Took, Failure> {
        let asked = Instant::now();
        let post = self
            .client
            .post(&self.url)
            .header("content-type", "application/json");
        let mut response = post
            .body(self.body.clone())
            .send()
            .await?
            .error_for_status()?;
        let mut first = None;
        let (mut unread, mut bytes) = (Vec::new(), 0);
        while let Some(chunk) = response.chunk().await? {
            unread.extend_from_slice(&chunk);
            while let Some(end) = unread.windows(2).position(|window| window == b"\n\n") {
                let event: Vec<u8> = unread.drain(..end + 2).collect();
                let piece = content(&event);
                if piece > 0 {
                    first.get_or_insert_with(|| asked.elapsed());
                    bytes += piece;
                }
            }
        }
        took(asked, first, bytes)
    }
}

/// Bytes of text in one event, by parsing it as any client must.
fn content(event: &[u8]) -> usize {
    let data = event.strip_prefix(b"data: ").unwrap_or_default();
    let parsed: serde_json::Value = serde_json::from_slice(data).unwrap_or_default();
    parsed["choices"][0]["delta"]["content"]
        .as_str()
        .map_or(0, str::len)
}

fn took(asked: Instant, first: Option<Duration>, bytes: usize) -> Result<Took, Failure> {
    let total = asked.elapsed();
    match first {
        Some(first) if bytes == PIECES * PIECE_BYTES => Ok(Took { first, total }),
        Some(_) | None => Err(format!("an answer of {bytes} bytes").into()),
    }
}

/// What it takes to have 4 KiB appended and on disk.
fn flushes(folder: &Path) -> Result<Vec<Duration>, Failure> {
    let mut file = std::fs::File::create(folder.join("flush"))?;
    let mut times = Vec::with_capacity(FLUSHES);
    for _ in 0..FLUSHES {
        let began = Instant::now();
        file.write_all(&[0x5A; 4096])?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

fn sorted(all: &[Took], of: fn(&Took) -> Duration) -> Vec<Duration> {
    let mut times: Vec<_> = all.iter().map(of).collect();
    times.sort_unstable();
    times
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

fn micros(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}
