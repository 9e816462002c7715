//! Calendar months and days, UTC.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, Days, NaiveDate};
use serde::{Deserialize, Serialize};

use crate::time::UnixMillis;

/// A calendar month (UTC): `2026-11`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Month(i32);

/// Why a text is no month or day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a month like 2026-11")]
pub struct NotMonth;

impl Month {
    /// The month of a moment.
    #[must_use]
    pub fn of(at: UnixMillis) -> Self {
        let date = date(at);
        Self(date.year() * 12 + i32::try_from(date.month0()).unwrap_or_default())
    }

    /// The month as one number, as a store keeps it: months since January of the year 0.
    #[must_use]
    pub const fn index(self) -> i32 {
        self.0
    }

    /// The month of such a number.
    #[must_use]
    pub const fn from_index(index: i32) -> Self {
        Self(index)
    }

    /// The month after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The month before it.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// Its first day.
    #[must_use]
    pub fn first_day(self) -> Day {
        let month = u32::try_from(self.0.rem_euclid(12)).unwrap_or_default() + 1;
        let first = NaiveDate::from_ymd_opt(self.0.div_euclid(12), month, 1);
        Day::of_date(first.unwrap_or_default())
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04}-{:02}",
            self.0.div_euclid(12),
            self.0.rem_euclid(12) + 1
        )
    }
}

impl FromStr for Month {
    type Err = NotMonth;

    fn from_str(text: &str) -> Result<Self, NotMonth> {
        let (year, month) = text.split_once('-').ok_or(NotMonth)?;
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if year.len() != 4 || month.len() != 2 || !digits(year) || !digits(month) {
            return Err(NotMonth);
        }
        let year: i32 = year.parse().map_err(|_| NotMonth)?;
        let month: i32 = month.parse().map_err(|_| NotMonth)?;
        if (1..=12).contains(&month) {
            Ok(Self(year * 12 + month - 1))
        } else {
            Err(NotMonth)
        }
    }
}

/// A calendar day (UTC), as days since 1970-01-01: `2026-11-26`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Day(i32);

impl Day {
    /// The day of a moment.
    #[must_use]
    pub fn of(at: UnixMillis) -> Self {
        Self::of_date(date(at))
    }

    fn of_date(date: NaiveDate) -> Self {
        let days = date.signed_duration_since(NaiveDate::default()).num_days();
        Self(i32::try_from(days).unwrap_or(i32::MAX))
    }

    /// The day as one number, as a store keeps it: days since 1970-01-01.
    #[must_use]
    pub const fn index(self) -> i32 {
        self.0
    }

    /// The day of such a number.
    #[must_use]
    pub const fn from_index(index: i32) -> Self {
        Self(index)
    }

    /// So many days before it.
    #[must_use]
    pub const fn before(self, days: i32) -> Self {
        Self(self.0.saturating_sub(days))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = Days::new(self.0.unsigned_abs().into());
        let epoch = NaiveDate::default();
        let date = if self.0 < 0 {
            epoch.checked_sub_days(days)
        } else {
            epoch.checked_add_days(days)
        };
        write!(f, "{}", date.unwrap_or_default().format("%Y-%m-%d"))
    }
}

fn date(at: UnixMillis) -> NaiveDate {
    let millis = i64::try_from(at.0).unwrap_or(i64::MAX);
    let moment = DateTime::from_timestamp_millis(millis).unwrap_or(DateTime::UNIX_EPOCH);
    moment.date_naive()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_and_days_are_utc() {
        // `date -u -d @1795000000`: 2026-11-18T11:06:40Z; 1 796 083 199.999 s is the last moment of November.
        for (millis, month, day) in [
            (1_795_000_000_000, "2026-11", "2026-11-18"),
            (1_796_083_199_999, "2026-11", "2026-11-30"),
            (1_796_083_200_000, "2026-12", "2026-12-01"),
            (0, "1970-01", "1970-01-01"),
        ] {
            let at = UnixMillis(millis);
            assert_eq!(Month::of(at).to_string(), month);
            assert_eq!(month.parse(), Ok(Month::of(at)));
            assert_eq!(Day::of(at).to_string(), day);
        }
        // As numbers: 2026 × 12 + 10, and `$(( 1795000000 / 86400 ))`.
        let november = Month::of(UnixMillis(1_795_000_000_000));
        assert_eq!(
            (november.index(), Month::from_index(24_322)),
            (24_322, november)
        );
        assert_eq!(Day::of(UnixMillis(1_795_000_000_000)).index(), 20_775);
        assert_eq!(november.first_day().to_string(), "2026-11-01");
        assert_eq!(november.next().next().to_string(), "2027-01");
        assert_eq!(november.previous().to_string(), "2026-10");
    }

    #[test]
    fn what_is_no_month_is_refused() {
        for text in [
            "",
            "2026",
            "2026-13",
            "2026-00",
            "2026-1",
            "26-11",
            "+026-11",
            "2026-11-1",
        ] {
            assert_eq!(text.parse::<Month>(), Err(NotMonth), "{text}");
        }
    }
}
