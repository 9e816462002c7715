//! `synesis admin account create|list`.

use mesh_core::billing::account::order::{Order, What};
use mesh_core::ids::AccountId;
use serde::Serialize;

use super::{Desk, fresh};
use crate::cli::args::{Account, AdminOptions};
use crate::cli::{Scene, Stop, moment, wall};
use crate::gateway::store::{AccountRow, NewAccount};
use crate::random;

/// One account, as `--json` shows it.
#[derive(Serialize)]
struct Shown {
    id: String,
    name: String,
    tier: &'static str,
    ceiling: String,
    created_at: String,
}

impl From<&AccountRow> for Shown {
    fn from(row: &AccountRow) -> Self {
        Self {
            id: row.id.to_string(),
            name: row.name.clone(),
            tier: row.tier.name(),
            ceiling: row.ceiling.to_string(),
            created_at: moment(row.created_at),
        }
    }
}

impl Shown {
    fn show(
        &self,
        options: &AdminOptions,
        scene: &Scene,
        in_words: impl FnOnce(&Self) -> String,
    ) -> Result<(), Stop> {
        if options.json {
            return scene.output.json(self);
        }
        scene.output.line(&in_words(self))
    }

    fn in_its_tier(&self) -> String {
        format!("{} is in tier {}", self.name, self.tier)
    }
}

pub(super) async fn run(command: &Account, scene: &Scene) -> Result<(), Stop> {
    match command {
        Account::Create { name, options } => create(name, options, scene).await,
        Account::Ceiling {
            account,
            ceiling,
            options,
        } => {
            let desk = Desk::open(options, scene).await?;
            let what = What::SetCeiling { ceiling: *ceiling };
            let row = change(&desk, account, what).await?;
            row.show(options, scene, |row| {
                let Shown { name, ceiling, .. } = row;
                format!("{name} may spend {ceiling} a month beyond what it paid")
            })
        }
        Account::Tier {
            account,
            tier,
            options,
        } => {
            let desk = Desk::open(options, scene).await?;
            let tier = desk.config.billing.tier_named(*tier);
            let row = change(&desk, account, What::SetTier { tier }).await?;
            row.show(options, scene, Shown::in_its_tier)
        }
        Account::ResetQuota { account, options } => {
            let desk = Desk::open(options, scene).await?;
            let row = change(&desk, account, What::ResetQuota).await?;
            row.show(options, scene, Shown::in_its_tier)
        }
        Account::List { options } => list(options, scene).await,
    }
}

async fn create(name: &str, options: &AdminOptions, scene: &Scene) -> Result<(), Stop> {
    let desk = Desk::open(options, scene).await?;
    let billing = &desk.config.billing;
    let account = NewAccount {
        id: AccountId::random(&mut random::seed()?.secret("account")),
        name: name.to_owned(),
        tier: billing.tier,
        ceiling: billing.ceiling,
    };
    desk.store.create_account(account, wall()).await?;
    let made = Shown::from(&desk.account(name).await?);
    if options.json {
        return scene.output.json(&made);
    }
    scene.output.line(&made.id)?;
    scene.output.note(&format!(
        "Account {} is made: tier {}, at most {} a month.\n\
         Next: synesis admin key create --account {}",
        made.name, made.tier, made.ceiling, made.name
    ));
    Ok(())
}

async fn list(options: &AdminOptions, scene: &Scene) -> Result<(), Stop> {
    let desk = Desk::open(options, scene).await?;
    let accounts: Vec<Shown> = desk.names().await?.iter().map(Shown::from).collect();
    if options.json {
        return scene.output.json(&accounts);
    }
    if accounts.is_empty() {
        scene
            .output
            .note("No accounts yet: synesis admin account create --name NAME");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = accounts
        .into_iter()
        .map(|a| vec![a.name, a.id, a.tier.to_owned(), a.ceiling, a.created_at])
        .collect();
    let headings = ["NAME", "ID", "TIER", "CEILING/MONTH", "MADE"];
    scene.output.table(&headings, &rows, |_, _| None)
}

/// Changes the terms of an account: as it is now.
async fn change(desk: &Desk, account: &str, what: What) -> Result<Shown, Stop> {
    let id = desk.account(account).await?.id;
    let reference = fresh("terms")?;
    desk.store
        .order(id, Order { reference, what }, wall())
        .await?;
    Ok(Shown::from(&desk.account(account).await?))
}
