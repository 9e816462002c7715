//! `mesh-sim`: runs, replays and searches simulated worlds.

mod args;
mod many;
mod say;
mod storm;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;
use mesh_sim::plan::Plan;
use mesh_sim::queue::SECOND;
use mesh_sim::storm::Storm;
use mesh_sim::swarm::{self, Run};
use mesh_sim::{draw, measure, minimize, report, world::Finished};
use serde_json::json;

use self::args::{Cli, Command};
use self::many::many;
use self::say::{failed, held, say, say_error, seconds};
use self::storm::{Told, storm};

/// Exit code when an invariant does not hold.
const BROKEN: u8 = 1;
/// Exit code when nothing could be run.
const UNUSABLE: u8 = 2;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run {
            seed,
            transport,
            trace,
            json,
        } => one(&draw::plan(seed, &transport), trace, json),
        Command::Swarm {
            seconds,
            from,
            threads,
            thorough,
            json,
        } => many(seconds, from, threads, thorough, json),
        Command::Fleet {
            devices,
            seconds,
            transport,
        } => fleet(devices, seconds, &transport),
        Command::Storm {
            devices,
            dark,
            transport,
            no_jitter,
            html,
            json,
        } => storm(
            &Storm {
                transport: &transport,
                devices,
                dark: dark * SECOND,
            },
            &Told {
                no_jitter,
                html: html.as_ref(),
                json,
            },
        ),
        Command::Commuter { days } => commuter(days),
        Command::Plan { seed } => plan(seed),
        Command::Minimize {
            seed,
            transport,
            plan,
            out,
            runs,
        } => seed_or_file(seed, &transport, plan.as_ref())
            .and_then(|plan| minimize(&plan, out.as_ref(), runs)),
        Command::Report {
            seed,
            transport,
            plan,
            html,
            window,
        } => seed_or_file(seed, &transport, plan.as_ref())
            .and_then(|plan| draw_report(&plan, &html, window.as_deref())),
        Command::Replay { file, trace, json } => {
            read(&file).and_then(|plan| one(&plan, trace, json))
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(BROKEN),
        Err(why) => {
            say_error(&format!("mesh-sim: {why}"));
            ExitCode::from(UNUSABLE)
        }
    }
}

fn read(file: &PathBuf) -> Result<Plan, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    serde_json::from_str(&text).map_err(|error| {
        format!(
            "{} is no plan: {error}; `mesh-sim plan --seed 1` prints one",
            file.display()
        )
    })
}

fn plan(seed: u64) -> Result<bool, String> {
    let plan = draw::plan(seed, "quic");
    say(&serde_json::to_string_pretty(&plan).map_err(|error| error.to_string())?);
    Ok(true)
}

fn seed_or_file(
    seed: Option<u64>,
    transport: &str,
    file: Option<&PathBuf>,
) -> Result<Plan, String> {
    match (file, seed) {
        (Some(file), _) => read(file),
        (None, Some(seed)) => Ok(draw::plan(seed, transport)),
        (None, None) => Err("name a seed or a plan".to_owned()),
    }
}

fn minimize(plan: &Plan, out: Option<&PathBuf>, runs: u32) -> Result<bool, String> {
    // A panic is caught and told as a violation; its own words on the way would only disturb.
    std::panic::set_hook(Box::new(|_| {}));
    let broken = minimize::violation_of(plan).map_err(|error| error.to_string())?;
    let Some(broken) = broken else {
        say_error("every invariant holds in this plan: there is nothing to shrink");
        return Ok(true);
    };
    let before = minimize::Size::of(plan);
    say_error(&format!("BROKEN: {}", broken.invariant));
    say_error(&format!("before: {before}"));
    let mut progress = |doing: &str, plan: &Plan, runs: u32| {
        let size = minimize::Size::of(plan);
        say_error(&format!("{runs:>5} runs, {doing}: {size}"));
    };
    let shrunk = minimize::shrink_broken(plan, &broken.invariant, runs, &mut progress);
    let after = minimize::Size::of(&shrunk.plan);
    let why = if shrunk.cut_short {
        "; --runs more may find a smaller one"
    } else {
        ""
    };
    say_error(&format!("after:  {after} ({} runs{why})", shrunk.runs));
    let text = serde_json::to_string_pretty(&shrunk.plan).map_err(|error| error.to_string())?;
    if let Some(out) = out {
        std::fs::write(out, text + "\n")
            .map_err(|error| format!("{} cannot be written: {error}", out.display()))?;
        say_error(&format!("replay: mesh-sim replay {}", out.display()));
    } else {
        say(&text);
        say_error("replay: save it as small.json, then mesh-sim replay small.json");
    }
    Ok(false)
}

fn draw_report(plan: &Plan, html: &PathBuf, window: Option<&str>) -> Result<bool, String> {
    let window = window.map(span).transpose()?;
    let drawn = report::report(plan, window).map_err(|error| error.to_string())?;
    std::fs::write(html, &drawn.html)
        .map_err(|error| format!("{} cannot be written: {error}", html.display()))?;
    say(&format!("{}: {} bytes", html.display(), drawn.html.len()));
    Ok(held(drawn.finished.violation.as_ref()))
}

/// `12.5-16` as virtual µs.
fn span(text: &str) -> Result<(u64, u64), String> {
    let micros = |second: &str| {
        let (whole, part) = second.split_once('.').unwrap_or((second, ""));
        let part = format!("{part:0<6}");
        let digits = part.len() == 6 && part.bytes().all(|byte| byte.is_ascii_digit());
        let part: u64 = part.parse().ok().filter(|_| digits)?;
        whole
            .parse::<u64>()
            .ok()?
            .checked_mul(SECOND)?
            .checked_add(part)
    };
    text.split_once('-')
        .and_then(|(from, to)| Some((micros(from)?, micros(to)?)))
        .filter(|(from, to)| from < to)
        .ok_or_else(|| format!("{text:?} is no window; write seconds as in 12.5-16"))
}

fn fleet(devices: usize, span: u64, transport: &str) -> Result<bool, String> {
    let speed = measure::fleet(transport, devices, span * SECOND).map_err(|e| e.to_string())?;
    say(&format!(
        "{devices} devices on {transport}: {:.0} virtual s a second, {:.0} events a second, {:.1} datagrams per device and minute",
        speed.virtual_per_wall, speed.events_per_s, speed.datagrams_per_device_minute
    ));
    Ok(held(speed.violation.as_ref()))
}

fn commuter(days: u64) -> Result<bool, String> {
    let life = measure::commuter(days).map_err(|error| error.to_string())?;
    let (asked, answered) = life.questions;
    say(&format!(
        "{days} days on a bad mobile link: {:.3} % with a tunnel, {} reconnects, {answered} of {asked} questions answered, {} bytes a day; simulated in {:.1} s",
        life.uptime * 100.0,
        life.reconnects,
        life.bytes_a_day,
        life.wall_s
    ));
    Ok(held(life.violation.as_ref()))
}

fn one(plan: &Plan, trace: bool, json: bool) -> Result<bool, String> {
    let run = swarm::run(plan, trace).map_err(|error| error.to_string())?;
    let held = run.finished.violation.is_none();
    if json {
        say(&run_as_json(plan, &run).to_string());
        return Ok(held);
    }
    if trace || !held {
        run.notes.iter().for_each(|note| say(note));
    }
    say(&in_words(&run.finished));
    if let Some(violation) = &run.finished.violation {
        say(&format!("BROKEN: {}", violation.invariant));
        say(&format!("        {}", violation.found));
    }
    Ok(held)
}

fn in_words(finished: &Finished) -> String {
    format!(
        "{:.1} virtual s, {} events, {} datagrams, {} of {} questions answered; digest {}",
        seconds(finished.virtual_us),
        finished.events,
        finished.datagrams,
        finished.answered,
        finished.questions,
        finished.digest,
    )
}

fn run_as_json(plan: &Plan, run: &Run) -> serde_json::Value {
    let finished = &run.finished;
    let failed = finished
        .violation
        .as_ref()
        .map(|violation| failed(plan.seed, &plan.transport, violation));
    json!({
        "seed": plan.seed,
        "digest": finished.digest,
        "virtual_seconds": seconds(finished.virtual_us),
        "events": finished.events,
        "datagrams": finished.datagrams,
        "questions": finished.questions,
        "answered": finished.answered,
        "failed": failed,
        "notes": run.notes,
    })
}
