//! A gateway's settings, its model and price table included: what is accepted is what was written.

use std::path::Path;

use mesh_tokio::gateway::config::{Config, Sources};
use toml::{Table, Value};

use crate::{memory, text};

/// The default settings, which are read each time, and tables of the text's own. The parser keeps an
/// error, of close to a kilobyte, for each byte that is out of place.
const MEMORY_FIXED: usize = 512 * 1024;
const MEMORY_PER_BYTE: usize = 2048;

/// What the environment gives for a provider's key.
const SECRET: &str = "CANARY-4711";

fn sources() -> Sources<'static> {
    Sources {
        env: &|name| (!name.starts_with("SYNESIS_")).then(|| SECRET.to_owned()),
        flags: &[],
        data_dir: Path::new("/nowhere"),
    }
}

/// See the module documentation.
pub fn run(data: &[u8]) {
    let Ok(settings) = std::str::from_utf8(data) else {
        return;
    };
    // A key that is read from a file is read while the settings are; however its name is spelled.
    if settings.contains("_file") || settings.contains('\\') || settings.len() > 16 * 1024 {
        return;
    }
    let (read, used) = memory::used(|| Config::parse(settings, sources()));
    let allowed = MEMORY_FIXED + MEMORY_PER_BYTE * settings.len();
    assert!(
        used.peak <= allowed,
        "{used:?} for {} bytes",
        settings.len()
    );
    let config = match read {
        Ok(config) => config,
        Err(what) => {
            assert!(!what.contains(SECRET), "{what}");
            assert!(!what.is_empty());
            return;
        }
    };
    assert!(
        !format!("{config:?} {config:#?}").contains(SECRET),
        "a key is shown"
    );
    let Ok(written) = settings.parse::<Table>() else {
        unreachable!("accepted, and no TOML");
    };
    reachable(&config);
    billing(&config, &written);
    models(&config, &written);
}

fn string<'a>(table: &'a Table, name: &str) -> Option<&'a str> {
    table.get(name).and_then(Value::as_str)
}

/// Who can be reached from elsewhere knows by what address.
fn reachable(config: &Config) {
    let local = config.tunnel.listen.ip().is_loopback() && config.http.listen.ip().is_loopback();
    let address = config.tunnel.public_address.as_deref();
    assert!(local || address.is_some());
    if let Some(address) = address {
        let port = address.rsplit(':').next().unwrap_or_default();
        assert!(port.parse::<u16>().is_ok_and(|port| port > 0), "{address}");
    }
}

fn billing(config: &Config, written: &Table) {
    assert!(config.billing.ceiling.0 >= 0);
    let billing = written.get("billing").and_then(Value::as_table);
    let ceiling = billing.and_then(|billing| string(billing, "ceiling"));
    let expected = text::naive_nanos(ceiling.unwrap_or("100.00"));
    assert_eq!(Some(config.billing.ceiling.0), expected);
}

fn models(config: &Config, written: &Table) {
    let none = Vec::new();
    let rows = written
        .get("model")
        .and_then(Value::as_array)
        .unwrap_or(&none);
    assert_eq!(config.models.len(), rows.len());
    for (model, row) in config.models.iter().zip(rows) {
        let Some(row) = row.as_table() else {
            unreachable!("a model that is no table");
        };
        assert_eq!(Some(model.name.as_str()), string(row, "name"));
        let price = config
            .prices
            .iter()
            .rev()
            .find(|(name, _)| *name == model.price);
        match (string(row, "price"), price) {
            (Some(named), _) => {
                assert_eq!(model.price, named);
                let known = ["claude_sonnet", "claude_opus", "gpt4_turbo", "free"];
                assert!(known.contains(&named), "{named}");
            }
            (None, Some((_, price))) if is_last_of_its_name(row, rows) => {
                let input = per_million(row, "input");
                assert_eq!(Some(price.rates.input), input);
                assert_eq!(Some(price.rates.output), per_million(row, "output"));
                let cached = |name| per_million(row, name).or(input);
                assert_eq!(Some(price.rates.cache_read), cached("cache_read"));
                assert_eq!(Some(price.rates.cache_write), cached("cache_write"));
            }
            (None, Some(_)) => {}
            (None, None) => unreachable!("a model without a price"),
        }
    }
}

fn is_last_of_its_name(row: &Table, rows: &[Value]) -> bool {
    let same = |other: &&Value| other.get("name") == row.get("name");
    rows.iter().filter(same).count() == 1
}

/// Micro-dollars per million tokens.
fn per_million(row: &Table, what: &str) -> Option<u64> {
    let written = string(row, &format!("{what}_per_million"))?;
    u64::try_from(text::naive_nanos(written)? / 1000).ok()
}
