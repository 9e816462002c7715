//! `synesis admin credit`: money for an account, from the operator's own hand.

use mesh_core::billing::account::order::{Order, Reference, What};
use mesh_core::billing::ledger::Record;
use mesh_core::billing::money::Nanos;
use mesh_core::ids::AccountId;
use mesh_core::time::UnixMillis;
use serde::Serialize;
use time::{Date, Month, Time};

use super::Desk;
use crate::cli::args::Credit;
use crate::cli::{Scene, Stop, moment, wall};
use crate::random;

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
    let desk = Desk::open(&credit.options, scene)?;
    let account = desk.account(&credit.account).await?;
    let reference = match &credit.reference {
        Some(reference) => reference.clone(),
        None => fresh("admin")?,
    };
    let order = Order {
        reference: reference.clone(),
        what,
    };
    let done = desk.store.order(account.id, order, wall()).await?;
    let summary = desk.store.summary(account.id, wall()).await?;
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
    let settled = match &done.record {
        Record::Paid { settled, .. } if *settled > Nanos::ZERO => {
            format!(", of which {settled} pay what was owed")
        }
        Record::Opened { .. }
        | Record::Charged(_)
        | Record::Paid { .. }
        | Record::Granted { .. }
        | Record::Lapsed { .. }
        | Record::TierSet { .. }
        | Record::CeilingSet { .. } => String::new(),
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

/// A reference that nobody has used.
pub(super) fn fresh(prefix: &str) -> Result<Reference, Stop> {
    let id = AccountId::random(&mut random::seed()?.secret("order"));
    Reference::new(format!("{prefix}:{:032x}", id.as_u128())).map_err(Stop::internal)
}

/// The end of a day (UTC), `2026-12-31`.
pub(in crate::cli) fn end_of_day(text: &str) -> Result<UnixMillis, String> {
    let wrong = || format!("{text:?} is no date; write it like 2026-12-31");
    let mut parts = text.splitn(3, '-');
    let mut number = |digits: usize| {
        let part = parts.next().filter(|part| part.len() == digits);
        let part = part.filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        part.and_then(|part| part.parse::<u16>().ok())
            .ok_or_else(wrong)
    };
    let (year, month, day) = (number(4)?, number(2)?, number(2)?);
    let small = |number: u16| u8::try_from(number).map_err(|_| wrong());
    let month = Month::try_from(small(month)?).map_err(|_| wrong())?;
    let date = Date::from_calendar_date(year.into(), month, small(day)?).map_err(|_| wrong())?;
    let next = date.next_day().ok_or_else(wrong)?;
    let millis = next.with_time(Time::MIDNIGHT).assume_utc().unix_timestamp();
    let millis = u64::try_from(millis)
        .ok()
        .and_then(|secs| secs.checked_mul(1000));
    millis.map(UnixMillis).ok_or_else(wrong)
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
