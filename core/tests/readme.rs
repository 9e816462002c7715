//! What the README says that a question costs is what the rules of billing charge.

use mesh_core::billing::money::Nanos;
use mesh_core::billing::price::Price;
use mesh_core::billing::tier::Tier;
use mesh_core::wire::message::TokensUsed;

const README: &str = include_str!("../../README.md");
const SECTION: &str = "## What does it cost me?";

/// The rows of the section's table: model, input, output, base, charge.
fn rows() -> Vec<Vec<&'static str>> {
    // Without the section there is no row, which the test notices.
    let section = README
        .split_once(SECTION)
        .map_or("", |(_, section)| section);
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

fn count(text: &str) -> u64 {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_default()
}

#[test]
fn every_row_of_the_worked_example_is_what_is_charged() {
    let rows = rows();
    assert!(rows.len() >= 3, "{rows:?}");
    for row in rows {
        let [model, input, output, base, managed] = row.as_slice() else {
            panic!("{row:?} has not five cells");
        };
        let price = Price::named(model.trim_matches('`'));
        let Some(price) = price else {
            panic!("there is no price {model}");
        };
        let tokens = TokensUsed {
            prompt: count(input),
            completion: count(output),
            ..TokensUsed::default()
        };
        let said = |text: &str| Nanos::parse_dollars(text.trim_start_matches('$'));
        let charged = price.cost(&tokens, Tier::MANAGED.rate_bps());
        assert_eq!(said(base).ok(), price.base(&tokens).ok(), "{row:?}");
        assert_eq!(said(managed).ok(), charged.ok(), "{row:?}");
    }
}

#[test]
fn ten_thousand_small_questions_cost_what_the_readme_says_to_the_cent() {
    let tokens = TokensUsed {
        prompt: 1000,
        completion: 500,
        ..TokensUsed::default()
    };
    let one = Price::CLAUDE_SONNET.cost(&tokens, Tier::MANAGED.rate_bps());
    // $0.010815 each: rounded to a cent a question it would be $100.00, $8.15 short.
    let all = one
        .map(|one| Nanos(one.0 * 10_000))
        .map(|all| all.to_string());
    assert_eq!(all.as_deref(), Ok("$108.15"));
    assert!(README.contains("$108.15"));
}
