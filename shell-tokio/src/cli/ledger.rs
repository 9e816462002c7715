//! `synesis ledger verify`: is every entry still the one that was written?

use serde::Serialize;

use super::args::{AdminOptions, Ledger};
use super::output::{Mark, grouped};
use super::{Scene, Stop};
use mesh_core::error::ErrorClass;

use crate::gateway::store::{self, AccountReport};

/// One chain, as `--json` shows it.
#[derive(Serialize)]
struct Chain {
    account: String,
    name: String,
    sound: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    charged: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    charged_nanos: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

impl From<&AccountReport> for Chain {
    fn from(report: &AccountReport) -> Self {
        let verified = report.verified.as_ref().ok();
        Self {
            account: report.account.to_string(),
            name: report.name.clone(),
            sound: verified.is_some(),
            entries: verified.map(|v| v.entries),
            charged: verified.map(|v| v.charged.to_string()),
            charged_nanos: verified.map(|v| v.charged.0),
            head: verified.map(|v| v.head.to_string()),
            fault: report.verified.as_ref().err().map(ToString::to_string),
        }
    }
}

/// Verifies, and fails if anything does not hold.
pub(super) async fn run(ledger: &Ledger, scene: &Scene) -> Result<(), Stop> {
    let Ledger::Verify { account, options } = ledger;
    let config = scene.gateway_config(options.config.as_deref())?;
    let path = config.store_path();
    let report = tokio::task::spawn_blocking(move || store::verify(&path, None))
        .await
        .map_err(Stop::internal)??;
    let wanted = |chain: &AccountReport| {
        account
            .as_deref()
            .is_none_or(|a| chain.name == a || chain.account.to_string() == a)
    };
    let chains: Vec<Chain> = report
        .accounts
        .iter()
        .filter(|c| wanted(c))
        .map(Chain::from)
        .collect();
    if chains.is_empty()
        && let Some(account) = account
    {
        return Err(Stop::invalid(format!("there is no account {account:?}")));
    }
    let sound = report.file.is_none() && chains.iter().all(|chain| chain.sound);
    show(&chains, report.file.as_deref(), sound, options, scene)?;
    if sound {
        Ok(())
    } else {
        Err(Stop::Reported(ErrorClass::Billing))
    }
}

fn show(
    chains: &[Chain],
    file: Option<&str>,
    sound: bool,
    options: &AdminOptions,
    scene: &Scene,
) -> Result<(), Stop> {
    if options.json {
        return scene
            .output
            .json(&serde_json::json!({ "sound": sound, "file_fault": file, "accounts": chains }));
    }
    let rows: Vec<Vec<String>> = chains
        .iter()
        .map(|chain| {
            let state = chain.fault.clone().unwrap_or_else(|| "verified".to_owned());
            let entries = chain.entries.map_or_else(|| "-".to_owned(), grouped);
            let charged = chain.charged.clone().unwrap_or_else(|| "-".to_owned());
            vec![chain.name.clone(), entries, charged, state]
        })
        .collect();
    scene.output.table(
        &["ACCOUNT", "ENTRIES", "CHARGED", "STATE"],
        &rows,
        |row, column| {
            let sound = chains.get(row).is_some_and(|chain| chain.sound);
            (column == 3).then_some(if sound { Mark::Green } else { Mark::Red })
        },
    )?;
    if let Some(fault) = file {
        scene
            .output
            .error(&format!("the store's file itself is damaged: {fault}"));
    }
    if !sound {
        scene.output.note(
            "Something changed the ledger behind the gateway's back, or the disk did. Stop the \
             gateway and compare with a backup.",
        );
    }
    Ok(())
}
