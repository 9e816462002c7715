//! What a device may see and change of its account's money.

use clap::{Args, Subcommand, ValueEnum};
use mesh_core::billing::tier::TierName;
use mesh_core::billing::usage;

/// `synesis cloud usage`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  synesis cloud usage
  synesis cloud usage --period week --by model
  synesis cloud usage --period all --by device --csv > usage.csv

Days and months are UTC. Amounts are exact; nothing is rounded to cents.")]
pub struct Usage {
    /// Since when: today, the last seven days, this month, or all there is.
    #[arg(long, value_enum, default_value_t = Period::Month)]
    pub period: Period,
    /// Added up by what.
    #[arg(long, value_enum, default_value_t = By::Day)]
    pub by: By,
    /// Print one JSON object.
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,
    /// Print comma-separated lines with headings.
    #[arg(long)]
    pub csv: bool,
}

/// Since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Period {
    /// Today.
    Day,
    /// The last seven days.
    Week,
    /// This month.
    Month,
    /// All there is.
    All,
}

impl From<Period> for usage::Period {
    fn from(period: Period) -> Self {
        match period {
            Period::Day => Self::Day,
            Period::Week => Self::Week,
            Period::Month => Self::Month,
            Period::All => Self::All,
        }
    }
}

/// Added up by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// Calendar days.
    Day,
    /// Models.
    Model,
    /// Devices.
    Device,
    /// Projects.
    Project,
}

impl From<By> for usage::By {
    fn from(by: By) -> Self {
        match by {
            By::Day => Self::Day,
            By::Model => Self::Model,
            By::Device => Self::Device,
            By::Project => Self::Project,
        }
    }
}

/// `synesis cloud invoice`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  synesis cloud invoice                # the last month that was invoiced
  synesis cloud invoice 2026-10 --json

What was spent within the ceiling is invoiced in whole cents when the month is over; what is left over
is carried to the next invoice. What was paid in advance or given is not invoiced.")]
pub struct Invoice {
    /// The month, e.g. `2026-10`.
    #[arg(value_name = "MONTH")]
    pub month: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `synesis cloud tier`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  synesis cloud tier                   # how this account is charged
  synesis cloud tier byok              # pay providers with keys of your own from now on

The gateway's operator decides which tiers accounts may choose (billing.choices).")]
pub struct Tier {
    /// The tier to change to: free, managed or byok.
    #[arg(value_name = "TIER")]
    pub change_to: Option<TierName>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `synesis cloud provider-key …`.
#[derive(Clone, Debug, Subcommand)]
pub enum ProviderKey {
    /// Give the gateway a key that this account pays a provider with; read from stdin.
    ///
    /// The gateway keeps it encrypted, uses it for this account only, and never shows it again.
    #[command(after_help = "Examples:
  synesis cloud provider-key set anthropic < key.txt
  pass show anthropic | synesis cloud provider-key set anthropic")]
    Set {
        /// The provider's name at the gateway, e.g. `anthropic`.
        #[arg(value_name = "PROVIDER")]
        provider: String,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Have the gateway forget the key.
    #[command(after_help = "Example:
  synesis cloud provider-key clear anthropic")]
    Clear {
        /// The provider's name at the gateway.
        #[arg(value_name = "PROVIDER")]
        provider: String,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}
