//! `synesis cloud status`: the tunnel and the account.

use std::time::Duration;

use mesh_core::billing::tier::Tier;
use mesh_core::error::ErrorClass;
use mesh_core::time::UnixMillis;

use super::args;
use super::link::Link;
use super::output::{Mark, grouped, span};
use super::{Scene, Stop, moment, wall};
use crate::device::status::{StateName, Status};

/// Shows it. A tunnel that is not up is a failure, so that scripts can wait for it.
pub(super) async fn run(status: &args::Status, scene: &Scene) -> Result<(), Stop> {
    let spinner = scene.output.spinner("asking the gateway");
    let link = Link::open(scene).await?;
    let report = link.status().await?;
    drop(spinner);
    link.close().await;
    if status.json {
        scene.output.json(&report)?;
    } else {
        show(&report, scene)?;
    }
    if report.state == StateName::Connected {
        Ok(())
    } else {
        Err(Stop::Reported(ErrorClass::NotConnected))
    }
}

fn show(report: &Status, scene: &Scene) -> Result<(), Stop> {
    let mut rows = vec![
        ("state", state(report)),
        ("gateway", report.gateway.clone()),
    ];
    rows.push(("device", report.device_id.to_string()));
    rows.push(("agent", agent(report)));
    if let Some(reason) = &report.last_failure {
        rows.push(("last failure", reason.clone()));
    }
    rows.push((
        "latency",
        report
            .latency_us
            .map_or("-".to_owned(), |us| span(Duration::from_micros(us))),
    ));
    match &report.account {
        Some(account) => {
            rows.push(("tier", tier(account.tier)));
            rows.push((
                "balance",
                format!(
                    "{} left ({} of at most {} spent in {}{})",
                    account.available,
                    account.spent,
                    account.ceiling,
                    account.month,
                    if account.owed.0 > 0 {
                        format!(", {} owed", account.owed)
                    } else {
                        String::new()
                    },
                ),
            ));
        }
        None => rows.push(("account", "the gateway could not be asked".to_owned())),
    }
    rows.push((
        "last pre-warm",
        report.prewarmed_at.map_or("never".to_owned(), moment),
    ));
    rows.push(("certificate", certificate(report.certificate_ends_at)));
    let s = report.statistics;
    rows.push((
        "questions",
        format!(
            "{} sent, {} answered, {} failed",
            grouped(s.requests_sent),
            grouped(s.requests_succeeded),
            grouped(s.requests_failed)
        ),
    ));
    rows.push((
        "traffic",
        format!(
            "{} bytes sent, {} received; {}/{} heartbeats acknowledged; {} reconnections",
            grouped(s.sent_bytes),
            grouped(s.received_bytes),
            grouped(s.heartbeats_acked),
            grouped(s.heartbeats_sent),
            grouped(s.reconnections)
        ),
    ));
    let up = report.state == StateName::Connected && !report.in_doubt;
    let mark = if up { Mark::Green } else { Mark::Yellow };
    scene.output.pairs(&rows, |row| (row == 0).then_some(mark))
}

fn state(report: &Status) -> String {
    let doubt = if report.in_doubt {
        ", in doubt (nothing heard for a while)"
    } else {
        ""
    };
    let attempt = report
        .attempt
        .map_or(String::new(), |n| format!(", attempt {n}"));
    format!("{}{doubt}{attempt}", report.state.as_str())
}

fn agent(report: &Status) -> String {
    match report.agent_pid {
        Some(pid) => {
            format!(
                "running, process {pid}, up {}",
                span(Duration::from_secs(report.uptime_secs))
            )
        }
        None => "not running (this command used a tunnel of its own)".to_owned(),
    }
}

pub(super) fn tier(tier: Tier) -> String {
    let percent = |bps: u32| format!("{}.{:02} %", bps / 100, bps % 100);
    match tier {
        Tier::Free { monthly_quota } => format!("free, up to {monthly_quota} a month"),
        Tier::Managed { markup_bps } => {
            format!("managed, provider's price and {}", percent(markup_bps))
        }
        Tier::Byok { fee_bps } => format!("your own key, licence fee {}", percent(fee_bps)),
    }
}

fn certificate(ends: UnixMillis) -> String {
    let days = ends.saturating_since(wall()).as_secs() / 86_400;
    format!("{days} days left, until {}", moment(ends))
}
