//! `synesis admin account create|list`.

use mesh_core::billing::account::order::{Order, What};
use mesh_core::ids::AccountId;
use serde::Serialize;

use super::Desk;
use super::credit::fresh;
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

pub(super) async fn run(command: &Account, scene: &Scene) -> Result<(), Stop> {
    match command {
        Account::Create { name, options } => {
            let desk = Desk::open(options, scene).await?;
            let id = AccountId::random(&mut random::seed()?.secret("account"));
            let billing = &desk.config.billing;
            let (tier, ceiling) = (billing.tier, billing.ceiling);
            let account = NewAccount {
                id,
                name: name.clone(),
                tier,
                ceiling,
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
        Account::Ceiling {
            account,
            ceiling,
            options,
        } => {
            let desk = Desk::open(options, scene).await?;
            let id = desk.account(account).await?.id;
            let order = Order {
                reference: fresh("terms")?,
                what: What::SetCeiling { ceiling: *ceiling },
            };
            desk.store.order(id, order, wall()).await?;
            let row = Shown::from(&desk.account(account).await?);
            if options.json {
                return scene.output.json(&row);
            }
            let (name, ceiling) = (row.name, row.ceiling);
            scene.output.line(&format!(
                "{name} may spend {ceiling} a month beyond what it paid"
            ))
        }
        Account::Tier {
            account,
            tier,
            options,
        } => {
            let desk = Desk::open(options, scene).await?;
            let tier = desk.config.billing.tier_named(*tier);
            change(&desk, account, What::SetTier { tier }, options, scene).await
        }
        Account::ResetQuota { account, options } => {
            let desk = Desk::open(options, scene).await?;
            change(&desk, account, What::ResetQuota, options, scene).await
        }
        Account::List { options } => {
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
    }
}

/// Changes the terms of an account and shows it.
async fn change(
    desk: &Desk,
    account: &str,
    what: What,
    options: &AdminOptions,
    scene: &Scene,
) -> Result<(), Stop> {
    let id = desk.account(account).await?.id;
    let reference = fresh("terms")?;
    desk.store
        .order(id, Order { reference, what }, wall())
        .await?;
    let row = Shown::from(&desk.account(account).await?);
    if options.json {
        return scene.output.json(&row);
    }
    scene
        .output
        .line(&format!("{} is in tier {}", row.name, row.tier))
}
