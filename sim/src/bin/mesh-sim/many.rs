//! `mesh-sim swarm`: many worlds, and what they came to.

use std::io::IsTerminal as _;
use std::time::Duration;

use mesh_sim::swarm::{self, Tally};
use serde_json::json;

use super::say::{failed, say, say_error, seconds};

pub(super) fn many(
    span: u64,
    from: u64,
    threads: Option<usize>,
    thorough: bool,
    json: bool,
) -> Result<bool, String> {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = threads.unwrap_or_else(cores).max(1);
    if !json && std::io::stderr().is_terminal() {
        say_error(&format!(
            "worlds from seed {from} on, for {span} s on {threads} cores …"
        ));
    }
    // A panic is caught and told as a violation; its own words on the way would only disturb.
    std::panic::set_hook(Box::new(|_| {}));
    let tally = swarm::swarm(from, Duration::from_secs(span), threads)
        .map_err(|error| error.to_string())?;
    let never: Vec<&str> = tally
        .sometimes
        .counts()
        .filter(|&(_, times)| times == 0)
        .map(|(state, _)| state)
        .collect();
    if json {
        say(&tally_as_json(&tally, &never).to_string());
    } else {
        tell(&tally, from);
    }
    Ok(tally.failed.is_none() && (!thorough || never.is_empty()))
}

fn tally_as_json(tally: &Tally, never: &[&str]) -> serde_json::Value {
    let failed = tally
        .failed
        .as_ref()
        .map(|(seed, transport, violation)| failed(*seed, transport, violation));
    json!({
        "worlds": tally.worlds,
        "virtual_seconds": seconds(tally.virtual_us),
        "wall_seconds": tally.took.as_secs_f64(),
        "events": tally.events,
        "datagrams": tally.datagrams,
        "questions": tally.questions,
        "answered": tally.answered,
        "sometimes": tally.sometimes.counts().collect::<std::collections::BTreeMap<_, _>>(),
        "never": never,
        "failed": failed,
    })
}

fn tell(tally: &Tally, from: u64) {
    let took = tally.took.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "for people to read")]
    let events = tally.events as f64 / took;
    say(&format!(
        "{} worlds from seed {from} on: {:.0} virtual s in {took:.1} s ({:.0} a second), {} events ({events:.0} a second), {} datagrams",
        tally.worlds,
        seconds(tally.virtual_us),
        seconds(tally.virtual_us) / took,
        tally.events,
        tally.datagrams,
    ));
    say(&format!(
        "{} of {} questions answered to their end; the others were refused, failed or cut off, each once",
        tally.answered, tally.questions
    ));
    for (state, times) in tally.sometimes.counts() {
        say(&format!("{times:>8} × {state}"));
    }
    match &tally.failed {
        None => say("every invariant held in every world"),
        Some((seed, transport, violation)) => {
            say(&format!("BROKEN: {}", violation.invariant));
            say(&format!("        {}", violation.found));
            say(&format!(
                "replay: mesh-sim run --seed {seed} --transport {transport}"
            ));
            say(&format!(
                "shrink: mesh-sim minimize --seed {seed} --transport {transport}"
            ));
            say(&format!(
                "draw:   mesh-sim report --seed {seed} --transport {transport} --html {seed}.html"
            ));
        }
    }
}
