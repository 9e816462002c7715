//! A gateway and its devices as real processes, in a temporary folder and on ephemeral ports.
//!
//! ```text
//!   FOLDER/gateway.toml      what Setup says
//!   FOLDER/gateway/…         the gateway's data
//!   FOLDER/DEVICE/…          each device's data
//!
//!   device ──UDP──▶ [Relay] ──▶ gateway ──HTTP──▶ FakeUpstream
//! ```
//!
//! # Invariants
//!
//! 1. Nothing of the surroundings gets in: no key, setting, proxy or home folder of whoever runs
//!    the test.
//! 2. Whatever any process prints is kept for [`Cluster::everything_printed`].
//! 3. Every process is killed when its handle, or the cluster, is dropped.

mod second;
mod setup;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use mesh_core::billing::ledger::{Charge, Entry, Record};
use mesh_tokio::gateway::store::{self, Database, Role, Store};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;

pub use self::second::Second;
pub use self::setup::Setup;
use crate::process::{Ended, Printed, Process, binary, lite_binary};
use crate::relay::Relay;

/// The provider key that the gateway is given: recognised wherever it turns up.
pub const PROVIDER_KEY: &str = "canary-provider-key-5b1f0c";
/// What is logged unless a setup says otherwise: enough to see why a test fails.
pub const LOG: &str = "info,mesh_core=debug,mesh_tokio=debug";
/// The account that devices join.
pub const ACCOUNT: &str = "home";

/// An answer to `cloud ask --json`.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The one JSON object of standard output; `null` if there was none.
    pub json: Value,
    /// How the process ended.
    pub ended: Ended,
}

impl Answered {
    /// The answer's text, as far as it came.
    #[must_use]
    pub fn content(&self) -> &str {
        self.json["content"].as_str().unwrap_or_default()
    }

    /// What was charged, nano-dollars.
    #[must_use]
    pub fn charge_nanos(&self) -> Option<i64> {
        self.json["charge_nanos"].as_i64()
    }

    /// The gateway's error code, if it failed with one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.json["error"]["code"].as_str()
    }
}

/// A running gateway with an account, and what devices need to join it.
#[derive(Debug)]
pub struct Cluster {
    place: Place,
    gateway: Process,
    http: String,
    tunnel: SocketAddr,
    relay: Option<Relay>,
    printed: Mutex<Vec<watch::Receiver<Printed>>>,
}

impl Cluster {
    /// Starts the gateway and opens the account.
    ///
    /// # Panics
    ///
    /// When any of it fails, with what was printed.
    pub async fn start(setup: Setup) -> Self {
        let folder = match TempDir::with_prefix("synesis-test-") {
            Ok(folder) => folder,
            Err(e) => panic!("no temporary folder: {e}"),
        };
        let config = folder.path().join("gateway.toml");
        if let Err(e) = std::fs::write(&config, setup.config()) {
            panic!("cannot write {}: {e}", config.display());
        }
        // Nothing listens at port 9 (discard) here; the relay is pointed at the gateway below.
        let relay = if setup.relay {
            Relay::start(SocketAddr::from(([127, 0, 0, 1], 9)), 1)
                .await
                .ok()
        } else {
            None
        };
        let mut settings = vec![("tunnel.listen", "127.0.0.1:0".to_owned())];
        settings.push(("http.listen", "127.0.0.1:0".to_owned()));
        if let Some(relay) = &relay {
            settings.push(("tunnel.public_address", relay.address().to_string()));
        }
        settings.extend(setup.settings);
        let place = Place {
            folder,
            log: setup.log.unwrap_or(LOG),
            settings,
            secrets: setup.secrets,
            environment: setup.environment.clone(),
        };
        let Started {
            gateway,
            http,
            tunnel,
        } = place.start_gateway().await;
        if let Some(relay) = &relay {
            relay.point_at(tunnel).await;
        }
        let printed = Mutex::new(vec![gateway.output()]);
        let cluster = Self {
            place,
            gateway,
            http,
            tunnel,
            relay,
            printed,
        };
        let _ = cluster
            .admin(&["account", "create", "--name", ACCOUNT])
            .await
            .succeeded();
        cluster
    }

    /// Kills the gateway as a power cut does, and starts it again on other ports. Behind a relay its
    /// devices notice no other address.
    ///
    /// # Panics
    ///
    /// When it does not come up again.
    pub async fn restart_gateway(&mut self) {
        self.gateway.end_now().await;
        let _ended = self.succeed_gateway().await;
    }

    /// Starts another gateway on the same store, which has to be a server, and sends devices to it from now
    /// on. Gives the first, which goes on.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    pub async fn succeed_gateway(&mut self) -> Process {
        let started = self.place.start_gateway().await;
        let Started {
            gateway,
            http,
            tunnel,
        } = started;
        let first = std::mem::replace(&mut self.gateway, gateway);
        self.keep(&self.gateway);
        self.http = http;
        self.tunnel = tunnel;
        if let Some(relay) = &self.relay {
            relay.point_at(tunnel).await;
        }
        first
    }

    /// Asks the gateway to stop and waits until it has.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub async fn stop_gateway(&mut self) -> Ended {
        self.gateway.terminate();
        self.gateway.wait().await
    }

    /// Waits until the gateway has ended.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub async fn gateway_ended(&mut self) -> Ended {
        self.gateway.wait().await
    }

    /// Waits until the gateway has printed a line with that text since it was started last.
    pub async fn gateway_says(&self, text: &str) {
        self.gateway.line_with(text).await;
    }

    /// Tries to start the gateway again, for a start that must fail.
    pub async fn try_gateway(&self) -> Ended {
        let command = self.place.gateway();
        self.spawn("gateway", command, None).ended().await
    }

    /// The gateway's process.
    #[must_use]
    pub const fn gateway(&self) -> &Process {
        &self.gateway
    }

    /// Where devices enrol.
    #[must_use]
    pub fn http_url(&self) -> &str {
        &self.http
    }

    /// The gateway's own UDP address, behind the relay if there is one.
    #[must_use]
    pub const fn tunnel_address(&self) -> SocketAddr {
        self.tunnel
    }

    /// The relay.
    ///
    /// # Panics
    ///
    /// When the setup had none.
    #[must_use]
    pub fn relay(&self) -> &Relay {
        match &self.relay {
            Some(relay) => relay,
            None => panic!("this cluster was set up without a relay"),
        }
    }

    /// The gateway's store: the database of `store.url`, or its file.
    ///
    /// # Panics
    ///
    /// When that is no URL.
    #[must_use]
    pub fn store(&self) -> store::Place {
        let mut settings = self.place.settings.iter();
        match settings.find(|(path, _)| *path == "store.url") {
            Some((_, url)) => match Database::parse(url, None, false) {
                Ok(database) => store::Place::Database(database),
                Err(e) => panic!("{e}"),
            },
            None => store::Place::File(self.store_path()),
        }
    }

    /// The gateway's store, if it is a file.
    #[must_use]
    pub fn store_path(&self) -> PathBuf {
        self.place
            .folder
            .path()
            .join("gateway/gateway/gateway.sqlite")
    }

    /// The account's charges, as the ledger on disk has them.
    ///
    /// # Panics
    ///
    /// When it cannot be read.
    pub async fn charges(&self) -> Vec<Charge> {
        let records = self.records().await.into_iter();
        records
            .filter_map(|record| record.charge().cloned())
            .collect()
    }

    /// Everything that the account's ledger on disk has, in order.
    ///
    /// # Panics
    ///
    /// When it cannot be read.
    pub async fn records(&self) -> Vec<Record> {
        let place = self.store();
        let store = match Store::open_at(&place, Role::Administration).await {
            Ok(store) => store,
            Err(e) => panic!("cannot open {place}: {e}"),
        };
        let entries = match store.account_named(ACCOUNT).await {
            Ok(account) => store.entries(account.id, 0).await.unwrap_or_default(),
            Err(e) => panic!("no account {ACCOUNT}: {e}"),
        };
        let records =
            entries.iter().map(
                |stored| match serde_json::from_str::<Entry>(&stored.canonical) {
                    Ok(entry) => entry.record,
                    Err(e) => panic!("entry {} cannot be read: {e}", stored.sequence),
                },
            );
        records.collect()
    }

    /// A device's folder: credentials, sessions, control socket.
    #[must_use]
    pub fn device_folder(&self, device: &str) -> PathBuf {
        self.place.folder.path().join(device).join("device")
    }

    /// `synesis` with this device's data, logging everything.
    #[must_use]
    pub fn command(&self, device: &str) -> Command {
        self.place.synesis(device)
    }

    /// `synesis-lite` with this device's data.
    #[must_use]
    pub fn lite_command(&self, device: &str) -> Command {
        self.place.program(lite_binary(), device)
    }

    /// Starts a process of this cluster, whose output is kept.
    pub fn spawn(&self, name: &str, command: Command, stdin: Option<&str>) -> Process {
        let process = Process::start(name, command, stdin);
        self.keep(&process);
        process
    }

    /// `synesis admin …` on the gateway's machine.
    pub async fn admin(&self, arguments: &[&str]) -> Ended {
        self.at_gateway("admin", arguments).await
    }

    /// `synesis COMMAND …` on the gateway's machine, with its configuration.
    pub async fn at_gateway(&self, name: &str, arguments: &[&str]) -> Ended {
        let mut command = self.command("gateway");
        command
            .arg(name)
            .args(arguments)
            .arg("--config")
            .arg(self.config());
        self.spawn(name, command, None).ended().await
    }

    /// The gateway's configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.place.folder.path().join("gateway.toml")
    }

    /// A fresh API key of the account: its id and the key itself.
    ///
    /// # Panics
    ///
    /// When none is made.
    pub async fn new_key(&self) -> (String, String) {
        let made = self
            .admin(&["key", "create", "--account", ACCOUNT, "--json"])
            .await
            .succeeded();
        let made: Value = serde_json::from_str(&made.stdout).unwrap_or_default();
        let text = |field: &str| made[field].as_str().map(str::to_owned);
        match (text("id"), text("key")) {
            (Some(id), Some(key)) => (id, key),
            _ => panic!("no key in {made}"),
        }
    }

    /// `synesis cloud login` with a key in the environment.
    pub async fn login(&self, device: &str, key: &str) -> Ended {
        let mut command = self.command(device);
        command
            .args(["cloud", "login", "--gateway", &self.http])
            .env("SYNESIS_API_KEY", key);
        self.spawn("login", command, None).ended().await
    }

    /// Enrols a device with a fresh key.
    ///
    /// # Panics
    ///
    /// When it is refused.
    pub async fn enrol(&self, device: &str) {
        let (_, key) = self.new_key().await;
        let _ = self.login(device, &key).await.succeeded();
    }

    /// The id that a device was enrolled under.
    ///
    /// # Panics
    ///
    /// When it was not.
    #[must_use]
    pub fn device_id(&self, device: &str) -> String {
        let file = self.device_folder(device).join("credentials.json");
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let credentials: Value = serde_json::from_str(&text).unwrap_or_default();
        match credentials["device_id"].as_str() {
            Some(id) => id.to_owned(),
            None => panic!("{} names no device", file.display()),
        }
    }

    /// Starts a device's agent and waits until its tunnel is up.
    pub async fn agent(&self, device: &str) -> Process {
        let mut command = self.command(device);
        command.arg("agent");
        let agent = self.spawn("agent", command, None);
        agent.line(|line| line.trim() == "Connected").await;
        agent
    }

    /// `synesis cloud ask QUESTION --json …`.
    pub async fn ask(&self, device: &str, question: &str, arguments: &[&str]) -> Answered {
        let ended = self.asking(device, question, arguments).ended().await;
        let json = serde_json::from_str(&ended.stdout).unwrap_or_default();
        Answered { json, ended }
    }

    /// The same, still running.
    pub fn asking(&self, device: &str, question: &str, arguments: &[&str]) -> Process {
        let mut command = self.command(device);
        command
            .args(["cloud", "ask", question, "--json"])
            .args(arguments);
        self.spawn("ask", command, None)
    }

    /// `synesis cloud status --json`.
    pub async fn status(&self, device: &str) -> Value {
        let mut command = self.command(device);
        command.args(["cloud", "status", "--json"]);
        let ended = self.spawn("status", command, None).ended().await;
        serde_json::from_str(&ended.stdout).unwrap_or_default()
    }

    /// Everything that any process of this cluster has printed on either output.
    #[must_use]
    pub fn everything_printed(&self) -> String {
        let printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        printed
            .iter()
            .map(|printed| {
                let Printed { stdout, stderr, .. } = &*printed.borrow();
                format!("{stdout}\n{stderr}\n")
            })
            .collect()
    }

    /// What any process of this cluster has printed on standard error: logs, notes and errors.
    #[must_use]
    pub fn all_stderr(&self) -> String {
        let printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        printed
            .iter()
            .map(|printed| printed.borrow().stderr.clone())
            .collect()
    }

    fn keep(&self, process: &Process) {
        self.printed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(process.output());
    }
}

/// Where a cluster lives, and what all its processes are started with.
#[derive(Debug)]
struct Place {
    folder: TempDir,
    log: &'static str,
    settings: Vec<(&'static str, String)>,
    /// What the gateway's process has in its environment besides.
    secrets: Vec<(&'static str, &'static str)>,
    environment: Vec<(&'static str, String)>,
}

/// A gateway that is ready, and where.
struct Started {
    gateway: Process,
    http: String,
    tunnel: SocketAddr,
}

impl Place {
    /// `synesis` of this cluster, with its gateway's settings and logging.
    fn synesis(&self, who: &str) -> Command {
        let mut command = self.program(binary(), who);
        for (path, value) in &self.settings {
            command.env(environment(path), value);
        }
        command.args(["--log", self.log]);
        command
    }

    /// A program with a data folder of its own and nothing of the surroundings.
    fn program(&self, binary: &Path, who: &str) -> Command {
        let mut command = Command::new(binary);
        command.env_clear();
        for kept in ["PATH", "TMPDIR", "SystemRoot"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        let folder = self.folder.path();
        command
            .env("HOME", folder)
            .env("SYNESIS_ENDPOINT", "127.0.0.1:0")
            .env("TEST_PROVIDER_KEY", PROVIDER_KEY)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.arg("--data-dir").arg(folder.join(who));
        command
    }

    fn gateway(&self) -> Command {
        self.gateway_of("gateway")
    }

    async fn start_gateway(&self) -> Started {
        let gateway = Process::start("gateway", self.gateway(), None);
        gateway.line_with("Ready.").await;
        let http = shown(&gateway, "http ").await;
        let tunnel = shown(&gateway, "tunnel ").await;
        match tunnel
            .split_whitespace()
            .next()
            .and_then(|address| address.parse().ok())
        {
            Some(tunnel) => Started {
                gateway,
                http,
                tunnel,
            },
            None => panic!("the gateway shows no tunnel address: {tunnel}"),
        }
    }
}

/// The environment variable of a setting.
fn environment(path: &str) -> String {
    format!("SYNESIS_GATEWAY_{}", path.replace('.', "_").to_uppercase())
}

/// What the gateway shows after `label` when it starts.
async fn shown(gateway: &Process, label: &str) -> String {
    let line = gateway.line(|line| line.starts_with(label)).await;
    line[label.len()..].trim().to_owned()
}
