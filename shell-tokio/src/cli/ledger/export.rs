//! `synesis ledger export`: every entry, one line each.

use mesh_core::billing::ledger::{Charge, Entry, Record, Stored};
use mesh_core::billing::money::{Nanos, Overflow};
use mesh_core::billing::tier::Tier;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::cli::admin::Desk;
use crate::cli::args::{AdminOptions, ExportFormat};
use crate::cli::csv::{dollars, quoted};
use crate::cli::{Scene, Stop, moment};
use crate::gateway::store::AccountRow;

/// One entry as a line of JSON. `entry` is the text that was hashed, as it stands in the store.
#[derive(Serialize)]
struct Line<'a> {
    account: String,
    name: &'a str,
    sequence: u64,
    at: String,
    hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<Parts>,
    entry: &'a RawValue,
}

/// What a charge is made of.
#[derive(Clone, Copy, Serialize)]
struct Parts {
    base_nanos: i64,
    markup_nanos: i64,
    licence_fee_nanos: i64,
    charge_nanos: i64,
}

impl Parts {
    fn of(charge: &Charge) -> Result<Self, Overflow> {
        let (markup, fee) = match charge.tier {
            Tier::Managed { .. } => (charge.charge.minus(charge.base)?, Nanos::ZERO),
            Tier::Byok { .. } => (Nanos::ZERO, charge.charge),
            Tier::Free { .. } => (Nanos::ZERO, Nanos::ZERO),
        };
        Ok(Self {
            base_nanos: charge.base.0,
            markup_nanos: markup.0,
            licence_fee_nanos: fee.0,
            charge_nanos: charge.charge.0,
        })
    }
}

const HEADINGS: &str = "account,sequence,at,kind,request_or_reference,model,tier,prompt_tokens,\
                        completion_tokens,base,markup,licence_fee,charge,amount,hash";

pub(super) async fn run(
    account: Option<&str>,
    format: ExportFormat,
    options: &AdminOptions,
    scene: &Scene,
) -> Result<(), Stop> {
    let desk = Desk::open_to_look(options, scene).await?;
    let accounts = match account {
        Some(name) => vec![desk.account(name).await?],
        None => desk.store.accounts().await?,
    };
    if format == ExportFormat::Csv {
        scene.output.line(HEADINGS)?;
    }
    for account in &accounts {
        let mut from = 0;
        loop {
            let page = desk.store.entries(account.id, from).await?;
            let Some(last) = page.last() else { break };
            from = last.sequence + 1;
            for stored in &page {
                scene.output.line(&line(account, stored, format)?)?;
            }
        }
    }
    Ok(())
}

fn line(account: &AccountRow, stored: &Stored, format: ExportFormat) -> Result<String, Stop> {
    let entry: Entry = serde_json::from_str(&stored.canonical).map_err(Stop::internal)?;
    let parts = entry.record.charge().map(Parts::of).transpose();
    let parts = parts.map_err(Stop::internal)?;
    match format {
        ExportFormat::Jsonl => {
            let raw: &RawValue = serde_json::from_str(&stored.canonical).map_err(Stop::internal)?;
            let line = Line {
                account: account.id.to_string(),
                name: &account.name,
                sequence: stored.sequence,
                at: moment(entry.at),
                hash: stored.hash.to_string(),
                price: parts,
                entry: raw,
            };
            serde_json::to_string(&line).map_err(Stop::internal)
        }
        ExportFormat::Csv => Ok(comma_separated(account, stored, &entry, parts)),
    }
}

fn comma_separated(
    account: &AccountRow,
    stored: &Stored,
    entry: &Entry,
    parts: Option<Parts>,
) -> String {
    let nanos =
        |of: fn(Parts) -> i64| parts.map_or_else(String::new, |parts| dollars(Nanos(of(parts))));
    let charge = entry.record.charge();
    let text = |of: fn(&Charge) -> String| charge.map_or_else(String::new, of);
    let (kind, name, amount) = gist(&entry.record);
    let columns = [
        quoted(&account.name),
        stored.sequence.to_string(),
        moment(entry.at),
        kind.to_owned(),
        quoted(&name),
        text(|charge| quoted(&charge.model)),
        text(|charge| charge.tier.name().to_owned()),
        text(|charge| charge.tokens.prompt.to_string()),
        text(|charge| charge.tokens.completion.to_string()),
        nanos(|parts| parts.base_nanos),
        nanos(|parts| parts.markup_nanos),
        nanos(|parts| parts.licence_fee_nanos),
        nanos(|parts| parts.charge_nanos),
        amount.map_or_else(String::new, dollars),
        stored.hash.to_string(),
    ];
    columns.join(",")
}

/// What kind of entry it is, what it is filed under, and its amount where it is no charge.
fn gist(record: &Record) -> (&'static str, String, Option<Nanos>) {
    match record {
        Record::Opened { ceiling, .. } => ("opened", String::new(), Some(*ceiling)),
        Record::Charged(charge) => ("charged", charge.request.to_string(), None),
        Record::Lost(loss) => ("lost", loss.request.to_string(), Some(loss.base)),
        Record::Paid {
            reference, amount, ..
        } => ("paid", reference.to_string(), Some(*amount)),
        Record::Granted {
            reference, amount, ..
        } => ("granted", reference.to_string(), Some(*amount)),
        Record::Lapsed { credit, amount } => ("lapsed", credit.to_string(), Some(*amount)),
        Record::TierSet { reference, .. } => ("tier_set", reference.to_string(), None),
        Record::CeilingSet { reference, ceiling } => {
            ("ceiling_set", reference.to_string(), Some(*ceiling))
        }
        Record::Refunded(refunded) => (
            "refunded",
            refunded.undoes.to_string(),
            Some(refunded.amount),
        ),
        Record::Reversed { undoes, amount, .. } => ("reversed", undoes.to_string(), Some(*amount)),
        Record::Invoiced(invoiced) => (
            "invoiced",
            invoiced.reference.to_string(),
            invoiced.cents.to_nanos().ok(),
        ),
        Record::Collected { reference, amount } => {
            ("collected", reference.to_string(), Some(*amount))
        }
        Record::QuotaReset { reference } => ("quota_reset", reference.to_string(), None),
        Record::GuestSet { reference, cap, .. } => ("guest_set", reference.to_string(), *cap),
    }
}
