//! The model table: the names that devices ask for, and what stands behind each.
//!
//! | name | provider | model | price |
//! |---|---|---|---|
//! | `claude_sonnet` | `anthropic` | `claude-sonnet-4-6` | `claude_sonnet` |
//! | `claude_opus` | `anthropic` | `claude-opus-4-8` | `claude_opus` |
//! | `gpt4_turbo` | (the operator's choice: the provider has retired it) | | `gpt4_turbo` |
//! | `loopback` | `loopback` | `synesis-echo` | `free` |
//! | `auto` | the row that `default_model` names | | |
//!
//! A row of the configuration replaces the built-in row of its name.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use mesh_core::time::UnixMillis;

use super::{LOOPBACK, loopback};

/// The name that stands for the configured default.
pub const AUTO: &str = "auto";
/// The price of what costs nothing.
pub const PRICE_FREE: &str = "free";
/// A model that is retired within this many days is warned of.
const RETIREMENT_WARNING_DAYS: i32 = 60;

/// A calendar day (UTC), written `YYYY-MM-DD`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(time::Date);

/// A text that is no day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a day as YYYY-MM-DD")]
pub struct DayError;

impl Day {
    /// The day of a moment, given in seconds since 1970-01-01T00:00:00 UTC.
    #[must_use]
    pub fn from_unix_secs(secs: u64) -> Option<Self> {
        let moment = time::UtcDateTime::from_unix_timestamp(i64::try_from(secs).ok()?).ok()?;
        Some(Self(moment.date()))
    }

    /// The moment at which it is over; `None` before 1970 and beyond the calendar.
    #[must_use]
    pub fn ends_at(self) -> Option<UnixMillis> {
        let next = self.0.next_day()?.with_time(time::Time::MIDNIGHT);
        let secs = u64::try_from(next.assume_utc().unix_timestamp()).ok()?;
        secs.checked_mul(1000).map(UnixMillis)
    }

    fn days_after(self, earlier: Self) -> i32 {
        self.0.to_julian_day() - earlier.0.to_julian_day()
    }
}

impl FromStr for Day {
    type Err = DayError;

    fn from_str(text: &str) -> Result<Self, DayError> {
        let part = |range: std::ops::Range<usize>| {
            let digits = text.get(range).ok_or(DayError)?;
            let fine = digits.bytes().all(|byte| byte.is_ascii_digit());
            if fine {
                digits.parse::<u16>().map_err(|_| DayError)
            } else {
                Err(DayError)
            }
        };
        let dashes = [4, 7]
            .iter()
            .all(|&at| text.as_bytes().get(at) == Some(&b'-'));
        if text.len() != 10 || !dashes {
            return Err(DayError);
        }
        let month = u8::try_from(part(5..7)?).map_err(|_| DayError)?;
        let month = time::Month::try_from(month).map_err(|_| DayError)?;
        let day = u8::try_from(part(8..10)?).map_err(|_| DayError)?;
        let date = time::Date::from_calendar_date(i32::from(part(0..4)?), month, day);
        date.map(Self).map_err(|_| DayError)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.0.to_calendar_date();
        write!(f, "{year:04}-{:02}-{day:02}", u8::from(month))
    }
}

impl fmt::Debug for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What stands behind a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRow {
    /// What devices ask for.
    pub name: String,
    /// The provider's name in the configuration and its own name of the model; `None` while the
    /// operator has to choose.
    pub target: Option<ModelTarget>,
    /// The name of its price.
    pub price: String,
    /// The day from which the provider may refuse it, if it has said one.
    pub retires: Option<Day>,
}

/// Where a name leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelTarget {
    /// The provider's name in the configuration.
    pub provider: String,
    /// The provider's own name of the model.
    pub model: String,
}

impl ModelRow {
    /// A row that leads somewhere, without a day of retirement.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        provider: impl Into<String>,
        model: impl Into<String>,
        price: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            target: Some(ModelTarget {
                provider: provider.into(),
                model: model.into(),
            }),
            price: price.into(),
            retires: None,
        }
    }
}

/// The rows that are there unless the configuration says otherwise. The providers' days are their
/// "not sooner than": a year after each model's release.
fn builtin() -> [ModelRow; 4] {
    let retiring = |row: ModelRow, day: &str| ModelRow {
        retires: day.parse().ok(),
        ..row
    };
    [
        retiring(
            ModelRow::new(
                "claude_sonnet",
                "anthropic",
                "claude-sonnet-4-6",
                "claude_sonnet",
            ),
            "2027-02-17",
        ),
        retiring(
            ModelRow::new("claude_opus", "anthropic", "claude-opus-4-8", "claude_opus"),
            "2027-05-28",
        ),
        ModelRow {
            name: "gpt4_turbo".to_owned(),
            target: None,
            price: "gpt4_turbo".to_owned(),
            retires: None,
        },
        ModelRow::new(LOOPBACK, LOOPBACK, loopback::MODEL, PRICE_FREE),
    ]
}

/// Why a model table cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelTableError {
    /// `auto` is not a row: it stands for one.
    #[error("a model cannot be called {AUTO}; set default_model instead")]
    Auto,
    /// The same name twice.
    #[error("model {0} is configured twice")]
    Twice(String),
    /// No such row.
    #[error("default_model is {name}, which is no model of this gateway; it has {known}")]
    Default {
        /// What was named.
        name: String,
        /// What there is.
        known: String,
    },
}

/// All rows, and which of them `auto` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelTable {
    rows: BTreeMap<String, ModelRow>,
    default_model: String,
}

impl ModelTable {
    /// The built-in rows, with the configured ones in place of or beside them.
    ///
    /// # Errors
    ///
    /// See [`ModelTableError`].
    pub fn new(
        configured: impl IntoIterator<Item = ModelRow>,
        default_model: impl Into<String>,
    ) -> Result<Self, ModelTableError> {
        let mut rows = BTreeMap::new();
        for row in configured {
            if row.name == AUTO {
                return Err(ModelTableError::Auto);
            }
            if let Some(row) = rows.insert(row.name.clone(), row) {
                return Err(ModelTableError::Twice(row.name));
            }
        }
        for row in builtin() {
            rows.entry(row.name.clone()).or_insert(row);
        }
        let default_model = default_model.into();
        if !rows.contains_key(&default_model) {
            let known: Vec<&str> = rows.keys().map(String::as_str).collect();
            return Err(ModelTableError::Default {
                name: default_model,
                known: known.join(", "),
            });
        }
        Ok(Self {
            rows,
            default_model,
        })
    }

    /// Every row, by name.
    pub fn rows(&self) -> impl Iterator<Item = &ModelRow> {
        self.rows.values()
    }

    /// The row of that name; `auto` is the default's.
    #[must_use]
    pub fn row(&self, name: &str) -> Option<&ModelRow> {
        let name = if name == AUTO {
            &self.default_model
        } else {
            name
        };
        self.rows.get(name)
    }

    /// The name that `auto` stands for.
    #[must_use]
    pub fn default_model(&self) -> &str {
        &self.default_model
    }

    /// The rows that can be answered, given which providers there are.
    pub fn served<'a>(
        &'a self,
        has_provider: impl Fn(&str) -> bool + 'a,
    ) -> impl Iterator<Item = (&'a ModelRow, &'a ModelTarget)> {
        self.rows.values().filter_map(move |row| {
            let target = row
                .target
                .as_ref()
                .filter(|target| has_provider(&target.provider))?;
            Some((row, target))
        })
    }

    /// What the operator should know: models that are or will soon be gone, and a default that
    /// nobody answers. One sentence each.
    #[must_use]
    pub fn warnings(&self, today: Day, has_provider: impl Fn(&str) -> bool) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(row) = self.row(AUTO) {
            match &row.target {
                None => warnings.push(format!(
                    "{} is the default model, but the provider has retired it: configure the \
                     provider and model that are to answer for it",
                    row.name
                )),
                Some(target) if !has_provider(&target.provider) => warnings.push(format!(
                    "{} is the default model, but its provider {} is not configured",
                    row.name, target.provider
                )),
                Some(_) => {}
            }
        }
        for (row, target) in self.served(&has_provider) {
            let Some(day) = row.retires else { continue };
            let days = day.days_after(today);
            if days <= 0 {
                warnings.push(format!(
                    "{} ({}) may be refused by {} since {day}: configure its successor",
                    row.name, target.model, target.provider
                ));
            } else if days <= RETIREMENT_WARNING_DAYS {
                warnings.push(format!(
                    "{} ({}) may be retired by {} from {day} on, in {days} days",
                    row.name, target.model, target.provider
                ));
            }
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> Day {
        text.parse().unwrap()
    }

    #[test]
    fn days_are_read_and_written_one_way() {
        assert_eq!(day("2024-02-29").to_string(), "2024-02-29");
        // 2026-11-23T22:45:12Z, by `date -u +%s`.
        assert_eq!(Day::from_unix_secs(1_795_473_912), Some(day("2026-11-23")));
        assert_eq!(day("2027-01-01").days_after(day("2026-11-23")), 39);
        for wrong in [
            "2023-02-29",
            "2024-2-29",
            "24-02-2024",
            "2024-13-01",
            "2024-00-10",
            "",
            "2024-01-1x",
            "+024-01-01",
        ] {
            assert_eq!(wrong.parse::<Day>(), Err(DayError), "{wrong}");
        }
    }

    #[test]
    fn configured_rows_replace_built_in_ones_and_auto_is_the_default() {
        let own = ModelRow::new("gpt4_turbo", "openai", "gpt-5", "gpt4_turbo");
        let table = ModelTable::new([own.clone()], "gpt4_turbo").unwrap();
        assert_eq!(table.row(AUTO), Some(&own));
        assert_eq!(table.row("claude_sonnet").unwrap().price, "claude_sonnet");
        assert_eq!(table.row("nope"), None);
        let served: Vec<&str> = table
            .served(|p| p == "openai" || p == LOOPBACK)
            .map(|(row, _)| row.name.as_str())
            .collect();
        assert_eq!(served, ["gpt4_turbo", "loopback"]);
    }

    #[test]
    fn tables_that_contradict_themselves_are_refused() {
        let row = |name: &str| ModelRow::new(name, "p", "m", "free");
        assert_eq!(
            ModelTable::new([row("auto")], "loopback"),
            Err(ModelTableError::Auto)
        );
        let twice = Err(ModelTableError::Twice("a".to_owned()));
        assert_eq!(ModelTable::new([row("a"), row("a")], "a"), twice);
        let refused = ModelTable::new([], "b").unwrap_err().to_string();
        assert_eq!(
            refused,
            "default_model is b, which is no model of this gateway; \
             it has claude_opus, claude_sonnet, gpt4_turbo, loopback"
        );
    }

    #[test]
    fn the_operator_is_warned_of_what_is_gone_or_soon_will_be() {
        let retiring = ModelRow {
            retires: Some(day("2026-12-31")),
            ..ModelRow::new("a", "p", "m-1", "free")
        };
        let table = ModelTable::new([retiring], "a").unwrap();
        let on = |today: &str| table.warnings(day(today), |provider| provider == "p");
        assert_eq!(on("2026-10-31"), Vec::<String>::new());
        assert_eq!(
            on("2026-11-01"),
            ["a (m-1) may be retired by p from 2026-12-31 on, in 60 days"]
        );
        assert_eq!(
            on("2026-12-31"),
            ["a (m-1) may be refused by p since 2026-12-31: configure its successor"]
        );
        let unserved = table.warnings(day("2026-12-31"), |_| false);
        assert_eq!(
            unserved,
            ["a is the default model, but its provider p is not configured"]
        );
        let retired = ModelTable::new([], "gpt4_turbo").unwrap();
        assert_eq!(retired.warnings(day("2026-01-01"), |_| true).len(), 1);
    }
}
