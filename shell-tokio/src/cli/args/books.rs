//! The books: what an operator does with the ledger and with an account's money.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use mesh_core::billing::account::order::Reference;
use mesh_core::billing::money::Nanos;

use super::AdminOptions;

/// `synesis ledger …`.
#[derive(Debug, Subcommand)]
pub enum Ledger {
    /// Check every entry of every account's chain: nothing altered, missing or reordered.
    ///
    /// The last seal that the gateway exported is checked too, so that a ledger that was cut short is
    /// noticed; give a copy of it that is kept elsewhere with --seal.
    #[command(after_help = "Examples:
  synesis ledger verify
  synesis ledger verify --account home --json
  synesis ledger verify --seal /mnt/elsewhere/seal.json")]
    Verify {
        /// Only this account's chain.
        #[arg(long, value_name = "NAME")]
        account: Option<String>,
        /// Check against this seal instead of the last one that was exported.
        #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        seal: Option<PathBuf>,
        /// Common options.
        #[command(flatten)]
        options: AdminOptions,
    },
    /// Print every entry, one line each: what happened, base, markup or licence fee, and charge.
    #[command(after_help = "Examples:
  synesis ledger export > ledger.jsonl
  synesis ledger export --account home --format csv > home.csv")]
    Export {
        /// Only this account's chain.
        #[arg(long, value_name = "NAME")]
        account: Option<String>,
        /// How.
        #[arg(long, value_enum, default_value_t = ExportFormat::Jsonl)]
        format: ExportFormat,
        /// Common options.
        #[command(flatten)]
        options: AdminOptions,
    },
    /// Seal where all chains end now, with the gateway's signature, and print the seal.
    #[command(after_help = "Examples:
  synesis ledger head
  synesis ledger head --json > /mnt/elsewhere/seal.json

A running gateway exports the same every minute to the folder in ledger.seals_dir.")]
    Head {
        /// Common options.
        #[command(flatten)]
        options: AdminOptions,
    },
}

/// How a ledger is exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// One JSON object a line, each with the entry as it is hashed.
    #[default]
    Jsonl,
    /// Comma-separated, with a line of headings.
    Csv,
}

/// `synesis admin refund`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  synesis admin refund home req_0123456789abcdef0123456789abcdef
  synesis admin refund home req_0123456789abcdef0123456789abcdef 0.01 --reference complaint-4

The money goes back to where the charge was taken from: the month's ceiling, what was paid in advance,
credits that have not ended.")]
pub struct Refund {
    /// The account's name or id.
    #[arg(value_name = "ACCOUNT")]
    pub account: String,
    /// The question's id, from its receipt or `synesis ledger export`.
    #[arg(value_name = "REQUEST")]
    pub request: String,
    /// Dollars; all of the charge without.
    #[arg(value_name = "AMOUNT", value_parser = Nanos::parse_dollars)]
    pub amount: Option<Nanos>,
    /// What it is for. Said again under the same reference, nothing more happens.
    #[arg(long, value_name = "TEXT", value_parser = |text: &str| Reference::new(text))]
    pub reference: Option<Reference>,
    /// Common options.
    #[command(flatten)]
    pub options: AdminOptions,
}

/// `synesis admin reverse`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  synesis admin reverse home invoice-7 20

It is taken from what is left of what was paid in advance; the rest is owed, and blocks new questions
that cost until it is paid.")]
pub struct Reverse {
    /// The account's name or id.
    #[arg(value_name = "ACCOUNT")]
    pub account: String,
    /// The reference of the payment that was taken back.
    #[arg(value_name = "PAYMENT", value_parser = |text: &str| Reference::new(text))]
    pub payment: Reference,
    /// Dollars.
    #[arg(value_name = "AMOUNT", value_parser = Nanos::parse_dollars)]
    pub amount: Nanos,
    /// What it is for. Said again under the same reference, nothing more happens.
    #[arg(long, value_name = "TEXT", value_parser = |text: &str| Reference::new(text))]
    pub reference: Option<Reference>,
    /// Common options.
    #[command(flatten)]
    pub options: AdminOptions,
}

/// `synesis admin collect`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  synesis admin collect home 1.03 --reference bank-2026-12-03")]
pub struct Collect {
    /// The account's name or id.
    #[arg(value_name = "ACCOUNT")]
    pub account: String,
    /// Dollars.
    #[arg(value_name = "AMOUNT", value_parser = Nanos::parse_dollars)]
    pub amount: Nanos,
    /// What it is for. Said again under the same reference, nothing more happens.
    #[arg(long, value_name = "TEXT", value_parser = |text: &str| Reference::new(text))]
    pub reference: Option<Reference>,
    /// Common options.
    #[command(flatten)]
    pub options: AdminOptions,
}
