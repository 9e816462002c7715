//! `synesis up`: a gateway, an enrolled device and a tunnel between them, in one process.
//!
//! Nothing is mocked: the device enrols over HTTP with an API key, the tunnel is QUIC over loopback
//! UDP with mutual TLS, the charge is in a ledger on disk, and the ledger is read back and checked
//! before it is called verified.

use std::time::{Duration, Instant};

use mesh_core::billing::ledger::Hash;
use mesh_core::billing::price::Price;
use mesh_core::escalation::context::Question;
use mesh_core::escalation::receipt::markup;
use mesh_core::identity::api_key::{ApiKey, Scopes};
use mesh_core::identity::join::JoinLine;
use mesh_core::ids::{AccountId, KeyId, RequestId};
use mesh_core::limits::HEARTBEAT_EVERY_MIN;
use mesh_core::wire::message::StreamEnd;

use super::args::Up;
use super::ask::follow;
use super::cut::Network;
use super::output::{Mark, grouped, span};
use super::{Interrupts, Scene, Stop, receipt, until_stopped, wall};
use crate::device::agent::Agent;
use crate::device::client::{Client, Options};
use crate::device::credentials::Credentials;
use crate::device::enrol::enrol;
use crate::device::settings::Settings;
use crate::error::Error;
use crate::gateway::config::{Config, Sources};
use crate::gateway::server::Server;
use crate::gateway::store::{self, AccountRow, DeviceRow, NewAccount, NewKey, Place, StoreError};
use crate::paths::Paths;
use crate::random;

/// The account that everything of `up` is charged to.
const ACCOUNT: &str = "up";
/// What the echo model takes for each word when its answer is to be cut.
const SLOW_ECHO: Duration = Duration::from_millis(100);
/// From the question to the cut.
const CUT_AFTER: Duration = Duration::from_secs(2);
/// How long the device waits for a gateway that does not answer, when it is to be shown.
const CUT_SILENCE: Duration = Duration::from_secs(1);
/// A handshake over loopback takes milliseconds; this long, something is wrong.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// Everything that is up.
struct Stage {
    server: Server,
    place: Place,
    account: AccountRow,
    client: Client,
    /// Between the two, if it is to be cut.
    network: Option<Network>,
}

/// What is true of the ledger after the answer.
struct Checked {
    sequence: u64,
    hash: Hash,
    entries: u64,
}

/// Runs it.
pub(super) async fn run(up: &Up, scene: &Scene) -> Result<(), Stop> {
    let began = Instant::now();
    let output = scene.output;
    let paths = scene.paths.up();
    let spinner = output.spinner("starting a gateway and a device");
    let stage = Stage::set(&paths, up.cut.is_some()).await?;
    drop(spinner);
    for finding in stage.server.findings() {
        output.aside(&format!("· {finding}"));
    }
    output.aside(&format!(
        "· gateway, device and tunnel (QUIC with mutual TLS over {}) are up after {}",
        stage.server.tunnel_addr(),
        span(began.elapsed())
    ));
    let outcome = stage.play(up, scene, &paths).await;
    stage.client.close().await;
    stage.server.stop().await;
    outcome
}

impl Stage {
    async fn set(paths: &Paths, to_be_cut: bool) -> Result<Self, Stop> {
        let mut config = config(paths)?;
        if to_be_cut {
            // There must be a middle of the answer.
            config.echo_pace = SLOW_ECHO;
        }
        let place = config.store();
        // The environment's keys of model servers do count.
        let server = Server::start(config, |name| std::env::var(name).ok()).await?;
        let account = account(&server).await?;
        let mut credentials = enrolled(&server, &account, paths).await?;
        let network = if to_be_cut {
            Some(Network::to(server.tunnel_addr()).await?)
        } else {
            None
        };
        if let Some(network) = &network {
            credentials = credentials.at(network.address().to_string());
        }
        let mut settings = Settings::load(&paths.device())?;
        if to_be_cut {
            settings.terms.silence = CUT_SILENCE;
            settings.terms.beat_max = HEARTBEAT_EVERY_MIN;
        }
        let options = Options {
            persistent: true,
            vitals_of: Some(paths.device()),
            privacy: settings.privacy,
            terms: settings.terms,
            keeps: Some(paths.device()),
        };
        let client = Client::start(credentials, options)?;
        tokio::time::timeout(CONNECT_PATIENCE, client.connected())
            .await
            .map_err(|_| Error::Timeout {
                doing: "the handshake over loopback".to_owned(),
                secs: CONNECT_PATIENCE.as_secs(),
            })??;
        Ok(Self {
            server,
            place,
            account,
            client,
            network,
        })
    }

    /// What happens while everything is up.
    async fn play(&self, up: &Up, scene: &Scene, paths: &Paths) -> Result<(), Stop> {
        if let Some(question) = &up.ask {
            self.ask(up, question, scene).await?;
            if !up.stay {
                return Ok(());
            }
        }
        let agent = Agent::of(self.client.clone(), &paths.device())?;
        super::agent::say_endpoint(&agent, scene);
        let folder = paths.root().display();
        scene.output.note(&format!(
            "Ready. Ask from another terminal:\n  \
             synesis --data-dir '{folder}' cloud ask \"Why is the sky blue?\"\n  \
             synesis --data-dir '{folder}' cloud status\n\
             Ctrl-C stops."
        ));
        tokio::select! {
            () = until_stopped() => {}
            () = agent.serve() => {}
        }
        Ok(())
    }

    async fn ask(&self, up: &Up, question: &str, scene: &Scene) -> Result<(), Stop> {
        let mut interrupts = Interrupts::new()?;
        let model = up.model.as_deref().unwrap_or("auto");
        let question = Question::new(question)
            .model(model)
            .max_tokens(up.max_tokens)
            .session("up");
        let answer = self.client.escalate_stream(question).await?;
        let answer = follow(answer, scene.output, true, None, &mut interrupts);
        let (outcome, ()) = tokio::join!(answer, self.cut(up, scene));
        if let Some(end) = &outcome.receipt {
            let checked = self.check_ledger(end.request_id).await;
            let handshake = self.client.subscribe().borrow().handshake;
            print_receipt(scene, end, &self.account, handshake, &checked);
            checked?;
            if up.cut.is_some() {
                scene.output.aside("· one charge");
            }
        }
        outcome.stop.map_or(Ok(()), Err)
    }

    /// Takes the network away in the middle of the answer, if that is wanted.
    async fn cut(&self, up: &Up, scene: &Scene) {
        let (Some(network), Some(gone)) = (&self.network, up.cut) else {
            return;
        };
        tokio::time::sleep(CUT_AFTER).await;
        network.cut();
        let words = format!("\n· cut: the network is gone for {}", span(gone));
        scene.output.aside(&words);
        tokio::time::sleep(gone).await;
        network.heal();
        scene
            .output
            .aside("· the network is back, but nothing that was connected");
    }

    /// Reads the ledger back from the disk and checks it, the answer's entry in it.
    async fn check_ledger(&self, request: RequestId) -> Result<Checked, Stop> {
        let unsound = |what: String| Stop::Failed(Error::Billing(what));
        let Some(booked) = self.server.store().booked(self.account.id, request).await? else {
            return Err(unsound(format!(
                "the charge of {request} is not in the ledger"
            )));
        };
        let report = store::verify_at(&self.place, None).await?;
        if let Some(fault) = report.faults().next() {
            return Err(unsound(format!("the ledger does not hold: {fault}")));
        }
        Ok(Checked {
            sequence: booked.sequence,
            hash: booked.hash,
            entries: report.entries(),
        })
    }
}

/// Free ports of loopback. Settings of a real gateway on this machine do not count.
fn config(paths: &Paths) -> Result<Config, Error> {
    let anywhere = "127.0.0.1:0".to_owned();
    let flags = [
        ("tunnel.listen", anywhere.clone()),
        ("http.listen", anywhere),
    ];
    let sources = Sources {
        env: &|_| None,
        flags: &flags,
        data_dir: &paths.gateway(),
    };
    Config::load(None, sources)
}

/// The account, made on the first run.
async fn account(server: &Server) -> Result<AccountRow, Stop> {
    let store = server.store();
    match store.account_named(ACCOUNT).await {
        Err(StoreError::UnknownAccount) => {}
        found => return Ok(found?),
    }
    let id = AccountId::random(&mut random::seed()?.secret("account"));
    store
        .create_account(NewAccount::managed(id, ACCOUNT), wall())
        .await?;
    Ok(store.account_named(ACCOUNT).await?)
}

/// The device's credentials: those of the last run if the gateway still knows them, else enrolled
/// anew, with a key that is revoked at once.
async fn enrolled(
    server: &Server,
    account: &AccountRow,
    paths: &Paths,
) -> Result<Credentials, Stop> {
    let (folder, store) = (paths.device(), server.store());
    let address = server.tunnel_addr().to_string();
    if let Ok(Some(kept)) = Credentials::load(&folder) {
        let devices = store.devices(Some(account.id)).await?;
        let known = |device: &DeviceRow| {
            device.id == kept.device_id()
                && device.revoked_at.is_none()
                && device.not_after > wall()
        };
        if devices.iter().any(known) {
            return Ok(kept.at(address));
        }
    }
    let seed = random::seed()?;
    let (key, id) = (
        ApiKey::random(&mut seed.secret("key")),
        KeyId::random(&mut seed.secret("key id")),
    );
    let new = NewKey {
        id,
        account: account.id,
        label: "synesis up".to_owned(),
        hash: key.hash(),
        scopes: Scopes::DEFAULT,
    };
    store.create_key(new, wall()).await?;
    let join = JoinLine {
        url: server.http_url().to_owned(),
        key,
        ca: None,
    };
    let credentials = enrol(&join).await;
    store.revoke_key(id, false, wall()).await?;
    let credentials = credentials?;
    credentials.save(&folder)?;
    Ok(credentials)
}

/// The receipt, a line for each figure.
fn print_receipt(
    scene: &Scene,
    end: &StreamEnd,
    account: &AccountRow,
    handshake: Option<Duration>,
    checked: &Result<Checked, Stop>,
) {
    let output = scene.output;
    let used = end.tokens_used;
    let row = |name: &str, value: &str| {
        output.note(&format!(
            "  {} {value}",
            output.mark_err(Mark::Dim, &format!("{name:<9}"))
        ));
    };
    output.note(&output.mark_err(Mark::Bold, "receipt"));
    row("model", &receipt::model(end));
    row(
        "tokens",
        &format!(
            "{} in, {} out{}",
            grouped(used.prompt),
            grouped(used.completion),
            if end.estimated { ", estimated" } else { "" }
        ),
    );
    row("base", &end.base_nanos.to_string());
    row("markup", &markup(end).to_string());
    row("charge", &end.cost_nanos.to_string());
    if let Ok(cost) = Price::CLAUDE_SONNET.cost(&used, account.tier.rate_bps()) {
        row(
            "compare",
            &format!("the same tokens on claude_sonnet would cost {cost}"),
        );
    }
    row("handshake", &handshake.map_or_else(|| "-".to_owned(), span));
    match checked {
        Ok(checked) => row(
            "ledger",
            &output.mark_err(
                Mark::Green,
                &format!(
                    "entry {} of {} verified ({})",
                    checked.sequence,
                    checked.entries,
                    short(&checked.hash)
                ),
            ),
        ),
        Err(_) => row("ledger", &output.mark_err(Mark::Red, "not verified")),
    }
}

/// The first 16 hexadecimal digits, as people compare hashes.
fn short(hash: &Hash) -> String {
    hash.to_string().chars().take(16).collect()
}
