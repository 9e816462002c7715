//! Logging to stderr, set up once by the binary.
//!
//! Prompts, answers and keys are never logged, at any level: the code does not hand them to
//! `tracing` in the first place.

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Where what a person may want to know is logged, whatever else is.
pub(crate) const NOTICES: &str = "synesis::notices";

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
    let filter = EnvFilter::try_new(spelled).map_err(|_| BadFilter {
        filter: spelled.to_owned(),
    })?;
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(options.color)
        .with_target(options.verbosity > 0 || options.filter.is_some());
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init();
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
