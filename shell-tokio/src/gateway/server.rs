//! A running gateway: the root machine on its driver, and what it asks of the outside world.
//!
//! ```text
//!   driver task ── Ask ──▶ a task each: store, model server ── Told, Progress ──▶ driver task
//!        ▲                                                        (bounded inbox)
//!        ├── Revoked ── a task that looks for revocations once a second
//!        └── Stop ───── whoever holds the `Server`
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::gateway::{
    Ask, AskId, Config as Rules, Event, Gateway, Input, KeyOf, Model, Output, Progress, Told,
};
use mesh_core::ids::DeviceId;
use mesh_core::machine::Machine as _;
use mesh_core::quic::{Quic, ServerConfig};
use mesh_core::time::Now;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::accounts::Accounts;
use super::ca::CertificateAuthority;
use super::chores::Chores;
use super::config::{Config, HttpTls};
use super::deployment;
use super::http;
use super::keys::Keys;
use super::payments::{Https, Payments};
use super::services::Services;
use super::store::{Role, Store, StoreError};
use super::upstream::discover::{self, Found};
use super::upstream::models::{Day, ModelTable};
use super::upstream::{Call, CallKey, LOOPBACK, News, ProviderConfig, Upstreams};
use crate::driver::{Binding, Clock, Driver, Host, Request, Socket};
use crate::error::Error;
use crate::{random, tls};

/// Commands that wait for the driver; whoever sends one more waits.
const INBOX: usize = 1024;
/// How often a revocation by another process is looked for.
const REVOCATIONS_EVERY: Duration = Duration::from_secs(1);

/// A gateway that runs until [`Server::stop`].
#[derive(Debug)]
pub struct Server {
    tunnel_addr: SocketAddr,
    http: http::Serving,
    http_url: String,
    store: Store,
    ca: Arc<CertificateAuthority>,
    default_model: String,
    findings: Vec<String>,
    inbox: mpsc::Sender<Command>,
    driver: JoinHandle<()>,
    revocations: JoinHandle<()>,
    chores: JoinHandle<()>,
    /// Looks after payments.
    watching: Option<JoinHandle<()>>,
}

/// What the driver's host is told.
#[derive(Debug)]
enum Command {
    Progress(AskId, Progress),
    Told(AskId, Told),
    Revoked(DeviceId),
    Stop,
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

        let socket = Socket::bind(Binding::exactly(config.tunnel.listen))?;
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
        let http = http::serve(
            listener,
            http_tls,
            http::State {
                store: store.clone(),
                payments: payments.clone(),
                ca: Arc::clone(&ca),
                tunnel_address,
            },
        )?;

        let (inbox, commands) = mpsc::channel(INBOX);
        let outside = Outside {
            services: Services {
                store: store.clone(),
                accounts: Accounts {
                    store: store.clone(),
                    keys: Arc::clone(&keys),
                    billing: config.billing.clone(),
                    providers: upstreams.with_keys(),
                },
                payments: payments.clone(),
            },
            keys: Arc::clone(&keys),
            upstreams,
            calls: BTreeMap::new(),
            inbox: inbox.clone(),
        };
        let driver = Driver::new(socket, machine, outside);
        let driver = tokio::spawn(async move {
            driver.run(commands).await;
        });
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
            tunnel_addr: bound,
            http_url,
            http,
            store,
            ca,
            default_model,
            findings,
            inbox,
            driver,
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

    /// Stops: running answers are cancelled and settled, tunnels closed, the store flushed.
    pub async fn stop(self) {
        self.revocations.abort();
        self.chores.abort();
        if let Some(watching) = self.watching {
            watching.abort();
        }
        self.http.shutdown().await;
        // If the driver has ended already, so much the better.
        let _ended = self.inbox.send(Command::Stop).await;
        drop(self.inbox);
        if let Err(error) = self.driver.await {
            tracing::error!(%error, "the gateway's driver failed");
        }
    }
}

/// The providers there are, and what stands behind each name.
fn models(config: &Config, found: &Found) -> Result<(Upstreams, ModelTable), Error> {
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

fn rules(config: &Config, table: &ModelTable, upstreams: &Upstreams) -> Rules {
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

fn findings(
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

/// Carries out what the machine asks for.
struct Outside {
    services: Services,
    keys: Arc<Keys>,
    upstreams: Upstreams,
    calls: BTreeMap<AskId, Call>,
    inbox: mpsc::Sender<Command>,
}

impl Outside {
    fn ask(&mut self, now: Now, id: AskId, ask: Ask) {
        if let Ask::Call {
            provider,
            key,
            call,
        } = ask
        {
            let (sink, key) = (self.inbox.clone(), self.key(&provider, key));
            let news = move |news| match news {
                News::Head(head) => Command::Progress(id, Progress::Head(head)),
                News::Body(bytes) => Command::Progress(id, Progress::Body(bytes)),
                News::End(end) => Command::Told(id, Told::Called(end)),
            };
            let call = self.upstreams.call(&provider, key, call, sink, news);
            self.calls.insert(id, call);
            return;
        }
        let (services, inbox) = (self.services.clone(), self.inbox.clone());
        tokio::spawn(async move {
            let told = ask_outside(&services, now, ask).await;
            // The driver has ended: nobody is left to be told.
            let _ended = inbox.send(Command::Told(id, told)).await;
        });
    }
}

impl Outside {
    /// The key that a call goes with; an account's own is looked up when it is needed, and not kept.
    fn key(&self, provider: &str, of: KeyOf) -> CallKey {
        let KeyOf::Account(account) = of else {
            return CallKey::Configured;
        };
        let (store, keys) = (self.services.store.clone(), Arc::clone(&self.keys));
        let provider = provider.to_owned();
        CallKey::Found(Box::pin(async move {
            let sealed = store.provider_key(account, provider.clone()).await;
            let sealed = sealed.inspect_err(|error| {
                tracing::warn!(%account, %error, "a provider's key cannot be read");
            });
            let key = keys.open(account, &provider, &sealed.ok()??);
            if key.is_none() {
                tracing::error!(%account, provider, "the sealed key is not one of this gateway's");
            }
            key
        }))
    }
}

async fn ask_outside(services: &Services, now: Now, ask: Ask) -> Told {
    fn logged<T, E: From<StoreError>>(result: Result<T, StoreError>) -> Result<T, E> {
        result.map_err(|error| {
            tracing::debug!(%error, "the store says no");
            error.into()
        })
    }
    let (store, wall) = (&services.store, now.wall);
    match ask {
        Ask::Admit {
            device,
            certificate,
        } => Told::Admitted(logged(store.admit(device, certificate, wall).await)),
        Ask::Hold { account, hold } => Told::Held(logged(store.hold(account, hold, wall).await)),
        Ask::Settle {
            account,
            settle,
            keep,
        } => {
            let settled = store.settle_and_keep(account, settle, keep, wall);
            Told::Settled(logged(settled.await))
        }
        Ask::Release { account, release } => {
            Told::Released(logged(store.release(account, release, wall).await))
        }
        Ask::Lose { account, lose } => Told::Lost(logged(store.cut_off(account, lose, wall).await)),
        Ask::Checkpoint { account, lose } => {
            let request = lose.request;
            let kept = store.checkpoint(account, lose).await;
            tracing::debug!(%account, %request, kept = kept.is_ok(), "checkpoint");
            Told::Checkpointed(logged(kept))
        }
        Ask::Service {
            account,
            device,
            method,
            params,
        } => {
            let served = services.serve(account, method, params, wall).await;
            if let Err(refused) = &served {
                tracing::debug!(%device, method = method.as_str(), code = %refused.code, "a call was refused");
            }
            Told::Served(served)
        }
        Ask::Recall {
            account,
            device,
            request,
        } => {
            let recalled = store.recall(account, device, request, wall).await;
            if let Ok(known) = &recalled {
                let known = known.name();
                tracing::info!(%device, %request, known, "asked for an answer that is not here");
            }
            Told::Recalled(logged(recalled))
        }
        // Carried out by `Outside::ask`; here for completeness of the match.
        Ask::Call { .. } => Told::Called(Err(mesh_core::dialect::exchange::Broken::Connect)),
    }
}

impl Host for Outside {
    type Machine = Gateway<Quic>;
    type Command = Command;

    fn command(&mut self, now: Now, machine: &mut Gateway<Quic>, command: Command) -> Request {
        let input = match command {
            Command::Progress(id, piece) => Input::Progress { id, piece },
            Command::Told(id, told) => {
                self.calls.remove(&id);
                Input::Told { id, told }
            }
            Command::Revoked(device) => Input::Revoked(device),
            Command::Stop => Input::Stop,
        };
        if let Err(rejected) = machine.handle_input(now, input) {
            tracing::error!(%rejected, "the gateway would not take an input: a bug");
        }
        Request::None
    }

    fn output(&mut self, now: Now, _machine: &Gateway<Quic>, output: Output) -> ControlFlow<()> {
        match output {
            Output::Ask { id, ask } => self.ask(now, id, ask),
            Output::Credit { id, bytes } => {
                if let Some(call) = self.calls.get(&id) {
                    call.credit(bytes);
                }
            }
            Output::Abandon { id } => {
                self.calls.remove(&id);
            }
            Output::Warm { provider } => self.upstreams.warm(&provider),
            Output::Event(event) => log(&event),
            Output::Stopped => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    /// The machine's own timers are late by as much; QUIC notices by itself.
    fn woke(&mut self, _now: Now, _machine: &mut Gateway<Quic>, asleep: Duration) -> Request {
        tracing::info!(secs = asleep.as_secs(), "the machine slept");
        Request::None
    }
}

fn log(event: &Event) {
    match event {
        Event::HandshakeRefused { remote } => tracing::info!(%remote, "handshake refused"),
        Event::TunnelUp {
            device,
            account,
            epoch,
            remote,
            handshake,
        } => {
            let handshake_us = handshake.as_micros();
            tracing::info!(%device, %account, epoch, %remote, handshake_us, "tunnel up");
        }
        Event::TunnelDown { device, reason } => tracing::info!(?device, reason, "tunnel down"),
        Event::Charged {
            account,
            device,
            request,
            charge,
        } => tracing::info!(%account, %device, %request, charge = %charge.charge, "charged"),
        Event::Failed {
            device,
            request,
            code,
        } => tracing::info!(%device, %request, %code, "refused or failed"),
        Event::Detached { device, request } => {
            tracing::info!(%device, %request, "its stream is lost; the answer goes on");
        }
        Event::Attached {
            device,
            request,
            how,
            from,
            running,
        } => tracing::info!(%device, %request, ?how, from, running, "came back to its answer"),
        Event::Forgotten { device, request } => {
            tracing::debug!(%device, %request, "the answer's text is no longer kept");
        }
        Event::LateAnswer => tracing::warn!("the store or a model server answered too late"),
    }
}
