//! The shape of the settings' file, as it is written down.

use std::net::SocketAddr;
use std::path::PathBuf;

use mesh_core::billing::tier::TierName;
use mesh_core::wire::message::DialectName;
use serde::Deserialize;

use super::payments;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) data_dir: PathBuf,
    pub(super) default_model: String,
    pub(super) store: StoreFile,
    pub(super) tunnel: TunnelFile,
    pub(super) http: HttpFile,
    pub(super) billing: BillingFile,
    pub(super) stripe: payments::File,
    pub(super) answers: AnswersFile,
    pub(super) drain: DrainFile,
    pub(super) log: LogFile,
    pub(super) ledger: LedgerFile,
    #[serde(default)]
    pub(super) provider: Vec<ProviderFile>,
    #[serde(default)]
    pub(super) model: Vec<ModelFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoreFile {
    pub(super) url: String,
    pub(super) ca_file: PathBuf,
    pub(super) allow_plain: bool,
    pub(super) lease_secs: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TunnelFile {
    pub(super) listen: SocketAddr,
    pub(super) public_address: String,
    pub(super) tunnels_max: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpFile {
    pub(super) listen: SocketAddr,
    pub(super) tls: TlsChoice,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) allow_plain: bool,
    pub(super) public_url: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TlsChoice {
    Auto,
    Own,
    Files,
    Off,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BillingFile {
    pub(super) ceiling: String,
    pub(super) price_file: PathBuf,
    pub(super) markup_bps: u32,
    pub(super) licence_fee_bps: u32,
    pub(super) free_quota: String,
    pub(super) choices: Vec<TierName>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LedgerFile {
    pub(super) seals_dir: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AnswersFile {
    pub(super) kept_secs: u32,
    pub(super) resume_window_secs: u32,
    pub(super) kept_bytes_max: usize,
    pub(super) device_per_minute: u32,
    pub(super) account_per_minute: u32,
    pub(super) device_at_once: u32,
    pub(super) account_at_once: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DrainFile {
    pub(super) limit_secs: u32,
    pub(super) spread_secs: u32,
    pub(super) store_secs: u32,
    pub(super) alternates: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogFile {
    pub(super) filter: String,
}

/// What becomes of a provider's answer whose device does not come back.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Left {
    #[default]
    Stop,
    Drain,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProviderFile {
    pub(super) name: String,
    pub(super) dialect: DialectName,
    pub(super) base_url: String,
    pub(super) api_key_env: Option<String>,
    pub(super) api_key_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) max_tokens_field: MaxTokensChoice,
    #[serde(default)]
    pub(super) when_left: Left,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum MaxTokensChoice {
    #[default]
    MaxTokens,
    MaxCompletionTokens,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelFile {
    pub(super) name: String,
    pub(super) provider: String,
    pub(super) model: String,
    pub(super) price: Option<String>,
    pub(super) input_per_million: Option<String>,
    pub(super) output_per_million: Option<String>,
    pub(super) cache_read_per_million: Option<String>,
    pub(super) cache_write_per_million: Option<String>,
    pub(super) retires: Option<String>,
}

/// The same shape with nothing required: unknown and ill-typed settings are found with their line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape counts")]
pub(super) struct Partial {
    pub(super) data_dir: Option<PathBuf>,
    pub(super) default_model: Option<String>,
    pub(super) store: Option<PartialStore>,
    pub(super) tunnel: Option<PartialTunnel>,
    pub(super) http: Option<PartialHttp>,
    pub(super) billing: Option<PartialBilling>,
    pub(super) stripe: Option<payments::Partial>,
    pub(super) answers: Option<PartialAnswers>,
    pub(super) ledger: Option<PartialLedger>,
    pub(super) drain: Option<PartialDrain>,
    pub(super) log: Option<PartialLog>,
    pub(super) provider: Option<Vec<ProviderFile>>,
    pub(super) model: Option<Vec<ModelFile>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape counts")]
pub(super) struct PartialStore {
    pub(super) url: Option<String>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) allow_plain: Option<bool>,
    pub(super) lease_secs: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape counts")]
pub(super) struct PartialTunnel {
    pub(super) listen: Option<SocketAddr>,
    pub(super) public_address: Option<String>,
    pub(super) tunnels_max: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape counts")]
pub(super) struct PartialHttp {
    pub(super) listen: Option<SocketAddr>,
    pub(super) tls: Option<TlsChoice>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) allow_plain: Option<bool>,
    pub(super) public_url: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape counts")]
pub(super) struct PartialBilling {
    pub(super) ceiling: Option<String>,
    pub(super) markup_bps: Option<u32>,
    pub(super) price_file: Option<PathBuf>,
    pub(super) licence_fee_bps: Option<u32>,
    pub(super) free_quota: Option<String>,
    pub(super) choices: Option<Vec<TierName>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape counts")]
pub(super) struct PartialLedger {
    pub(super) seals_dir: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape counts")]
pub(super) struct PartialDrain {
    pub(super) limit_secs: Option<u32>,
    pub(super) spread_secs: Option<u32>,
    pub(super) store_secs: Option<u32>,
    pub(super) alternates: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape counts")]
pub(super) struct PartialLog {
    pub(super) filter: Option<String>,
}

/// What is wrong, with its line; not the line itself where a password may be in it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape counts")]
pub(super) struct PartialAnswers {
    pub(super) kept_secs: Option<u32>,
    pub(super) resume_window_secs: Option<u32>,
    pub(super) kept_bytes_max: Option<usize>,
    pub(super) device_per_minute: Option<u32>,
    pub(super) account_per_minute: Option<u32>,
    pub(super) device_at_once: Option<u32>,
    pub(super) account_at_once: Option<u32>,
}
