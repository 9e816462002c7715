//! One world as a page for a person who debugs: who was how at what time, what was said in a window
//! of it, how the answers came on, and where the money went.
//!
//! The world is run twice: once to see how it ends and where to look, once with a recorder. Both
//! histories are the same one, which is checked.

mod page;

use std::panic::{AssertUnwindSafe, catch_unwind};

use mesh_core::quic::Quic;

use crate::plan::{Happening, Plan};
use crate::queue::{Micros, SECOND};
use crate::record::{Outcome, Record, Violation};
use crate::recorder::{Balance, Recorder};
use crate::swarm;
use crate::trace::Note;
use crate::wire::plain::Plain;
use crate::wire::{Unbuildable, Wire};
use crate::world::{Finished, World};

/// Virtual µs that are looked at closely when nobody says which.
const WINDOW: Micros = 4 * SECOND;

/// Everything that the page shows.
struct Shown<'a> {
    plan: &'a Plan,
    finished: &'a Finished,
    window: (Micros, Micros),
    recorder: &'a Recorder,
    record: &'a Record,
    balances: Vec<Balance>,
    notes: Vec<&'a Note>,
}

/// A page and the run that it shows.
#[derive(Debug)]
pub struct Report {
    /// The page.
    pub html: String,
    /// The run.
    pub finished: Finished,
}

/// Runs a plan and draws it; `window` is looked at closely, virtual µs from and to. If not given, it is
/// the time before the first invariant that does not hold, else the time of the first question.
///
/// # Errors
///
/// [`Unbuildable`] when the world cannot be built.
pub fn report(plan: &Plan, window: Option<(Micros, Micros)>) -> Result<Report, Unbuildable> {
    let first = swarm::run(plan, false)?.finished;
    let window = window.unwrap_or_else(|| telling(plan, &first));
    match plan.transport.as_str() {
        Quic::NAME => recorded::<Quic>(plan, &first, window),
        Plain::NAME => recorded::<Plain>(plan, &first, window),
        unknown => Err(Unbuildable(format!(
            "there is no transport {unknown:?}; use quic or plain"
        ))),
    }
}

fn telling(plan: &Plan, finished: &Finished) -> (Micros, Micros) {
    if finished.violation.is_some() {
        let end = finished.virtual_us;
        return (end.saturating_sub(WINDOW), end);
    }
    let mut asked = plan
        .happenings
        .iter()
        .filter_map(|timed| matches!(timed.what, Happening::Ask { .. }).then_some(timed.at));
    let from = asked.next().unwrap_or_default();
    (from, from + WINDOW)
}

fn recorded<W: Wire>(
    plan: &Plan,
    first: &Finished,
    window: (Micros, Micros),
) -> Result<Report, Unbuildable> {
    let mut world = World::<W>::recorded(plan.clone(), Recorder::new(window.0, window.1))?;
    // A machine that panics is what one may want to look at.
    let ran = catch_unwind(AssertUnwindSafe(|| world.run()));
    let mut finished = ran.unwrap_or_else(|panic| Ok(swarm::panicked(&*panic)))?;
    if finished.violation.is_none() && finished.digest != first.digest {
        finished.violation = Some(Violation {
            invariant: "one plan is one history".to_owned(),
            found: format!("{} and {}", first.digest, finished.digest),
        });
    }
    let Some(recorder) = world.recorder() else {
        return Err(Unbuildable("nothing was recorded".to_owned()));
    };
    let shown = Shown {
        plan,
        finished: &finished,
        window,
        recorder,
        record: world.record(),
        balances: world.balances(),
        notes: world.trace().whole().iter().collect(),
    };
    let html = page::html(&shown);
    Ok(Report { html, finished })
}

/// How a question ended, in a few words.
fn ending(outcome: Option<&Outcome>) -> String {
    match outcome {
        Some(Outcome::Answered { finish, .. }) => format!("answered ({finish:?})"),
        Some(Outcome::Failed(error)) => format!("failed: {error}"),
        Some(Outcome::DeviceDied) => "its device died".to_owned(),
        None => "still open".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw;

    #[test]
    fn the_page_is_one_file_that_asks_for_nothing_and_the_same_each_time() {
        for transport in ["quic", "plain"] {
            let plan = draw::plan(8, transport);
            let one = report(&plan, None).unwrap();
            assert_eq!(one.finished.violation, None);
            assert_eq!(one.html, report(&plan, None).unwrap().html);
            assert!(one.html.len() < 4 << 20, "{} bytes", one.html.len());
            for outside in [
                "http:", "https:", "src=", "@import", "url(", "<link", "<script",
            ] {
                assert!(!one.html.contains(outside), "{outside} is in the page");
            }
            for (open, close) in [
                ("<svg", "</svg>"),
                ("<table", "</table>"),
                ("<figure", "</figure>"),
            ] {
                let count = |what| one.html.matches(what).count();
                assert_eq!(count(open), count(close), "{open}");
            }
            assert!(one.html.contains(&one.finished.digest));
        }
    }

    #[test]
    fn a_window_shows_the_datagrams_in_it_and_no_others() {
        let plan = draw::plan(8, "plain");
        let lines = |window| {
            report(&plan, Some(window))
                .unwrap()
                .html
                .matches("class=\"heard\"")
                .count()
        };
        assert!(lines((0, 10 * SECOND)) > 0);
        // Before anybody begins there is one moment, and after the end there is none.
        let never = u64::MAX - 1;
        assert_eq!(lines((never, never)), 0);
    }
}
