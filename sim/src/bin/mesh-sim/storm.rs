//! `mesh-sim storm`: how a fleet comes back, in bars, as JSON or drawn.

use std::path::PathBuf;

use mesh_sim::storm::{self, Course, Storm};
use serde_json::json;

use super::say::{held, say, seconds};

/// Columns of the longest bar.
const BAR: u32 = 60;

/// How a storm is told.
pub(super) struct Told<'a> {
    pub(super) no_jitter: bool,
    pub(super) html: Option<&'a PathBuf>,
    pub(super) json: bool,
}

pub(super) fn storm(storm: &Storm<'_>, told: &Told<'_>) -> Result<bool, String> {
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
