//! What every command says, and how.

use std::io::Write as _;

use mesh_sim::record::Violation;
use serde_json::json;

/// A closed pipe ends the output and is nobody's fault.
pub(super) fn say(line: &str) {
    let _closed = writeln!(std::io::stdout(), "{line}");
}

pub(super) fn say_error(line: &str) {
    let _closed = writeln!(std::io::stderr(), "{line}");
}

pub(super) fn held(violation: Option<&Violation>) -> bool {
    if let Some(violation) = violation {
        say(&format!("BROKEN: {}", violation.invariant));
        say(&format!("        {}", violation.found));
    }
    violation.is_none()
}

pub(super) fn failed(seed: u64, transport: &str, violation: &Violation) -> serde_json::Value {
    json!({
        "seed": seed,
        "transport": transport,
        "invariant": violation.invariant,
        "why": violation.found,
        "replay": format!("mesh-sim run --seed {seed} --transport {transport}"),
    })
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
pub(super) fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
