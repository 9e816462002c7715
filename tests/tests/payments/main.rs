//! Money that is paid in through Stripe, with real processes and a small Stripe: credited once however
//! it is told of, taken back when it goes back, and never for a forged word.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

mod doubted;
mod invoices;
mod taken_back;
mod topping_up;

use mesh_core::billing::ledger::Record;
use mesh_tests::cluster::{Cluster, Setup};
use mesh_tests::process::Process;
use mesh_tests::stripe::{FakeStripe, SECRET_KEY, WEBHOOK_SECRET};
use serde_json::Value;

const DOLLAR: i64 = 1_000_000_000;

async fn with_stripe() -> (FakeStripe, Cluster) {
    let stripe = FakeStripe::start().await;
    let cluster = Cluster::start(Setup::with_echo().paid_through(&stripe)).await;
    cluster.enrol("laptop").await;
    (stripe, cluster)
}

async fn balance(cluster: &Cluster) -> Value {
    let mut command = cluster.command("laptop");
    command.args(["cloud", "balance", "--json"]);
    let ended = cluster.spawn("balance", command, None).ended().await;
    serde_json::from_str(&ended.succeeded().stdout).unwrap_or_default()
}

fn topup(cluster: &Cluster, arguments: &[&str]) -> Process {
    let mut command = cluster.command("laptop");
    command.args(["cloud", "topup"]).args(arguments);
    cluster.spawn("topup", command, None)
}

/// Begins a top-up that nobody waits for: its session.
async fn begun(cluster: &Cluster, dollars: &str) -> String {
    let ended = topup(cluster, &[dollars, "--no-wait", "--json"])
        .ended()
        .await;
    let told: Value = serde_json::from_str(&ended.succeeded().stdout).unwrap_or_default();
    told["session"].as_str().unwrap_or_default().to_owned()
}

/// What was paid in and taken out, in order.
async fn movements(cluster: &Cluster) -> Vec<(String, i64)> {
    let records = cluster.records().await;
    let moved = records.iter().filter_map(|record| {
        if let Record::Paid {
            reference, amount, ..
        } = record
        {
            return Some((reference.to_string(), amount.0));
        }
        if let Record::Reversed {
            reference, amount, ..
        } = record
        {
            return Some((reference.to_string(), -amount.0));
        }
        None
    });
    moved.collect()
}

/// Neither secret in anything that any process printed, however much it logs.
fn secrets_are_nowhere(cluster: &Cluster) {
    let printed = cluster.everything_printed();
    for secret in [SECRET_KEY, WEBHOOK_SECRET] {
        let tail = &secret[secret.len() - 12..];
        assert!(!printed.contains(tail), "{secret} was printed");
    }
}
