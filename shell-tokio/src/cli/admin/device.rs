//! `synesis admin device list|revoke`.

use mesh_core::ids::DeviceId;
use serde::Serialize;

use super::{Desk, name_of};
use crate::cli::args::{AdminOptions, Device};
use crate::cli::output::Mark;
use crate::cli::{Scene, Stop, moment, wall};

/// One device, as `--json` shows it.
#[derive(Serialize)]
struct Shown {
    id: String,
    account: String,
    key: String,
    enrolled_at: String,
    certificate_ends_at: String,
    seen_at: Option<String>,
    revoked_at: Option<String>,
}

pub(super) async fn run(command: &Device, scene: &Scene) -> Result<(), Stop> {
    match command {
        Device::List { account, options } => list(account.as_deref(), options, scene).await,
        Device::Revoke { id, options } => {
            let id: DeviceId = id.parse().map_err(Stop::invalid)?;
            let desk = Desk::open(options, scene).await?;
            desk.store.revoke_device(id, wall()).await?;
            if options.json {
                return scene.output.json(&serde_json::json!({ "revoked": id }));
            }
            scene.output.note(&format!(
                "{id} is revoked; a running gateway ends its tunnel."
            ));
            Ok(())
        }
    }
}

async fn list(account: Option<&str>, options: &AdminOptions, scene: &Scene) -> Result<(), Stop> {
    let desk = Desk::open(options, scene).await?;
    let only = desk.only(account).await?;
    let names = desk.names().await?;
    let devices = desk.store.devices(only).await?;
    let devices: Vec<Shown> = devices
        .into_iter()
        .map(|row| Shown {
            id: row.id.to_string(),
            account: name_of(&names, row.account),
            key: row.key.to_string(),
            enrolled_at: moment(row.enrolled_at),
            certificate_ends_at: moment(row.not_after),
            seen_at: row.seen_at.map(moment),
            revoked_at: row.revoked_at.map(moment),
        })
        .collect();
    if options.json {
        return scene.output.json(&devices);
    }
    if devices.is_empty() {
        scene
            .output
            .note("No devices yet: synesis admin key create, then synesis cloud login there");
        return Ok(());
    }
    let revoked: Vec<bool> = devices
        .iter()
        .map(|device| device.revoked_at.is_some())
        .collect();
    let rows: Vec<Vec<String>> = devices
        .into_iter()
        .map(|d| {
            let state = d
                .revoked_at
                .map_or("valid".to_owned(), |at| format!("revoked {at}"));
            let seen = d.seen_at.unwrap_or_else(|| "never".to_owned());
            vec![
                d.id,
                d.account,
                d.enrolled_at,
                d.certificate_ends_at,
                seen,
                state,
            ]
        })
        .collect();
    let headings = [
        "ID",
        "ACCOUNT",
        "ENROLLED",
        "CERTIFICATE ENDS",
        "LAST SESSION",
        "STATE",
    ];
    scene.output.table(&headings, &rows, |row, column| {
        (column == 5 && revoked.get(row) == Some(&true)).then_some(Mark::Red)
    })
}
