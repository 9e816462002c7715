//! What people and programs see: answers on stdout, everything else on stderr.
//!
//! Stdout is written on a thread where waiting is allowed: a reader that is slow (a pager) must not
//! keep the tunnel's thread from its heartbeats.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};

use mesh_core::device::State;
use mesh_core::device::status::{Standing, StateName};
use mesh_core::error::ErrorClass;
use mesh_core::escalation::words::printable;
use serde::Serialize;
use smol::Unblock;
use smol::io::AsyncWriteExt as _;

use super::Stop;
use crate::device::client::Client;
use crate::error::Error;

/// Bytes on their way to stdout.
const STDOUT_BYTES: usize = 64 * 1024;

/// Standard output.
#[derive(Debug)]
pub(super) struct Stdout {
    out: Unblock<io::Stdout>,
    terminal: bool,
}

impl Stdout {
    pub(super) fn new() -> Self {
        let out = io::stdout();
        let terminal = out.is_terminal();
        Self {
            out: Unblock::with_capacity(STDOUT_BYTES, out),
            terminal,
        }
    }

    /// Prints a piece of an answer and flushes it, so that it is seen at once. Its control
    /// characters never reach a terminal.
    pub(super) async fn piece(&mut self, text: &str) -> Result<(), Stop> {
        let text = if self.terminal {
            printable(text)
        } else {
            Cow::Borrowed(text)
        };
        let written = match self.out.write_all(text.as_bytes()).await {
            Ok(()) => self.out.flush().await,
            failed => failed,
        };
        written.map_err(stopped)
    }

    /// Prints one JSON document.
    pub(super) async fn json(&mut self, value: &impl Serialize) -> Result<(), Stop> {
        let text = serde_json::to_string_pretty(value).map_err(|error| {
            Error::new(ErrorClass::Serialization, format!("the report: {error}"))
        })?;
        self.piece(&format!("{text}\n")).await
    }
}

fn stopped(error: io::Error) -> Stop {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Stop::PipeClosed;
    }
    Stop::Failed(Error::io("writing to stdout", &error))
}

/// Prints a text before anything runs that it could hold up.
pub(super) fn line_now(text: &str) -> Result<(), Stop> {
    writeln!(io::stdout(), "{text}").map_err(stopped)
}

/// A line for people.
pub(super) fn note(text: &str) {
    // Nobody is left to be told.
    let _closed = writeln!(io::stderr(), "{}", printable(text));
}

/// Something failed.
pub(super) fn error(text: &str) {
    note(&format!("error: {text}"));
}

/// The tunnel's state as a line, with the reason for it.
pub(super) fn tunnel_line(standing: &Standing) -> String {
    let reason = standing
        .last_failure
        .as_ref()
        .filter(|_| !standing.is_connected());
    let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
    format!("{}{reason}", standing.state)
}

/// The tunnel as `--events` tells it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct TunnelEvent {
    state: StateName,
    in_doubt: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    heartbeats_acked: u64,
    reconnections: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

impl From<&Standing> for TunnelEvent {
    fn from(standing: &Standing) -> Self {
        Self {
            state: standing.state.into(),
            in_doubt: standing.state == State::Connected { in_doubt: true },
            epoch: standing.epoch,
            heartbeats_acked: standing.statistics.heartbeats_acked,
            reconnections: standing.statistics.reconnections,
            failure: standing.last_failure.as_ref().map(ToString::to_string),
        }
    }
}

/// Tells the tunnel's changes until nobody wants to know.
pub(super) async fn tell_events(client: &Client) {
    let mut shown = None;
    loop {
        let news = |standing: &Standing| shown.as_ref() != Some(&TunnelEvent::from(standing));
        let event = TunnelEvent::from(&client.wait_for(news).await);
        if let Ok(line) = serde_json::to_string(&event) {
            note(&line);
        }
        shown = Some(event);
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::device::{Failure, Stats};
    use mesh_core::tunnel::FailureKind;

    use super::*;

    #[test]
    fn an_event_is_one_line_that_says_what_the_tunnel_is() {
        let stats = Stats {
            epoch: Some(3),
            heartbeats_acked: 2,
            ..Stats::default()
        };
        let up = Standing::new(State::Connected { in_doubt: true }, &stats, None);
        let line = serde_json::to_string(&TunnelEvent::from(&up)).unwrap();
        assert_eq!(
            line,
            r#"{"state":"connected","in_doubt":true,"epoch":3,"heartbeats_acked":2,"reconnections":0}"#
        );
    }

    #[test]
    fn a_reason_is_told_while_there_is_no_tunnel() {
        let failure: Option<Failure> = Some(FailureKind::Revoked.into());
        let stats = Stats::default();
        let failed = tunnel_line(&Standing::new(State::Failed, &stats, failure.clone()));
        assert!(
            failed.starts_with("Failed: ") && failed.contains("revoked"),
            "{failed}"
        );
        let up = State::Connected { in_doubt: false };
        assert_eq!(
            tunnel_line(&Standing::new(up, &stats, failure)),
            "Connected"
        );
    }
}
