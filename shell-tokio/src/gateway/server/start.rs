//! How a gateway is put together, and in which order: what it remembers, whom it may ask, its two sockets,
//! then everything that runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mesh_core::gateway::{Config as Rules, Gateway};
use mesh_core::quic::{Quic, ServerConfig};
use tokio::sync::mpsc;

use super::beside::Beside;
use super::{INBOX, Server};
use crate::driver::{Binding, Clock, Driver, Socket, Thread};
use crate::error::Error;
use crate::gateway::accounts::Accounts;
use crate::gateway::ca::CertificateAuthority;
use crate::gateway::config::{Config, HttpTls};
use crate::gateway::keys::Keys;
use crate::gateway::outside::Outside;
use crate::gateway::payments::{Https, Payments};
use crate::gateway::rules::{findings, models, rules};
use crate::gateway::services::Services;
use crate::gateway::store::{Role, Store};
use crate::gateway::upstream::discover;
use crate::gateway::{deployment, http};
use crate::{files, random, tls};

impl Server {
    /// Opens the store and the authority, finds the model servers, binds both sockets and runs.
    ///
    /// # Errors
    ///
    /// [`Error`] with what to do: a setting, a file, an address that is taken.
    pub async fn start(
        config: Config,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let clock = Clock::new();
        let (store, ca) = remember(&config, &clock).await?;
        let keys = Arc::new(Keys::open_or_make(&config.ca_dir())?);
        let found = discover::discover(&env, &discover::USUAL_PORTS).await;
        let (upstreams, table) = models(&config, &found)?;
        let findings = findings(&config, &found, &table, &upstreams, &clock);
        let rules = rules(&config, &table, &upstreams);

        let (thread, socket) = tunnel_socket(config.tunnel.listen)?;
        let tunnel_addr = socket
            .local_addr()
            .map_err(|error| Error::io("the UDP socket", error))?;
        let identity = ca.gateway_identity(clock.now().wall)?;
        let machine = machine(&ca, &identity, rules)?;

        let listener = http::bind(config.http.listen).await?;
        let https = https(&config.http.tls, &identity)?;
        let http_addr = listener
            .local_addr()
            .map_err(|error| Error::io("the HTTP socket", error))?;
        let http_url = config.http_url(http_addr);
        let payments = payments(&config, &store, &http_url)?;
        let going = Arc::new(AtomicBool::new(false));
        let public = config.tunnel.public_address.clone();
        let state = http::State {
            store: store.clone(),
            payments: payments.clone(),
            ca: Arc::clone(&ca),
            tunnel_address: public.unwrap_or_else(|| tunnel_addr.to_string()),
            going: Arc::clone(&going),
        };
        let http = http::serve(listener, https, state)?;

        let (inbox, commands) = mpsc::channel(INBOX);
        let services = Services {
            store: store.clone(),
            accounts: Accounts {
                store: store.clone(),
                keys: Arc::clone(&keys),
                billing: config.billing.clone(),
                providers: upstreams.with_keys(),
            },
            payments: payments.clone(),
        };
        let outside = Outside::new(services, Arc::clone(&keys), upstreams, inbox.clone());
        let unbooked = outside.unbooked();
        let driver = thread
            .run(Driver::new(socket, machine, outside), commands)
            .map_err(|error| Error::io("starting a thread", error))?;
        let beside = Beside::begin(&config, &store, keys, payments, &inbox);
        Ok(Self {
            certificate: config.http.certificate_seen(),
            config,
            going,
            tunnel_addr,
            http_url,
            http,
            store,
            ca,
            default_model: table.default_model().to_owned(),
            findings,
            inbox,
            driver: Some(driver),
            unbooked,
            beside,
        })
    }
}

/// The store and the authorities of its deployment. What another life of a gateway was in the middle of is
/// booked before anything else happens.
async fn remember(
    config: &Config,
    clock: &Clock,
) -> Result<(Store, Arc<CertificateAuthority>), Error> {
    files::make_private_dir(&config.data_dir)
        .map_err(|error| Error::file(&config.data_dir, error))?;
    let store = Store::open_at(&config.store(), Role::Gateway)
        .await
        .map_err(|error| Error::Validation(error.to_string()))?;
    let now = clock.now().wall;
    let ca = Arc::new(deployment::open(&store, &config.ca_dir(), now).await?);
    let lost = store.lose_all(now).await;
    let lost = lost.map_err(|error| Error::Validation(error.to_string()))?;
    if lost > 0 {
        tracing::warn!(lost, "answers were cut off when the last gateway went down");
    }
    Ok((store, ca))
}

/// Devices' socket, with the thread that it is woken on.
fn tunnel_socket(listen: SocketAddr) -> Result<(Thread, Socket), Error> {
    let thread =
        Thread::new("synesis-tunnel").map_err(|error| Error::io("starting the runtime", error))?;
    let socket = {
        let _on_its_thread = thread.enter();
        Socket::bind(Binding::exactly(listen))?
    };
    Ok((thread, socket))
}

fn machine(
    ca: &CertificateAuthority,
    identity: &tls::Identity,
    rules: Rules,
) -> Result<Gateway<Quic>, Error> {
    let quic = ServerConfig {
        tls: tls::tunnel_server(identity, ca.device_ca())?,
        reset_key: ca.reset_key(),
        token_key: ca.token_key(),
        shard: 0,
    };
    let quic =
        Quic::server(quic, &random::seed()?).map_err(|error| Error::Api(error.to_string()))?;
    Gateway::new(quic, rules).map_err(|error| Error::Validation(error.to_string()))
}

/// With which certificate HTTP is served, if with one.
fn https(tls: &HttpTls, own: &tls::Identity) -> Result<Option<Arc<rustls::ServerConfig>>, Error> {
    match tls {
        HttpTls::Off => Ok(None),
        HttpTls::Own => Ok(Some(tls::https_server(own)?)),
        HttpTls::Files { certificate, key } => {
            let read =
                |path| std::fs::read_to_string(path).map_err(|error| Error::file(path, error));
            let operators = tls::Identity {
                certificates: read(certificate)?,
                key: read(key)?,
            };
            Ok(Some(tls::https_server(&operators)?))
        }
    }
}

fn payments(config: &Config, store: &Store, http_url: &str) -> Result<Option<Payments>, Error> {
    let Some(stripe) = config.stripe.clone() else {
        return Ok(None);
    };
    let https = Https::new(&stripe.api_base, &stripe.key)?;
    let payments = Payments::new(stripe, Box::new(https), store.clone(), http_url);
    Ok(Some(payments))
}
