//! The gateway's machine: accounts, API keys, devices, and money by hand.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use mesh_core::billing::account::order::Reference;
use mesh_core::billing::money::Nanos;
use mesh_core::billing::tier::TierName;
use mesh_core::time::UnixMillis;

use super::books::{Collect, Refund, Reverse};

/// `synesis admin …`.
#[derive(Debug, Subcommand)]
pub enum Admin {
    /// Accounts: who owns keys, devices and money.
    Account {
        /// What to do.
        #[command(subcommand)]
        command: Account,
    },
    /// API keys, which enrol devices.
    Key {
        /// What to do.
        #[command(subcommand)]
        command: Key,
    },
    /// Devices and their certificates.
    Device {
        /// What to do.
        #[command(subcommand)]
        command: Device,
    },
    /// Give an account money: paid in advance, or with --expires for a time.
    Credit(Credit),
    /// Give back what a question was charged, wholly or in part.
    Refund(Refund),
    /// Book that a payment was taken back by whoever made it.
    Reverse(Reverse),
    /// Book that an invoice was paid.
    Collect(Collect),
    /// Make this machine's certificate authorities those of the store: devices enrolled under others
    /// must enrol again.
    #[command(after_help = "Examples:
  synesis admin adopt-ca                # then copy the folder `ca` to every other gateway

A gateway whose authorities are not the store's does not start (exit code 12). Usually the folder `ca` of
another gateway, or its backup, is what is wanted. This is for when that is lost or has become known: stop
every gateway, move the old folder away, run it, copy the new folder to all of them, and enrol the devices
again. It makes the authorities if there are none.")]
    AdoptCa(AdminOptions),
}

/// `synesis admin credit`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  synesis admin credit home 20                         # $20 paid in advance
  synesis admin credit home 5 --expires 2026-12-31     # $5 to be spent by the end of the year
  synesis admin credit home 20 --reference invoice-7   # said again, nothing more happens

What the account owes is paid first. Credits that end are spent before what was paid in advance, and
that before the month's ceiling.")]
pub struct Credit {
    /// The account's name or id.
    #[arg(value_name = "ACCOUNT")]
    pub account: String,
    /// Dollars.
    #[arg(value_name = "AMOUNT", value_parser = Nanos::parse_dollars)]
    pub amount: Nanos,
    /// The last day (UTC) on which it can be spent, like 2026-12-31.
    #[arg(long, value_name = "DATE", value_parser = crate::cli::admin::end_of_day)]
    pub expires: Option<UnixMillis>,
    /// Your own name for it: the same one is carried out once.
    #[arg(long, value_name = "TEXT", value_parser = |text: &str| Reference::new(text))]
    pub reference: Option<Reference>,
    /// Common options.
    #[command(flatten)]
    pub options: AdminOptions,
}

/// Options of every admin command.
#[derive(Args, Clone, Debug)]
pub struct AdminOptions {
    /// The gateway's configuration file, if it has one.
    #[arg(long, value_name = "FILE", env = "SYNESIS_CONFIG", value_hint = clap::ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `synesis admin account …`.
#[derive(Debug, Subcommand)]
pub enum Account {
    /// Make an account.
    #[command(after_help = "Example:
  synesis admin account create --name home")]
    Create {
        /// Its name, as people call it.
        #[arg(long, value_name = "NAME")]
        name: String,
        /// Common options.
        #[command(flatten)]
        options: AdminOptions,
    },
    /// Change how much an account may spend in a month beyond what it paid.
    #[command(after_help = "Examples:
  synesis admin account ceiling home 50
  synesis admin account ceiling home 0      # only what was paid in advance or given")]
    Ceiling {
        /// The account's name or id.
        #[arg(value_name = "ACCOUNT")]
        account: String,
        /// Dollars a month.
        #[arg(value_name = "AMOUNT", value_parser = Nanos::parse_dollars)]
        ceiling: Nanos,
        /// Common options.
        #[command(flatten)]
        options: AdminOptions,
    },
    /// Change how an account is charged; the rates are in the gateway's configuration.
    #[command(after_help = "Examples:
  synesis admin account tier home byok
  synesis admin account tier guests free")]
    Tier {
        /// The account's name or id.
        #[arg(value_name = "ACCOUNT")]
        account: String,
        /// How.
        #[arg(value_name = "TIER")]
        tier: TierName,
        /// Common options.
        #[command(flatten)]
        options: AdminOptions,
    },
    /// Let the month's free quota of an account begin anew.
    ResetQuota {
        /// The account's name or id.
        #[arg(value_name = "ACCOUNT")]
        account: String,
        /// Common options.
        #[command(flatten)]
        options: AdminOptions,
    },
    /// List accounts.
    List {
        /// Common options.
        #[command(flatten)]
        options: AdminOptions,
    },
}

/// `synesis admin key …`.
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make an API key and print the join line for `synesis cloud login`. It is shown once.
    #[command(after_help = "Examples:
  synesis admin key create --account home
  synesis admin key create --account home --json | jq -r .join_line

The join line is all that stdout gets, so it can be piped: … | ssh laptop synesis cloud login -")]
    Create {
        /// The account's name or id.
        #[arg(long, value_name = "NAME")]
        account: String,
        /// What you call it, to tell keys apart.
        #[arg(long, value_name = "TEXT", default_value = "device")]
        label: String,
        /// What the key may do; may be repeated.
        #[arg(long, value_name = "SCOPE", value_enum, default_values_t = [Scope::Read, Scope::Write, Scope::Escalate])]
        scope: Vec<Scope>,
        /// Common options.
        #[command(flatten)]
        options: AdminOptions,
    },
    /// List API keys (never the keys themselves).
    List {
        /// Only of this account.
        #[arg(long, value_name = "NAME")]
        account: Option<String>,
        /// Common options.
        #[command(flatten)]
        options: AdminOptions,
    },
    /// Revoke an API key.
    #[command(after_help = "Examples:
  synesis admin key revoke key_0123456789abcdef0123456789abcdef
  synesis admin key revoke key_0123456789abcdef0123456789abcdef --with-devices")]
    Revoke {
        /// The key's id, from `synesis admin key list`.
        #[arg(value_name = "KEY-ID")]
        id: String,
        /// Also revoke the devices that were enrolled with it.
        #[arg(long)]
        with_devices: bool,
        /// Common options.
        #[command(flatten)]
        options: AdminOptions,
    },
}

/// What an API key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    /// See the account.
    Read,
    /// Change it: enrol devices.
    Write,
    /// Ask questions.
    Escalate,
    /// Everything, for every account.
    Admin,
}

/// `synesis admin device …`.
#[derive(Debug, Subcommand)]
pub enum Device {
    /// List devices.
    List {
        /// Only of this account.
        #[arg(long, value_name = "NAME")]
        account: Option<String>,
        /// Common options.
        #[command(flatten)]
        options: AdminOptions,
    },
    /// Revoke a device's certificate; a running gateway ends its tunnel.
    #[command(after_help = "Example:
  synesis admin device revoke device-01234567-89ab-cdef-0123-456789abcdef")]
    Revoke {
        /// The device's id, from `synesis admin device list`.
        #[arg(value_name = "DEVICE-ID")]
        id: String,
        /// Common options.
        #[command(flatten)]
        options: AdminOptions,
    },
}
