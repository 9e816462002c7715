//! The command line: one file per command.
//!
//! A command is a function of its arguments and the `Scene`; it ends well, or with a `Stop`,
//! which knows its exit code.

mod admin;
mod agent;
pub mod args;
mod ask;
mod balance;
mod completions;
mod csv;
mod cut;
mod doctor;
mod endpoint;
mod gateway;
mod invoice;
mod ledger;
mod link;
mod login;
mod output;
mod ping;
mod privacy;
mod question;
mod receipt;
mod resume;
mod status;
mod table;
mod tier;
mod topup;
mod up;
mod usage;

use std::future::Future;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use mesh_core::error::ErrorClass;
use mesh_core::time::UnixMillis;
use mesh_shell::random::NoChance;
use time::UtcDateTime;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::args::{Cli, Cloud, Command};
use self::output::Output;
use crate::driver::Clock;
use crate::error::Error;
use crate::gateway::config::Config;
use crate::gateway::store::{AuditError, OpenError, StoreError};
use crate::log;
use crate::paths::Paths;

/// The exit code of a command that was interrupted: 128 and SIGINT's number, as shells have it.
const EXIT_INTERRUPTED: u8 = 130;
/// How long what is left on other threads may take at the end.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What every command has around it.
#[derive(Debug)]
pub(crate) struct Scene {
    /// Where to talk to.
    pub(crate) output: Output,
    /// Where things are.
    pub(crate) paths: Paths,
    /// Whether the command line says what to log.
    pub(crate) log_by_flags: bool,
}

impl Scene {
    /// The gateway's settings, for commands that work on its files.
    fn gateway_config(&self, path: Option<&Path>) -> Result<Config, Stop> {
        gateway::load(path, &[], self)
    }
}

/// Why a command ends without its result.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Whoever read stdout has gone away; nobody is left to be told.
    PipeClosed,
    /// Ctrl-C.
    Interrupted,
    /// What is wrong has been printed already, as the command's result.
    Reported(ErrorClass),
    /// Something failed.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<NoChance> for Stop {
    fn from(none: NoChance) -> Self {
        Self::Failed(none.into())
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<OpenError> for Stop {
    fn from(error: OpenError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<AuditError> for Stop {
    fn from(error: AuditError) -> Self {
        Self::Failed(error.into())
    }
}

impl Stop {
    fn from_stdout(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::PipeClosed;
        }
        Self::Failed(Error::io("writing to stdout", error))
    }

    /// What was asked for cannot be.
    fn invalid(error: impl std::fmt::Display) -> Self {
        Self::Failed(Error::Validation(error.to_string()))
    }

    /// A fault of our own.
    fn internal(error: impl std::fmt::Display) -> Self {
        Self::Failed(Error::Api(format!("an error of Synesis itself: {error}")))
    }

    /// The exit code. A closed pipe is the reader's wish, not a failure.
    fn exit_code(&self) -> u8 {
        match self {
            Self::PipeClosed => 0,
            Self::Interrupted => EXIT_INTERRUPTED,
            Self::Reported(class) => class.exit_code(),
            Self::Failed(error) => error.exit_code(),
        }
    }

    /// For `--json`; `None` when there is nothing to tell.
    fn to_json(&self) -> Option<serde_json::Value> {
        match self {
            Self::PipeClosed => None,
            Self::Interrupted => {
                Some(serde_json::json!({ "class": "Interrupted", "message": "interrupted" }))
            }
            Self::Reported(class) => {
                Some(serde_json::json!({ "class": format!("{class:?}"), "message": "see above" }))
            }
            Self::Failed(error) => Some(serde_json::json!({
                "class": format!("{:?}", error.class()),
                "code": error.code(),
                "message": error.to_string(),
            })),
        }
    }
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.global.color);
    match start(&cli, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => {
            if let Stop::Failed(error) = &stop {
                output.error(&error.to_string());
            }
            ExitCode::from(stop.exit_code())
        }
    }
}

fn start(cli: &Cli, output: Output) -> Result<(), Stop> {
    // The agent says itself what its tunnel does.
    let service = matches!(cli.command, Command::Gateway(_));
    log::init(&log::Options {
        filter: cli.global.log.clone(),
        verbosity: cli.global.verbose,
        service,
        color: output.colored_err(),
    })
    .map_err(Stop::invalid)?;
    let paths = match &cli.global.data_dir {
        // Absolute, because sockets and stores outlive the working folder's name.
        Some(root) => Paths::new(std::path::absolute(root).map_err(|e| Error::file(root, e))?),
        None => Paths::of_platform(),
    };
    let log_by_flags = cli.global.log.is_some() || cli.global.verbose > 0;
    let scene = Scene {
        output,
        paths,
        log_by_flags,
    };
    let mut runtime = if matches!(cli.command, Command::Agent(_)) {
        // All that a token passes through on its way to a program shares one thread, so that it
        // arrives with one wake-up.
        Builder::new_current_thread()
    } else {
        // A slow reader of the output must not hold up the tunnel.
        Builder::new_multi_thread()
    };
    let runtime = runtime
        .enable_all()
        .build()
        .map_err(|error| Error::io("starting the runtime", error))?;
    let result = runtime.block_on(run(&cli.command, &scene));
    runtime.shutdown_timeout(LAST_WORDS);
    result
}

async fn run(command: &Command, scene: &Scene) -> Result<(), Stop> {
    match command {
        Command::Up(up) => up::run(up, scene).await,
        Command::Gateway(gateway) => gateway::run(gateway, scene).await,
        Command::Agent(_) => agent::run(scene).await,
        Command::Cloud { command } => match command {
            Cloud::Login(login) => Interrupts::new()?.or(login::login(login, scene)).await,
            Cloud::Logout(_) => login::logout(scene),
            Cloud::Status(status) => Interrupts::new()?.or(status::run(status, scene)).await,
            Cloud::Balance(balance) => Interrupts::new()?.or(balance::run(balance, scene)).await,
            Cloud::Usage(usage) => Interrupts::new()?.or(usage::run(usage, scene)).await,
            Cloud::Invoice(invoice) => Interrupts::new()?.or(invoice::run(invoice, scene)).await,
            Cloud::Tier(tier) => Interrupts::new()?.or(tier::run(tier, scene)).await,
            Cloud::ProviderKey { command } => {
                Interrupts::new()?
                    .or(tier::provider_key(command, scene))
                    .await
            }
            Cloud::Topup(topup) => topup::run(topup, scene).await,
            Cloud::Ping(ping) => Interrupts::new()?.or(ping::run(ping, scene)).await,
            Cloud::Ask(ask) => ask::run(ask, scene).await,
        },
        Command::Admin { command } => admin::run(command, scene).await,
        Command::Ledger { command } => ledger::run(command, scene).await,
        Command::Env(_) => endpoint::env(scene),
        Command::Key { command } => endpoint::key(command, scene),
        Command::Privacy { command } => privacy::run(command, scene),
        Command::Doctor(doctor) => Interrupts::new()?.or(doctor::run(doctor, scene)).await,
        Command::Completions(completions) => completions::run(completions, scene.output),
    }
}

/// Ctrl-C, from the moment that this is made: none that comes in between is missed.
#[derive(Debug)]
struct Interrupts(Signal);

impl Interrupts {
    fn new() -> Result<Self, Error> {
        let interrupts = signal(SignalKind::interrupt());
        interrupts
            .map(Self)
            .map_err(|error| Error::io("listening for Ctrl-C", error))
    }

    /// The next one.
    async fn next(&mut self) {
        // Never `None` for a signal.
        let _ = self.0.recv().await;
    }

    /// Does it, unless Ctrl-C comes first.
    async fn or<T, E: Into<Stop>>(
        &mut self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Stop> {
        tokio::select! {
            result = work => result.map_err(Into::into),
            () = self.next() => Err(Stop::Interrupted),
        }
    }
}

/// Waits for Ctrl-C, or for the polite signal of service managers.
async fn until_stopped() {
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        },
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

/// The wall clock.
fn wall() -> UnixMillis {
    Clock::new().now().wall
}

/// A moment as people and programs read it: RFC 3339, UTC, to the second.
fn moment(at: UnixMillis) -> String {
    let secs = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
    UtcDateTime::from_unix_timestamp(secs).map_or_else(
        |_| "-".to_owned(),
        |at| {
            let ((year, month, day), (hour, minute, second)) = (at.to_calendar_date(), at.as_hms());
            let month = u8::from(month);
            format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_told_as_rfc_3339() {
        // 1 000 000 000 s after the epoch was 2001-09-09 01:46:40 UTC.
        assert_eq!(
            moment(UnixMillis(1_000_000_000_999)),
            "2001-09-09T01:46:40Z"
        );
    }

    #[test]
    fn every_end_has_its_exit_code() {
        assert_eq!(Stop::PipeClosed.exit_code(), 0);
        assert_eq!(Stop::Interrupted.exit_code(), 130);
        assert_eq!(Stop::Reported(ErrorClass::NotConnected).exit_code(), 21);
        assert_eq!(Stop::invalid("x").exit_code(), 20);
    }
}
