//! `synesis cloud usage`: what was used and charged, exactly.

use mesh_core::api::account::UsageQuery;
use mesh_core::api::{Method, Params};
use mesh_core::billing::money::Nanos;
use mesh_core::billing::usage::{By, Line, Report};

use super::args::Usage;
use super::csv::{dollars, quoted};
use super::link::Link;
use super::output::grouped;
use super::{Scene, Stop};
use crate::error::Error;

/// Characters of the longest bar.
const BAR_CHARS: i128 = 24;

/// Shows it.
pub(super) async fn run(usage: &Usage, scene: &Scene) -> Result<(), Stop> {
    let query = UsageQuery {
        period: usage.period.into(),
        by: usage.by.into(),
    };
    let params = Params::new(&query).map_err(Error::from)?;
    let spinner = scene.output.spinner("asking the gateway");
    let link = Link::open(scene).await?;
    let asked = link.call(Method::AccountUsage, params).await;
    drop(spinner);
    link.close().await;
    let report: Report = asked?;
    if usage.json {
        return scene.output.json(&report);
    }
    if usage.csv {
        return comma_separated(&report, scene);
    }
    if report.lines.is_empty() {
        scene.output.note("Nothing was used in this time.");
        return Ok(());
    }
    table(&report, scene)
}

/// The base price, and what is on top of it or instead of it.
fn cells(line: &Line) -> Vec<String> {
    let sums = &line.sums;
    let on_top = match (line.markup, line.licence_fee) {
        (markup, Nanos::ZERO) => markup.to_string(),
        (Nanos::ZERO, fee) => format!("{fee} (licence fee)"),
        (markup, fee) => format!("{markup} and {fee} (licence fee)"),
    };
    vec![
        line.label.clone(),
        grouped(sums.requests),
        grouped(sums.prompt),
        grouped(sums.completion),
        sums.base.to_string(),
        on_top,
        sums.charge.to_string(),
    ]
}

fn table(report: &Report, scene: &Scene) -> Result<(), Stop> {
    let label = report.by.to_string().to_uppercase();
    let mut headings = vec![&*label, "REQUESTS", "IN", "OUT", "BASE", "MARKUP", "CHARGE"];
    let longest = report.lines.iter().map(|line| line.sums.charge).max();
    let bars = report.by == By::Day;
    if bars {
        headings.push("");
    }
    let mut rows: Vec<Vec<String>> = Vec::with_capacity(report.lines.len() + 1);
    for line in &report.lines {
        let mut row = cells(line);
        if bars {
            row.push(bar(line.sums.charge, longest.unwrap_or_default()));
        }
        rows.push(row);
    }
    if report.lines.len() > 1 {
        rows.push(cells(&report.total));
    }
    scene.output.table(&headings, &rows, |_, _| None)?;
    let back = report.total.sums.refunded;
    if back > Nanos::ZERO {
        scene.output.note(&format!("{back} of it was given back."));
    }
    if report.total.sums.estimated > 0 {
        scene.output.note(&format!(
            "{} of the requests are estimates: their provider did not count.",
            grouped(report.total.sums.estimated)
        ));
    }
    Ok(())
}

/// As long as its share of the longest; anything that was charged is seen.
fn bar(amount: Nanos, longest: Nanos) -> String {
    if amount <= Nanos::ZERO || longest <= Nanos::ZERO {
        return String::new();
    }
    let eighths = (i128::from(amount.0) * BAR_CHARS * 8 / i128::from(longest.0)).max(1);
    let parts = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let whole = usize::try_from(eighths / 8).unwrap_or_default();
    let rest = usize::try_from(eighths % 8).unwrap_or_default();
    let part = rest.checked_sub(1).and_then(|at| parts.get(at));
    "█".repeat(whole) + &part.map_or_else(String::new, char::to_string)
}

fn comma_separated(report: &Report, scene: &Scene) -> Result<(), Stop> {
    scene.output.line(&format!(
        "{},requests,estimated,prompt_tokens,completion_tokens,cache_read,cache_write,base,markup,\
         licence_fee,charge,refunded",
        report.by
    ))?;
    for line in &report.lines {
        let sums = &line.sums;
        let columns = [
            quoted(&line.label),
            sums.requests.to_string(),
            sums.estimated.to_string(),
            sums.prompt.to_string(),
            sums.completion.to_string(),
            sums.cache_read.to_string(),
            sums.cache_write.to_string(),
            dollars(sums.base),
            dollars(line.markup),
            dollars(line.licence_fee),
            dollars(sums.charge),
            dollars(sums.refunded),
        ];
        scene.output.line(&columns.join(","))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_share_and_never_nothing() {
        let longest = Nanos(24_000_000);
        for (amount, shown) in [
            (0, String::new()),
            (1, "▏".to_owned()),
            (1_000_000, "█".to_owned()),
            (1_500_000, "█▌".to_owned()),
            (24_000_000, "█".repeat(24)),
        ] {
            assert_eq!(bar(Nanos(amount), longest), shown);
        }
    }

    #[test]
    fn an_amount_below_a_cent_is_shown_whole() {
        let mut line = Line {
            label: "2026-11-18".to_owned(),
            sums: mesh_core::billing::usage::Sums::default(),
            markup: Nanos(28_350),
            licence_fee: Nanos::ZERO,
        };
        line.sums.charge = Nanos(973_350);
        assert_eq!(cells(&line)[5..], ["$0.00002835", "$0.00097335"]);
    }
}
