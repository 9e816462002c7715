//! The rows of the model table, each with its price: one that is known by a name, or one of its own.

use mesh_core::billing::money::Nanos;
use mesh_core::billing::price::litellm::Table;
use mesh_core::billing::price::{Price, Rates};

use super::prices;
use super::shape::ModelFile;
use crate::gateway::upstream::models::{Day, ModelRow, ModelTarget};

/// The version that prices of the configuration's own carry.
const CONFIGURED_PRICE_VERSION: u32 = 1000;

#[derive(Default)]
pub(super) struct Models {
    pub(super) rows: Vec<ModelRow>,
    /// Those that the rows name, beside the built-in ones.
    pub(super) prices: Vec<(String, Price)>,
}

impl Models {
    pub(super) fn read(files: Vec<ModelFile>, table: &Table) -> Result<Self, String> {
        let mut models = Self::default();
        for file in files {
            let row = row(file, table, &mut models.prices)?;
            models.rows.push(row);
        }
        Ok(models)
    }
}

fn row(
    file: ModelFile,
    table: &Table,
    prices: &mut Vec<(String, Price)>,
) -> Result<ModelRow, String> {
    let price =
        price_of(&file, table, prices).map_err(|why| format!("model {}: {why}", file.name))?;
    let retires: Option<Day> = match file.retires {
        Some(day) => Some(
            day.parse()
                .map_err(|error| format!("model {}: retires: {error}", file.name))?,
        ),
        None => None,
    };
    Ok(ModelRow {
        name: file.name,
        target: Some(ModelTarget {
            provider: file.provider,
            model: file.model,
        }),
        price,
        retires,
    })
}

/// The name of a row's price; one that is not built in is added to those that are known.
fn price_of(
    file: &ModelFile,
    table: &Table,
    prices: &mut Vec<(String, Price)>,
) -> Result<String, String> {
    let (name, price) = match (
        &file.price,
        &file.input_per_million,
        &file.output_per_million,
    ) {
        (Some(known), None, None) if Price::named(known).is_some() => return Ok(known.clone()),
        (Some(known), None, None) => {
            let price = prices::named(table, known)?.ok_or_else(|| {
                format!(
                    "there is no price {known:?}; give input_per_million and output_per_million, \
                     or a billing.price_file that has it"
                )
            })?;
            (known.clone(), price)
        }
        (None, Some(input), Some(output)) => {
            let own = Price::flat(CONFIGURED_PRICE_VERSION, rates(file, input, output)?);
            (format!("configured:{}", file.name), own)
        }
        (_, _, _) => {
            return Err(
                "give either price, or input_per_million and output_per_million".to_owned(),
            );
        }
    };
    prices.push((name.clone(), price));
    Ok(name)
}

/// What is not said of a cache costs what other input does.
fn rates(file: &ModelFile, input: &str, output: &str) -> Result<Rates, String> {
    let per_million = |text: &str| {
        picos_a_token(text).ok_or_else(|| {
            "prices are dollars per million tokens, with at most six decimals".to_owned()
        })
    };
    let input = per_million(input)?;
    let or_input = |text: &Option<String>| match text {
        Some(text) => per_million(text),
        None => Ok(input),
    };
    Ok(Rates {
        input,
        output: per_million(output)?,
        cache_read: or_input(&file.cache_read_per_million)?,
        cache_write: or_input(&file.cache_write_per_million)?,
    })
}

/// Dollars per million tokens as pico-dollars a token, if they are whole ones.
fn picos_a_token(text: &str) -> Option<u64> {
    let nanos = Nanos::parse_dollars(text).ok()?;
    (nanos.0 >= 0 && nanos.0 % 1000 == 0).then_some(nanos.0.unsigned_abs() / 1000)
}
