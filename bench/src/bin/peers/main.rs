//! Synesis beside the gateways that people put before their models: LiteLLM's proxy and Portkey's.
//!
//! ```text
//!   this process ──┬─────────────────────────────────────────────────────▶ model server
//!                  ├─ HTTP ▶ device agent ── QUIC ──▶ synesis gateway ───▶  (scripted,
//!                  ├─ HTTP ▶ LiteLLM proxy, one worker ──────────────────▶   a process
//!                  └─ HTTP ▶ Portkey gateway ────────────────────────────▶   of its own)
//! ```
//!
//! Everybody is asked for the same streamed answer by the same client, in blocks that take turns, and
//! the first block does not count. "Added" is a percentile of a side less the same percentile of the
//! model server asked directly. Processor time and memory are those of all processes of a side: of
//! ours the agent and the gateway. Ours holds money before each question, looks for private data, and
//! has the charge on disk before the answer ends; the others are set to do nothing of the kind.
//!
//! `BENCH_PEERS_DIR=$(bench/peers/install) cargo run --release -p mesh-bench --bin peers [QUESTIONS]`

mod side;
mod upstream;

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use mesh_bench::harness::{Table, machine};
use mesh_tests::process::Process;
use tokio::task::JoinSet;

use self::side::{Asker, Side, Took};
use self::upstream::{PAUSE, TOKENS};

/// Questions to each side for the figures of one row without pauses.
const QUESTIONS_DEFAULT: usize = 1000;
/// Blocks that count; one more goes before.
const BLOCKS: usize = 5;

type Failure = Box<dyn Error + Send + Sync>;

/// One kind of load.
struct Load {
    slowly: bool,
    at_once: usize,
    /// Of the questions asked for: answers with pauses take four tenths of a second each.
    part: fn(usize) -> usize,
}

const LOADS: [Load; 4] = [
    Load {
        slowly: false,
        at_once: 1,
        part: |questions| questions,
    },
    Load {
        slowly: false,
        at_once: 32,
        part: |questions| questions * 2,
    },
    Load {
        slowly: true,
        at_once: 1,
        part: |questions| questions / 10,
    },
    Load {
        slowly: true,
        at_once: 32,
        part: |questions| questions,
    },
];

/// What one side did under one load.
#[derive(Default)]
struct Figures {
    took: Vec<Took>,
    /// On the clock, and of its processors, over all blocks that count.
    wall: Duration,
    cpu_seconds: f64,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some("upstream") {
        return Ok(upstream::serve().await?);
    }
    let questions = argument.and_then(|n| n.parse().ok());
    let questions: usize = questions.unwrap_or(QUESTIONS_DEFAULT);
    // The release build has no other user of it in this process that could have installed one.
    let _ = rustls::crypto::ring::default_provider().install_default();

    let mut command = Command::new(std::env::current_exe()?);
    command.arg("upstream");
    let server = Process::start("upstream", command, None);
    let address = server.line(|line| line.contains(':')).await;
    let address = address.trim().parse()?;

    println!("{}, {}", machine(), load_average());
    println!("{TOKENS} tokens an answer, streamed; {questions} questions a side and row\n");
    let mut sides = vec![Side::direct(address)?, Side::ours(address).await?];
    match std::env::var_os("BENCH_PEERS_DIR").map(PathBuf::from) {
        Some(installed) => {
            sides.push(Side::litellm(&installed, address).await?);
            sides.push(Side::portkey(&installed, address).await?);
        }
        None => println!(
            "LiteLLM: not installed\nPortkey: not installed\n\
             (BENCH_PEERS_DIR=$(bench/peers/install) names where they are)\n"
        ),
    }
    let mut rows = Rows::new(&sides);
    for load in &LOADS {
        let figures = measure(&sides, load, questions).await?;
        rows.of_load(load, &figures);
    }
    let resident: Result<Vec<u32>, Failure> = sides.iter().map(Side::resident_kib).collect();
    let resident = resident?.into_iter().map(|kib| f64::from(kib) / 1024.0);
    rows.row(
        "",
        "resident after all, MiB",
        resident.collect(),
        None,
        true,
    );
    println!("{}", rows.table);
    println!("{}", load_average());
    Ok(())
}

/// One of the times of an answer.
type Part = (&'static str, fn(&Took) -> Duration);

/// Blocks in turns, the order turned round with every block.
async fn measure(sides: &[Side], load: &Load, questions: usize) -> Result<Vec<Figures>, Failure> {
    let mut figures: Vec<Figures> = sides.iter().map(|_| Figures::default()).collect();
    let questions = ((load.part)(questions) / BLOCKS).max(load.at_once);
    for block in 0..=BLOCKS {
        for turn in 0..sides.len() {
            let at = (turn + block) % sides.len();
            let (side, figures) = (&sides[at], &mut figures[at]);
            let (began, cpu_before) = (Instant::now(), side.cpu_seconds()?);
            let took = run(&side.client, load, questions)
                .await
                .map_err(|error| format!("{}: {error}", side.name))?;
            let wall = began.elapsed();
            if block > 0 {
                figures.took.extend(took);
                figures.wall += wall;
                figures.cpu_seconds += side.cpu_seconds()? - cpu_before;
            }
        }
    }
    Ok(figures)
}

/// Asks so many questions, so many at once.
async fn run(client: &Asker, load: &Load, questions: usize) -> Result<Vec<Took>, Failure> {
    let mut askers = JoinSet::new();
    for asker in 0..load.at_once {
        let (client, slowly) = (client.clone(), load.slowly);
        let share = questions / load.at_once + usize::from(asker < questions % load.at_once);
        askers.spawn(async move {
            let mut took = Vec::with_capacity(share);
            for _ in 0..share {
                took.push(client.ask(slowly).await?);
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

/// The table: for each figure the sides, and how many times better ours is than each peer.
struct Rows {
    table: Table,
}

impl Rows {
    fn new(sides: &[Side]) -> Self {
        let mut headings = vec!["load", "figure"];
        for (at, side) in sides.iter().enumerate() {
            headings.push(side.name);
            if at > 1 {
                headings.push("ours is better");
            }
        }
        Self {
            table: Table::new(&headings),
        }
    }

    fn of_load(&mut self, load: &Load, figures: &[Figures]) {
        let pace = if load.slowly {
            format!("{} ms a token", PAUSE.as_millis())
        } else {
            "no pauses".to_owned()
        };
        let name = format!("{pace}, {} at once", load.at_once);
        let parts: [Part; 2] = [
            ("first content", |took| took.first),
            ("whole answer", |took| took.total),
        ];
        for (part, of) in parts {
            for percent in [50, 99] {
                let values: Vec<f64> = figures
                    .iter()
                    .map(|figures| percentile(&figures.took, of, percent))
                    .collect();
                let direct = values.first().copied();
                let what = format!("{part} added, p{percent}, ms");
                self.row(&name, &what, values, direct, true);
            }
        }
        let rate = |figures: &Figures| figures.took.len() as f64 / figures.wall.as_secs_f64();
        let cpu = |figures: &Figures| figures.cpu_seconds * 1e3 / figures.took.len() as f64;
        let rates = figures.iter().map(rate).collect();
        self.row(&name, "requests a second", rates, None, false);
        let cpus = figures.iter().map(cpu).collect();
        self.row(&name, "CPU-ms a request", cpus, None, true);
    }

    /// One figure of every side, less `base` for all but the first.
    fn row(
        &mut self,
        load: &str,
        what: &str,
        mut values: Vec<f64>,
        base: Option<f64>,
        less_is_better: bool,
    ) {
        for value in values.iter_mut().skip(1) {
            *value -= base.unwrap_or_default();
        }
        let ours = values.get(1).copied().unwrap_or_default();
        let mut cells = vec![load.to_owned(), what.to_owned()];
        for (at, &value) in values.iter().enumerate() {
            // Nobody's processes were counted for the model server itself.
            let shown = match (at, value) {
                (0, 0.0) => String::new(),
                (0, value) if base.is_some() => format!("({value:.2})"),
                (_, value) => format!("{value:.2}"),
            };
            cells.push(shown);
            if at > 1 {
                let ratio = if less_is_better {
                    value / ours
                } else {
                    ours / value
                };
                cells.push(match value > 0.0 && ours > 0.0 {
                    true => format!("{ratio:.1}×"),
                    false => "–".to_owned(),
                });
            }
        }
        self.table.row(cells);
    }
}

/// Milliseconds.
fn percentile(took: &[Took], of: fn(&Took) -> Duration, percent: usize) -> f64 {
    let mut times: Vec<Duration> = took.iter().map(of).collect();
    times.sort_unstable();
    let at = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(at).copied().unwrap_or_default().as_secs_f64() * 1e3
}

/// What else the machine does.
fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let minute = text.split_whitespace().next().unwrap_or("unknown");
    format!("load average {minute}")
}
