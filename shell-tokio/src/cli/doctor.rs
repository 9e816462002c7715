//! `synesis doctor`: what does not work, and what to do about it.
//!
//! | code | looks at |
//! |---|---|
//! | `enrolment` | is there a key and a certificate? |
//! | `certificate` | days left |
//! | `dns` | the gateway's name |
//! | `gateway` | its HTTP side: `/healthz` |
//! | `clock` | this machine's clock against the gateway's |
//! | `udp` | a whole handshake through the tunnel's port |
//! | `udp_buffers` | what the system grants a socket |
//!
//! The codes and statuses are stable: scripts may rely on them.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use mesh_core::error::ErrorClass;
use serde::Serialize;

use super::args::Doctor;
use super::output::{Mark, Output, span};
use super::{Scene, Stop, wall};
use crate::device::client::Client;
use crate::device::control::AgentLink;
use crate::device::credentials::Credentials;
use crate::device::enrol::{Health, health};
use crate::device::status::StateName;
use crate::error::Error;

/// A clock that is wrong by more breaks certificates and the order of things.
const CLOCK_SKEW_WARNING: Duration = Duration::from_secs(30);
/// Certificates are backdated by five minutes; a clock that is further behind refuses new ones.
const CLOCK_SKEW_FAILURE: Duration = Duration::from_secs(300);
/// A certificate is renewed long before; one with fewer days left has missed that.
const DAYS_LEFT_WARNING: u64 = 30;
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// As it should be.
    Ok,
    /// Works, but not as well as it could.
    Warning,
    /// Does not work.
    Failed,
    /// Could not be looked at, because something before it failed or is missing.
    Skipped,
}

/// One row.
#[derive(Clone, Debug, Serialize)]
struct Check {
    code: &'static str,
    status: Verdict,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<String>,
}

impl Check {
    fn ok(code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            code,
            status: Verdict::Ok,
            detail: detail.into(),
            action: None,
        }
    }

    fn bad(
        code: &'static str,
        status: Verdict,
        detail: impl Into<String>,
        action: impl Into<String>,
    ) -> Self {
        Self {
            code,
            status,
            detail: detail.into(),
            action: Some(action.into()),
        }
    }

    fn skipped(code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            code,
            status: Verdict::Skipped,
            detail: detail.into(),
            action: None,
        }
    }
}

/// Looks at everything, one after the other.
pub(super) async fn run(doctor: &Doctor, scene: &Scene) -> Result<(), Stop> {
    let spinner = scene.output.spinner("looking around");
    let checks = look(doctor, scene).await;
    drop(spinner);
    let failed = checks.iter().any(|check| check.status == Verdict::Failed);
    if doctor.json {
        scene
            .output
            .json(&serde_json::json!({ "ok": !failed, "checks": checks }))?;
    } else {
        show(&checks, scene.output)?;
    }
    if failed {
        Err(Stop::Reported(ErrorClass::NotConnected))
    } else {
        Ok(())
    }
}

async fn look(doctor: &Doctor, scene: &Scene) -> Vec<Check> {
    let folder = scene.paths.device();
    let (enrolment, credentials) = enrolment(Credentials::load(&folder), doctor.gateway.is_some());
    let mut checks = vec![enrolment];
    checks.push(certificate(credentials.as_ref()));
    let url = match (&doctor.gateway, &credentials) {
        (Some(url), _) => Some((url.clone(), None)),
        (None, Some(credentials)) => {
            Some((credentials.http_url().to_owned(), credentials.http_ca()))
        }
        (None, None) => None,
    };
    let tunnel = credentials.as_ref().map(|c| c.tunnel_address().to_owned());
    checks.push(dns(tunnel.as_deref(), url.as_ref().map(|(url, _)| url.as_str())).await);
    let health = match &url {
        Some((url, ca)) => Some((url.as_str(), health(url, *ca).await)),
        None => None,
    };
    checks.push(gateway(health.as_ref()));
    checks.push(clock(
        health.as_ref().and_then(|(_, health)| health.as_ref().ok()),
    ));
    checks.push(udp(credentials, &folder).await);
    checks.push(udp_buffers());
    checks
}

fn enrolment(
    loaded: Result<Option<Credentials>, Error>,
    elsewhere: bool,
) -> (Check, Option<Credentials>) {
    const CODE: &str = "enrolment";
    let login = "synesis cloud login, with the join line from the gateway's machine";
    match loaded {
        Ok(Some(credentials)) => {
            let detail = format!(
                "{} at {}",
                credentials.device_id(),
                credentials.tunnel_address()
            );
            (Check::ok(CODE, detail), Some(credentials))
        }
        Ok(None) if elsewhere => (Check::skipped(CODE, "not enrolled"), None),
        Ok(None) => (
            Check::bad(CODE, Verdict::Failed, "not enrolled", login),
            None,
        ),
        Err(error) => (
            Check::bad(
                CODE,
                Verdict::Failed,
                error.to_string(),
                "synesis cloud login --force",
            ),
            None,
        ),
    }
}

fn certificate(credentials: Option<&Credentials>) -> Check {
    const CODE: &str = "certificate";
    let Some(credentials) = credentials else {
        return Check::skipped(CODE, "there is none");
    };
    let days = credentials.not_after().saturating_since(wall()).as_secs() / 86_400;
    let anew = "enrol anew: synesis cloud login --force";
    if credentials.not_after() <= wall() {
        Check::bad(CODE, Verdict::Failed, "has expired", anew)
    } else if days < DAYS_LEFT_WARNING {
        Check::bad(CODE, Verdict::Warning, format!("{days} days left"), anew)
    } else {
        Check::ok(CODE, format!("{days} days left"))
    }
}

async fn dns(tunnel: Option<&str>, url: Option<&str>) -> Check {
    const CODE: &str = "dns";
    let from_url = || {
        let url = reqwest::Url::parse(url?).ok()?;
        Some(format!(
            "{}:{}",
            url.host_str()?,
            url.port_or_known_default()?
        ))
    };
    let Some(address) = tunnel.map(str::to_owned).or_else(from_url) else {
        return Check::skipped(CODE, "no gateway to look up");
    };
    if let Ok(literal) = address.parse::<SocketAddr>() {
        return Check::ok(CODE, format!("{} needs no look-up", literal.ip()));
    }
    let asked = Instant::now();
    match tokio::time::timeout(PATIENCE, tokio::net::lookup_host(&address)).await {
        Ok(Ok(found)) => {
            let found: Vec<String> = found.map(|addr| addr.ip().to_string()).collect();
            Check::ok(
                CODE,
                format!(
                    "{address} is {} ({})",
                    found.join(", "),
                    span(asked.elapsed())
                ),
            )
        }
        Ok(Err(error)) => Check::bad(
            CODE,
            Verdict::Failed,
            format!("{address} cannot be looked up: {error}"),
            "check the name, and this machine's network and DNS server",
        ),
        Err(_) => Check::bad(
            CODE,
            Verdict::Failed,
            format!("{address}: no answer within {}", span(PATIENCE)),
            "check this machine's network and DNS server",
        ),
    }
}

fn gateway(health: Option<&(&str, Result<Health, Error>)>) -> Check {
    const CODE: &str = "gateway";
    match health {
        None => Check::skipped(CODE, "no gateway known; give one with --gateway URL"),
        Some((url, Ok(health))) => {
            Check::ok(CODE, format!("{url} answers ({})", span(health.took)))
        }
        // Questions go through the tunnel; this port is for enrolment only.
        Some((_, Err(error))) => Check::bad(
            CODE,
            Verdict::Warning,
            error.to_string(),
            "needed for enrolment only: start the gateway, and allow its TCP port",
        ),
    }
}

fn clock(health: Option<&Health>) -> Check {
    const CODE: &str = "clock";
    let Some(theirs) = health.and_then(|health| health.clock) else {
        return Check::skipped(CODE, "the gateway did not tell its time");
    };
    let ours = SystemTime::now();
    let skew = match ours.duration_since(theirs) {
        Ok(ahead) => ahead,
        Err(behind) => behind.duration(),
    };
    let detail = match skew {
        // The gateway tells whole seconds.
        small if small < Duration::from_secs(2) => "agrees with the gateway's".to_owned(),
        skew if ours > theirs => format!("{} ahead of the gateway's", span(skew)),
        skew => format!("{} behind the gateway's", span(skew)),
    };
    let action = "set this machine's clock (or the gateway's), e.g. by NTP";
    if skew > CLOCK_SKEW_FAILURE {
        Check::bad(CODE, Verdict::Failed, detail, action)
    } else if skew > CLOCK_SKEW_WARNING {
        Check::bad(CODE, Verdict::Warning, detail, action)
    } else {
        Check::ok(CODE, detail)
    }
}

/// A whole handshake, or what the running agent's tunnel says.
async fn udp(credentials: Option<Credentials>, folder: &std::path::Path) -> Check {
    const CODE: &str = "udp";
    let Some(credentials) = credentials else {
        return Check::skipped(CODE, "needs the enrolment's certificate");
    };
    let address = credentials.tunnel_address().to_owned();
    let blocked = format!(
        "is the gateway running, and does every firewall on the way let UDP through to {address}?"
    );
    if let Ok(Some(agent)) = AgentLink::find(folder).await
        && let Ok(status) = agent.status().await
    {
        return if status.state == StateName::Connected {
            let latency = status.latency_us.map_or(String::new(), |us| {
                format!(", latency {}", span(Duration::from_micros(us)))
            });
            Check::ok(
                CODE,
                format!("the agent's tunnel to {address} is up{latency}"),
            )
        } else {
            let reason = status
                .last_failure
                .map_or(String::new(), |reason| format!(": {reason}"));
            let detail = format!("the agent's tunnel is {}{reason}", status.state.as_str());
            Check::bad(CODE, Verdict::Failed, detail, blocked)
        };
    }
    let asked = Instant::now();
    match tokio::time::timeout(PATIENCE, Client::connect(credentials)).await {
        Ok(Ok(client)) => {
            let handshake = client
                .subscribe()
                .borrow()
                .handshake
                .unwrap_or(asked.elapsed());
            client.close().await;
            Check::ok(
                CODE,
                format!("handshake with {address} in {}", span(handshake)),
            )
        }
        Ok(Err(error)) => Check::bad(CODE, Verdict::Failed, error.to_string(), blocked),
        Err(_) => {
            let detail = format!("no answer from {address} within {}", span(PATIENCE));
            Check::bad(CODE, Verdict::Failed, detail, blocked)
        }
    }
}

/// What the system grants of the 4 MiB that the driver asks for.
fn udp_buffers() -> Check {
    const CODE: &str = "udp_buffers";
    const WANTED: usize = 4 * 1024 * 1024;
    let granted = || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
        let _granted_less = socket.set_recv_buffer_size(WANTED);
        let _granted_less = socket.set_send_buffer_size(WANTED);
        Ok::<_, std::io::Error>((socket.recv_buffer_size()?, socket.send_buffer_size()?))
    };
    match granted() {
        Ok((receive, send)) if receive >= WANTED && send >= WANTED => Check::ok(
            CODE,
            format!(
                "{} KiB to receive, {} KiB to send",
                receive >> 10,
                send >> 10
            ),
        ),
        Ok((receive, send)) => Check::bad(
            CODE,
            Verdict::Warning,
            format!(
                "{} KiB to receive, {} KiB to send; bursts may lose datagrams",
                receive >> 10,
                send >> 10
            ),
            format!("as root: sysctl -w net.core.rmem_max={WANTED} net.core.wmem_max={WANTED}"),
        ),
        Err(error) => Check::bad(
            CODE,
            Verdict::Failed,
            format!("no UDP socket: {error}"),
            "check what this process is allowed to do",
        ),
    }
}

fn show(checks: &[Check], output: Output) -> Result<(), Stop> {
    let rows: Vec<Vec<String>> = checks.iter().map(row).collect();
    let mark = |row: usize, column: usize| {
        let mark = match checks.get(row)?.status {
            Verdict::Ok => Mark::Green,
            Verdict::Warning => Mark::Yellow,
            Verdict::Failed => Mark::Red,
            Verdict::Skipped => Mark::Dim,
        };
        (column == 1).then_some(mark)
    };
    // What to do belongs to its row, and is too long to stand beside it on a terminal.
    output.table(
        &["CHECK", "STATUS", "DETAIL, AND → WHAT TO DO"],
        &rows,
        mark,
    )
}

fn row(check: &Check) -> Vec<String> {
    let word = match check.status {
        Verdict::Ok => "ok",
        Verdict::Warning => "warning",
        Verdict::Failed => "FAILED",
        Verdict::Skipped => "skipped",
    };
    let action = check
        .action
        .as_ref()
        .map_or(String::new(), |action| format!("\n→ {action}"));
    vec![
        check.code.to_owned(),
        word.to_owned(),
        format!("{}{action}", check.detail),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(skew: i64) -> Health {
        let now = SystemTime::now();
        let span = Duration::from_secs(skew.unsigned_abs());
        let clock = if skew < 0 { now - span } else { now + span };
        Health {
            clock: Some(clock),
            took: Duration::ZERO,
        }
    }

    #[test]
    fn a_clock_is_judged_by_how_far_it_is_off_either_way() {
        for (skew, status) in [
            (0, Verdict::Ok),
            (-10, Verdict::Ok),
            (60, Verdict::Warning),
            (-60, Verdict::Warning),
            (900, Verdict::Failed),
            (-900, Verdict::Failed),
        ] {
            assert_eq!(clock(Some(&at(skew))).status, status, "{skew}");
        }
        assert_eq!(clock(None).status, Verdict::Skipped);
    }

    #[test]
    fn every_check_that_is_not_well_says_what_to_do() {
        let bad = clock(Some(&at(900)));
        assert!(bad.action.is_some_and(|action| action.contains("NTP")));
    }
}
