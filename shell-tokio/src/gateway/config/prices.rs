//! Prices from a file in the form that LiteLLM publishes.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use mesh_core::billing::price::Price;
use mesh_core::billing::price::litellm::{self, Table};
use mesh_core::limits::PRICE_TABLE_BYTES_MAX;
use sha2::{Digest as _, Sha256};

/// The file's prices; none without a file. Their version is the beginning of the file's SHA-256, so
/// that a charge says by which file it was made.
pub(super) fn table(path: &Path) -> Result<Table, String> {
    if path.as_os_str().is_empty() {
        return Ok(Table::default());
    }
    let wrong = |error: String| format!("billing.price_file: {}: {error}", path.display());
    let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    let most = u64::try_from(PRICE_TABLE_BYTES_MAX).unwrap_or(u64::MAX);
    let mut text = String::new();
    file.take(most.saturating_add(1))
        .read_to_string(&mut text)
        .map_err(|error| wrong(error.to_string()))?;
    let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(text.as_bytes()).into();
    litellm::read(&text, u32::from_be_bytes([a, b, c, d])).map_err(|error| wrong(error.to_string()))
}

/// The price of a model in the file.
pub(super) fn named(table: &Table, name: &str) -> Result<Option<Price>, String> {
    if let Some(why) = table.unusable.get(name) {
        return Err(format!("the price file has {name:?}, but {why}"));
    }
    if table.rounded.iter().any(|rounded| rounded == name) {
        tracing::warn!(
            price = name,
            "rounded up: it is no whole number of pico-dollars a token"
        );
    }
    Ok(table.prices.get(name).copied())
}
