//! `synesis admin key create|list|revoke`.

use mesh_core::identity::api_key::{self, ApiKey, Scopes};
use mesh_core::identity::join::JoinLine;
use mesh_core::ids::KeyId;
use serde::Serialize;

use super::{Desk, name_of};
use crate::cli::args::{AdminOptions, Key, Scope};
use crate::cli::output::Mark;
use crate::cli::{Scene, Stop, moment, wall};
use crate::gateway::store::{DeviceRow, NewKey};
use crate::random;

/// A new key, as `--json` shows it: the only time that it is shown.
#[derive(Serialize)]
struct Made {
    id: String,
    account: String,
    key: String,
    join_line: String,
}

/// One key, as `--json` shows it.
#[derive(Serialize)]
struct Shown {
    id: String,
    account: String,
    label: String,
    scopes: String,
    created_at: String,
    revoked_at: Option<String>,
}

pub(super) async fn run(command: &Key, scene: &Scene) -> Result<(), Stop> {
    match command {
        Key::Create {
            account,
            label,
            scope,
            options,
        } => create(account, label, scope, options, scene).await,
        Key::List { account, options } => list(account.as_deref(), options, scene).await,
        Key::Revoke {
            id,
            with_devices,
            options,
        } => revoke(id, *with_devices, options, scene).await,
    }
}

async fn create(
    account: &str,
    label: &str,
    scopes: &[Scope],
    options: &AdminOptions,
    scene: &Scene,
) -> Result<(), Stop> {
    let desk = Desk::open(options, scene).await?;
    let account = desk.account(account).await?;
    let ca = desk.pin().await?;
    let seed = random::seed()?;
    let key = ApiKey::random(&mut seed.secret("key"));
    let new = NewKey {
        id: KeyId::random(&mut seed.secret("key id")),
        account: account.id,
        label: label.to_owned(),
        hash: key.hash(),
        scopes: Scopes::of(scopes.iter().map(|scope| scope_of(*scope))),
    };
    let id = new.id.to_string();
    desk.store.create_key(new, wall()).await?;
    let url = desk.config.http_url(desk.config.http.listen);
    let join = JoinLine {
        url,
        key: key.clone(),
        ca,
    };
    if options.json {
        return scene.output.json(&Made {
            id,
            account: account.name,
            key: key.reveal().to_owned(),
            join_line: join.reveal(),
        });
    }
    scene.output.note(&format!(
        "Key {id} for account {}. On the device, run `synesis cloud login 'LINE'` with this line; it is shown once:",
        account.name
    ));
    scene.output.line(&join.reveal())
}

async fn list(account: Option<&str>, options: &AdminOptions, scene: &Scene) -> Result<(), Stop> {
    let desk = Desk::open(options, scene).await?;
    let only = desk.only(account).await?;
    let names = desk.names().await?;
    let keys = desk.store.keys(only).await?;
    let keys: Vec<Shown> = keys
        .into_iter()
        .map(|row| Shown {
            id: row.id.to_string(),
            account: name_of(&names, row.account),
            label: row.label,
            scopes: row.scopes.to_string(),
            created_at: moment(row.created_at),
            revoked_at: row.revoked_at.map(moment),
        })
        .collect();
    if options.json {
        return scene.output.json(&keys);
    }
    if keys.is_empty() {
        scene
            .output
            .note("No keys yet: synesis admin key create --account NAME");
        return Ok(());
    }
    let revoked: Vec<bool> = keys.iter().map(|key| key.revoked_at.is_some()).collect();
    let rows: Vec<Vec<String>> = keys
        .into_iter()
        .map(|k| {
            let state = k
                .revoked_at
                .map_or("valid".to_owned(), |at| format!("revoked {at}"));
            vec![k.id, k.account, k.label, k.scopes, k.created_at, state]
        })
        .collect();
    let headings = ["ID", "ACCOUNT", "LABEL", "SCOPES", "MADE", "STATE"];
    scene.output.table(&headings, &rows, |row, column| {
        (column == 5 && revoked.get(row) == Some(&true)).then_some(Mark::Red)
    })
}

async fn revoke(
    id: &str,
    with_devices: bool,
    options: &AdminOptions,
    scene: &Scene,
) -> Result<(), Stop> {
    let id: KeyId = id.parse().map_err(Stop::invalid)?;
    let desk = Desk::open(options, scene).await?;
    let devices = desk.store.revoke_key(id, with_devices, wall()).await?;
    if options.json {
        let ids: Vec<String> = devices.iter().map(|device| device.id.to_string()).collect();
        return scene.output.json(&serde_json::json!({
            "revoked": id,
            "devices": ids,
            "devices_revoked": with_devices,
        }));
    }
    scene
        .output
        .note(&format!("Key {id} is revoked: it enrols no more devices."));
    say_devices(&devices, with_devices, scene)
}

fn say_devices(devices: &[DeviceRow], revoked: bool, scene: &Scene) -> Result<(), Stop> {
    if devices.is_empty() {
        return Ok(());
    }
    scene.output.note(if revoked {
        "These devices, enrolled with it, are revoked too:"
    } else {
        "These devices, enrolled with it, stay valid (revoke them with --with-devices, or one by one):"
    });
    devices
        .iter()
        .try_for_each(|device| scene.output.line(&device.id.to_string()))
}

const fn scope_of(scope: Scope) -> api_key::Scope {
    match scope {
        Scope::Read => api_key::Scope::Read,
        Scope::Write => api_key::Scope::Write,
        Scope::Escalate => api_key::Scope::Escalate,
        Scope::Admin => api_key::Scope::Admin,
    }
}
