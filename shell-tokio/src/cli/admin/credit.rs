//! `synesis admin credit`: money for an account, from the operator's own hand.

use mesh_core::billing::account::order::What;
use mesh_core::billing::ledger::Record;
use mesh_core::billing::money::Nanos;
use mesh_core::time::UnixMillis;
use serde::Serialize;

use super::{Carried, Desk};
use crate::cli::args::Credit;
use crate::cli::{Scene, Stop, moment};
use crate::gateway::upstream::models::{Day, DayError};

/// What `--json` prints.
#[derive(Serialize)]
struct Shown {
    account: String,
    reference: String,
    amount: String,
    amount_nanos: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    repeated: bool,
    available: String,
    available_nanos: i64,
    owed_nanos: i64,
}

pub(super) async fn run(credit: &Credit, scene: &Scene) -> Result<(), Stop> {
    let what = match credit.expires {
        None => What::Pay {
            amount: credit.amount,
        },
        Some(expires_at) => What::Grant {
            amount: credit.amount,
            expires_at,
        },
    };
    let desk = Desk::open(&credit.options, scene).await?;
    let Carried {
        account,
        reference,
        done,
        summary,
    } = desk
        .order(&credit.account, credit.reference.as_ref(), what)
        .await?;
    if credit.options.json {
        return scene.output.json(&Shown {
            account: account.id.to_string(),
            reference: reference.to_string(),
            amount: credit.amount.to_string(),
            amount_nanos: credit.amount.0,
            expires_at: credit.expires.map(moment),
            repeated: done.repeated,
            available: summary.available.to_string(),
            available_nanos: summary.available.0,
            owed_nanos: summary.owed.0,
        });
    }
    let settled = if let Record::Paid { settled, .. } = &done.record
        && *settled > Nanos::ZERO
    {
        format!(", of which {settled} pay what was owed")
    } else {
        String::new()
    };
    let verb = if done.repeated { "had" } else { "has" };
    let until = credit
        .expires
        .map_or_else(String::new, |end| format!(" until {}", moment(end)));
    scene.output.line(&format!(
        "{} {verb} {} more{until}{settled}; {} can be spent. Reference {reference}",
        account.name, credit.amount, summary.available
    ))
}

/// The end of a day (UTC), `2026-12-31`.
pub(in crate::cli) fn end_of_day(text: &str) -> Result<UnixMillis, String> {
    let day: Day = text.parse().map_err(|error: DayError| error.to_string())?;
    day.ends_at()
        .ok_or_else(|| format!("{day} is too far away"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_at_midnight_utc() {
        // 2026-12-31 ends when 2027 begins: 1 798 761 600 s.
        assert_eq!(end_of_day("2026-12-31"), Ok(UnixMillis(1_798_761_600_000)));
        for bad in [
            "",
            "2026-02-30",
            "31.12.2026",
            "1969-01-01",
            "2026-12-31T00:00",
            "99999-01-01",
        ] {
            assert!(end_of_day(bad).is_err(), "{bad:?}");
        }
    }
}
