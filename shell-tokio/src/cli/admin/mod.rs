//! `synesis admin …`: accounts, keys and devices, straight in the gateway's store.
//!
//! Works offline and beside a running gateway: the store's own locks make them take turns, and the
//! gateway sees a revocation within a second or two.

mod account;
mod credit;
mod device;
mod key;
mod money;

pub(super) use self::credit::end_of_day;
use mesh_core::billing::account::Summary;
use mesh_core::billing::account::order::{Order, Reference, What};
use mesh_core::identity::Fingerprint;
use mesh_core::ids::AccountId;

use super::args::{Admin, AdminOptions};
use super::{Scene, Stop, wall};
use crate::error::Error;
use crate::gateway::config::{Config, HttpTls};
use crate::gateway::deployment;
use crate::gateway::store::{AccountRow, Ordered, Role, Store, StoreError};
use crate::{files, random};

/// Runs one of them.
pub(super) async fn run(admin: &Admin, scene: &Scene) -> Result<(), Stop> {
    match admin {
        Admin::Account { command } => account::run(command, scene).await,
        Admin::Key { command } => key::run(command, scene).await,
        Admin::Device { command } => device::run(command, scene).await,
        Admin::Credit(credit) => credit::run(credit, scene).await,
        Admin::Refund(refund) => money::refund(refund, scene).await,
        Admin::Reverse(reverse) => money::reverse(reverse, scene).await,
        Admin::Collect(collect) => money::collect(collect, scene).await,
        Admin::AdoptCa(options) => adopt_ca(options, scene).await,
    }
}

/// Makes the authorities in this data folder the store's.
async fn adopt_ca(options: &AdminOptions, scene: &Scene) -> Result<(), Stop> {
    let desk = Desk::open(options, scene).await?;
    let folder = desk.config.ca_dir();
    let ca = deployment::adopt(&desk.store, &folder, wall()).await?;
    let fingerprint = ca.fingerprint().map_err(Error::from)?.to_string();
    if options.json {
        return scene
            .output
            .json(&serde_json::json!({ "fingerprint": fingerprint, "folder": folder }));
    }
    scene.output.line(&format!(
        "The gateways of this store have the authorities in {} now ({fingerprint}). Copy the folder to each of \
         them before they start; devices enrolled under others must enrol again.",
        folder.display()
    ))
}

/// An order that was carried out, now or before.
struct Carried {
    account: AccountRow,
    reference: Reference,
    done: Ordered,
    /// How the account stands after it.
    summary: Summary,
}

/// The gateway's configuration and store.
pub(super) struct Desk {
    pub(super) config: Config,
    pub(super) store: Store,
}

impl Desk {
    pub(super) async fn open(options: &AdminOptions, scene: &Scene) -> Result<Self, Stop> {
        let config = scene.gateway_config(options.config.as_deref())?;
        // Before the gateway's first start there is nothing yet, and nothing wrong with that.
        let folder = &config.data_dir;
        files::make_private_dir(folder).map_err(|error| Error::file(folder, error))?;
        let store = Store::open_at(&config.store(), Role::Administration).await?;
        Ok(Self { config, store })
    }

    /// The same for a command that only looks: what is not there is not made.
    pub(super) async fn open_to_look(options: &AdminOptions, scene: &Scene) -> Result<Self, Stop> {
        let config = scene.gateway_config(options.config.as_deref())?;
        let place = config.store();
        place.is_there()?;
        let store = Store::open_at(&place, Role::Administration).await?;
        Ok(Self { config, store })
    }

    /// The account of that name or id.
    pub(super) async fn account(&self, wanted: &str) -> Result<AccountRow, Stop> {
        if let Ok(id) = wanted.parse() {
            let accounts = self.store.accounts().await?;
            return accounts
                .into_iter()
                .find(|account| account.id == id)
                .ok_or_else(|| Error::from(StoreError::UnknownAccount).into());
        }
        match self.store.account_named(wanted).await {
            Ok(account) => Ok(account),
            Err(StoreError::UnknownAccount) => Err(Stop::invalid(format!(
                "there is no account {wanted:?}; make it with `synesis admin account create --name {wanted}`"
            ))),
            Err(error) => Err(error.into()),
        }
    }

    /// The account of that name or id, if one is said.
    async fn only(&self, wanted: Option<&str>) -> Result<Option<AccountId>, Stop> {
        match wanted {
            Some(wanted) => Ok(Some(self.account(wanted).await?.id)),
            None => Ok(None),
        }
    }

    /// Has an order carried out for the account of that name or id, under a fresh reference if none is
    /// said.
    async fn order(
        &self,
        wanted: &str,
        reference: Option<&Reference>,
        what: What,
    ) -> Result<Carried, Stop> {
        let account = self.account(wanted).await?;
        let reference = match reference {
            Some(reference) => reference.clone(),
            None => fresh("admin")?,
        };
        let order = Order {
            reference: reference.clone(),
            what,
        };
        let done = self.store.order(account.id, order, wall()).await?;
        Ok(Carried {
            summary: self.store.summary(account.id, wall()).await?,
            account,
            reference,
            done,
        })
    }

    /// What join lines pin: the CA of the gateway's own certificates, if it is what HTTP shows.
    async fn pin(&self) -> Result<Option<Fingerprint>, Stop> {
        match &self.config.http.tls {
            // A certificate of the operator's own is checked as any website's is.
            HttpTls::Off | HttpTls::Files { .. } => Ok(None),
            HttpTls::Own => {
                let ca = deployment::open(&self.store, &self.config.ca_dir(), wall()).await?;
                Ok(Some(ca.server_ca_fingerprint().map_err(Error::from)?))
            }
        }
    }

    /// The names of accounts by id, for tables.
    async fn names(&self) -> Result<Vec<AccountRow>, Stop> {
        Ok(self.store.accounts().await?)
    }
}

/// A reference that nobody has used.
fn fresh(prefix: &str) -> Result<Reference, Stop> {
    let id = AccountId::random(&mut random::seed()?.secret("order"));
    Reference::new(format!("{prefix}:{:032x}", id.as_u128())).map_err(Stop::internal)
}

/// The account's name, or its id if it has gone.
fn name_of(accounts: &[AccountRow], id: AccountId) -> String {
    let found = accounts.iter().find(|account| account.id == id);
    found.map_or_else(|| id.to_string(), |account| account.name.clone())
}
