//! `mesh-sim`: runs, replays and searches simulated worlds.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use mesh_sim::plan::Plan;
use mesh_sim::queue::SECOND;
use mesh_sim::record::Violation;
use mesh_sim::storm::{self, Course, Storm};
use mesh_sim::swarm::{self, Run, Tally};
use mesh_sim::{draw, measure, minimize, report, world::Finished};
use serde_json::json;

/// Exit code when an invariant does not hold.
const BROKEN: u8 = 1;
/// Exit code when nothing could be run.
const UNUSABLE: u8 = 2;

/// Simulates devices and gateways through bad networks. One seed is one history, bit for bit.
#[derive(Parser)]
#[command(name = "mesh-sim", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
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
enum Command {
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

/// A closed pipe ends the output and is nobody's fault.
fn say(line: &str) {
    let _closed = writeln!(std::io::stdout(), "{line}");
}

fn say_error(line: &str) {
    let _closed = writeln!(std::io::stderr(), "{line}");
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

fn held(violation: Option<&Violation>) -> bool {
    if let Some(violation) = violation {
        say(&format!("BROKEN: {}", violation.invariant));
        say(&format!("        {}", violation.found));
    }
    violation.is_none()
}

fn fleet(devices: usize, span: u64, transport: &str) -> Result<bool, String> {
    let speed = measure::fleet(transport, devices, span * SECOND).map_err(|e| e.to_string())?;
    say(&format!(
        "{devices} devices on {transport}: {:.0} virtual s a second, {:.0} events a second, {:.1} datagrams per device and minute",
        speed.virtual_per_wall, speed.events_per_s, speed.datagrams_per_device_minute
    ));
    Ok(held(speed.violation.as_ref()))
}

/// Columns of the longest bar.
const BAR: u32 = 60;

/// How a storm is told.
struct Told<'a> {
    no_jitter: bool,
    html: Option<&'a PathBuf>,
    json: bool,
}

fn storm(storm: &Storm<'_>, told: &Told<'_>) -> Result<bool, String> {
    let both = told.no_jitter || told.html.is_some();
    let courses = if both {
        storm.compare().map(Vec::from)
    } else {
        storm.run(true).map(|course| vec![course])
    };
    let courses = courses.map_err(|error| error.to_string())?;
    if let Some(file) = told.html {
        std::fs::write(file, storm::html(storm, &courses))
            .map_err(|error| format!("{} cannot be written: {error}", file.display()))?;
    }
    if told.json {
        let all: Vec<_> = courses.iter().map(course_as_json).collect();
        say(&json!({ "transport": storm.transport, "devices": storm.devices, "dark_seconds": seconds(storm.dark), "courses": all }).to_string());
    } else {
        for course in &courses {
            draw_course(storm, course);
        }
        say(&storm::explanation(storm, &courses));
    }
    let fine = |course: &Course| course.violation.is_none() && course.last_back_s.is_some();
    Ok(courses.iter().all(fine))
}

fn draw_course(storm: &Storm<'_>, course: &Course) {
    let name = if course.jitter {
        "with jitter"
    } else {
        "without jitter"
    };
    let (peak, at) = course.peak();
    say(&format!("handshakes finished in each second, {name}:"));
    for (second, &count) in course.established.iter().enumerate() {
        if count > 0 {
            let bar = (u64::from(count) * u64::from(BAR)).div_ceil(u64::from(peak.max(1)));
            let bar = "█".repeat(usize::try_from(bar).unwrap_or_default());
            say(&format!("{second:>4} s {count:>6} {bar}"));
        }
    }
    let last = course
        .last_back_s
        .map_or_else(|| "never".to_owned(), |last| format!("{last:.1} s"));
    say(&format!(
        "{} devices on {}, gateway away for {:.0} s, {name}: at most {peak} handshakes a second (second {at}), {} attempts in vain, {} refused, the last back after {last}; simulated in {:.1} s",
        storm.devices,
        storm.transport,
        seconds(storm.dark),
        course.in_vain,
        course.refused,
        course.wall_s,
    ));
    held(course.violation.as_ref());
}

fn course_as_json(course: &Course) -> serde_json::Value {
    let (peak, at) = course.peak();
    json!({
        "jitter": course.jitter,
        "peak_handshakes_per_second": peak,
        "peak_at_second": at,
        "peak_attempts_per_second": course.peak_begun().0,
        "attempts_in_vain": course.in_vain,
        "refused": course.refused,
        "last_back_seconds": course.last_back_s,
        "established": course.established,
        "begun": course.begun,
        "wall_seconds": course.wall_s,
        "broken": course.violation.as_ref().map(|violation| &violation.invariant),
    })
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

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

fn failed(seed: u64, transport: &str, violation: &Violation) -> serde_json::Value {
    json!({
        "seed": seed,
        "transport": transport,
        "invariant": violation.invariant,
        "why": violation.found,
        "replay": format!("mesh-sim run --seed {seed} --transport {transport}"),
    })
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

fn many(
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
