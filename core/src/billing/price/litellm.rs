//! The price table that LiteLLM publishes (`model_prices_and_context_window.json`): one JSON object,
//! a member for each model, prices in dollars for one token.
//!
//! Decimals are read from the text, digit by digit, never through a float. What is no whole number of
//! pico-dollars is rounded up, and reported.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{LongContext, Price, Rates};
use crate::limits::PRICE_TABLE_BYTES_MAX;

/// Digits of a price beyond which it is no price.
const DIGITS_MAX: usize = 30;
/// Decimal places of a pico-dollar.
const PICO: i32 = 12;

/// What a table holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Prices by the model's name there.
    pub prices: BTreeMap<String, Price>,
    /// Models of which a price was rounded up to a whole pico-dollar.
    pub rounded: Vec<String>,
    /// Models that cannot be charged by it, and why.
    pub unusable: BTreeMap<String, Unusable>,
}

/// Why a model of the table cannot be charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It is not priced by tokens: images, audio, searches.
    #[error("it has no price for a token of input and of output")]
    NotByTokens,
    /// It has prices for several lengths of context, or lower ones for a longer.
    #[error("its prices for long contexts are none that can be charged; give its prices yourself")]
    ByContext,
    /// A price is not one.
    #[error("one of its prices is no amount")]
    Malformed,
}

/// Why a text is no table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Too large.
    #[error("a price table has at most {PRICE_TABLE_BYTES_MAX} bytes")]
    TooLarge,
    /// Not an object of models.
    #[error("not a price table: {0}")]
    Malformed(String),
}

/// The members of a JSON object in their order. A name that comes twice is refused: it would be open
/// which of the two counts.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;

        impl<'de> Visitor<'de> for Each {
            type Value = BTreeMap<String, &'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if members.contains_key(&name) {
                        return Err(A::Error::custom(format_args!("{name:?} comes twice")));
                    }
                    members.insert(name, value);
                }
                Ok(members)
            }
        }

        let members = deserializer.deserialize_map(Each)?;
        Ok(Self(members.into_iter().collect()))
    }
}

/// Reads a table; `version` is what every charge by it stores.
///
/// # Errors
///
/// [`TableError`] when the text as a whole is no table. A single model that is odd is in
/// [`Table::unusable`].
pub fn read(text: &str, version: u32) -> Result<Table, TableError> {
    if text.len() > PRICE_TABLE_BYTES_MAX {
        return Err(TableError::TooLarge);
    }
    let models: Members<'_> =
        serde_json::from_str(text).map_err(|error| TableError::Malformed(error.to_string()))?;
    let mut table = Table::default();
    for (name, raw) in models.0 {
        // An example entry that explains the fields in words.
        if name == "sample_spec" {
            continue;
        }
        match model(raw, version) {
            Ok((price, rounded)) => {
                if rounded {
                    table.rounded.push(name.clone());
                }
                table.prices.insert(name, price);
            }
            Err(why) => {
                table.unusable.insert(name, why);
            }
        }
    }
    Ok(table)
}

/// The members that give a price for a token, by what they are for.
const RATES: [&str; 4] = [
    "input_cost_per_token",
    "output_cost_per_token",
    "cache_read_input_token_cost",
    "cache_creation_input_token_cost",
];

/// A model's prices as they are read.
struct Reader<'a> {
    members: BTreeMap<String, &'a RawValue>,
    /// Whether one of them was rounded up.
    rounded: bool,
}

impl Reader<'_> {
    fn price(&mut self, name: &str) -> Result<Option<u64>, Unusable> {
        let Some(raw) = self.members.get(name).filter(|raw| raw.get() != "null") else {
            return Ok(None);
        };
        let (picos, up) = picos(raw.get()).ok_or(Unusable::Malformed)?;
        self.rounded |= up;
        Ok(Some(picos))
    }

    /// The prices whose members' names end so; what has none costs what it does `otherwise`.
    fn rates(&mut self, ending: &str, otherwise: Option<Rates>) -> Result<Rates, Unusable> {
        let [input, output, read, write] = RATES.map(|name| format!("{name}{ending}"));
        let input = self.price(&input)?.or(otherwise.map(|rates| rates.input));
        let output = self.price(&output)?.or(otherwise.map(|rates| rates.output));
        let (read, write) = (self.price(&read)?, self.price(&write)?);
        let (Some(input), Some(output)) = (input, output) else {
            return Err(Unusable::NotByTokens);
        };
        // A cached token without a price of its own costs what any other does, never less.
        let cached = |own: Option<u64>, short: fn(Rates) -> u64| {
            own.unwrap_or_else(|| otherwise.map_or(input, |rates| short(rates).max(input)))
        };
        Ok(Rates {
            input,
            output,
            cache_read: cached(read, |rates| rates.cache_read),
            cache_write: cached(write, |rates| rates.cache_write),
        })
    }

    /// The length over which a prompt is long, in thousands of tokens, where there is one.
    fn long_over(&self) -> Result<Option<(String, u64)>, Unusable> {
        let mut found: Option<(String, u64)> = None;
        for name in self.members.keys() {
            let Some((rate, rest)) = name.split_once("_above_") else {
                continue;
            };
            if !RATES.contains(&rate) {
                continue;
            }
            let thousands = rest.strip_suffix("k_tokens").ok_or(Unusable::ByContext)?;
            let plain = thousands.len() <= 6 && thousands.bytes().all(|b| b.is_ascii_digit());
            let over: u64 = thousands
                .parse()
                .ok()
                .filter(|_| plain)
                .ok_or(Unusable::ByContext)?;
            match &found {
                Some((_, known)) if *known != over * 1000 => return Err(Unusable::ByContext),
                Some(_) => {}
                None => found = Some((format!("_above_{rest}"), over * 1000)),
            }
        }
        Ok(found)
    }
}

fn model(raw: &RawValue, version: u32) -> Result<(Price, bool), Unusable> {
    let members: Members<'_> = serde_json::from_str(raw.get()).map_err(|_| Unusable::Malformed)?;
    let mut reader = Reader {
        members: members.0.into_iter().collect(),
        rounded: false,
    };
    let rates = reader.rates("", None)?;
    let mut price = Price::flat(version, rates);
    if let Some((ending, over)) = reader.long_over()? {
        let long = reader.rates(&ending, Some(rates))?;
        // A longer prompt that costs less would make a request cheaper by padding it.
        if !long.at_least(&rates) {
            return Err(Unusable::ByContext);
        }
        price.long = Some(LongContext { over, rates: long });
    }
    Ok((price, reader.rounded))
}

/// Dollars as pico-dollars, exactly or rounded up (and then `true`); `None` of what is no JSON number,
/// negative, or larger than there is room for.
fn picos(number: &str) -> Option<(u64, bool)> {
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        // Four digits are far beyond anything that could matter, and cannot overflow below.
        Some((mantissa, exponent)) if exponent.len() <= 5 => (
            mantissa,
            exponent
                .strip_prefix('+')
                .unwrap_or(exponent)
                .parse::<i32>()
                .ok()?,
        ),
        Some(_) => return None,
        None => (number, 0),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{part}");
    let digits = digits.trim_start_matches('0');
    if digits.len() > DIGITS_MAX || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if digits.is_empty() {
        return (!whole.is_empty()).then_some((0, false));
    }
    let value: u128 = digits.parse().ok()?;
    let power = exponent
        .checked_sub(i32::try_from(part.len()).ok()?)?
        .checked_add(PICO)?;
    if let Ok(power) = u32::try_from(power) {
        let picos = value.checked_mul(10u128.checked_pow(power)?)?;
        return u64::try_from(picos).ok().map(|picos| (picos, false));
    }
    let (picos, rest) = match 10u128.checked_pow(power.unsigned_abs()) {
        Some(unit) => (value / unit, value % unit),
        None => (0, value),
    };
    let up = rest > 0;
    u64::try_from(picos + u128::from(up))
        .ok()
        .map(|picos| (picos, up))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// In the published table's form; the figures are the providers' list prices.
    const TABLE: &str = r#"{
        "sample_spec": {"input_cost_per_token": "the price", "mode": "one of: chat, embedding"},
        "claude-sonnet": {"max_tokens": 64000, "input_cost_per_token": 3e-06, "output_cost_per_token": 1.5e-05,
            "cache_read_input_token_cost": 3e-07, "cache_creation_input_token_cost": 3.75e-06, "mode": "chat"},
        "gpt-4-turbo": {"input_cost_per_token": 0.00001, "output_cost_per_token": 0.00003, "supports_vision": true},
        "tiny": {"input_cost_per_token": 1.23456789e-10, "output_cost_per_token": 0.0},
        "long": {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6, "input_cost_per_token_above_200k_tokens": 2e-6,
            "output_cost_per_token_above_200k_tokens": 3e-6, "cache_read_input_token_cost": 1e-7,
            "cache_read_input_token_cost_above_200k_tokens": 2e-7},
        "cheaper": {"input_cost_per_token": 2e-6, "output_cost_per_token": 1e-6, "input_cost_per_token_above_128k_tokens": 1e-6},
        "many": {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6, "input_cost_per_token_above_128k_tokens": 2e-6,
            "output_cost_per_token_above_200k_tokens": 2e-6},
        "picture": {"input_cost_per_pixel": 1.9e-08, "output_cost_per_pixel": 0.0},
        "odd": {"input_cost_per_token": "free", "output_cost_per_token": -1}
    }"#;

    #[test]
    fn the_published_form_is_read_exactly_and_what_cannot_be_charged_is_named() {
        let table = read(TABLE, 9).unwrap();
        let sonnet = table.prices["claude-sonnet"];
        // $3, $15, $0.30 and $3.75 a million are as many micro-dollars, in millions.
        assert_eq!(
            sonnet,
            Price {
                version: 9,
                ..Price::CLAUDE_SONNET
            }
        );
        let turbo = Price {
            version: 9,
            ..Price::GPT4_TURBO
        };
        assert_eq!(table.prices["gpt-4-turbo"], turbo);
        // 123.456789 pico-dollars are 124.
        assert_eq!(table.prices["tiny"].rates.input, 124);
        // $1 and $1 a million, from 200 000 tokens on $2 and $3; cached ones $0.10 and $0.20.
        let long = table.prices["long"].long.unwrap();
        let rates = (long.rates.input, long.rates.output, long.rates.cache_read);
        assert_eq!(
            (long.over, rates),
            (200_000, (2_000_000, 3_000_000, 200_000))
        );
        assert_eq!(
            (table.rounded, table.prices.len()),
            (vec!["tiny".to_owned()], 4)
        );
        let why: Vec<_> = table
            .unusable
            .iter()
            .map(|(name, why)| (name.as_str(), *why))
            .collect();
        assert_eq!(
            why,
            [
                ("cheaper", Unusable::ByContext),
                ("many", Unusable::ByContext),
                ("odd", Unusable::Malformed),
                ("picture", Unusable::NotByTokens),
            ]
        );
    }

    #[test]
    fn hostile_texts_are_refused_in_bounded_time() {
        for bad in ["", "[]", "null", "{\"a\":", "{\"a\":{},\"a\":{}}", "{} {}"] {
            assert!(
                matches!(read(bad, 1), Err(TableError::Malformed(_))),
                "{bad:?}"
            );
        }
        assert_eq!(
            read(&" ".repeat(PRICE_TABLE_BYTES_MAX + 1), 1),
            Err(TableError::TooLarge)
        );
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let _whatever = read(&deep, 1);
        for number in [
            "1e999999999",
            "1e99999",
            "-1",
            "NaN",
            "1e-",
            "0x1",
            "1e40",
            &"9".repeat(31),
        ] {
            assert_eq!(picos(number), None, "{number}");
        }
        let twice = r#"{"m":{"input_cost_per_token":1,"input_cost_per_token":2,"output_cost_per_token":1}}"#;
        assert_eq!(read(twice, 1).unwrap().unusable["m"], Unusable::Malformed);
    }

    #[test]
    fn numbers_in_every_spelling() {
        for (text, expected) in [
            ("0", (0, false)),
            ("0.0", (0, false)),
            ("1", (1_000_000_000_000, false)),
            ("3e-6", (3_000_000, false)),
            ("3E-06", (3_000_000, false)),
            ("0.000003", (3_000_000, false)),
            ("30e-07", (3_000_000, false)),
            ("1.5e+0", (1_500_000_000_000, false)),
            ("1e-12", (1, false)),
            ("1e-13", (1, true)),
            ("1e-9999", (1, true)),
            ("1.0000000000001", (1_000_000_000_001, true)),
        ] {
            assert_eq!(picos(text), Some(expected), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn however_a_price_is_spelled_it_is_the_same_pico_dollars(
            picos_of in 0u64..1_000_000_000_000_000, shift in 0usize..20,
        ) {
            let plain = format!("{picos_of}e-12");
            prop_assert_eq!(picos(&plain), Some((picos_of, false)));
            // The point moved to the left by `shift`, and the exponent with it.
            let digits = format!("{picos_of:0>21}");
            let (whole, part) = digits.split_at(digits.len() - shift);
            let exponent = i32::try_from(shift).unwrap_or_default() - 12;
            let moved = format!("{whole}.{part}0e{exponent}");
            prop_assert_eq!(picos(&moved), Some((picos_of, false)));
        }
    }
}
