//! A running gateway: the root machine on its driver, and what it asks of the outside world.
//!
//! ```text
//!   ┌ the tunnel's thread ─────────────────────────────────────────────────────────────┐
//!   │ driver ── Ask ──▶ a task each: store, model server ── Told, Progress ──▶ driver   │
//!   │   ▲                                                      (bounded inbox)          │
//!   └───┼──────────────────────────────────────────────────────────────────────────────┘
//!       ├── Revoked ── a task that looks for revocations once a second
//!       └── Drain, Stop, Reload ── whoever holds the `Server`
//! ```
//!
//! HTTP, payments and chores run on the caller's runtime, the store on threads of its own: nothing of
//! that stands in the way of a token.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mesh_core::gateway::Gateway;
use mesh_core::quic::{Quic, ServerConfig};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::accounts::Accounts;
use super::ca::CertificateAuthority;
use super::chores::Chores;
use super::config::{Config, HttpTls};
use super::deployment;
use super::http;
use super::keys::Keys;
use super::outside::{Command, Outside, Terms};
use super::payments::{Https, Payments};
use super::rules::{findings, models, rules};
use super::services::Services;
use super::store::{Role, Store};
use super::upstream::discover;
use crate::driver::{Binding, Clock, Driver, Running, Socket, Thread};
use crate::error::Error;
use crate::{random, tls};

/// Commands that wait for the driver; whoever sends one more waits.
const INBOX: usize = 1024;
/// How often a revocation by another process is looked for.
const REVOCATIONS_EVERY: Duration = Duration::from_secs(1);

/// A gateway that runs until [`Server::stop`].
#[derive(Debug)]
pub struct Server {
    config: Config,
    /// Of the operator's certificate and its key, as they were read at the start.
    certificate: Option<[u8; 32]>,
    tunnel_addr: SocketAddr,
    http: http::Serving,
    http_url: String,
    store: Store,
    ca: Arc<CertificateAuthority>,
    default_model: String,
    findings: Vec<String>,
    /// Whether it goes away, for those who ask whether it is ready.
    going: Arc<AtomicBool>,
    inbox: mpsc::Sender<Command>,
    /// `None` once it has ended.
    driver: Option<Running>,
    /// Answers whose ends could not be written down.
    unbooked: Arc<AtomicUsize>,
    revocations: JoinHandle<()>,
    chores: JoinHandle<()>,
    /// Looks after payments.
    watching: Option<JoinHandle<()>>,
}

/// What has changed of a gateway's settings, by their names in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// Is in force.
    pub taken: Vec<&'static str>,
    /// Needs a new start.
    pub fixed: Vec<&'static str>,
}

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
        crate::files::make_private_dir(&config.data_dir)
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
        let keys = Arc::new(Keys::open_or_make(&config.ca_dir())?);
        let found = discover::discover(&env, &discover::USUAL_PORTS).await;
        let (upstreams, table) = models(&config, &found)?;
        let findings = findings(&config, &found, &table, &upstreams, &clock);
        let rules = rules(&config, &table, &upstreams);
        let default_model = table.default_model().to_owned();

        let thread = Thread::new("synesis-tunnel")
            .map_err(|error| Error::io("starting the runtime", error))?;
        let socket = {
            let _on_its_thread = thread.enter();
            Socket::bind(Binding::exactly(config.tunnel.listen))?
        };
        let bound = socket
            .local_addr()
            .map_err(|error| Error::io("the UDP socket", error))?;
        let identity = ca.gateway_identity(now)?;
        let quic = Quic::server(
            ServerConfig {
                tls: tls::tunnel_server(&identity, ca.device_ca())?,
                reset_key: ca.reset_key(),
                token_key: ca.token_key(),
                shard: 0,
            },
            &random::seed()?,
        )
        .map_err(|error| Error::Api(error.to_string()))?;
        let machine =
            Gateway::new(quic, rules).map_err(|error| Error::Validation(error.to_string()))?;

        let listener = http::bind(config.http.listen).await?;
        let http_tls = match &config.http.tls {
            HttpTls::Off => None,
            HttpTls::Own => Some(tls::https_server(&identity)?),
            HttpTls::Files { certificate, key } => {
                let read =
                    |path| std::fs::read_to_string(path).map_err(|error| Error::file(path, error));
                let own = tls::Identity {
                    certificates: read(certificate)?,
                    key: read(key)?,
                };
                Some(tls::https_server(&own)?)
            }
        };
        let http_url = config.http_url(
            listener
                .local_addr()
                .map_err(|error| Error::io("the HTTP socket", error))?,
        );
        let payments = match config.stripe.clone() {
            Some(stripe) => {
                let https = Https::new(&stripe.api_base, &stripe.key)?;
                Some(Payments::new(
                    stripe,
                    Box::new(https),
                    store.clone(),
                    &http_url,
                ))
            }
            None => None,
        };
        let tunnel_address = config
            .tunnel
            .public_address
            .clone()
            .unwrap_or_else(|| bound.to_string());
        let going = Arc::new(AtomicBool::new(false));
        let http = http::serve(
            listener,
            http_tls,
            http::State {
                store: store.clone(),
                payments: payments.clone(),
                ca: Arc::clone(&ca),
                tunnel_address,
                going: Arc::clone(&going),
            },
        )?;

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
        let watching = payments.map(|payments| {
            let clock = Clock::new();
            tokio::spawn(payments.run(move || clock.now().wall))
        });
        let revocations = tokio::spawn(watch_revocations(store.clone(), inbox.clone()));
        let chores = Chores {
            store: store.clone(),
            keys,
            seals: config.seals_dir(),
            answers_kept: config.answers.keeping.kept,
        };
        let chores = tokio::spawn(chores.run(move || clock.now().wall));
        Ok(Self {
            certificate: config.http.certificate_seen(),
            config,
            going,
            tunnel_addr: bound,
            http_url,
            http,
            store,
            ca,
            default_model,
            findings,
            inbox,
            driver: Some(driver),
            unbooked,
            revocations,
            chores,
            watching,
        })
    }

    /// Where the tunnel listens.
    #[must_use]
    pub const fn tunnel_addr(&self) -> SocketAddr {
        self.tunnel_addr
    }

    /// Where devices enrol.
    #[must_use]
    pub fn http_url(&self) -> &str {
        &self.http_url
    }

    /// The store.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The certificate authority.
    #[must_use]
    pub fn ca(&self) -> &CertificateAuthority {
        &self.ca
    }

    /// What `auto` stands for.
    #[must_use]
    pub fn default_model(&self) -> &str {
        &self.default_model
    }

    /// What was found on this machine and what the operator should know, a sentence each.
    #[must_use]
    pub fn findings(&self) -> &[String] {
        &self.findings
    }

    /// Takes new settings without touching a tunnel or a running answer, and says what has changed.
    ///
    /// # Errors
    ///
    /// [`Error`] with what is wrong with them; the old ones stay in force then.
    pub async fn reload(
        &mut self,
        config: Config,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Reloaded, Error> {
        let found = discover::discover(&env, &discover::USUAL_PORTS).await;
        let (upstreams, table) = models(&config, &found)?;
        let terms = Terms {
            rules: rules(&config, &table, &upstreams),
            upstreams,
            billing: config.billing.clone(),
        };
        if !terms
            .rules
            .models
            .iter()
            .any(|model| model.name == terms.rules.default_model)
        {
            let model = &terms.rules.default_model;
            return Err(Error::Validation(format!(
                "the default model {model:?} is not in the model table, or its provider is not there"
            )));
        }
        let mut fixed = self.config.fixed_settings_that_differ(&config);
        if config.http.certificate_seen() != self.certificate {
            fixed.push("what is in http.certificate and http.key");
        }
        let taken = self.config.live_settings_that_differ(&config);
        self.config = self.config.with_changes_of(config);
        table.default_model().clone_into(&mut self.default_model);
        // If the driver has ended, there is nothing to change any more.
        let _ended = self.inbox.send(Command::Reload(Box::new(terms))).await;
        Ok(Reloaded { taken, fixed })
    }

    /// Begins to go away in good order, as the settings say: nobody new is taken in, devices are
    /// sent elsewhere, running answers are finished. [`Server::ended`] follows.
    pub async fn drain(&self) {
        self.going.store(true, Ordering::Relaxed);
        let drain = self.config.drain.clone();
        // If the driver has ended already, so much the better.
        let _ended = self.inbox.send(Command::Drain(drain)).await;
    }

    /// Ends a drain now: what still runs is cut off, and costs nothing.
    pub async fn stop_now(&self) {
        self.going.store(true, Ordering::Relaxed);
        let _ended = self.inbox.send(Command::Stop).await;
    }

    /// Waits until a drain is over: all is settled and every tunnel closed. May be dropped and called
    /// again.
    pub async fn ended(&mut self) {
        let Some(driver) = &mut self.driver else {
            return;
        };
        if !driver.ended().await {
            tracing::error!("the gateway's driver failed: a bug");
        }
        self.driver = None;
    }

    /// Answers whose ends the store did not take in the time it was given; known once it has ended.
    #[must_use]
    pub fn unbooked(&self) -> usize {
        self.unbooked.load(Ordering::Relaxed)
    }

    /// Stops now: running answers are cut off, tunnels closed, the store flushed.
    pub async fn stop(mut self) {
        self.stop_now().await;
        self.ended().await;
        self.revocations.abort();
        self.chores.abort();
        if let Some(watching) = self.watching {
            watching.abort();
        }
        self.http.shutdown().await;
    }
}

/// Another process may revoke: the store tells within a second.
async fn watch_revocations(store: Store, inbox: mpsc::Sender<Command>) {
    let mut seen = match store.last_revocation().await {
        Ok(last) => last,
        Err(error) => {
            tracing::warn!(%error, "revocations cannot be read yet");
            0
        }
    };
    loop {
        tokio::time::sleep(REVOCATIONS_EVERY).await;
        match store.revocations(seen).await {
            Ok(news) => {
                for revocation in news {
                    seen = seen.max(revocation.sequence);
                    if inbox
                        .send(Command::Revoked(revocation.device))
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "revocations cannot be read"),
        }
    }
}
