//! What may be said on the command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Simulates devices and gateways through bad networks. One seed is one history, bit for bit.
#[derive(Parser)]
#[command(name = "mesh-sim", version, after_help = EXAMPLES)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  mesh-sim swarm --seconds 60           many worlds for a minute, on every core
  mesh-sim run --seed 7                 one world again
  mesh-sim run --seed 7 --trace         with everything that happened in it
  mesh-sim plan --seed 7 > bad.json     what the seed stands for, to be edited
  mesh-sim replay bad.json              the edited plan
  mesh-sim minimize --seed 7 --out small.json
                                        the smallest plan that breaks what seed 7 breaks
  mesh-sim report --seed 7 --html 7.html
                                        the same world drawn
  mesh-sim storm --devices 10000        a gateway restarts under a fleet
  mesh-sim storm --dark 120 --html storm.html
                                        with jitter and without, drawn
  mesh-sim commuter --days 365          a year on a bad mobile link

Exit code 0: every invariant held. 1: one did not. 2: nothing could be run.";

#[derive(Subcommand)]
pub(super) enum Command {
    /// Run the world of one seed.
    Run {
        /// Which.
        #[arg(long)]
        seed: u64,
        /// `quic`, or `plain` for the ideal one.
        #[arg(long, default_value = "quic")]
        transport: String,
        /// Print everything that happened.
        #[arg(long)]
        trace: bool,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Run many worlds until the time is over or an invariant does not hold.
    Swarm {
        /// For how long.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// Worlds at once; as many as there are cores if not given.
        #[arg(long)]
        threads: Option<usize>,
        /// Fail too when a rare state was never reached.
        #[arg(long)]
        thorough: bool,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Let a fleet beat and print how fast that was.
    Fleet {
        /// How many.
        #[arg(long, default_value_t = 1000)]
        devices: usize,
        /// Virtual seconds.
        #[arg(long, default_value_t = 3600)]
        seconds: u64,
        /// `quic`, or `plain` for the ideal one.
        #[arg(long, default_value = "quic")]
        transport: String,
    },
    /// Kill a fleet's gateway and draw how the devices come back.
    Storm {
        /// How many.
        #[arg(long, default_value_t = 1000)]
        devices: usize,
        /// How long the gateway is away, seconds.
        #[arg(long, default_value_t = 10)]
        dark: u64,
        /// `quic`, or `plain` for the ideal one.
        #[arg(long, default_value = "quic")]
        transport: String,
        /// Compare with a fleet whose waits have no jitter.
        #[arg(long)]
        no_jitter: bool,
        /// Draw the comparison into this file.
        #[arg(long)]
        html: Option<PathBuf>,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Let one device live on a bad mobile link.
    Commuter {
        /// For how long.
        #[arg(long, default_value_t = 365)]
        days: u64,
    },
    /// Print the plan that a seed stands for.
    Plan {
        /// Which.
        #[arg(long)]
        seed: u64,
    },
    /// Shrink a plan that breaks an invariant to the smallest that still does.
    Minimize {
        /// Of which seed.
        #[arg(long, required_unless_present = "plan", conflicts_with = "plan")]
        seed: Option<u64>,
        /// `quic`, or `plain` for the ideal one. A plan from a file names its own.
        #[arg(long, default_value = "quic", conflicts_with = "plan")]
        transport: String,
        /// A plan from a file, as printed by `plan`.
        #[arg(long)]
        plan: Option<PathBuf>,
        /// Where the small plan goes; printed if not given.
        #[arg(long)]
        out: Option<PathBuf>,
        /// Run at most so many plans.
        #[arg(long, default_value_t = 2000)]
        runs: u32,
    },
    /// Draw one run as a page: who was how, what was said, how the answers came on, the money.
    Report {
        /// Of which seed.
        #[arg(long, required_unless_present = "plan", conflicts_with = "plan")]
        seed: Option<u64>,
        /// `quic`, or `plain` for the ideal one. A plan from a file names its own.
        #[arg(long, default_value = "quic", conflicts_with = "plan")]
        transport: String,
        /// A plan from a file, as printed by `plan`.
        #[arg(long)]
        plan: Option<PathBuf>,
        /// Where the page goes.
        #[arg(long)]
        html: PathBuf,
        /// Look closely from one virtual second to another, as in `12.5-16`; before the first broken
        /// invariant, or at the first question, if not given.
        #[arg(long)]
        window: Option<String>,
    },
    /// Run a plan from a file.
    Replay {
        /// As printed by `plan`.
        file: PathBuf,
        /// Print everything that happened.
        #[arg(long)]
        trace: bool,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}
