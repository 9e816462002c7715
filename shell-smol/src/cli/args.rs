//! The command line's words and help. Read by lexopt, which is one file and no dependency: three
//! commands and a dozen flags need no more, and every page of a small agent's program counts.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;
use mesh_core::limits::MAX_TOKENS_DEFAULT;

const HELP: &str = "\
A small device agent of Synesis: the same tunnel as `synesis agent`, on one thread.
It uses the enrolment that `synesis cloud login` keeps.

Usage: synesis-lite [OPTIONS] COMMAND

Commands:
  run      Keep this device's tunnel up, with heartbeats, until Ctrl-C
  ask      Ask one question; the answer goes to stdout, the receipt to stderr
  status   Connect, and show the tunnel and the account

Options for every command:
      --data-dir DIR   Where key and certificate are kept [env: SYNESIS_DATA_DIR]
      --events         Tell the tunnel's changes on stderr, one JSON object a line
                       [env: SYNESIS_EVENTS=1]
  -h, --help           Print help
  -V, --version        Print the version

Examples:
  synesis-lite run
  synesis-lite ask \"Why is the sky blue?\"
  synesis-lite COMMAND --help

Exit codes are those of `synesis`: docs/errors.md.";

const RUN_HELP: &str = "\
Keep this device's tunnel up, with heartbeats and the machine's load, until Ctrl-C.

Usage: synesis-lite run [OPTIONS]

Options:
      --data-dir DIR   Where key and certificate are kept [env: SYNESIS_DATA_DIR]
      --events         Tell the tunnel's changes on stderr, one JSON object a line

Examples:
  synesis-lite run
  synesis-lite run --events 2>&1 | jq -c '[.state, .epoch, .heartbeats_acked]'";

const ASK_HELP: &str = "\
Ask one question. The answer goes to stdout as it comes, the receipt to stderr.
Ctrl-C cancels it, at the provider too; what was produced is charged.

Usage: synesis-lite ask [OPTIONS] [QUESTION]

Arguments:
  [QUESTION]   The question; `-` or nothing reads it from stdin

Options:
  -m, --model NAME         The model: `auto`, or a name in the gateway's table [default: auto]
      --max-tokens TOKENS  The longest answer [default: 1024]
      --timeout SECONDS    How long the first piece may take (1-600) [default: 30]
      --no-stream          Print the answer when it is whole
      --resume [ID]        Go on with an unfinished question of a process that is gone
      --json               Print one JSON object with answer, tokens, prices and ids
      --data-dir DIR       Where key and certificate are kept [env: SYNESIS_DATA_DIR]
      --events             Tell the tunnel's changes on stderr, one JSON object a line

Examples:
  synesis-lite ask \"Why is the sky blue?\"
  git diff | synesis-lite ask --model claude > review.md
  synesis-lite ask --resume
  synesis-lite ask --json \"What is a PTO?\" | jq -r .charge";

const STATUS_HELP: &str = "\
Connect, and show the tunnel (handshake, round trip, epoch) and the account.
Ends with exit code 21 when there is no tunnel, so that scripts can wait for one.

Usage: synesis-lite status [OPTIONS]

Options:
      --json           Print one JSON object
      --data-dir DIR   Where key and certificate are kept [env: SYNESIS_DATA_DIR]
      --events         Tell the tunnel's changes on stderr, one JSON object a line

Examples:
  synesis-lite status
  synesis-lite status --json | jq .handshake_us";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Help or the version, to be printed.
    Text(String),
    /// A command.
    Run(Run),
}

/// A command, and what holds for each.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    /// Where key and certificate are kept, if not in the usual place.
    pub data_dir: Option<PathBuf>,
    /// Whether to tell the tunnel's changes as JSON.
    pub events: bool,
    /// What to do.
    pub command: Command,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Keep the tunnel up.
    Run,
    /// Ask a question.
    Ask(Ask),
    /// Show tunnel and account.
    Status(Status),
}

/// `synesis-lite ask`.
#[derive(Debug, PartialEq, Eq)]
pub struct Ask {
    /// The question; `None` reads it from stdin.
    pub question: Option<String>,
    /// The model's name in the gateway's table, or `auto`.
    pub model: String,
    /// The longest answer, tokens.
    pub max_tokens: u32,
    /// How long the first piece may take, seconds.
    pub timeout: Option<u32>,
    /// Print the answer when it is whole.
    pub no_stream: bool,
    /// Print one JSON object.
    pub json: bool,
    /// Go on with an unfinished question: the one of this id, or the only one.
    pub resume: Option<Option<String>>,
}

/// `synesis-lite status`.
#[derive(Debug, PartialEq, Eq)]
pub struct Status {
    /// Print one JSON object.
    pub json: bool,
}

/// Reads the command line, without the program's name, and the environment.
///
/// # Errors
///
/// What is wrong with it, for the person who wrote it.
pub fn parse(
    arguments: impl Iterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Parsed, String> {
    read(lexopt::Parser::from_args(arguments), environment)
        .map_err(|error| format!("{error}; see synesis-lite --help"))
}

/// The commands by name.
#[derive(Clone, Copy, Debug)]
enum Name {
    Run,
    Ask,
    Status,
}

fn read(
    mut parser: lexopt::Parser,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Parsed, lexopt::Error> {
    let mut data_dir = environment("SYNESIS_DATA_DIR").map(PathBuf::from);
    let mut events = environment("SYNESIS_EVENTS").is_some_and(|value| value == "1");
    let mut name = None;
    let (mut help, mut version, mut json) = (false, false, false);
    let mut ask = Ask {
        question: None,
        model: "auto".to_owned(),
        max_tokens: MAX_TOKENS_DEFAULT,
        timeout: None,
        no_stream: false,
        json: false,
        resume: None,
    };
    while let Some(argument) = parser.next()? {
        match (argument, name) {
            (Long("data-dir"), _) => data_dir = Some(parser.value()?.into()),
            (Long("events"), _) => events = true,
            (Short('h') | Long("help"), _) => help = true,
            (Short('V') | Long("version"), _) => version = true,
            (Value(word), None) => name = Some(named(&word.string()?)?),
            (Long("json"), Some(Name::Ask | Name::Status)) => json = true,
            (Short('m') | Long("model"), Some(Name::Ask)) => {
                ask.model = parser.value()?.string()?
            }
            (Long("max-tokens"), Some(Name::Ask)) => ask.max_tokens = parser.value()?.parse()?,
            (Long("timeout"), Some(Name::Ask)) => ask.timeout = Some(parser.value()?.parse()?),
            (Long("no-stream"), Some(Name::Ask)) => ask.no_stream = true,
            (Long("resume"), Some(Name::Ask)) => {
                let id = parser.optional_value().map(|id| id.string()).transpose()?;
                ask.resume = Some(id);
            }
            (Value(id), Some(Name::Ask)) if ask.resume == Some(None) => {
                ask.resume = Some(Some(id.string()?));
            }
            (Value(text), Some(Name::Ask)) if ask.question.is_none() => {
                ask.question = Some(text.string()?);
            }
            (argument, _) => return Err(argument.unexpected()),
        }
    }
    if version {
        let version = concat!("synesis-lite ", env!("CARGO_PKG_VERSION"));
        return Ok(Parsed::Text(version.to_owned()));
    }
    if help {
        let text = match name {
            None => HELP,
            Some(Name::Run) => RUN_HELP,
            Some(Name::Ask) => ASK_HELP,
            Some(Name::Status) => STATUS_HELP,
        };
        return Ok(Parsed::Text(text.to_owned()));
    }
    let command = match name {
        None => return Err("there is no command".into()),
        Some(Name::Run) => Command::Run,
        Some(Name::Ask) => {
            ask.json = json;
            ask.question = ask.question.filter(|question| question != "-");
            Command::Ask(ask)
        }
        Some(Name::Status) => Command::Status(Status { json }),
    };
    Ok(Parsed::Run(Run {
        data_dir,
        events,
        command,
    }))
}

fn named(word: &str) -> Result<Name, lexopt::Error> {
    match word {
        "run" => Ok(Name::Run),
        "ask" => Ok(Name::Ask),
        "status" => Ok(Name::Status),
        other => Err(format!("there is no command {other:?}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> Result<Parsed, String> {
        parse(line.iter().map(OsString::from), |_| None)
    }

    fn asked(line: &[&str]) -> Ask {
        let parsed = parsed(line).unwrap();
        let Parsed::Run(Run {
            command: Command::Ask(ask),
            ..
        }) = parsed
        else {
            panic!("{parsed:?}")
        };
        ask
    }

    #[test]
    fn options_may_stand_before_and_behind_the_command_and_the_question() {
        let ask = asked(&[
            "--events",
            "ask",
            "--json",
            "Why?",
            "-m",
            "claude",
            "--timeout=5",
        ]);
        assert_eq!(ask.question.as_deref(), Some("Why?"));
        assert_eq!((ask.model.as_str(), ask.timeout), ("claude", Some(5)));
        assert!(ask.json && !ask.no_stream);
        assert_eq!(ask.max_tokens, MAX_TOKENS_DEFAULT);
    }

    #[test]
    fn a_dash_and_nothing_both_mean_stdin_and_a_question_may_look_like_an_option() {
        assert_eq!(asked(&["ask", "-"]).question, None);
        assert_eq!(asked(&["ask"]).question, None);
        let odd = asked(&["ask", "--", "--why?"]);
        assert_eq!(odd.question.as_deref(), Some("--why?"));
    }

    #[test]
    fn a_question_that_goes_on_may_be_named() {
        assert_eq!(asked(&["ask", "why?"]).resume, None);
        assert_eq!(asked(&["ask", "--resume"]).resume, Some(None));
        for line in [
            &["ask", "--resume", "req_1"][..],
            &["ask", "--resume=req_1"],
        ] {
            let ask = asked(line);
            assert_eq!(ask.resume, Some(Some("req_1".to_owned())));
            assert_eq!(ask.question, None);
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (line, word) in [
            (&["ask", "--jsn"][..], "--jsn"),
            (&["run", "--json"], "--json"),
            (&["ask", "one", "two"], "two"),
            (&["ask", "--timeout", "soon"], "soon"),
            (&["rnu"], "rnu"),
            (&[], "no command"),
            (&["status", "--model", "x"], "--model"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(
                error.contains(word) && error.contains("--help"),
                "{line:?}: {error}"
            );
        }
    }

    #[test]
    fn the_environment_stands_in_for_what_is_not_said() {
        let environment = |name: &str| match name {
            "SYNESIS_DATA_DIR" => Some("/data".into()),
            "SYNESIS_EVENTS" => Some("1".into()),
            _ => None,
        };
        let line = ["run"].map(OsString::from);
        let Parsed::Run(run) = parse(line.into_iter(), environment).unwrap() else {
            panic!("no command")
        };
        assert_eq!(run.data_dir, Some(PathBuf::from("/data")));
        assert!(run.events);
    }

    #[test]
    fn every_command_has_help_with_examples() {
        for line in [
            &["--help"][..],
            &["run", "-h"],
            &["ask", "-h"],
            &["status", "--help"],
        ] {
            let Ok(Parsed::Text(text)) = parsed(line) else {
                panic!("{line:?}")
            };
            assert!(
                text.contains("Usage:") && text.contains("Examples:"),
                "{text}"
            );
            assert!(text.lines().all(|line| line.len() <= 100), "{text}");
        }
    }
}
