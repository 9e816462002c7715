//! What a gateway does beside answering: months that are over are invoiced, credits that have ended
//! leave the books, the heads of all chains are sealed, and what answers said is deleted in its time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::billing::account::order::Order;
use mesh_core::billing::ledger::seal::Seal;
use mesh_core::time::UnixMillis;

use super::keys::Keys;
use super::store::{Store, StoreError};
use crate::error::Error;
use crate::files;

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(60);
/// Text that has been kept for its time stays at most this part of it longer, and no longer than a round.
const TEXT_STAYS_LONGER: u32 = 4;
/// Between two looks for such text, at least.
const LOOKS_EVERY_MIN: Duration = Duration::from_millis(500);
/// The file that holds the last seal.
pub const SEAL_FILE: &str = "seal.json";

/// See the module documentation.
pub(super) struct Chores {
    pub(super) store: Store,
    pub(super) keys: Arc<Keys>,
    /// Where seals are exported to.
    pub(super) seals: PathBuf,
    /// How long what answers said is kept.
    pub(super) answers_kept: Duration,
}

impl Chores {
    /// Goes on until it is aborted. What fails is said, and tried again in the next round.
    pub(super) async fn run(self, wall: impl Fn() -> UnixMillis + Send) {
        let mut rounds = every(EVERY);
        let mut looks =
            every((self.answers_kept / TEXT_STAYS_LONGER).clamp(LOOKS_EVERY_MIN, EVERY));
        let mut sealed = None;
        loop {
            tokio::select! {
                _ = looks.tick() => {
                    forget(&self.store, wall()).await;
                    continue;
                }
                _ = rounds.tick() => {}
            }
            let now = wall();
            if let Err(error) = books(&self.store, now).await {
                tracing::warn!(%error, "months and credits wait for the store");
            }
            match seal(&self.store, &self.keys, now).await {
                Ok(seal) if sealed != Some(seal.root) => match export(&self.seals, &seal) {
                    Ok(()) => sealed = Some(seal.root),
                    Err(error) => tracing::error!(%error, "the ledger's seal is not exported"),
                },
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "the ledger is not sealed"),
            }
        }
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}

/// Deletes what answers said that have been kept long enough.
async fn forget(store: &Store, now: UnixMillis) {
    match store.forget_answers(now).await {
        Ok(0) => {}
        Ok(answers) => tracing::debug!(answers, "what they said has been deleted"),
        Err(error) => tracing::warn!(%error, "text that is to be deleted waits for the store"),
    }
}

/// Invoices the months that are over, and takes the credits out of the books that have ended.
///
/// # Errors
///
/// The store is unavailable; what was done stays done.
pub async fn books(store: &Store, now: UnixMillis) -> Result<(), StoreError> {
    store.lapse_all(now).await?;
    for (account, month) in store.months_due(now).await? {
        match store.order(account, Order::close(month), now).await {
            Ok(ordered) if !ordered.repeated => tracing::info!(%account, %month, "invoiced"),
            // Another gateway was there first.
            Ok(_) | Err(StoreError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Seals where all chains end now.
///
/// # Errors
///
/// The store is unavailable.
pub async fn seal(store: &Store, keys: &Keys, now: UnixMillis) -> Result<Seal, StoreError> {
    let heads = store.heads().await?;
    Ok(Seal::new(now, heads, keys.seals()))
}

/// Writes the seal to its folder, in place of the last one.
///
/// # Errors
///
/// [`Error`] with the file that cannot be written.
pub fn export(folder: &Path, seal: &Seal) -> Result<(), Error> {
    let path = folder.join(SEAL_FILE);
    let text = serde_json::to_string_pretty(seal).map_err(|error| Error::Api(error.to_string()))?;
    files::make_private_dir(folder).map_err(|error| Error::file(folder, error))?;
    files::write_private(&path, text + "\n").map_err(|error| Error::file(&path, error))
}
