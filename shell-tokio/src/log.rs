//! Logging to stderr, set up once by the binary.
//!
//! Prompts, answers and keys are never logged, at any level: the code does not hand them to
//! `tracing` in the first place.

use std::io;
use std::sync::OnceLock;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// Where what a person may want to know is logged, whatever else is.
pub(crate) const NOTICES: &str = "synesis::notices";

/// The filter in force, to be replaced, and as it was spelled at first.
static IN_FORCE: OnceLock<(reload::Handle<EnvFilter, Registry>, String)> = OnceLock::new();

/// What to log.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A filter in `tracing`'s syntax (`info`, `mesh_tokio=debug`); wins over `verbosity`.
    pub filter: Option<String>,
    /// How many times more was asked for: 0 is the default, 1 is debug, 2 is everything.
    pub verbosity: u8,
    /// Whether the process is a service, whose log is what it has to say.
    pub service: bool,
    /// Whether to colour.
    pub color: bool,
}

/// The filter is not one.
#[derive(Debug, thiserror::Error)]
#[error("the log filter {filter:?} is not valid; use e.g. `info` or `mesh_tokio=debug`")]
pub struct BadFilter {
    filter: String,
}

/// Sets up logging for the process. A second call changes nothing.
///
/// # Errors
///
/// When the filter cannot be parsed.
pub fn init(options: &Options) -> Result<(), BadFilter> {
    let spelled = options
        .filter
        .as_deref()
        .unwrap_or(match (options.verbosity, options.service) {
            (0, false) => "error,synesis::notices=warn",
            (0, true) => "info",
            (1, _) => "info,mesh_core=debug,mesh_tokio=debug",
            _ => "debug,mesh_core=trace,mesh_tokio=trace",
        });
    let (filter, handle) = reload::Layer::new(check(spelled)?);
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(options.color)
        .with_target(options.verbosity > 0 || options.filter.is_some());
    let begun = tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init();
    if begun.is_ok() {
        let _ = IN_FORCE.set((handle, spelled.to_owned()));
    }
    Ok(())
}

/// Reads a filter.
///
/// # Errors
///
/// When it cannot be parsed.
pub fn check(filter: &str) -> Result<EnvFilter, BadFilter> {
    EnvFilter::try_new(filter).map_err(|_| BadFilter {
        filter: filter.to_owned(),
    })
}

/// Logs by another filter from now on, or (`None`) by the one of the beginning. Without logs set up
/// it changes nothing.
///
/// # Errors
///
/// When the filter cannot be parsed; the old one stays then.
pub fn change(filter: Option<&str>) -> Result<(), BadFilter> {
    let Some((handle, first)) = IN_FORCE.get() else {
        return Ok(());
    };
    let filter = check(filter.unwrap_or(first))?;
    // It fails only if there is nobody left to log to.
    let _gone = handle.reload(filter);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_none_is_refused_with_an_example() {
        let options = Options {
            filter: Some("mesh=loudest".into()),
            ..Options::default()
        };
        let error = init(&options).unwrap_err().to_string();
        assert!(
            error.contains("mesh=loudest") && error.contains("mesh_tokio=debug"),
            "{error}"
        );
    }
}
