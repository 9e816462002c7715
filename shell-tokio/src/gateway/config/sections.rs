//! The sections of the file, each checked by itself.

use std::time::Duration;

use mesh_core::billing::lease::Term;
use mesh_core::billing::money::Nanos;
use mesh_core::billing::tier::Tier;
use mesh_core::dialect::MaxTokensField;
use mesh_core::gateway::{self, Drain, Keeping};
use mesh_core::limits::{GATEWAY_LEASE_MAX, GATEWAY_LEASE_MIN};

use super::shape::{
    AnswersFile, BillingFile, DrainFile, HttpFile, Left, MaxTokensChoice, ProviderFile, StoreFile,
    TlsChoice, TunnelFile,
};
use super::{Answers, Billing, Http, HttpTls, Sources, Tunnel, non_empty};
use crate::gateway::store::Database;
use crate::gateway::upstream::{ProviderConfig, ProviderKey};
use crate::{files, log};

/// What devices are told to connect to must be said as soon as they come from other machines.
pub(super) fn tunnel(file: TunnelFile, http: &Http) -> Result<Tunnel, String> {
    let public_address = non_empty(file.public_address);
    let reached_from_elsewhere = !file.listen.ip().is_loopback() || !http.listen.ip().is_loopback();
    match &public_address {
        None if reached_from_elsewhere => {
            return Err(
                "other machines are to reach this gateway, so tunnel.public_address must say what \
                 they connect to, as host:port"
                    .to_owned(),
            );
        }
        Some(address) if !is_host_and_port(address) => {
            return Err("tunnel.public_address must be host:port".to_owned());
        }
        None | Some(_) => {}
    }
    Ok(Tunnel {
        listen: file.listen,
        public_address,
        tunnels_max: file.tunnels_max,
    })
}

pub(super) fn database(file: &StoreFile) -> Result<Option<Database>, String> {
    let term = Term::secs(file.lease_secs).ok_or_else(|| {
        let (least, most) = (GATEWAY_LEASE_MIN.as_secs(), GATEWAY_LEASE_MAX.as_secs());
        format!("store.lease_secs must be from {least} to {most}")
    })?;
    if file.url.is_empty() {
        return Ok(None);
    }
    let ca_file = Some(file.ca_file.as_path()).filter(|path| !path.as_os_str().is_empty());
    let database = Database::parse(&file.url, ca_file, file.allow_plain);
    database
        .map(|database| Some(database.with_term(term)))
        .map_err(|what| format!("store.url: {what}"))
}

pub(super) fn http(file: &HttpFile) -> Result<Http, String> {
    let local = file.listen.ip().is_loopback();
    let tls = match file.tls {
        TlsChoice::Auto if local => HttpTls::Off,
        TlsChoice::Auto | TlsChoice::Own => HttpTls::Own,
        TlsChoice::Files if file.certificate.as_os_str().is_empty() => {
            return Err("http.tls = \"files\" needs http.certificate and http.key".to_owned());
        }
        TlsChoice::Files => HttpTls::Files {
            certificate: file.certificate.clone(),
            key: file.key.clone(),
        },
        TlsChoice::Off if local || file.allow_plain => HttpTls::Off,
        TlsChoice::Off => {
            return Err(format!(
                "http.listen = \"{}\" is reached by other machines, and without TLS their API keys \
                 travel readable: use http.tls = \"auto\", or set http.allow_plain = true if \
                 something in front of it does TLS",
                file.listen
            ));
        }
    };
    Ok(Http {
        listen: file.listen,
        tls,
        public_url: non_empty(file.public_url.clone()),
    })
}

pub(super) fn billing(file: &BillingFile) -> Result<Billing, String> {
    let dollars = |name: &str, text: &str| {
        let amount = Nanos::parse_dollars(text).ok();
        let amount = amount.filter(|amount| *amount >= Nanos::ZERO);
        amount
            .ok_or_else(|| format!("billing.{name} must be an amount in dollars, like \"100.00\""))
    };
    let monthly_quota = dollars("free_quota", &file.free_quota)?;
    let managed = Tier::Managed {
        markup_bps: file.markup_bps,
    };
    let mut billing = Billing {
        ceiling: dollars("ceiling", &file.ceiling)?,
        tier: managed,
        byok: Tier::Byok {
            fee_bps: file.licence_fee_bps,
        },
        free: Tier::Free { monthly_quota },
        choices: Vec::new(),
    };
    let choices = file.choices.iter().map(|name| billing.tier_named(*name));
    billing.choices = choices.collect();
    Ok(billing)
}

pub(super) fn answers(file: &AnswersFile, providers: &[ProviderFile]) -> Answers {
    let drained = providers
        .iter()
        .filter(|provider| provider.when_left == Left::Drain)
        .map(|provider| provider.name.clone());
    Answers {
        keeping: Keeping {
            kept: Duration::from_secs(file.kept_secs.into()),
            resume_window: Duration::from_secs(file.resume_window_secs.into()),
            drained: drained.collect(),
            bytes_max: file.kept_bytes_max,
        },
        rates: gateway::Rates {
            device_per_minute: file.device_per_minute,
            account_per_minute: file.account_per_minute,
            device_at_once: file.device_at_once,
            account_at_once: file.account_at_once,
        },
    }
}

pub(super) fn drain(file: &DrainFile) -> Result<Drain, String> {
    if let Some(bad) = file.alternates.iter().find(|text| !is_host_and_port(text)) {
        return Err(format!("drain.alternates: {bad:?} must be host:port"));
    }
    Ok(Drain {
        limit: Duration::from_secs(file.limit_secs.into()),
        spread: Duration::from_secs(file.spread_secs.into()),
        store: Duration::from_secs(file.store_secs.into()),
        alternates: file.alternates.clone(),
    })
}

pub(super) fn log_filter(filter: String) -> Result<Option<String>, String> {
    let filter = non_empty(filter);
    if let Some(filter) = &filter {
        log::check(filter).map_err(|error| format!("log.filter: {error}"))?;
    }
    Ok(filter)
}

pub(super) fn provider(file: ProviderFile, sources: Sources<'_>) -> Result<ProviderConfig, String> {
    let name = file.name.clone();
    let key = match (&file.api_key_env, &file.api_key_file) {
        (Some(_), Some(_)) => {
            return Err(format!(
                "provider {name}: api_key_env and api_key_file, take one of them"
            ));
        }
        (Some(variable), None) => Some(
            (sources.env)(variable)
                .ok_or_else(|| format!("provider {name}: the environment has no {variable}"))?,
        ),
        (None, Some(path)) => Some(
            files::read_private(path)
                .map_err(|error| format!("provider {name}: {}: {error}", path.display()))?,
        ),
        (None, None) => None,
    };
    let key = match key {
        Some(key) => Some(
            ProviderKey::new(key.trim())
                .ok_or_else(|| format!("provider {name}: its key is empty"))?,
        ),
        None => None,
    };
    let mut config = ProviderConfig::new(name, file.dialect, file.base_url, key);
    config.max_tokens_field = match file.max_tokens_field {
        MaxTokensChoice::MaxTokens => MaxTokensField::MaxTokens,
        MaxTokensChoice::MaxCompletionTokens => MaxTokensField::MaxCompletionTokens,
    };
    Ok(config)
}

fn is_host_and_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}
