//! Looking for private data in text that has none, against one regular expression of the same forms.
//!
//! What a question costs before it is encoded. The peer is the `regex` crate with an alternation of
//! the forms that the built-in patterns look for (without their checks), on bytes and without
//! Unicode: its quickest way.
//!
//! `cargo run --release -p mesh-bench --bin privacy [ROUNDS]`

use std::hint::black_box;

use mesh_bench::harness::{Contender, Table, machine, ratio, take_turns};
use mesh_core::privacy::Patterns;
use regex::bytes::RegexBuilder;

const TEXT_BYTES: usize = 8 * 1024 * 1024;
const ROUNDS_DEFAULT: usize = 11;

/// Prose, with the digits, dashes and colons that prose has.
const PROSE: &str = "The meeting on 26 November was short: nobody had read the report, which ran \
to 40 pages. \"We should have known,\" she said - and they had, in a way, since the spring of 1998. \
Section 15.5 explains the rest; it is well-written, if long-winded, and ends with a question. ";
/// Code, with its underscores and operators.
const CODE: &str = "fn checked_total(items: &[Item], tax_rate: u32) -> Result<u64, Overflow> {\n    \
let mut total = 0_u64;\n    for item in items.iter().filter(|item| item.count != 0) {\n        total \
= total.checked_add(item.price * item.count as u64).ok_or(Overflow)?;\n    }\n    Ok(total + total * \
u64::from(tax_rate) / 10_000) // rounded down\n}\n";

const FORMS: &str = r"[A-Za-z0-9._%+'-]{1,64}@[A-Za-z0-9.-]{1,253}\.[A-Za-z]{2,}|(?:\+[1-9]|\b00[1-9])[0-9 ./()-]{7,20}|\(?[2-9][0-9]{2}\)?[ .-]?[2-9][0-9]{2}[ .-][0-9]{4}\b|\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b|\b[2-6][0-9](?:[ -]?[0-9]){11,17}\b|\b[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){11,30}\b|-----BEGIN [A-Z ]*PRIVATE KEY|\beyJ[A-Za-z0-9_-]{7,}\.|\b(?:AKIA|ASIA)[A-Z0-9]{16}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bxox[a-z]-[A-Za-z0-9-]{10,}|\b[srp]k_(?:live|test)_[A-Za-z0-9]{10,}|\bsk-[A-Za-z0-9_-]{20,}|\bAIza[A-Za-z0-9_-]{35}|(?i:password|passwd|secret|api_?key|token)[ '\x22]{0,3}[:=]|://[^\s/:@]+:[^\s/@]+@";

fn main() {
    let rounds = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(ROUNDS_DEFAULT);
    let Ok(forms) = RegexBuilder::new(FORMS).unicode(false).build() else {
        return;
    };
    println!("{}; medians of {rounds} rounds\n", machine());
    let mut table = Table::new(&[
        "text",
        "regex MB/s",
        "ours MB/s",
        "ratio",
        "strict MB/s",
        "spread",
    ]);
    for (name, unit) in [("prose", PROSE), ("code", CODE)] {
        let text = unit.repeat(TEXT_BYTES / unit.len());
        let (usual, strict) = (Patterns::default(), Patterns::new(true, Vec::new()));
        let strict = strict.unwrap_or_default();
        let results = take_turns(
            rounds,
            &mut [
                Contender::new("regex", || {
                    black_box(forms.find_iter(text.as_bytes()).count());
                }),
                Contender::new("ours", || {
                    assert!(
                        black_box(usual.find(&text)).is_empty(),
                        "something was found"
                    );
                }),
                Contender::new("strict", || {
                    black_box(strict.find(&text).len());
                }),
            ],
        );
        let [regex, ours, strictly] = results.as_slice() else {
            continue;
        };
        let megabytes = f64::from(u32::try_from(text.len() / 1000).unwrap_or(u32::MAX)) / 1000.0;
        let rate = |wall: std::time::Duration| format!("{:.0}", megabytes / wall.as_secs_f64());
        table.row([
            name.to_owned(),
            rate(regex.wall()),
            rate(ours.wall()),
            format!("{:.1}×", ratio(regex.wall(), ours.wall())),
            rate(strictly.wall()),
            format!("±{:.0} %", ours.spread().max(regex.spread()) * 100.0),
        ]);
    }
    println!("{table}");
}
