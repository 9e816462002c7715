//! What was used, added up: by month, day, model, device and project.
//!
//! Every entry of the ledger that moves usage adds to one [`Key`]; a store keeps the sums beside the
//! ledger and adds to them in the same transaction. They can be made anew from the ledger at any time.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::account::{Day, Month};
use super::ledger::Record;
use super::money::{Nanos, Overflow};
use super::tier::Tier;
use crate::ids::DeviceId;
use crate::time::UnixMillis;

/// What a sum is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// The month that it counts in.
    pub month: Month,
    /// The day (UTC) on which it happened.
    pub day: Day,
    /// The model, as it was asked for.
    pub model: String,
    /// The tier's name.
    pub tier: String,
    /// The device, where it is known.
    pub device: Option<DeviceId>,
    /// The project, where there is one.
    pub project: Option<String>,
}

/// What was used under one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Requests charged.
    pub requests: u64,
    /// Those of them whose tokens were estimated.
    pub estimated: u64,
    /// Tokens read, cached or not.
    pub prompt: u64,
    /// Tokens written.
    pub completion: u64,
    /// The part of `prompt` that was read from the provider's cache.
    pub cache_read: u64,
    /// The part of `prompt` that was written to the provider's cache.
    pub cache_write: u64,
    /// The provider's price.
    pub base: Nanos,
    /// Charged.
    pub charge: Nanos,
    /// Given back.
    pub refunded: Nanos,
    /// Of `charge` less `refunded`, what is within the ceiling and so on the month's invoice.
    pub postpaid: Nanos,
}

impl Sums {
    /// Both together.
    ///
    /// # Errors
    ///
    /// [`Overflow`] past the range of [`Nanos`].
    pub fn plus(&self, other: &Self) -> Result<Self, Overflow> {
        let add = |a: u64, b: u64| a.checked_add(b).ok_or(Overflow);
        Ok(Self {
            requests: add(self.requests, other.requests)?,
            estimated: add(self.estimated, other.estimated)?,
            prompt: add(self.prompt, other.prompt)?,
            completion: add(self.completion, other.completion)?,
            cache_read: add(self.cache_read, other.cache_read)?,
            cache_write: add(self.cache_write, other.cache_write)?,
            base: self.base.plus(other.base)?,
            charge: self.charge.plus(other.charge)?,
            refunded: self.refunded.plus(other.refunded)?,
            postpaid: self.postpaid.plus(other.postpaid)?,
        })
    }
}

/// What one entry adds, and to what. `month` is the account's after it.
///
/// # Errors
///
/// [`Overflow`] past the range of [`Nanos`].
pub fn added(
    record: &Record,
    at: UnixMillis,
    month: Month,
) -> Result<Option<(Key, Sums)>, Overflow> {
    let key = |month, model: &str, tier: &str| Key {
        month,
        day: Day::of(at),
        model: model.to_owned(),
        tier: tier.to_owned(),
        device: None,
        project: None,
    };
    Ok(match record {
        Record::Charged(charge) => {
            let of = Key {
                device: charge.device,
                project: charge.project.clone(),
                ..key(month, &charge.model, charge.tier.name())
            };
            let sums = Sums {
                requests: 1,
                estimated: u64::from(charge.estimated),
                prompt: charge.tokens.prompt,
                completion: charge.tokens.completion,
                cache_read: charge.tokens.cache_read,
                cache_write: charge.tokens.cache_write,
                base: charge.base,
                charge: charge.charge,
                refunded: Nanos::ZERO,
                postpaid: charge.postpaid()?,
            };
            Some((of, sums))
        }
        Record::Refunded(refunded) => {
            let sums = Sums {
                refunded: refunded.amount,
                postpaid: Nanos::ZERO.minus(refunded.postpaid)?,
                ..Sums::default()
            };
            Some((key(refunded.month, &refunded.model, REFUNDS), sums))
        }
        Record::Opened { .. }
        | Record::Paid { .. }
        | Record::Granted { .. }
        | Record::Lapsed { .. }
        | Record::TierSet { .. }
        | Record::CeilingSet { .. }
        | Record::Lost(_)
        | Record::Reversed { .. }
        | Record::Invoiced(_)
        | Record::Collected { .. }
        | Record::QuotaReset { .. }
        | Record::GuestSet { .. } => None,
    })
}

/// What stands in a refund's key in the tier's place.
pub const REFUNDS: &str = "refund";

/// What usage is added up by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Calendar days, UTC.
    #[default]
    Day,
    /// Models.
    Model,
    /// Devices.
    Device,
    /// Projects.
    Project,
}

/// Which usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// Today.
    Day,
    /// The last seven days, today included.
    Week,
    /// This month.
    #[default]
    Month,
    /// All there is.
    All,
}

impl Period {
    /// Its first day; today is `now`'s.
    #[must_use]
    pub fn since(self, now: UnixMillis) -> Day {
        let today = Day::of(now);
        match self {
            Self::Day => today,
            Self::Week => today.before(6),
            Self::Month => Month::of(now).first_day(),
            Self::All => Day::from_index(i32::MIN),
        }
    }
}

/// One line of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The day, model, device or project.
    pub label: String,
    /// What was used.
    #[serde(flatten)]
    pub sums: Sums,
    /// What was charged on top of the provider's price.
    pub markup: Nanos,
    /// What was charged for use of one's own provider key.
    pub licence_fee: Nanos,
}

/// Usage, added up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// By what.
    pub by: By,
    /// In the order of their labels.
    pub lines: Vec<Line>,
    /// All lines together.
    pub total: Line,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Day => "day",
            Self::Model => "model",
            Self::Device => "device",
            Self::Project => "project",
        })
    }
}

impl Line {
    fn new(label: String) -> Self {
        Self {
            label,
            sums: Sums::default(),
            markup: Nanos::ZERO,
            licence_fee: Nanos::ZERO,
        }
    }

    fn add(&mut self, tier: &str, sums: &Sums) -> Result<(), Overflow> {
        self.sums = self.sums.plus(sums)?;
        if tier == Tier::MANAGED.name() {
            self.markup = self.markup.plus(sums.charge.minus(sums.base)?)?;
        } else if tier == Tier::BYOK.name() {
            self.licence_fee = self.licence_fee.plus(sums.charge)?;
        }
        Ok(())
    }
}

/// Adds up usage.
///
/// # Errors
///
/// [`Overflow`] past the range of [`Nanos`].
pub fn report<'a>(
    rows: impl IntoIterator<Item = &'a (Key, Sums)>,
    by: By,
) -> Result<Report, Overflow> {
    let mut lines: BTreeMap<String, Line> = BTreeMap::new();
    let mut total = Line::new("total".to_owned());
    for (key, sums) in rows {
        let label = match by {
            By::Day => key.day.to_string(),
            By::Model => key.model.clone(),
            By::Device => key.device.map_or_else(String::new, |id| id.to_string()),
            By::Project => key.project.clone().unwrap_or_else(|| "default".to_owned()),
        };
        let line = lines.entry(label.clone());
        line.or_insert_with(|| Line::new(label))
            .add(&key.tier, sums)?;
        total.add(&key.tier, sums)?;
    }
    Ok(Report {
        by,
        lines: lines.into_values().collect(),
        total,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(day: i32, model: &str, tier: Tier, base: i64, charge: i64) -> (Key, Sums) {
        let key = Key {
            month: Month::from_index(24_322),
            day: Day::from_index(day),
            model: model.to_owned(),
            tier: tier.name().to_owned(),
            device: None,
            project: None,
        };
        let sums = Sums {
            requests: 1,
            base: Nanos(base),
            charge: Nanos(charge),
            ..Sums::default()
        };
        (key, sums)
    }

    #[test]
    fn lines_add_up_to_the_total_and_say_what_was_for_what() {
        let rows = [
            row(20_775, "a", Tier::MANAGED, 1000, 1030),
            row(20_775, "b", Tier::BYOK, 1000, 300),
            row(20_776, "a", Tier::MANAGED, 2000, 2060),
        ];
        let report = report(&rows, By::Day).unwrap();
        let lines: Vec<_> = report
            .lines
            .iter()
            .map(|line| {
                (
                    line.label.as_str(),
                    line.sums.charge.0,
                    line.markup.0,
                    line.licence_fee.0,
                )
            })
            .collect();
        assert_eq!(
            lines,
            [("2026-11-18", 1330, 30, 300), ("2026-11-19", 2060, 60, 0)]
        );
        let total = &report.total;
        assert_eq!((total.sums.charge, total.sums.requests), (Nanos(3390), 3));
        let models = super::report(&rows, By::Model).unwrap();
        assert_eq!(models.lines.len(), 2);
        assert_eq!(models.total, report.total);
        assert_eq!(
            super::report(&rows, By::Project).unwrap().lines[0].label,
            "default"
        );
    }

    #[test]
    fn a_period_begins_where_people_expect_it() {
        // 2026-11-18T11:06:40Z is day 20 775.
        let now = UnixMillis(1_795_000_000_000);
        assert_eq!(Period::Day.since(now).to_string(), "2026-11-18");
        assert_eq!(Period::Week.since(now).to_string(), "2026-11-12");
        assert_eq!(Period::Month.since(now).to_string(), "2026-11-01");
        assert!(Period::All.since(now) < Day::from_index(0));
    }
}
