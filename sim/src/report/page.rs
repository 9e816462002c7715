//! The page itself.

use std::fmt::Write as _;

use super::{Shown, ending};
use crate::page::{escape, page, thousands, ticks};
use crate::queue::Micros;
use crate::recorder::{Fate, Money, Node, Phase, Text};

const WIDTH: f64 = 1160.0;
const LEFT: f64 = 92.0;
const LANE: f64 = 22.0;
/// Lanes, lines and rows drawn at most; what is beyond is counted on the page.
const LANES_MAX: usize = 48;
const DATAGRAMS_MAX: usize = 4_000;
const QUESTIONS_MAX: usize = 120;
const ROWS_MAX: usize = 400;
const NOTES_MAX: usize = 3_000;

const STYLE: &str = "
.dead{fill:var(--ink);fill-opacity:.75}.asleep{fill:var(--grey)}.disconnected{fill:var(--grid)}
.connecting{fill:var(--blue);fill-opacity:.45}.connected{fill:var(--green)}.doubt{fill:var(--amber)}
.reconnecting{fill:var(--orange)}.failed{fill:var(--red)}
.heard{stroke:var(--blue);stroke-width:.8}.unheard{stroke:var(--grey);stroke-width:.8;stroke-dasharray:3 2}
.lost{stroke:var(--red);stroke-width:1}.grid{stroke:var(--grid)}.lane{stroke:var(--line)}
.mark{stroke:var(--violet);stroke-width:1.5}.window{fill:var(--shade)}
.produced{fill:none;stroke:var(--grey);stroke-width:3}.delivered{fill:none;stroke:var(--blue);stroke-width:1.5}
.broken{background:var(--bad);border-left:4px solid var(--red);padding:8px 14px}
pre{font:12px ui-monospace,Menlo,monospace;overflow-x:auto}
";

/// Virtual µs as seconds.
#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn seconds(at: Micros) -> f64 {
    at as f64 / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn number(count: usize) -> f64 {
    count as f64
}

/// A span of time as a width on the page.
#[derive(Clone, Copy)]
struct Axis {
    from: f64,
    to: f64,
}

impl Axis {
    fn of((from, to): (Micros, Micros)) -> Self {
        let (from, to) = (seconds(from), seconds(to));
        Self {
            from,
            to: to.max(from + 1e-3),
        }
    }

    fn x(self, at: Micros) -> f64 {
        let part = (seconds(at) - self.from) / (self.to - self.from);
        LEFT + (WIDTH - LEFT - 8.0) * part.clamp(0.0, 1.0)
    }

    fn draw(self, svg: &mut String, bottom: f64) {
        for second in ticks(self.from, self.to, 12) {
            let part = (second - self.from) / (self.to - self.from);
            let x = LEFT + (WIDTH - LEFT - 8.0) * part;
            let label = (second * 1000.0).round() / 1000.0;
            let _infallible = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{x:.1} 0V{bottom:.1}\"/><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label} s</text>",
                bottom + 15.0
            );
        }
    }
}

/// The page.
pub(super) fn html(shown: &Shown<'_>) -> String {
    let mut body = String::new();
    head(&mut body, shown);
    overview(&mut body, shown);
    sequence(&mut body, shown);
    answers(&mut body, shown);
    money(&mut body, shown);
    notes(&mut body, shown);
    let title = format!("Seed {} on {}", shown.plan.seed, shown.plan.transport);
    page(&title, STYLE, &body, "")
}

fn head(body: &mut String, shown: &Shown<'_>) {
    let (plan, finished) = (shown.plan, shown.finished);
    let _infallible = write!(
        body,
        "<h1>Seed {} on {}</h1>\n<p class=\"soft\">{} devices, {} gateways, {} things that happen; {:.1} virtual seconds, {} events, {} datagrams; {} of {} questions answered. Digest <code>{}</code>. Again: <code>mesh-sim run --seed {} --transport {}</code></p>\n",
        plan.seed,
        escape(&plan.transport),
        plan.devices.len(),
        plan.gateways,
        plan.happenings.len(),
        seconds(finished.virtual_us),
        thousands(finished.events),
        thousands(finished.datagrams),
        finished.answered,
        finished.questions,
        finished.digest,
        plan.seed,
        escape(&plan.transport),
    );
    match &finished.violation {
        None => body.push_str("<p>Every invariant held.</p>\n"),
        Some(violation) => {
            let _infallible = writeln!(
                body,
                "<p class=\"broken\"><strong>BROKEN: {}</strong><br>{}</p>",
                escape(&violation.invariant),
                escape(&violation.found)
            );
        }
    }
}

/// Gateways first, then as many devices as there is room for.
fn lanes(shown: &Shown<'_>) -> Vec<Node> {
    let gateways = (0..shown.plan.gateways as usize).map(Node::Gateway);
    let devices = (0..shown.plan.devices.len()).map(Node::Device);
    gateways.chain(devices).take(LANES_MAX).collect()
}

fn left_out(body: &mut String, shown: usize, of: usize, what: &str) {
    if shown < of {
        let _infallible = writeln!(
            body,
            "<p class=\"soft\">{shown} of {of} {what} are shown.</p>"
        );
    }
}

const PHASES: [(Phase, &str, &str); 8] = [
    (Phase::Connected, "connected", "connected"),
    (Phase::Doubt, "doubt", "in doubt"),
    (Phase::Connecting, "connecting", "connecting"),
    (Phase::Reconnecting, "reconnecting", "reconnecting"),
    (Phase::Failed, "failed", "failed"),
    (Phase::Disconnected, "disconnected", "disconnected"),
    (Phase::Asleep, "asleep", "asleep"),
    (Phase::Dead, "dead", "dead"),
];

fn class_of(phase: Phase) -> &'static str {
    PHASES
        .iter()
        .find(|(of, ..)| *of == phase)
        .map_or("", |(_, class, _)| class)
}

fn overview(body: &mut String, shown: &Shown<'_>) {
    let lanes = lanes(shown);
    let all = shown.plan.gateways as usize + shown.plan.devices.len();
    body.push_str("<h2>Who was how</h2>\n<figure>\n<div class=\"legend\">");
    for (_, class, name) in PHASES {
        let _infallible = write!(
            body,
            "<span><svg style=\"display:inline;width:14px\" viewBox=\"0 0 14 10\"><rect class=\"{class}\" width=\"14\" height=\"10\"/></svg> {name}</span>"
        );
    }
    body.push_str("</div>\n");
    let end = shown.finished.virtual_us;
    let axis = Axis::of((0, end));
    let bottom = number(lanes.len()) * LANE;
    let _infallible = writeln!(
        body,
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"phases of every node\">",
        bottom + 22.0
    );
    axis.draw(body, bottom);
    let (from, to) = (axis.x(shown.window.0), axis.x(shown.window.1));
    let _infallible = writeln!(
        body,
        "<rect class=\"window\" x=\"{from:.1}\" y=\"0\" width=\"{:.1}\" height=\"{bottom:.1}\"/>",
        (to - from).max(2.0)
    );
    for (row, &node) in lanes.iter().enumerate() {
        bands(body, shown, node, axis, number(row) * LANE);
    }
    body.push_str("</svg>\n");
    left_out(body, lanes.len(), all, "devices and gateways");
    body.push_str("<figcaption>Violet: something of the plan happens to it (hover). Shaded: the window below.</figcaption>\n</figure>\n");
}

fn bands(body: &mut String, shown: &Shown<'_>, node: Node, axis: Axis, top: f64) {
    let _infallible = writeln!(
        body,
        "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{node}</text>",
        LEFT - 8.0,
        top + 15.0
    );
    let mut rows = shown
        .recorder
        .phases
        .iter()
        .filter(|row| row.node == node)
        .peekable();
    while let Some(row) = rows.next() {
        let until = rows
            .peek()
            .map_or(shown.finished.virtual_us, |next| next.at);
        let (from, to) = (axis.x(row.at), axis.x(until));
        let _infallible = writeln!(
            body,
            "<rect class=\"{}\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.2}\" height=\"12\"><title>{:?} from {:.3} s to {:.3} s</title></rect>",
            class_of(row.phase),
            top + 5.0,
            (to - from).max(0.3),
            row.phase,
            seconds(row.at),
            seconds(until)
        );
    }
    for timed in &shown.plan.happenings {
        let Some(what) = happens_to(node, &timed.what) else {
            continue;
        };
        let x = axis.x(timed.at);
        let _infallible = writeln!(
            body,
            "<path class=\"mark\" d=\"M{x:.1} {:.1}v16\"><title>{:.3} s: {}</title></path>",
            top + 3.0,
            seconds(timed.at),
            escape(&what)
        );
    }
}

/// What of the plan happens to this node, but for questions and loads, of which there are many.
fn happens_to(node: Node, what: &crate::plan::Happening) -> Option<String> {
    let json = serde_json::to_value(what).ok()?;
    let kind = json.get("what")?.as_str()?;
    if matches!(kind, "ask" | "ask_again" | "cancel" | "pause" | "load") {
        return None;
    }
    let key = match node {
        Node::Device(at) => ("device", at),
        Node::Gateway(at) => ("gateway", at),
    };
    let at = json.get(key.0)?.as_u64()?;
    (usize::try_from(at).ok()? == key.1).then(|| json.to_string())
}

fn sequence(body: &mut String, shown: &Shown<'_>) {
    let lanes = lanes(shown);
    let row_of = |node: Node| lanes.iter().position(|&lane| lane == node);
    let height = (LANE * 1.6).max(260.0 / number(lanes.len().max(1)));
    let bottom = number(lanes.len()) * height;
    let axis = Axis::of(shown.window);
    let drawn = shown.recorder.datagrams.len().min(DATAGRAMS_MAX);
    let _infallible = write!(
        body,
        "<h2>What was said from {:.3} s to {:.3} s</h2>\n<figure>\n<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"datagrams between nodes\">\n",
        seconds(shown.window.0),
        seconds(shown.window.1),
        bottom + 22.0
    );
    axis.draw(body, bottom);
    let y = |row: usize| (number(row) + 0.5) * height;
    for (row, node) in lanes.iter().enumerate() {
        let at = y(row);
        let _infallible = writeln!(
            body,
            "<path class=\"lane\" d=\"M{LEFT} {at:.1}H{WIDTH}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{node}</text>",
            LEFT - 8.0,
            at + 4.0
        );
    }
    for datagram in shown.recorder.datagrams.iter().take(DATAGRAMS_MAX) {
        let (Some(from), Some(to)) = (row_of(datagram.from), row_of(datagram.to)) else {
            continue;
        };
        let (x, from, to) = (axis.x(datagram.sent), y(from), y(to));
        let (class, end, reach) = match datagram.fate {
            Fate::Heard(at) => ("heard", axis.x(at), to),
            Fate::Unheard(at) | Fate::Arrives(at) => ("unheard", axis.x(at), to),
            Fate::Lost(_) => ("lost", x + 6.0, from + (to - from) * 0.3),
        };
        let damaged = if datagram.damaged { ", damaged" } else { "" };
        let _infallible = writeln!(
            body,
            "<path class=\"{class}\" d=\"M{x:.1} {from:.1}L{end:.1} {reach:.1}\"><title>{} to {}: {} bytes at {:.6} s, {:?}{damaged}</title></path>",
            datagram.from,
            datagram.to,
            datagram.bytes,
            seconds(datagram.sent),
            datagram.fate
        );
    }
    body.push_str("</svg>\n");
    let sent =
        shown.recorder.datagrams.len() + usize::try_from(shown.recorder.left_out).unwrap_or(0);
    left_out(body, drawn, sent, "datagrams");
    body.push_str("<figcaption>Blue: arrived and heard. Red: lost. Dashed: arrived where nobody listened, or still on its way at the end.</figcaption>\n</figure>\n");
}

fn answers(body: &mut String, shown: &Shown<'_>) {
    let questions = &shown.record.questions;
    body.push_str("<h2>The answers</h2>\n<div class=\"scroll\"><table>\n<tr><th>question</th><th>device</th><th class=\"n\">asked, s</th><th>progress: produced (grey), delivered (blue)</th><th class=\"n\">bytes</th><th>end</th></tr>\n");
    for (id, asked) in questions.iter().take(QUESTIONS_MAX) {
        let _infallible = writeln!(
            body,
            "<tr><td><code>{id}</code></td><td>{}</td><td class=\"n\">{:.3}</td><td>{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            asked.device,
            seconds(asked.at),
            progress(shown, *id, asked.at),
            asked.delivered.len(),
            escape(&ending(asked.outcome.as_ref()))
        );
    }
    body.push_str("</table></div>\n");
    left_out(
        body,
        questions.len().min(QUESTIONS_MAX),
        questions.len(),
        "questions",
    );
}

/// Bytes over time, from the asking to the end.
fn progress(shown: &Shown<'_>, id: mesh_core::ids::RequestId, asked: Micros) -> String {
    let steps: Vec<_> = shown
        .recorder
        .texts
        .iter()
        .filter(|row| row.request == id)
        .collect();
    let end = steps.last().map_or(asked, |row| row.at).max(asked + 1);
    let most = steps.iter().map(|row| match row.text {
        Text::Produced(bytes) | Text::Delivered(bytes) => bytes,
        Text::Ended => 0,
    });
    let most = number(most.max().unwrap_or(0).max(1));
    let x = |at: Micros| 2.0 + 216.0 * seconds(at - asked) / seconds(end - asked);
    let y = |bytes: usize| 22.0 - 20.0 * number(bytes) / most;
    let (mut produced, mut delivered) = ("M2 22".to_owned(), "M2 22".to_owned());
    for row in steps {
        let (line, bytes) = match row.text {
            Text::Produced(bytes) => (&mut produced, bytes),
            Text::Delivered(bytes) => (&mut delivered, bytes),
            Text::Ended => continue,
        };
        let _infallible = write!(line, "H{:.1}V{:.1}", x(row.at), y(bytes));
    }
    format!(
        "<svg style=\"width:220px\" viewBox=\"0 0 220 24\" role=\"img\" aria-label=\"{:.3} s\"><path class=\"produced\" d=\"{produced}\"/><path class=\"delivered\" d=\"{delivered}\"/></svg>",
        seconds(end - asked)
    )
}

fn money(body: &mut String, shown: &Shown<'_>) {
    body.push_str("<h2>The money</h2>\n<div class=\"scroll\"><table>\n<tr><th>account</th><th class=\"n\">ceiling</th><th class=\"n\">spent</th><th class=\"n\">held</th><th class=\"n\">owed</th><th class=\"n\">charges</th></tr>\n");
    for balance in &shown.balances {
        let _infallible = writeln!(
            body,
            "<tr><td><code>{}</code></td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            balance.account,
            balance.ceiling,
            balance.spent,
            balance.held,
            balance.owed,
            balance.charges
        );
    }
    body.push_str("</table></div>\n<h2>The ledger, as the store said it</h2>\n<div class=\"scroll\"><table>\n<tr><th class=\"n\">s</th><th>account</th><th>question</th><th>what</th></tr>\n");
    let rows = &shown.recorder.money;
    for row in rows.iter().take(ROWS_MAX) {
        let what = match &row.money {
            Money::Held(amount) => format!("held {amount}"),
            Money::Denied(why) => format!("denied: {why}"),
            Money::Charged(charge) => format!("charged {} (base {})", charge.charge, charge.base),
            Money::Released => "released".to_owned(),
            Money::Unavailable => "the store was not there".to_owned(),
        };
        let _infallible = writeln!(
            body,
            "<tr><td class=\"n\">{:.3}</td><td><code>{}</code></td><td><code>{}</code></td><td>{}</td></tr>",
            seconds(row.at),
            row.account,
            row.request,
            escape(&what)
        );
    }
    body.push_str("</table></div>\n");
    left_out(
        body,
        rows.len().min(ROWS_MAX),
        rows.len(),
        "words of the store",
    );
}

fn notes(body: &mut String, shown: &Shown<'_>) {
    let notes = &shown.notes;
    let first = notes.len().saturating_sub(NOTES_MAX);
    body.push_str("<h2>Everything that has words</h2>\n");
    left_out(
        body,
        notes.len() - first,
        notes.len(),
        "notes, the last ones,",
    );
    body.push_str("<details><summary>open</summary><pre>\n");
    for note in notes.get(first..).unwrap_or_default() {
        let _infallible = writeln!(body, "{}", escape(&note.to_string()));
    }
    body.push_str("</pre></details>\n");
}
