//! The two shells' device agents beside one another: the program's size, and the resident memory of
//! an agent whose tunnel is up and idle.
//!
//! Both agents of a round are connected to the same gateway at the same time, each as a device of
//! its own, and have sent a heartbeat and measured their machine's load.

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mesh_bench::harness::{Table, machine};
use mesh_tests::cluster::{Cluster, Setup};
use mesh_tests::process::{Process, binary, lite_binary};
use tokio::runtime::Builder;

const ROUNDS: usize = 5;
/// The load is measured every five seconds: it has been twice.
const SETTLE: Duration = Duration::from_secs(8);

/// What one agent takes, bytes (proc_pid_status(5)).
#[derive(Clone, Copy, Debug)]
struct Taken {
    /// All resident memory, pages of the program included.
    resident: u64,
    /// Of it what is the agent's alone: heap and stacks.
    anonymous: u64,
    threads: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("{}\n", machine());
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let (tokio, smol) = runtime.block_on(measure())?;
    let median = |rounds: &[Taken], of: fn(&Taken) -> u64| {
        let mut sorted: Vec<u64> = rounds.iter().map(of).collect();
        sorted.sort_unstable();
        sorted[sorted.len() / 2] as f64
    };
    let mebibytes = |bytes: f64| format!("{:.1} MiB", bytes / 1_048_576.0);
    let plain = |number: f64| format!("{number:.0}");
    let size = |path: &Path| std::fs::metadata(path).map(|file| file.len() as f64);

    let mut table = Table::new(&["", "synesis (tokio)", "synesis-lite (smol)", "ratio"]);
    let mut row = |name: &str, tokio: f64, smol: f64, shown: &dyn Fn(f64) -> String| {
        let ratio = format!("{:.2}×", smol / tokio);
        table.row([name.to_owned(), shown(tokio), shown(smol), ratio]);
    };
    row("program", size(binary())?, size(lite_binary())?, &mebibytes);
    for (name, of, shown) in [
        (
            "resident, all (VmRSS)",
            (|taken| taken.resident) as fn(&Taken) -> u64,
            &mebibytes as &dyn Fn(f64) -> String,
        ),
        (
            "resident, its own (RssAnon)",
            |taken| taken.anonymous,
            &mebibytes,
        ),
        ("threads", |taken| taken.threads, &plain),
    ] {
        row(name, median(&tokio, of), median(&smol, of), shown);
    }
    println!("medians of {ROUNDS} rounds, agents connected and idle\n\n{table}");
    Ok(())
}

async fn measure() -> Result<(Vec<Taken>, Vec<Taken>), Box<dyn Error>> {
    let cluster = Cluster::start(
        Setup::with_echo()
            .logging("warn")
            .set("answers.device_per_minute", "1000000")
            .set("answers.account_per_minute", "1000000"),
    )
    .await;
    for device in ["tokio", "smol"] {
        cluster.enrol(device).await;
    }
    let (mut tokio, mut smol) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let synesis = agent(&cluster, cluster.command("tokio"), "agent").await;
        let lite = agent(&cluster, cluster.lite_command("smol"), "run").await;
        tokio::time::sleep(SETTLE).await;
        tokio.push(taken(&synesis)?);
        smol.push(taken(&lite)?);
        for agent in [synesis, lite] {
            agent.terminate();
            let _ended = agent.ended().await.succeeded();
        }
    }
    Ok((tokio, smol))
}

async fn agent(cluster: &Cluster, mut command: Command, word: &str) -> Process {
    command.arg(word);
    let agent = cluster.spawn(word, command, None);
    agent.line(|line| line.trim() == "Connected").await;
    agent
}

fn taken(agent: &Process) -> Result<Taken, Box<dyn Error>> {
    let process = agent.id().ok_or("the agent has ended")?;
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let field = |name: &str| -> Result<u64, Box<dyn Error>> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.ok_or(format!("no {name}"))?.parse()?)
    };
    Ok(Taken {
        resident: field("VmRSS:")? * 1024,
        anonymous: field("RssAnon:")? * 1024,
        threads: field("Threads:")?,
    })
}
