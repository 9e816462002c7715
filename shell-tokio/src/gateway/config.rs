//! The gateway's settings: a TOML file, the environment over it, command-line flags over both.
//!
//! `default.toml` beside this file is the documentation and the defaults at once: it is what
//! `synesis gateway --print-config` prints, and every configuration is read on top of it.

mod layers;
mod live;
mod models;
mod payments;
mod prices;
mod sections;
mod shape;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_core::billing::money::Nanos;
use mesh_core::billing::price::Price;
use mesh_core::billing::tier::{Tier, TierName};
use mesh_core::gateway::{self, Drain, Keeping};

use self::models::Models;
pub use self::payments::{Meter, Stripe};
use self::shape::File;
use super::store::{Database, Place};
use super::upstream::ProviderConfig;
use super::upstream::models::ModelRow;
use crate::error::Error;

/// Every setting with its default and what it is for.
pub const DOCUMENTED: &str = include_str!("default.toml");

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
        Self::checked(layers::read(text, sources)?, sources)
    }

    fn checked(file: File, sources: Sources<'_>) -> Result<Self, String> {
        let http = sections::http(&file.http)?;
        let tunnel = sections::tunnel(file.tunnel, &http)?;
        let stripe = payments::stripe(file.stripe, sources)?;
        let table = prices::table(&file.billing.price_file)?;
        let models = Models::read(file.model, &table)?;
        let answers = sections::answers(&file.answers, &file.provider);
        let providers = file.provider.into_iter();
        let providers = providers.map(|provider| sections::provider(provider, sources));
        Ok(Self {
            data_dir: if file.data_dir.as_os_str().is_empty() {
                sources.data_dir.to_owned()
            } else {
                file.data_dir
            },
            database: sections::database(&file.store)?,
            default_model: non_empty(file.default_model),
            tunnel,
            http,
            answers,
            drain: sections::drain(&file.drain)?,
            log_filter: sections::log_filter(file.log.filter)?,
            echo_pace: Duration::ZERO,
            billing: sections::billing(&file.billing)?,
            seals_dir: Some(file.ledger.seals_dir).filter(|dir| !dir.as_os_str().is_empty()),
            stripe,
            providers: providers.collect::<Result<_, _>>()?,
            models: models.rows,
            prices: models.prices,
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

fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests;
