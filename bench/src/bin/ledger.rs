//! Durable settled charges a second through the store: many clients at once, whose entries share
//! transactions, beside one client, whose every entry is a transaction of its own. In one file, and on a
//! PostgreSQL server of its own where one is installed, with every commit flushed to the same disk. The
//! last crowd keeps each answer's text with its charge, as a gateway does that is left at its settings.
//! Then each whole ledger is verified.
//!
//! `cargo run --release -p mesh-bench --bin ledger -- [ENTRIES] [sqlite | postgres | postgres://…]`

use std::error::Error;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mesh_bench::harness::{Table, machine, median};
use mesh_core::billing::account::{Hold, HoldId, Settle};
use mesh_core::billing::money::Nanos;
use mesh_core::billing::price::Price;
use mesh_core::gateway::{Keep, Transcript};
use mesh_core::ids::{AccountId, RequestId};
use mesh_core::time::UnixMillis;
use mesh_core::wire::message::TokensUsed;
use mesh_test_postgres::{Disk, Server};
use mesh_tokio::gateway::store::{Database, NewAccount, Place, Role, Store, verify_at};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

/// Enough for `ledger verify` to be felt.
const ENTRIES_DEFAULT: u64 = 100_000;
/// One by one takes long.
const ALONE: u64 = 2_000;
/// Clients at once, the accounts that they are spread over, and bytes of text kept of each answer.
const CROWDS: [(u64, u128, usize); 4] =
    [(64, 1, 0), (64, 16, 0), (512, 16, 0), (512, 16, TEXT_BYTES)];
/// Of an answer of 500 tokens.
const TEXT_BYTES: usize = 2048;
/// As a gateway keeps it.
const KEPT: Duration = mesh_core::limits::ANSWER_KEPT;
const ACCOUNTS: u128 = 16;
const NOW: UnixMillis = UnixMillis(1_795_000_000_000);
/// Flushes measured for comparison.
const FLUSHES: usize = 200;

type Failed = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failed> {
    let entries = match std::env::args().nth(1) {
        Some(number) => number.parse()?,
        None => ENTRIES_DEFAULT,
    };
    let only = std::env::args().nth(2);
    let wanted = |store: &str| only.as_deref().is_none_or(|only| only == store);
    let folder = tempfile::tempdir()?;
    println!("{}", machine());
    println!(
        "fsync of 4 KiB appended in the same folder: median {:?}\n",
        flush_takes(folder.path())?
    );
    let mut table = Table::new(&[
        "store",
        "clients",
        "accounts",
        "text, bytes",
        "entries",
        "entries/s",
        "ratio",
        "calls a transaction",
    ]);
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let mut checks = Vec::new();
    if wanted("sqlite") {
        let file = Place::File(folder.path().join("ledger.sqlite"));
        runtime.block_on(measure("SQLite", &file, entries, &mut table, &mut checks))?;
    }
    if let Some(url) = only.as_deref().filter(|only| only.contains("://")) {
        let database = Place::Database(Database::parse(url, None, false)?);
        let measured = measure("PostgreSQL", &database, entries, &mut table, &mut checks);
        runtime.block_on(measured)?;
    }
    if wanted("postgres")
        && let Some(server) = Server::start(Disk::Safe)
    {
        let database = Place::Database(Database::parse(&server.database(), None, false)?);
        let measured = measure("PostgreSQL", &database, entries, &mut table, &mut checks);
        runtime.block_on(measured)?;
    }
    println!("{table}");
    for check in checks {
        println!("{check}");
    }
    Ok(())
}

/// Fills a new store, alone and in every crowd, and verifies what it then holds.
async fn measure(
    name: &str,
    place: &Place,
    entries: u64,
    table: &mut Table,
    checks: &mut Vec<String>,
) -> Result<(), Failed> {
    let store = Store::open_at(place, Role::Gateway).await?;
    for number in 1..=ACCOUNTS {
        let account = NewAccount {
            ceiling: Nanos(i64::MAX / 2),
            ..NewAccount::managed(AccountId::from_u128(number), format!("bench {number}"))
        };
        store.create_account(account, NOW).await?;
    }
    let alone = rate(ALONE, charge(&store, (1, 1, 0), 0..ALONE).await?);
    let words = [
        "1",
        "1",
        "0",
        &ALONE.to_string(),
        &format!("{alone:.0}"),
        "1.0×",
        "1",
    ];
    table.row(row(name, words));
    let share = entries.saturating_sub(ALONE) / u64::try_from(CROWDS.len())?;
    let mut done = ALONE;
    for crowd in CROWDS {
        let (clients, accounts, text) = crowd;
        let before = store.load();
        let took = charge(&store, crowd, done..done + share).await?;
        let after = store.load();
        done += share;
        let together = rate(share, took);
        let batches = (after.batches - before.batches).max(1);
        let words = [
            &clients.to_string(),
            &accounts.to_string(),
            &text.to_string(),
            &share.to_string(),
            &format!("{together:.0}"),
            &format!("{:.1}×", together / alone),
            &((after.calls - before.calls) / batches).to_string(),
        ];
        table.row(row(name, words.map(String::as_str)));
    }
    drop(store);
    let began = Instant::now();
    let report = verify_at(place, None).await?;
    checks.push(format!(
        "ledger verify of {} entries in {name}: {:.2} s, {}",
        report.entries(),
        began.elapsed().as_secs_f64(),
        if report.is_sound() {
            "sound"
        } else {
            "NOT SOUND"
        }
    ));
    Ok(())
}

fn row(name: &str, words: [&str; 7]) -> [String; 8] {
    let [a, b, c, d, e, f, g] = words;
    [name, a, b, c, d, e, f, g].map(str::to_owned)
}

/// Holds and settles each number once, shared out among so many clients and accounts.
async fn charge(
    store: &Store,
    (clients, accounts, text): (u64, u128, usize),
    numbers: std::ops::Range<u64>,
) -> Result<Duration, Failed> {
    let text = Bytes::from(vec![b'x'; text]);
    let next = Arc::new(AtomicU64::new(numbers.start));
    let began = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..clients {
        let (store, next, end) = (store.clone(), Arc::clone(&next), numbers.end);
        let text = text.clone();
        running.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= end {
                    return Ok::<_, Failed>(());
                }
                let account = AccountId::from_u128(u128::from(number) % accounts + 1);
                // Spread like the random ids that they stand for.
                let spread =
                    u128::from(number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_0C29_56B1_7F4B);
                let request = RequestId::from_u128(spread);
                let hold = Hold {
                    id: HoldId(number),
                    request,
                    body: [1; 32],
                    price: Price::CLAUDE_SONNET,
                    input_tokens_max: 1000,
                    output_tokens_max: 1000,
                    provider: "anthropic".to_owned(),
                    device: None,
                    guest: None,
                };
                store.hold(account, hold, NOW).await?;
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
                let keep = (!text.is_empty()).then(|| {
                    Box::new(Keep {
                        transcript: Transcript::from_bytes(text.clone()),
                        kept: KEPT,
                    })
                });
                store.settle_and_keep(account, settle, keep, NOW).await?;
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
