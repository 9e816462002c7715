//! `synesis-lite status`: the tunnel and the account.

use std::time::Duration;

use mesh_core::device::status::{StateName, Status};
use mesh_core::error::ErrorClass;
use mesh_core::escalation::words::{grouped, span};

use super::link::Link;
use super::output::Stdout;
use super::{Interrupts, Scene, Stop, args};

/// Shows it. A tunnel that is not up is a failure, so that scripts can wait for it.
pub(super) async fn run(status: &args::Status, scene: &Scene<'_>) -> Result<(), Stop> {
    let mut interrupts = Interrupts::new()?;
    let link = interrupts.or(Link::open(scene)).await?;
    let report = interrupts.or(link.status()).await?;
    link.close().await;
    let mut out = Stdout::new();
    if status.json {
        out.json(&report).await?;
    } else {
        out.piece(&shown(&report)).await?;
    }
    if report.state == StateName::Connected {
        Ok(())
    } else {
        Err(Stop::Reported(ErrorClass::NotConnected))
    }
}

/// One name and value a line.
fn shown(report: &Status) -> String {
    let time = |us: Option<u64>| us.map_or("-".to_owned(), |us| span(Duration::from_micros(us)));
    let account = report.account.as_ref().map_or_else(
        || "the gateway could not be asked".to_owned(),
        |account| {
            format!(
                "{} left ({} of at most {} spent in {})",
                account.available, account.spent, account.ceiling, account.month
            )
        },
    );
    let rows = [
        ("state", report.state.as_str().to_owned()),
        ("gateway", report.gateway.clone()),
        ("device", report.device_id.to_string()),
        (
            "agent",
            report.agent_pid.map_or_else(
                || "not running (this command used a tunnel of its own)".to_owned(),
                |pid| format!("running, process {pid}"),
            ),
        ),
        ("handshake", time(report.handshake_us)),
        ("latency", time(report.latency_us)),
        (
            "epoch",
            report
                .epoch
                .map_or("-".to_owned(), |epoch| epoch.to_string()),
        ),
        ("balance", account),
        (
            "traffic",
            format!(
                "{} bytes sent, {} received",
                grouped(report.statistics.sent_bytes),
                grouped(report.statistics.received_bytes)
            ),
        ),
    ];
    rows.iter()
        .map(|(name, value)| format!("{name:<10} {value}\n"))
        .collect()
}
