//! What runs beside the tunnels, until the gateway stops: payments, chores, and the look for what another
//! process revoked.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::driver::Clock;
use crate::gateway::chores::Chores;
use crate::gateway::config::Config;
use crate::gateway::keys::Keys;
use crate::gateway::outside::Command;
use crate::gateway::payments::Payments;
use crate::gateway::store::Store;

/// How often a revocation by another process is looked for.
const REVOCATIONS_EVERY: Duration = Duration::from_secs(1);

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Beside(Vec<JoinHandle<()>>);

impl Beside {
    pub(super) fn begin(
        config: &Config,
        store: &Store,
        keys: Arc<Keys>,
        payments: Option<Payments>,
        inbox: &mpsc::Sender<Command>,
    ) -> Self {
        let revocations = tokio::spawn(watch_revocations(store.clone(), inbox.clone()));
        let chores = Chores {
            store: store.clone(),
            keys,
            seals: config.seals_dir(),
            answers_kept: config.answers.keeping.kept,
        };
        let clock = Clock::new();
        let chores = tokio::spawn(chores.run(move || clock.now().wall));
        let mut all = vec![revocations, chores];
        if let Some(payments) = payments {
            let clock = Clock::new();
            all.push(tokio::spawn(payments.run(move || clock.now().wall)));
        }
        Self(all)
    }

    pub(super) fn stop(&self) {
        for task in &self.0 {
            task.abort();
        }
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
