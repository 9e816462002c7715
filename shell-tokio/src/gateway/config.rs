//! The gateway's settings: a TOML file, the environment over it, command-line flags over both.
//!
//! `default.toml` beside this file is the documentation and the defaults at once: it is what
//! `synesis gateway --print-config` prints, and every configuration is read on top of it.

mod live;
mod payments;
mod prices;
mod shape;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_core::billing::lease::Term;
use mesh_core::billing::money::Nanos;
use mesh_core::billing::price::litellm::Table;
use mesh_core::billing::price::{Price, Rates};
use mesh_core::billing::tier::{Tier, TierName};
use mesh_core::dialect::MaxTokensField;
use mesh_core::gateway::{self, Drain, Keeping};
use mesh_core::limits::{GATEWAY_LEASE_MAX, GATEWAY_LEASE_MIN};

pub use self::payments::{Meter, Stripe};
use self::shape::{
    AnswersFile, BillingFile, DrainFile, File, HttpFile, Left, MaxTokensChoice, ModelFile, Partial,
    ProviderFile, StoreFile, TlsChoice,
};
use super::store::{Database, Place};
use super::upstream::models::{Day, ModelRow, ModelTarget};
use super::upstream::{ProviderConfig, ProviderKey};
use crate::error::Error;
use crate::{files, log};

/// Every setting with its default and what it is for.
pub const DOCUMENTED: &str = include_str!("default.toml");

/// Before the path of a setting in the environment.
const ENVIRONMENT: &str = "SYNESIS_GATEWAY_";

/// The version that prices of the configuration's own carry.
const CONFIGURED_PRICE_VERSION: u32 = 1000;

/// Everything a gateway is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The database that it shares with other gateways; a file in the data folder if `None`.
    pub database: Option<Database>,
    /// What `auto` stands for, if it was said.
    pub default_model: Option<String>,
    /// Devices.
    pub tunnel: Tunnel,
    /// Enrolment.
    pub http: Http,
    /// For new accounts, and what accounts may choose.
    pub billing: Billing,
    /// Being paid, if it was set up.
    pub stripe: Option<Stripe>,
    /// How long answers are kept, and how much may be asked.
    pub answers: Answers,
    /// How it goes away.
    pub drain: Drain,
    /// What to log, if it was said.
    pub log_filter: Option<String>,
    /// What the built-in echo model takes for each word; no setting of the file.
    pub echo_pace: Duration,
    /// Where seals over the ledger are exported to; a folder of the data folder's if `None`.
    pub seals_dir: Option<PathBuf>,
    /// Model servers.
    pub providers: Vec<ProviderConfig>,
    /// Rows of the model table.
    pub models: Vec<ModelRow>,
    /// Prices that the rows name, beside the built-in ones.
    pub prices: Vec<(String, Price)>,
}

/// Where devices connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Bound here, UDP.
    pub listen: SocketAddr,
    /// Told to devices; the bound address if `None`.
    pub public_address: Option<String>,
    /// At once.
    pub tunnels_max: usize,
}

/// Where devices enrol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Bound here, TCP.
    pub listen: SocketAddr,
    /// With which certificate.
    pub tls: HttpTls,
    /// Told in join lines; made from the addresses if `None`.
    pub public_url: Option<String>,
}

/// With which certificate HTTP is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpTls {
    /// None: plain HTTP.
    Off,
    /// One of the gateway's own authority.
    Own,
    /// The operator's.
    Files {
        /// PEM, leaf first.
        certificate: PathBuf,
        /// PEM.
        key: PathBuf,
    },
}

/// How long answers are kept, and how much may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// For devices that lose their tunnel.
    pub keeping: Keeping,
    /// Over it: `RATE_LIMITED`.
    pub rates: gateway::Rates,
}

/// For accounts that are made from now on, and what accounts may choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Billing {
    /// The most that may be spent in a month.
    pub ceiling: Nanos,
    /// How they are charged.
    pub tier: Tier,
    /// The tier of accounts that pay their providers themselves.
    pub byok: Tier,
    /// The tier of accounts that pay nothing.
    pub free: Tier,
    /// The tiers that an account may choose by itself, with their rates.
    pub choices: Vec<Tier>,
}

impl Billing {
    /// The tier of a name, with its rates.
    #[must_use]
    pub const fn tier_named(&self, name: TierName) -> Tier {
        match name {
            TierName::Free => self.free,
            TierName::Managed => self.tier,
            TierName::Byok => self.byok,
        }
    }
}

/// Where settings come from besides the file.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The environment.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Flags: the path of a setting (`tunnel.listen`) and its value. They win over the environment.
    pub flags: &'a [(&'a str, String)],
    /// The folder when none is said.
    pub data_dir: &'a Path,
}

impl std::fmt::Debug for Sources<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources")
            .field("data_dir", &self.data_dir)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Reads a file, if there is one, and everything over it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] for a file that cannot be read, [`Error::Validation`] with the line and what
    /// to do for anything that is not a setting or not a value of it.
    pub fn load(path: Option<&Path>, sources: Sources<'_>) -> Result<Self, Error> {
        let text = match path {
            Some(path) => {
                std::fs::read_to_string(path).map_err(|error| Error::file(path, error))?
            }
            None => String::new(),
        };
        let shown = path.map_or_else(|| "the settings".to_owned(), |p| p.display().to_string());
        Self::parse(&text, sources).map_err(|what| Error::Validation(format!("{shown}: {what}")))
    }

    /// Reads a file's text and everything over it.
    ///
    /// # Errors
    ///
    /// With the line and what to do, for a person.
    pub fn parse(text: &str, sources: Sources<'_>) -> Result<Self, String> {
        let unreadable = |error: toml::de::Error| shown(&error, text);
        let said: toml::Table = toml::from_str(text).map_err(unreadable)?;
        // Once as it stands, so that an unknown or ill-typed setting is shown with its line.
        let _shape: Partial = toml::from_str(text).map_err(unreadable)?;
        let mut merged: toml::Table =
            toml::from_str(DOCUMENTED).map_err(|error| error.to_string())?;
        overlay(&mut merged, said);
        for path in scalar_paths(&merged) {
            let name = format!("{ENVIRONMENT}{}", path.replace('.', "_").to_uppercase());
            if let Some(value) = (sources.env)(&name) {
                set(&mut merged, &path, &value).map_err(|what| format!("{name}: {what}"))?;
            }
        }
        for (path, value) in sources.flags {
            set(&mut merged, path, value).map_err(|what| format!("{path}: {what}"))?;
        }
        let file: File = merged
            .try_into()
            .map_err(|error: toml::de::Error| error.message().to_owned())?;
        Self::checked(file, sources)
    }

    fn checked(file: File, sources: Sources<'_>) -> Result<Self, String> {
        let http = http(&file.http)?;
        let public_address = non_empty(file.tunnel.public_address);
        let reached_from_elsewhere =
            !file.tunnel.listen.ip().is_loopback() || !http.listen.ip().is_loopback();
        if reached_from_elsewhere && public_address.is_none() {
            return Err(
                "other machines are to reach this gateway, so tunnel.public_address must say what \
                 they connect to, as host:port"
                    .to_owned(),
            );
        }
        if public_address
            .as_ref()
            .is_some_and(|address| !is_host_and_port(address))
        {
            return Err("tunnel.public_address must be host:port".to_owned());
        }
        let stripe = payments::stripe(file.stripe, sources)?;
        let table = prices::table(&file.billing.price_file)?;
        let mut prices = Vec::new();
        let mut models = Vec::new();
        for model in file.model {
            models.push(model_row(model, &table, &mut prices)?);
        }
        let answers = answers(&file.answers, &file.provider);
        let providers = file.provider.into_iter().map(|p| provider(p, sources));
        Ok(Self {
            data_dir: if file.data_dir.as_os_str().is_empty() {
                sources.data_dir.to_owned()
            } else {
                file.data_dir
            },
            database: database(&file.store)?,
            default_model: non_empty(file.default_model),
            tunnel: Tunnel {
                listen: file.tunnel.listen,
                public_address,
                tunnels_max: file.tunnel.tunnels_max,
            },
            http,
            answers,
            drain: drain(&file.drain)?,
            log_filter: log_filter(file.log.filter)?,
            echo_pace: Duration::ZERO,
            billing: billing(&file.billing)?,
            seals_dir: Some(file.ledger.seals_dir).filter(|dir| !dir.as_os_str().is_empty()),
            stripe,
            providers: providers.collect::<Result<_, _>>()?,
            models,
            prices,
        })
    }

    /// Where the store is.
    #[must_use]
    pub fn store(&self) -> Place {
        match &self.database {
            Some(database) => Place::Database(database.clone()),
            None => Place::File(self.data_dir.join("gateway.sqlite")),
        }
    }

    /// The folder of the certificate authorities and shared keys.
    #[must_use]
    pub fn ca_dir(&self) -> PathBuf {
        self.data_dir.join("ca")
    }

    /// The folder that seals over the ledger are exported to.
    #[must_use]
    pub fn seals_dir(&self) -> PathBuf {
        let own = || self.data_dir.join("seals");
        self.seals_dir.clone().unwrap_or_else(own)
    }

    /// The price of that name: the configuration's own, or a built-in one.
    #[must_use]
    pub fn price(&self, name: &str) -> Option<Price> {
        let own = self.prices.iter().find(|(known, _)| known == name);
        own.map(|(_, price)| *price).or_else(|| Price::named(name))
    }

    /// The address that join lines and enrolled devices are given for HTTP.
    #[must_use]
    pub fn http_url(&self, bound: SocketAddr) -> String {
        if let Some(url) = &self.http.public_url {
            return url.clone();
        }
        let scheme = if self.http.tls == HttpTls::Off {
            "http"
        } else {
            "https"
        };
        let host = self
            .tunnel
            .public_address
            .as_ref()
            .and_then(|a| Some(a.rsplit_once(':')?.0));
        match host {
            Some(host) if !bound.ip().is_loopback() => {
                format!("{scheme}://{host}:{}", bound.port())
            }
            Some(_) | None => format!("{scheme}://{bound}"),
        }
    }
}

fn shown(error: &toml::de::Error, text: &str) -> String {
    let words = error.to_string();
    let url = words.contains("://") && (words.contains('@') || words.contains("postgres"));
    // Written where the name of a file belongs.
    let secret = ["sk_", "rk_", "whsec_"]
        .iter()
        .any(|prefix| words.contains(prefix));
    if !url && !secret {
        return words;
    }
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = 1 + before.map_or(0, |before| before.matches('\n').count());
    format!("line {line} cannot be read, or is no setting (it may hold a secret, and is not shown)")
}

fn database(file: &StoreFile) -> Result<Option<Database>, String> {
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

fn overlay(base: &mut toml::Table, over: toml::Table) {
    for (name, value) in over {
        match (base.get_mut(&name), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(value)) => overlay(inner, value),
            (_, value) => {
                base.insert(name, value);
            }
        }
    }
}

/// The paths of all settings that have one value.
fn scalar_paths(table: &toml::Table) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for (name, value) in table {
        if let toml::Value::Table(inner) = value {
            paths.extend(inner.keys().map(|key| format!("{name}.{key}")));
        } else if !value.is_array() {
            paths.insert(name.clone());
        }
    }
    paths
}

/// Sets one value from text, of the type that it has already.
fn set(table: &mut toml::Table, path: &str, text: &str) -> Result<(), String> {
    let (table, name) = match path.split_once('.') {
        Some((outer, name)) => {
            let inner = table.get_mut(outer).and_then(toml::Value::as_table_mut);
            (inner.ok_or("there is no such setting")?, name)
        }
        None => (table, path),
    };
    let slot = table.get_mut(name).ok_or("there is no such setting")?;
    *slot = if slot.is_integer() {
        toml::Value::Integer(text.parse().map_err(|_| "must be a number".to_owned())?)
    } else if slot.is_bool() {
        toml::Value::Boolean(
            text.parse()
                .map_err(|_| "must be true or false".to_owned())?,
        )
    } else {
        toml::Value::String(text.to_owned())
    };
    Ok(())
}

fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn billing(file: &BillingFile) -> Result<Billing, String> {
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

fn http(file: &HttpFile) -> Result<Http, String> {
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

fn answers(file: &AnswersFile, providers: &[ProviderFile]) -> Answers {
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

fn is_host_and_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

fn drain(file: &DrainFile) -> Result<Drain, String> {
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

fn log_filter(filter: String) -> Result<Option<String>, String> {
    let filter = non_empty(filter);
    if let Some(filter) = &filter {
        log::check(filter).map_err(|error| format!("log.filter: {error}"))?;
    }
    Ok(filter)
}

fn provider(file: ProviderFile, sources: Sources<'_>) -> Result<ProviderConfig, String> {
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

fn model_row(
    file: ModelFile,
    table: &Table,
    prices: &mut Vec<(String, Price)>,
) -> Result<ModelRow, String> {
    let name = file.name;
    let price = match (file.price, file.input_per_million, file.output_per_million) {
        (Some(known), None, None) if Price::named(&known).is_some() => known,
        (Some(known), None, None) => {
            let price =
                prices::named(table, &known).map_err(|why| format!("model {name}: {why}"))?;
            let price = price.ok_or_else(|| {
                format!(
                    "model {name}: there is no price {known:?}; give input_per_million and \
                     output_per_million, or a billing.price_file that has it"
                )
            })?;
            prices.push((known.clone(), price));
            known
        }
        (None, Some(input), Some(output)) => {
            let per_million = |text: &str| {
                let nanos = Nanos::parse_dollars(text)
                    .ok()
                    .filter(|nanos| nanos.0 >= 0)?
                    .0;
                (nanos % 1000 == 0).then_some(nanos.unsigned_abs() / 1000)
            };
            let wrong = || {
                format!(
                    "model {name}: prices are dollars per million tokens, with at most six decimals"
                )
            };
            let input_price = per_million(&input).ok_or_else(wrong)?;
            let or_input = |text: Option<String>| match text {
                Some(text) => per_million(&text).ok_or_else(wrong),
                None => Ok(input_price),
            };
            let rates = Rates {
                input: input_price,
                output: per_million(&output).ok_or_else(wrong)?,
                cache_read: or_input(file.cache_read_per_million)?,
                cache_write: or_input(file.cache_write_per_million)?,
            };
            let own = Price::flat(CONFIGURED_PRICE_VERSION, rates);
            let own_name = format!("configured:{name}");
            prices.push((own_name.clone(), own));
            own_name
        }
        (_, _, _) => {
            return Err(format!(
                "model {name}: give either price, or input_per_million and output_per_million"
            ));
        }
    };
    let retires: Option<Day> = match file.retires {
        Some(day) => Some(
            day.parse()
                .map_err(|error| format!("model {name}: retires: {error}"))?,
        ),
        None => None,
    };
    Ok(ModelRow {
        name,
        target: Some(ModelTarget {
            provider: file.provider,
            model: file.model,
        }),
        price,
        retires,
    })
}

#[cfg(test)]
mod tests;
