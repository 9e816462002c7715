//! `synesis ledger …`: checking, exporting and sealing the books.

mod export;
mod head;
mod verify;

use super::args::Ledger;
use super::{Scene, Stop};

/// Runs one of them.
pub(super) async fn run(ledger: &Ledger, scene: &Scene) -> Result<(), Stop> {
    match ledger {
        Ledger::Verify {
            account,
            seal,
            options,
        } => verify::run(account.as_deref(), seal.as_deref(), options, scene).await,
        Ledger::Export {
            account,
            format,
            options,
        } => export::run(account.as_deref(), *format, options, scene).await,
        Ledger::Head { options } => head::run(options, scene).await,
    }
}
