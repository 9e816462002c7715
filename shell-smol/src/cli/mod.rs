//! The command line: one file per command.
//!
//! A command is a function of its arguments and the `Scene`; it ends well, or with a `Stop`,
//! which knows its exit code.

pub mod args;
mod ask;
mod link;
mod output;
mod run;
mod status;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use async_signal::{Signal, Signals};
use mesh_core::error::ErrorClass;
use mesh_shell::random::NoChance;
use smol::LocalExecutor;
use smol::future::FutureExt as _;
use smol::stream::StreamExt as _;

use self::args::{Command, Parsed};
use crate::device::client::Client;
use crate::error::Error;

/// The exit code of a command that was interrupted: 128 and SIGINT's number, as shells have it.
const EXIT_INTERRUPTED: u8 = 130;
/// The exit code of a wrong command line.
const EXIT_USAGE: u8 = 2;

/// What every command has around it.
#[derive(Debug)]
struct Scene<'a> {
    /// Where its tasks run: on this one thread.
    executor: &'a LocalExecutor<'static>,
    /// The device's folder.
    folder: PathBuf,
    /// Whether to tell the tunnel's changes as JSON.
    events: bool,
}

/// Why a command ends without its result.
#[derive(Debug)]
enum Stop {
    /// Whoever read stdout has gone away; nobody is left to be told.
    PipeClosed,
    /// Ctrl-C, or the polite signal of service managers.
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

impl Stop {
    /// The exit code. A closed pipe is the reader's wish, not a failure.
    fn exit_code(&self) -> u8 {
        match self {
            Self::PipeClosed => 0,
            Self::Interrupted => EXIT_INTERRUPTED,
            Self::Reported(class) => class.exit_code(),
            Self::Failed(error) => error.class().exit_code(),
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
    let parsed = match args::parse(std::env::args_os().skip(1), |name| std::env::var_os(name)) {
        Ok(parsed) => parsed,
        Err(usage) => {
            output::error(&usage);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let run = match parsed {
        Parsed::Text(text) => {
            return match output::line_now(&text) {
                Ok(()) => ExitCode::SUCCESS,
                Err(stop) => ExitCode::from(stop.exit_code()),
            };
        }
        Parsed::Run(run) => run,
    };
    let executor = LocalExecutor::<'static>::new();
    let scene = Scene {
        executor: &executor,
        folder: device_folder(run.data_dir.as_deref()),
        events: run.events,
    };
    let result = match run.command {
        Command::Run => smol::block_on(executor.run(run::run(&scene))),
        Command::Ask(ask) => smol::block_on(executor.run(ask::run(&ask, &scene))),
        Command::Status(status) => smol::block_on(executor.run(status::run(&status, &scene))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => {
            if let Stop::Failed(error) = &stop {
                output::error(&error.to_string());
            }
            ExitCode::from(stop.exit_code())
        }
    }
}

/// Where `synesis` keeps the device's things too.
fn device_folder(data_dir: Option<&Path>) -> PathBuf {
    let root = match data_dir {
        Some(root) => std::path::absolute(root).unwrap_or_else(|_| root.to_owned()),
        None => directories::ProjectDirs::from("", "", "synesis").map_or_else(
            || PathBuf::from("synesis-data"),
            |dirs| dirs.data_dir().to_owned(),
        ),
    };
    root.join("device")
}

/// Ctrl-C and SIGTERM, from the moment that this is made: none that comes in between is missed.
#[derive(Debug)]
struct Interrupts(Signals);

impl Interrupts {
    fn new() -> Result<Self, Error> {
        let signals = Signals::new([Signal::Int, Signal::Term]);
        signals
            .map(Self)
            .map_err(|error| Error::io("listening for Ctrl-C", &error))
    }

    /// The next one.
    async fn next(&mut self) {
        // Never `None` for a signal.
        let _ = self.0.next().await;
    }

    /// Does it, unless an interrupt comes first.
    async fn or<T, E: Into<Stop>>(
        &mut self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Stop> {
        let work = async { work.await.map_err(Into::into) };
        let interrupted = async {
            self.next().await;
            Err(Stop::Interrupted)
        };
        interrupted.or(work).await
    }
}

impl Scene<'_> {
    /// Tells how the tunnel fares, from now to its end, if that is wanted.
    fn watch(&self, client: &Client) {
        if self.events {
            let client = client.clone();
            self.executor
                .spawn(async move { output::tell_events(&client).await })
                .detach();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_exit_code() {
        assert_eq!(Stop::PipeClosed.exit_code(), 0);
        assert_eq!(Stop::Interrupted.exit_code(), 130);
        assert_eq!(Stop::Reported(ErrorClass::NotConnected).exit_code(), 21);
        let refused = Stop::Failed(Error::new(ErrorClass::Certificate, "x"));
        assert_eq!(refused.exit_code(), 12);
    }
}
