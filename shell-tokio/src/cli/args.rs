//! The command line as clap knows it: every command, flag, help text and example.

mod admin;
mod books;
mod money;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use mesh_core::limits;
use mesh_core::wire::message;

pub use self::admin::{Account, Admin, AdminOptions, Credit, Device, Key, Scope};
pub use self::books::{Collect, ExportFormat, Ledger, Refund, Reverse};
pub use self::money::{By, Invoice, Period, ProviderKey, Tier, Usage};

/// The link between AI on your own machines and models in the cloud.
///
/// A device keeps one quick, mutually authenticated tunnel to a gateway that you run. The gateway
/// calls the model, streams the answer back, and books one exact charge.
#[derive(Debug, Parser)]
#[command(
    name = "synesis",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Try it now, without an account, a key or a server:
  synesis up --ask \"Why is the sky blue?\"

Answers go to stdout, everything else to stderr. Exit codes: docs/cli.md."
)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Options for every command")]
pub struct Global {
    /// Where keys, certificates, settings and the ledger are kept.
    #[arg(long, global = true, value_name = "DIR", env = "SYNESIS_DATA_DIR", value_hint = clap::ValueHint::DirPath)]
    pub data_dir: Option<PathBuf>,
    /// When to use colours; `auto` means on a terminal, unless NO_COLOR is set.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = true, value_parser = clap::builder::EnumValueParser::<ColorWhen>::new())]
    pub color: ColorWhen,
    /// Log more to stderr; twice for everything (prompts, answers and keys are never logged).
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Log filter, e.g. `info` or `mesh_tokio=debug`; overrides --verbose.
    #[arg(long, global = true, value_name = "FILTER", env = "SYNESIS_LOG")]
    pub log: Option<String>,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Also in pipes and files.
    Always,
    /// Not at all.
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Try it: gateway, device and tunnel in one process, over loopback.
    Up(Up),
    /// Run the gateway, which devices reach and which calls the models.
    Gateway(Gateway),
    /// Run this machine's device agent, which keeps the tunnel up.
    Agent(Agent),
    /// Ask questions through the gateway, and look after this device's link to it.
    Cloud {
        /// What to do.
        #[command(subcommand)]
        command: Cloud,
    },
    /// Accounts, API keys and devices; works on the gateway's machine, also while it runs.
    Admin {
        /// What to do.
        #[command(subcommand)]
        command: Admin,
    },
    /// The ledger of charges, on the gateway's machine.
    Ledger {
        /// What to do.
        #[command(subcommand)]
        command: Ledger,
    },
    /// Print the lines that make OpenAI's and Anthropic's clients use this device's endpoint.
    Env(EnvLines),
    /// Keys of this device's endpoint.
    Key {
        /// What to do.
        #[command(subcommand)]
        command: LocalKey,
    },
    /// What stays on this device when it asks.
    Privacy {
        /// What to do.
        #[command(subcommand)]
        command: Privacy,
    },
    /// Find out what does not work, and what to do about it.
    Doctor(Doctor),
    /// Print a completion script for your shell.
    Completions(Completions),
}

/// `synesis up`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  synesis up --ask \"Why is the sky blue?\"
  synesis up --ask \"Why is the sky blue?\" --stay
  synesis up                        # stay until Ctrl-C; ask from another terminal

A local Ollama, llama.cpp or vLLM answers if one runs on its usual port, else the built-in echo
model. Providers with a paid key are used only with --model.")]
pub struct Up {
    /// Ask this, print the answer and the receipt, and exit.
    #[arg(long, value_name = "QUESTION")]
    pub ask: Option<String>,
    /// Keep running after the answer, until Ctrl-C.
    #[arg(long, requires = "ask")]
    pub stay: bool,
    /// The model to ask, e.g. `claude_sonnet` (needs that provider's key in the environment).
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// The longest answer, tokens.
    #[arg(long, value_name = "TOKENS", default_value_t = limits::MAX_TOKENS_DEFAULT)]
    pub max_tokens: u32,
    /// Take the network away in the middle of the answer for so long, e.g. `3s`, and show that the
    /// answer goes on.
    #[arg(long, value_name = "SPAN", requires = "ask", value_parser = seconds)]
    pub cut: Option<Duration>,
}

/// Seconds, with or without an `s`.
fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    match number.parse::<u64>() {
        Ok(secs @ 1..=60) => Ok(Duration::from_secs(secs)),
        Ok(_) | Err(_) => Err("a whole number of seconds from 1 to 60, like 3s".to_owned()),
    }
}

/// `synesis gateway`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  synesis gateway
  synesis gateway --print-config > gateway.toml
  synesis gateway --config gateway.toml
  synesis gateway --public-address gateway.example.org:4443

Every setting can be given in the file, as SYNESIS_… in the environment, or with --set.

SIGTERM, or Ctrl-C once: nobody new is taken in, devices are sent elsewhere, and answers that run are
finished, as [drain] says; a second signal stops at once. SIGHUP: the settings are read anew, without
touching a tunnel or an answer.")]
pub struct Gateway {
    /// The configuration file.
    #[arg(long, value_name = "FILE", env = "SYNESIS_CONFIG", value_hint = clap::ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Print every setting with its explanation and present value, and exit.
    #[arg(long)]
    pub print_config: bool,
    /// Where other machines reach the tunnel, `host:port`.
    #[arg(long, value_name = "HOST:PORT")]
    pub public_address: Option<String>,
    /// Set one setting of the file, e.g. `--set tunnel_address=0.0.0.0:4443`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
}

/// `synesis agent`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  synesis agent &
  synesis -v agent                  # with a log of what the tunnel does

Enrol the device first with `synesis cloud login`. The agent reconnects for ever.")]
pub struct Agent {}

/// `synesis env`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  eval \"$(synesis env)\"
  synesis env >> ~/.profile

The agent serves the endpoint: `synesis agent`.")]
pub struct EnvLines {}

/// `synesis key …`.
#[derive(Debug, Subcommand)]
pub enum LocalKey {
    /// Make a key for a program on this device; it is shown once. An agent that runs already knows it
    /// after its next start.
    Create {
        /// What it is for.
        #[arg(long, value_name = "TEXT", default_value = "")]
        label: String,
    },
}

/// `synesis privacy …`.
#[derive(Debug, Subcommand)]
pub enum Privacy {
    /// Show a text as it would leave this device.
    Check(PrivacyCheck),
}

/// `synesis privacy check`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  synesis privacy check prompt.txt
  git diff | synesis privacy check -
  synesis privacy check notes.md --json | jq -r .tokens[]

The text goes to stdout with tokens such as [EMAIL_1] in it, what was found to stderr.
Settings: synesis.toml in the device's folder, or SYNESIS_PRIVACY=on|block|off.")]
pub struct PrivacyCheck {
    /// The file; `-` reads stdin.
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub file: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `synesis cloud …`.
#[derive(Debug, Subcommand)]
pub enum Cloud {
    /// Enrol this device with a gateway.
    Login(Login),
    /// Forget the gateway: delete this device's key and certificate.
    Logout(Logout),
    /// Show the tunnel's state, the account's tier and balance.
    Status(Status),
    /// Show what may be spent: credits, what was paid in advance, the month's ceiling.
    Balance(Balance),
    /// Show what was used and charged, by day, model, device or project.
    Usage(Usage),
    /// Show what a month came to.
    Invoice(Invoice),
    /// Show or change how this account is charged.
    Tier(Tier),
    /// Keys that this account pays its providers with.
    ProviderKey {
        /// What to do.
        #[command(subcommand)]
        command: ProviderKey,
    },
    /// Pay money in, by card or bank; it is spent before the month's ceiling.
    Topup(Topup),
    /// Measure the round trip to the gateway.
    Ping(Ping),
    /// Ask a question and stream the answer.
    Ask(Box<Ask>),
}

/// `synesis cloud login`.
#[derive(Args, Clone)]
#[command(after_help = "Examples:
  synesis cloud login 'THE JOIN LINE'            # from `synesis admin key create`
  synesis cloud login --gateway https://gateway.example.org:4140
  synesis cloud login --gateway https://10.0.0.5:4140 --api-key-file key.txt --ca-fingerprint SHA256

Without a key given, it is asked for without echo on a terminal.")]
pub struct Login {
    /// The join line printed by `synesis admin key create`: URL, key and CA fingerprint; `-` reads
    /// it from stdin.
    #[arg(value_name = "JOIN-LINE", conflicts_with_all = ["gateway", "api_key", "api_key_file", "ca_fingerprint"], required_unless_present = "gateway")]
    pub join: Option<String>,
    /// The gateway's HTTP address, e.g. `https://gateway.example.org:4140`.
    #[arg(long, value_name = "URL")]
    pub gateway: Option<String>,
    /// Read the API key from this file.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub api_key_file: Option<PathBuf>,
    /// The API key. Other users of this machine can read it in the process list: prefer
    /// --api-key-file, the prompt or SYNESIS_API_KEY.
    #[arg(
        long,
        value_name = "KEY",
        env = "SYNESIS_API_KEY",
        hide_env_values = true,
        conflicts_with = "api_key_file"
    )]
    pub api_key: Option<String>,
    /// SHA-256 of the gateway's CA certificate in hex, for a gateway without a public certificate.
    #[arg(long, value_name = "HEX")]
    pub ca_fingerprint: Option<String>,
    /// Replace the enrolment that is there.
    #[arg(long)]
    pub force: bool,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The join line and the key are secrets.
        f.debug_struct("Login")
            .field("gateway", &self.gateway)
            .finish_non_exhaustive()
    }
}

/// `synesis cloud logout`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:
  synesis cloud logout

The certificate stays valid on the gateway until `synesis admin device revoke` there.")]
pub struct Logout {}

/// `synesis cloud status`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  synesis cloud status
  synesis cloud status --json")]
pub struct Status {
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `synesis cloud balance`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  synesis cloud balance
  synesis cloud balance --json | jq .available

Credits are spent first, the earliest to end before the others, then what was paid in advance, then
the month's ceiling.")]
pub struct Balance {
    /// Print one JSON object; amounts in nano-dollars.
    #[arg(long)]
    pub json: bool,
}

/// `synesis cloud topup`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  synesis cloud topup 20                # prints where to pay, and waits
  synesis cloud topup 20 --open         # opens that page in the browser
  synesis cloud topup 20 --no-wait --json | jq -r .url

Ctrl-C leaves it pending (exit code 130): it is credited all the same once it is paid. A gateway
that takes no payments says so (exit code 16).")]
pub struct Topup {
    /// Dollars, from 1 to 10000.
    #[arg(value_name = "AMOUNT", value_parser = super::topup::whole_cents)]
    pub amount: i64,
    /// Open the page where it is paid in the browser.
    #[arg(long)]
    pub open: bool,
    /// Do not wait until it is paid.
    #[arg(long)]
    pub no_wait: bool,
    /// Print one JSON object; the address goes to stderr then.
    #[arg(long)]
    pub json: bool,
}

/// `synesis cloud ping`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  synesis cloud ping
  synesis cloud ping --count 10 --json")]
pub struct Ping {
    /// How many times.
    #[arg(short, long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub count: u32,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `synesis cloud ask`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  synesis cloud ask \"Which valve is it?\" --context manual.txt
  git diff | synesis cloud ask - --system \"Review this change\" > review.md
  synesis cloud ask --session trip \"Where to in May?\"
  synesis cloud ask --session trip \"And with children?\"
  synesis cloud ask --model claude_sonnet --tone technical --json \"What is a PTO?\" | jq .charge
  synesis cloud ask --resume            # what a process that died was asking

The answer goes to stdout, the receipt to stderr. Ctrl-C cancels the answer, at the provider too;
a second Ctrl-C leaves at once. A question that lost its process or its tunnel is kept on this device
for a day: --resume prints its whole answer. With nothing to resume the exit code is 20.")]
pub struct Ask {
    /// The question; `-` or nothing reads it from stdin (on a terminal, end with Ctrl-D).
    #[arg(value_name = "QUESTION")]
    pub question: Option<String>,
    /// The model: `auto`, or a name in the gateway's model table.
    #[arg(short, long, value_name = "NAME", default_value = "auto")]
    pub model: String,
    /// The longest answer, tokens.
    #[arg(long, value_name = "TOKENS", default_value_t = limits::MAX_TOKENS_DEFAULT)]
    pub max_tokens: u32,
    /// Print the answer when it is whole instead of piece by piece.
    #[arg(long)]
    pub no_stream: bool,
    /// The manner of the answer.
    #[arg(long, value_enum, default_value_t = Tone::Professional)]
    pub tone: Tone,
    /// How long the answer should be.
    #[arg(long, value_enum, default_value_t = Verbosity::Normal)]
    pub verbosity: Verbosity,
    /// The answer's language, e.g. `de` or `German`; the question's own if not given.
    #[arg(long, value_name = "LANGUAGE")]
    pub language: Option<String>,
    /// Something the answer must keep to; may be repeated.
    #[arg(long, value_name = "RULE")]
    pub constraint: Vec<String>,
    /// A note on what you are up to, to set the answer's frame.
    #[arg(long, value_name = "NOTE")]
    pub framing: Option<String>,
    /// Keep the conversation under this name on this device, and go on with it.
    #[arg(long, value_name = "NAME")]
    pub session: Option<String>,
    /// A system prompt.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Text files that go along; put the question first.
    #[arg(long, value_name = "FILE", num_args = 1.., value_hint = clap::ValueHint::FilePath)]
    pub context: Vec<PathBuf>,
    /// The project that is charged.
    #[arg(long, value_name = "NAME")]
    pub project: Option<String>,
    /// How long the first piece of the answer may take, seconds (1–600; 30 if not given).
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u32>,
    /// Go on with an unfinished question: this one, or the only one there is; several are listed.
    #[arg(long, value_name = "ID", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["question", "context", "session", "system", "project", "framing", "constraint"])]
    pub resume: Option<String>,
    /// Print one JSON object with answer, tokens, prices and ids, when the answer is whole.
    #[arg(long)]
    pub json: bool,
}

/// The manner of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tone {
    /// As at work.
    Professional,
    /// As among friends.
    Casual,
    /// As among engineers.
    Technical,
}

impl From<Tone> for message::Tone {
    fn from(tone: Tone) -> Self {
        match tone {
            Tone::Professional => Self::Professional,
            Tone::Casual => Self::Casual,
            Tone::Technical => Self::Technical,
        }
    }
}

/// How long an answer should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Verbosity {
    /// As short as possible.
    Concise,
    /// As the model would.
    Normal,
    /// With everything that helps.
    Detailed,
}

impl From<Verbosity> for message::Verbosity {
    fn from(verbosity: Verbosity) -> Self {
        match verbosity {
            Verbosity::Concise => Self::Concise,
            Verbosity::Normal => Self::Normal,
            Verbosity::Detailed => Self::Detailed,
        }
    }
}

/// `synesis doctor`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  synesis doctor
  synesis doctor --json | jq '.checks[] | select(.status != \"ok\")'")]
pub struct Doctor {
    /// Check this gateway instead of the one enrolled with.
    #[arg(long, value_name = "URL")]
    pub gateway: Option<String>,
    /// Print one JSON object; its codes are stable.
    #[arg(long)]
    pub json: bool,
}

/// `synesis completions`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  synesis completions bash > ~/.local/share/bash-completion/completions/synesis
  synesis completions zsh  > ~/.zfunc/_synesis
  synesis completions fish > ~/.config/fish/completions/synesis.fish")]
pub struct Completions {
    /// Which shell.
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// `KEY=VALUE`, split at the first `=`.
fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_contradict_nothing() {
        Cli::command().debug_assert();
    }

    #[test]
    fn ask_has_the_documented_defaults() {
        let cli = Cli::parse_from(["synesis", "cloud", "ask", "why?"]);
        let Command::Cloud {
            command: Cloud::Ask(ask),
        } = cli.command
        else {
            panic!("not ask")
        };
        assert_eq!((ask.model.as_str(), ask.max_tokens), ("auto", 1024));
        assert_eq!(
            (ask.tone, ask.verbosity),
            (Tone::Professional, Verbosity::Normal)
        );
        assert!(!ask.no_stream && !ask.json);
    }

    #[test]
    fn a_key_is_not_shown_by_debug() {
        let line = [
            "synesis",
            "cloud",
            "login",
            "--gateway",
            "https://x",
            "--api-key",
            "si_live_9",
        ];
        assert!(!format!("{:?}", Cli::parse_from(line)).contains("si_live_9"));
    }

    #[test]
    fn every_command_explains_itself() {
        fn walk(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{}", argument.get_id());
            }
            command.get_subcommands().for_each(walk);
        }
        let mut root = Cli::command();
        root.build();
        walk(&root);
    }
}
