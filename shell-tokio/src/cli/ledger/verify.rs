//! `synesis ledger verify`: is every entry still the one that was written?

use std::path::Path;

use mesh_core::billing::ledger::seal::Seal;
use mesh_core::error::ErrorClass;
use serde::Serialize;

use crate::cli::args::AdminOptions;
use crate::cli::output::{Mark, grouped};
use crate::cli::{Scene, Stop, moment};
use crate::error::Error;
use crate::files;
use crate::gateway::chores::SEAL_FILE;
use crate::gateway::config::Config;
use crate::gateway::keys::Keys;
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
pub(super) async fn run(
    account: Option<&str>,
    seal: Option<&Path>,
    options: &AdminOptions,
    scene: &Scene,
) -> Result<(), Stop> {
    let config = scene.gateway_config(options.config.as_deref())?;
    config.store().is_there()?;
    let seal = read_seal(seal, &config)?;
    let report = store::verify_at(&config.store(), seal.as_ref()).await?;
    let wanted = |chain: &AccountReport| {
        account.is_none_or(|a| chain.name == a || chain.account.to_string() == a)
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
    let sealed = seal.map(|seal| Sealed {
        at: moment(seal.at),
        not_yet: report.entries().saturating_sub(seal.entries()),
    });
    show(
        &chains,
        report.file.as_deref(),
        sealed.as_ref(),
        options,
        scene,
    )?;
    if sound {
        Ok(())
    } else {
        Err(Stop::Reported(ErrorClass::Billing))
    }
}

/// What is under a seal.
#[derive(Serialize)]
struct Sealed {
    at: String,
    /// Entries that came after it.
    not_yet: u64,
}

/// The seal that was named, or the last one that the gateway exported, if it has any. It must be whole;
/// the gateway's own must be signed with its key.
fn read_seal(named: Option<&Path>, config: &Config) -> Result<Option<Seal>, Stop> {
    let own = config.seals_dir().join(SEAL_FILE);
    let path = named.unwrap_or(&own);
    let text = match files::read_private(path) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(None);
        }
        // A copy that is kept elsewhere is no secret.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            std::fs::read_to_string(path).map_err(|error| Error::file(path, error))?
        }
        Err(error) => return Err(Error::file(path, error).into()),
    };
    let no_seal = |why: &dyn std::fmt::Display| {
        Stop::invalid(format!(
            "{} is no seal to check against: {why}",
            path.display()
        ))
    };
    let seal: Seal = serde_json::from_str(&text).map_err(|error| no_seal(&error))?;
    let keys = Keys::open_existing(&config.ca_dir())?;
    seal.check(Some(&keys.seals().public()))
        .map_err(|error| no_seal(&error))?;
    Ok(Some(seal))
}

fn show(
    chains: &[Chain],
    file: Option<&str>,
    sealed: Option<&Sealed>,
    options: &AdminOptions,
    scene: &Scene,
) -> Result<(), Stop> {
    let sound = file.is_none() && chains.iter().all(|chain| chain.sound);
    if options.json {
        return scene.output.json(&serde_json::json!({
            "sound": sound, "file_fault": file, "seal": sealed, "accounts": chains,
        }));
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
    if let Some(sealed) = sealed {
        scene.output.aside(&format!(
            "checked against the seal of {}; {} entries came after it",
            sealed.at,
            grouped(sealed.not_yet)
        ));
    }
    if !sound {
        scene.output.note(
            "Something changed the ledger behind the gateway's back, or the disk did. Stop the \
             gateway and compare with a backup.",
        );
    }
    Ok(())
}
