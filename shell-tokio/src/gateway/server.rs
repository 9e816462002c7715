//! A running gateway: the root machine on its driver, and what it asks of the outside world.
//!
//! ```text
//!   driver task ── Ask ──▶ a task each: store, model server ── Told, Progress ──▶ driver task
//!        ▲                                                        (bounded inbox)
//!        ├── Revoked ── a task that looks for revocations once a second
//!        └── Drain, Stop, Reload ── whoever holds the `Server`
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mesh_core::gateway::{
    Ask, AskId, Config as Rules, Drain, Event, Gateway, Input, KeyOf, Output, Progress, Told,
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
use super::config::{Billing, Config, HttpTls};
use super::deployment;
use super::http;
use super::keys::Keys;
use super::payments::{Https, Payments};
use super::rules::{findings, models, rules};
use super::services::Services;
use super::store::{Role, Store, StoreError};
use super::upstream::discover;
use super::upstream::{Call, CallKey, News, Upstreams};
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
    config: Config,
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
    driver: Option<JoinHandle<()>>,
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
    Reload(Box<Terms>),
    Drain(Drain),
    Stop,
}

/// What a gateway may change while it runs.
#[derive(Debug)]
struct Terms {
    rules: Rules,
    upstreams: Upstreams,
    billing: Billing,
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

    /// Takes new settings without touching a tunnel or a running answer, and says which of them need
    /// a new start, by their names in the file.
    ///
    /// # Errors
    ///
    /// [`Error`] with what is wrong with them; the old ones stay in force then.
    pub async fn reload(
        &mut self,
        config: Config,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<&'static str>, Error> {
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
        let fixed = self.config.fixed_settings_that_differ(&config);
        self.config = self.config.with_changes_of(config);
        table.default_model().clone_into(&mut self.default_model);
        // If the driver has ended, there is nothing to change any more.
        let _ended = self.inbox.send(Command::Reload(Box::new(terms))).await;
        Ok(fixed)
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
        if let Err(error) = driver.await {
            tracing::error!(%error, "the gateway's driver failed");
        }
        self.driver = None;
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
    /// From now on; calls under way are not touched, and answers that call a provider again find it.
    fn take_terms(&mut self, upstreams: Upstreams, billing: Billing) {
        self.services.accounts.providers = upstreams.with_keys();
        self.services.accounts.billing = billing;
        let old = std::mem::replace(&mut self.upstreams, upstreams);
        self.upstreams.inherit(old);
    }

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
            Command::Reload(terms) => {
                let Terms {
                    rules,
                    upstreams,
                    billing,
                } = *terms;
                self.take_terms(upstreams, billing);
                Input::Configured(rules)
            }
            Command::Drain(drain) => {
                let (tunnels, answers) = (machine.sessions(), machine.answers_under_way());
                let limit_secs = drain.limit.as_secs();
                tracing::info!(tunnels, answers, limit_secs, "going away");
                Input::Drain(drain)
            }
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
        Event::SentAway {
            device,
            reconnect_in,
        } => {
            let in_ms = reconnect_in.as_millis();
            tracing::debug!(%device, in_ms, "told to go elsewhere");
        }
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
