//! Durable settled charges a second through the store in one file: 64 clients at once, whose entries
//! share transactions, beside one client, whose every entry is a transaction of its own. Then the
//! whole ledger is verified.
//!
//! `cargo run --release -p mesh-bench --bin ledger -- [ENTRIES]`

use std::error::Error;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mesh_bench::harness::{Table, machine, median};
use mesh_core::billing::account::{Hold, HoldId, Settle};
use mesh_core::billing::money::Nanos;
use mesh_core::billing::price::Price;
use mesh_core::ids::{AccountId, RequestId};
use mesh_core::time::UnixMillis;
use mesh_core::wire::message::TokensUsed;
use mesh_tokio::gateway::store::{NewAccount, Role, Store, verify};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

/// Enough for `ledger verify` to be felt.
const ENTRIES_DEFAULT: u64 = 100_000;
/// One by one takes long.
const ALONE: u64 = 2_000;
const CLIENTS: u64 = 64;
const ACCOUNT: AccountId = AccountId::from_u128(1);
const NOW: UnixMillis = UnixMillis(1_795_000_000_000);
/// Flushes measured for comparison.
const FLUSHES: usize = 200;

type Failed = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failed> {
    let entries = match std::env::args().nth(1) {
        Some(number) => number.parse()?,
        None => ENTRIES_DEFAULT,
    };
    let folder = tempfile::tempdir()?;
    println!("{}", machine());
    println!(
        "fsync of 4 KiB appended in the same folder: median {:?}\n",
        flush_takes(folder.path())?
    );
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let path = folder.path().join("ledger.sqlite");
    let (alone, together, batches) = runtime.block_on(async {
        let store = Store::open(&path, Role::Gateway)?;
        let account = NewAccount {
            ceiling: Nanos(i64::MAX / 2),
            ..NewAccount::managed(ACCOUNT, "bench")
        };
        store.create_account(account, NOW).await?;
        let alone = charge(&store, 1, 0..ALONE).await?;
        let before = store.load();
        let together = charge(&store, CLIENTS, ALONE..entries.max(ALONE + 1)).await?;
        let after = store.load();
        Ok::<_, Failed>((alone, together, after.batches - before.batches))
    })?;
    let many = entries.max(ALONE + 1) - ALONE;
    let mut table = Table::new(&[
        "clients",
        "entries",
        "entries/s",
        "ratio",
        "entries a transaction",
    ]);
    let (one, all) = (rate(ALONE, alone), rate(many, together));
    table.row(["1", &ALONE.to_string(), &format!("{one:.0}"), "1.0×", "1"].map(str::to_owned));
    // A hold and a settle are two calls; only transactions with entries reach the disk.
    let shared = format!(
        "at least {:.0}",
        rate(many, Duration::from_secs(batches.max(1)))
    );
    let (clients, ratio) = (CLIENTS.to_string(), format!("{:.1}×", all / one));
    table.row([
        clients,
        many.to_string(),
        format!("{all:.0}"),
        ratio,
        shared,
    ]);
    println!("{table}");

    let began = Instant::now();
    let report = verify(&path, None)?;
    println!(
        "ledger verify of {} entries: {:.2} s, {}",
        entries.max(ALONE + 1) + 1,
        began.elapsed().as_secs_f64(),
        if report.is_sound() {
            "sound"
        } else {
            "NOT SOUND"
        }
    );
    Ok(())
}

/// Holds and settles each number once, shared out among so many clients.
async fn charge(
    store: &Store,
    clients: u64,
    numbers: std::ops::Range<u64>,
) -> Result<Duration, Failed> {
    let next = Arc::new(AtomicU64::new(numbers.start));
    let began = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..clients {
        let (store, next, end) = (store.clone(), Arc::clone(&next), numbers.end);
        running.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= end {
                    return Ok::<_, Failed>(());
                }
                let request = RequestId::from_u128(u128::from(number) + 1);
                let hold = Hold {
                    id: HoldId(number),
                    request,
                    body: [1; 32],
                    price: Price::CLAUDE_SONNET,
                    input_tokens_max: 1000,
                    output_tokens_max: 1000,
                    provider: "anthropic".to_owned(),
                    guest: None,
                };
                store.hold(ACCOUNT, hold, NOW).await?;
                let settle = Settle {
                    request,
                    body: [1; 32],
                    model: "claude_sonnet".to_owned(),
                    price: Price::CLAUDE_SONNET,
                    tokens: TokensUsed {
                        prompt: 1000,
                        completion: 500,
                        ..TokensUsed::default()
                    },
                    estimated: false,
                    device: None,
                    project: None,
                };
                store.settle(ACCOUNT, settle, NOW).await?;
            }
        });
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(began.elapsed())
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn flush_takes(folder: &Path) -> Result<Duration, Failed> {
    let mut file = File::create(folder.join("flush"))?;
    let mut spans = Vec::with_capacity(FLUSHES);
    for _ in 0..FLUSHES {
        let began = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        spans.push(began.elapsed());
    }
    Ok(median(spans))
}
