//! `synesis ledger head`: where all chains end, sealed.

use crate::cli::admin::Desk;
use crate::cli::args::AdminOptions;
use crate::cli::output::grouped;
use crate::cli::{Scene, Stop, moment, wall};
use crate::gateway::chores;
use crate::gateway::keys::Keys;

pub(super) async fn run(options: &AdminOptions, scene: &Scene) -> Result<(), Stop> {
    let desk = Desk::open_to_look(options, scene).await?;
    let keys = Keys::open_existing(&desk.config.ca_dir())?;
    let seal = chores::seal(&desk.store, &keys, wall()).await?;
    if options.json {
        return scene.output.json(&seal);
    }
    let names = desk.store.accounts().await?;
    let rows: Vec<Vec<String>> = seal
        .heads
        .iter()
        .map(|(account, head)| {
            let name = names.iter().find(|row| row.id == *account);
            let name = name.map_or_else(|| account.to_string(), |row| row.name.clone());
            vec![name, grouped(head.entries), head.hash.to_string()]
        })
        .collect();
    scene
        .output
        .table(&["ACCOUNT", "ENTRIES", "HEAD"], &rows, |_, _| None)?;
    scene.output.note(&format!(
        "Sealed at {}: root {}. Keep the seal elsewhere with --json; `synesis ledger verify --seal` \
         checks against it.",
        moment(seal.at),
        seal.root
    ));
    Ok(())
}
