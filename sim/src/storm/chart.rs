//! The drawing of a storm: what the gateway finished and what the devices began, second by second.

use std::fmt::Write as _;

use super::{Course, Storm, explanation, seconds};
use crate::page::{escape, page, thousands, ticks};

const WIDTH: f64 = 1160.0;
const LEFT: f64 = 56.0;
const HEIGHT: f64 = 250.0;

/// One panel: a title, and from a course its counts.
type Panel = (&'static str, fn(&Course) -> &[u32]);

const PANELS: [Panel; 2] = [
    ("Handshakes finished by the gateway, a second", |course| {
        &course.established
    }),
    ("Attempts begun by devices, a second", |course| {
        &course.begun
    }),
];

const STYLE: &str = "
.with{fill:var(--blue);fill-opacity:.22;stroke:var(--blue);stroke-width:1.5}
.without{fill:none;stroke:var(--orange);stroke-width:1.5}
.dark{fill:var(--shade)}
.grid{stroke:var(--grid)}.axis{stroke:var(--line)}
";

/// The page.
#[must_use]
pub fn html(storm: &Storm<'_>, courses: &[Course]) -> String {
    let mut body = String::new();
    let dark = seconds(storm.dark);
    let _infallible = write!(
        body,
        "<h1>A gateway restarts under {} devices</h1>\n<p class=\"soft\">Transport {}; the gateway dies at second 0 and is back after {dark:.0} s, knowing no session.</p>\n",
        thousands(storm.devices as u64),
        escape(storm.transport),
    );
    for course in courses {
        if let Some(violation) = &course.violation {
            let _infallible = writeln!(
                body,
                "<p><strong>BROKEN: {}</strong><br>{}</p>",
                escape(&violation.invariant),
                escape(&violation.found)
            );
        }
    }
    body.push_str(&table(courses));
    body.push_str("<figure>\n<div class=\"legend\"><span><i style=\"background:var(--blue)\"></i>with jitter</span><span><i style=\"background:var(--orange)\"></i>without</span><span><i style=\"background:var(--shade);outline:1px solid var(--line)\"></i>the gateway is away</span></div>\n");
    let shown = shown(storm, courses);
    for panel in PANELS {
        body.push_str(&draw(panel, storm, courses, shown));
    }
    let why = escape(&explanation(storm, courses));
    let _infallible = write!(body, "<figcaption>{why}</figcaption>\n</figure>\n");
    page("Reconnect storm", STYLE, &body, "")
}

fn name(course: &Course) -> &'static str {
    if course.jitter {
        "with jitter"
    } else {
        "without"
    }
}

fn table(courses: &[Course]) -> String {
    let mut table = "<div class=\"scroll\"><table>\n<tr><th></th><th class=\"n\">peak, handshakes a second</th><th class=\"n\">in second</th><th class=\"n\">peak, attempts a second</th><th class=\"n\">attempts in vain</th><th class=\"n\">refused as too many at once</th><th class=\"n\">the last is back after</th></tr>\n".to_owned();
    for course in courses {
        let (peak, at) = course.peak();
        let last = course
            .last_back_s
            .map_or_else(|| "never".to_owned(), |last| format!("{last:.1} s"));
        let _infallible = writeln!(
            table,
            "<tr><th>{}</th><td class=\"n\">{}</td><td class=\"n\">{at}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{last}</td></tr>",
            name(course),
            thousands(peak.into()),
            thousands(course.peak_begun().0.into()),
            thousands(course.in_vain),
            thousands(course.refused as u64),
        );
    }
    table.push_str("</table></div>\n");
    table
}

/// Seconds shown: until a little after the last thing that happened.
fn shown(storm: &Storm<'_>, courses: &[Course]) -> f64 {
    let last = courses
        .iter()
        .flat_map(|course| [&course.established, &course.begun])
        .filter_map(|counts| counts.iter().rposition(|&count| count > 0))
        .max()
        .and_then(|last| u32::try_from(last).ok())
        .unwrap_or(0);
    (f64::from(last) + 3.0).max(seconds(storm.dark) + 5.0)
}

fn draw((title, counts): Panel, storm: &Storm<'_>, courses: &[Course], shown: f64) -> String {
    let most = courses
        .iter()
        .flat_map(|course| counts(course).iter().copied())
        .max()
        .map_or(1.0, |most| f64::from(most.max(1)));
    let (top, bottom) = (26.0, HEIGHT - 28.0);
    let x = |second: f64| LEFT + (WIDTH - LEFT - 8.0) * second / shown;
    let y = |count: f64| bottom - (bottom - top) * count / (most * 1.04);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n<text x=\"0\" y=\"12\" style=\"font-weight:600;font-size:12px\">{title}</text>\n<rect class=\"dark\" x=\"{:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{:.1}\"/>\n",
        x(0.0),
        x(seconds(storm.dark)) - x(0.0),
        bottom - top,
    );
    for count in ticks(0.0, most, 4) {
        let at = y(count);
        let _infallible = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{WIDTH}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{count}</text>",
            LEFT - 8.0,
            at + 4.0,
        );
    }
    for second in ticks(0.0, shown, 12) {
        let _infallible = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{second} s</text>",
            x(second),
            bottom + 17.0,
        );
    }
    let _infallible = writeln!(svg, "<path class=\"axis\" d=\"M{LEFT} {bottom}H{WIDTH}\"/>");
    for course in courses {
        let mut path = format!("M{:.1} {bottom:.1}", x(0.0));
        for (second, &count) in (0u32..).zip(counts(course)) {
            let (from, to) = (f64::from(second), f64::from(second) + 1.0);
            if to <= shown {
                let at = y(f64::from(count));
                let _infallible = write!(path, "V{at:.1}H{:.1}", x(to).max(x(from)));
            }
        }
        let _infallible = write!(path, "V{bottom:.1}");
        let class = if course.jitter { "with" } else { "without" };
        let _infallible = writeln!(svg, "<path class=\"{class}\" d=\"{path}\"/>");
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_figures_and_escapes_what_it_is_told() {
        let storm = Storm {
            transport: "<b>plain",
            devices: 1500,
            dark: 2_000_000,
        };
        let course = |jitter, peak| Course {
            jitter,
            established: vec![0, 0, peak, 7],
            begun: vec![0, 1, 2, 3],
            in_vain: 1,
            refused: 0,
            last_back_s: Some(1.5),
            wall_s: 0.0,
            violation: Some(crate::record::Violation {
                invariant: "a <script> runs".to_owned(),
                found: "\"</p>\"".to_owned(),
            }),
        };
        let page = html(&storm, &[course(true, 40), course(false, 90)]);
        assert!(page.contains(">40</td>") && page.contains(">90</td>"));
        assert!(page.contains("1\u{202F}500 devices"));
        assert!(!page.contains("<b>") && !page.contains("<script"));
    }
}
