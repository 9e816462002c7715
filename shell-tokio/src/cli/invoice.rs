//! `synesis cloud invoice`: what a month came to, in lines that add up.

use mesh_core::api::account::InvoiceQuery;
use mesh_core::api::{Method, Params};
use mesh_core::billing::invoice::Invoice;

use super::args;
use super::link::Link;
use super::output::grouped;
use super::{Scene, Stop};
use crate::error::Error;

/// Shows it.
pub(super) async fn run(wish: &args::Invoice, scene: &Scene) -> Result<(), Stop> {
    let query = InvoiceQuery {
        month: wish.month.clone(),
    };
    let params = Params::new(&query).map_err(Error::from)?;
    let spinner = scene.output.spinner("asking the gateway");
    let link = Link::open(scene).await?;
    let asked = link.call(Method::AccountInvoice, params).await;
    drop(spinner);
    link.close().await;
    let invoice: Invoice = asked?;
    if wish.json {
        return scene.output.json(&invoice);
    }
    let rows: Vec<Vec<String>> = invoice
        .lines
        .iter()
        .map(|line| {
            let day = line.day.clone();
            let model = line.model.clone();
            vec![
                day.unwrap_or_else(|| "before".to_owned()),
                model.unwrap_or_else(|| "left over from the last invoice".to_owned()),
                grouped(line.requests),
                line.base.to_string(),
                line.charge.to_string(),
                line.spent.to_string(),
                line.cents.to_string(),
            ]
        })
        .collect();
    let headings = [
        "DAY", "MODEL", "REQUESTS", "BASE", "CHARGE", "POSTPAID", "TO PAY",
    ];
    scene.output.table(&headings, &rows, |_, _| None)?;
    scene.output.line(&format!(
        "\n{}: {} to pay. {} was spent within the ceiling, {} came over from before, {} is carried on.",
        invoice.month, invoice.total, invoice.spent, invoice.carried_in, invoice.carried_out
    ))
}
