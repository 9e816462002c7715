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

mod beside;
mod start;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::mpsc;

use self::beside::Beside;
use super::ca::CertificateAuthority;
use super::config::Config;
use super::http;
use super::outside::{Command, Terms};
use super::rules::{models, rules};
use super::store::Store;
use super::upstream::discover;
use crate::driver::Running;
use crate::error::Error;

/// Commands that wait for the driver; whoever sends one more waits.
const INBOX: usize = 1024;

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
    beside: Beside,
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
        self.beside.stop();
        self.http.shutdown().await;
    }
}
