//! From settings to what the root machine and the callers of model servers go by.

use mesh_core::gateway::{Config as Rules, Model};

use super::config::Config;
use super::upstream::discover::Found;
use super::upstream::models::{Day, ModelTable};
use super::upstream::{LOOPBACK, ProviderConfig, Upstreams};
use crate::driver::Clock;
use crate::error::Error;

/// The providers there are, and what stands behind each name.
pub(super) fn models(config: &Config, found: &Found) -> Result<(Upstreams, ModelTable), Error> {
    let wrong = |error: &dyn std::error::Error| Error::Validation(error.to_string());
    let mut providers: Vec<ProviderConfig> = config.providers.clone();
    let mut rows = config.models.clone();
    let mut default_model = config.default_model.clone();
    let elsewhere = found.remote.iter();
    let here = found.local.iter().map(|server| &server.provider);
    for provider in elsewhere.chain(here) {
        // What the operator configured under a name wins over what was found.
        if !providers.iter().any(|known| known.name == provider.name) {
            providers.push(provider.clone());
        }
    }
    if let (None, Some((server, model))) = (&default_model, found.choice()) {
        let row = Found::row(server, model);
        default_model = Some(row.name.clone());
        if !rows.iter().any(|known| known.name == row.name) {
            rows.push(row);
        }
    }
    let default_model = default_model.unwrap_or_else(|| LOOPBACK.to_owned());
    let upstreams = Upstreams::new(providers).map_err(|error| wrong(&error))?;
    let upstreams = upstreams.with_echo_pace(config.echo_pace);
    let table = ModelTable::new(rows, default_model).map_err(|error| wrong(&error))?;
    Ok((upstreams, table))
}

/// What the root machine goes by.
pub(super) fn rules(config: &Config, table: &ModelTable, upstreams: &Upstreams) -> Rules {
    let models = table
        .served(|provider| upstreams.has(provider))
        .filter_map(|(row, target)| {
            let Some(price) = config.price(&row.price) else {
                tracing::warn!(
                    model = row.name,
                    price = row.price,
                    "no such price: not served"
                );
                return None;
            };
            let (dialect, max_tokens_field) = upstreams.format(&target.provider)?;
            Some(Model {
                name: row.name.clone(),
                provider: target.provider.clone(),
                dialect,
                provider_model: target.model.clone(),
                max_tokens_field,
                price,
            })
        });
    Rules {
        models: models.collect(),
        default_model: table.default_model().to_owned(),
        tunnels_max: config.tunnel.tunnels_max,
        keeping: config.answers.keeping.clone(),
        rates: config.answers.rates,
    }
}

/// What was found on this machine and what the operator should know, a sentence each.
pub(super) fn findings(
    config: &Config,
    found: &Found,
    table: &ModelTable,
    upstreams: &Upstreams,
    clock: &Clock,
) -> Vec<String> {
    let mut findings = found.in_words();
    if let Some(today) = Day::from_unix_secs(clock.now().wall.as_secs()) {
        findings.extend(table.warnings(today, |provider| upstreams.has(provider)));
    }
    if table.default_model() == LOOPBACK && config.default_model.is_none() {
        findings.push("the built-in echo model answers".to_owned());
    }
    findings
}
