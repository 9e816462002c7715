//! One entry of a ledger, read from its text alone: none of the types that wrote it are used.

use std::collections::BTreeMap;

use serde_json::Value;

/// An entry.
#[derive(Clone, Debug)]
pub struct Line {
    /// The wall clock, ms since 1970.
    pub at_ms: u64,
    /// What moved, by account of the books.
    pub moved: BTreeMap<String, i128>,
    record: Value,
}

impl Line {
    /// Reads an entry's text.
    ///
    /// # Errors
    ///
    /// When it is no entry.
    pub fn read(text: &str) -> Result<Self, String> {
        let entry: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let mut moved: BTreeMap<String, i128> = BTreeMap::new();
        for movement in entry["movements"].as_array().ok_or("no movements")? {
            let book = movement["book"].as_str().ok_or("a movement of no book")?;
            *moved.entry(book.to_owned()).or_default() += number(&movement["amount"]);
        }
        Ok(Self {
            at_ms: entry["at"].as_u64().ok_or("no time")?,
            record: entry["record"].clone(),
            moved,
        })
    }

    /// What kind of entry.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.text("kind")
    }

    /// A text of its record; nothing where there is none.
    #[must_use]
    pub fn text(&self, field: &str) -> &str {
        self.record[field].as_str().unwrap_or_default()
    }

    /// A number of its record; zero where there is none.
    #[must_use]
    pub fn number(&self, field: &str) -> i128 {
        number(&self.record[field])
    }

    /// A number of its tokens.
    #[must_use]
    pub fn tokens(&self, field: &str) -> i128 {
        number(&self.record["tokens"][field])
    }

    /// The name of its tier.
    #[must_use]
    pub fn tier(&self) -> &str {
        self.record["tier"]["tier"].as_str().unwrap_or_default()
    }

    /// What credits have to do with it, in its own order.
    #[must_use]
    pub fn credits(&self) -> Vec<(String, i128)> {
        let all = self.record["credits"].as_array();
        let each = all.into_iter().flatten().map(|drawn| {
            let credit = drawn["credit"].as_str().unwrap_or_default();
            (credit.to_owned(), number(&drawn["amount"]))
        });
        each.collect()
    }

    /// The month of its time.
    #[must_use]
    pub fn month(&self) -> i128 {
        month_of(self.at_ms)
    }

    /// The request that it ends, if it does.
    #[must_use]
    pub fn ends(&self) -> Option<&str> {
        matches!(self.kind(), "charged" | "lost").then(|| self.text("request"))
    }
}

fn number(value: &Value) -> i128 {
    value.as_i64().map_or(0, i128::from)
}

/// Months since January of the year 0 (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms",
/// `civil_from_days`).
#[must_use]
pub fn month_of(at_ms: u64) -> i128 {
    let day = i128::from(at_ms / 86_400_000) + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let month = if march < 10 { march + 2 } else { march - 10 };
    (year + era * 400 + i128::from(march >= 10)) * 12 + month
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_those_of_the_calendar() {
        // `date -u -d @…`: 2026-11-18, the last second of November, the first of December, 2024-02-29.
        for (seconds, year, month) in [
            (1_795_000_000, 2026, 11),
            (1_796_083_199, 2026, 11),
            (1_796_083_200, 2026, 12),
            (1_709_164_800, 2024, 2),
            (1_798_761_600, 2027, 1),
        ] {
            assert_eq!(month_of(seconds * 1000), year * 12 + month - 1, "{seconds}");
        }
    }

    #[test]
    fn an_entry_is_read_from_its_text() {
        let text = concat!(
            r#"{"sequence":1,"at":1795000000000,"record":{"kind":"paid","reference":"pay:1","#,
            r#""amount":500,"settled":200},"movements":[{"book":"cash","amount":500},"#,
            r#"{"book":"owed","amount":-200},{"book":"prepaid","amount":-300}]}"#
        );
        let line = Line::read(text).unwrap();
        assert_eq!((line.kind(), line.number("settled")), ("paid", 200));
        assert_eq!(line.moved.values().sum::<i128>(), 0);
        assert_eq!((line.text("nothing"), line.number("nothing")), ("", 0));
        assert!(Line::read("{}").is_err());
    }
}
