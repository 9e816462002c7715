//! Invoices: whole cents, in lines by model and day that add up to the total.
//!
//! A month's spending within the ceiling is summed in nano-dollars, what earlier invoices left over is
//! added, whole cents of it are invoiced and the rest is carried on. Lines are nano-dollars too; their
//! cents are allocated by largest remainder, so that they always add up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::account::Day;
use super::ledger::Invoiced;
use super::money::{Cents, Nanos, Overflow};
use super::usage::{Key, Sums};

/// One month's invoice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invoice {
    /// `2026-11`.
    pub month: String,
    /// To be paid.
    pub total: Cents,
    /// Spent within the ceiling.
    pub spent: Nanos,
    /// Left over from before.
    pub carried_in: Nanos,
    /// Left over for the next.
    pub carried_out: Nanos,
    /// What makes up the total.
    pub lines: Vec<Line>,
}

/// One line of an invoice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The day (UTC), `2026-11-26`; none for what was left over from before.
    pub day: Option<String>,
    /// The model; none for what was left over from before.
    pub model: Option<String>,
    /// Requests charged.
    pub requests: u64,
    /// The provider's price, where the operator pays it.
    pub base: Nanos,
    /// Charged, less what was given back.
    pub charge: Nanos,
    /// The part of it that is within the ceiling, exactly.
    pub spent: Nanos,
    /// The line's share of the total.
    pub cents: Cents,
}

/// Makes the invoice of the usage that counts in it.
///
/// # Errors
///
/// [`Overflow`] past the range of [`Nanos`].
pub fn invoice<'a>(
    invoiced: &Invoiced,
    usage: impl IntoIterator<Item = &'a (Key, Sums)>,
) -> Result<Invoice, Overflow> {
    let mut sums: BTreeMap<(Day, &str), Sums> = BTreeMap::new();
    for (key, used) in usage {
        let line = sums.entry((key.day, &key.model)).or_default();
        *line = line.plus(used)?;
    }
    let mut lines = Vec::with_capacity(sums.len() + 1);
    if !invoiced.carried_in.is_zero() {
        lines.push(Line {
            day: None,
            model: None,
            requests: 0,
            base: Nanos::ZERO,
            charge: Nanos::ZERO,
            spent: invoiced.carried_in,
            cents: Cents(0),
        });
    }
    for ((day, model), used) in sums {
        lines.push(Line {
            day: Some(day.to_string()),
            model: Some(model.to_owned()),
            requests: used.requests,
            base: used.base,
            charge: used.charge.minus(used.refunded)?,
            spent: used.postpaid,
            cents: Cents(0),
        });
    }
    let spent: Vec<Nanos> = lines.iter().map(|line| line.spent).collect();
    for (line, cents) in lines.iter_mut().zip(allocate(&spent, invoiced.cents)) {
        line.cents = cents;
    }
    Ok(Invoice {
        month: invoiced.month.to_string(),
        total: invoiced.cents,
        spent: invoiced.spent,
        carried_in: invoiced.carried_in,
        carried_out: invoiced.carried_out,
        lines,
    })
}

/// Whole cents for each of these amounts so that they add up to `total`: each rounded down, and the
/// cents that are missing given to those with the largest remainders, the first of equal ones first
/// (A. Hamilton's method). What does not add up to `total` and less than a cent for each amount, as
/// when a debt of the operator's is carried on, is on the last line.
#[must_use]
pub fn allocate(amounts: &[Nanos], total: Cents) -> Vec<Cents> {
    let mut cents: Vec<Cents> = Vec::with_capacity(amounts.len());
    let mut remainders: Vec<(Nanos, usize)> = Vec::with_capacity(amounts.len());
    for (index, amount) in amounts.iter().enumerate() {
        let (whole, rest) = amount.split_cents();
        cents.push(whole);
        remainders.push((rest, index));
    }
    let given: i64 = cents
        .iter()
        .map(|cents| cents.0)
        .fold(0, i64::saturating_add);
    let mut missing = total.0.saturating_sub(given);
    remainders.sort_by_key(|(rest, index)| (std::cmp::Reverse(*rest), *index));
    for (_, index) in remainders {
        if missing <= 0 {
            break;
        }
        cents[index].0 += 1;
        missing -= 1;
    }
    if let Some(last) = cents.last_mut() {
        last.0 = last.0.saturating_add(missing);
    }
    cents
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::billing::account::Month;
    use crate::billing::account::order::Reference;

    const CENT: i64 = 10_000_000;

    fn nanos(amounts: &[i64]) -> Vec<Nanos> {
        amounts.iter().copied().map(Nanos).collect()
    }

    #[test]
    fn cents_go_to_the_largest_remainders() {
        // 1.5, 2.25 and 0.75 cents are 4.5: four cents, 1 + 2 + 0 and the missing one for 0.75.
        let amounts = nanos(&[15_000_000, 22_500_000, 7_500_000]);
        assert_eq!(allocate(&amounts, Cents(4)), [Cents(1), Cents(2), Cents(1)]);
        // Three thirds of a cent are one cent, for the first of equals.
        let thirds = nanos(&[3_333_334, 3_333_333, 3_333_333]);
        assert_eq!(allocate(&thirds, Cents(1)), [Cents(1), Cents(0), Cents(0)]);
        assert_eq!(allocate(&[], Cents(0)), []);
    }

    #[test]
    fn an_invoice_names_what_it_is_for() {
        let used = |day, model: &str, postpaid| {
            let key = Key {
                month: Month::from_index(24_322),
                day: Day::from_index(day),
                model: model.to_owned(),
                tier: "managed".to_owned(),
                device: None,
                project: None,
            };
            let sums = Sums {
                requests: 1,
                charge: Nanos(postpaid),
                postpaid: Nanos(postpaid),
                ..Sums::default()
            };
            (key, sums)
        };
        let usage = [
            used(20_775, "sonnet", 10_815_000),
            used(20_775, "sonnet", 10_815_000),
            used(20_776, "opus", 540_750_000),
        ];
        // 0.3 cents carried in, 2.163 + 54.075: 56.538 cents; 56 are invoiced.
        let invoiced = Invoiced {
            reference: Reference::new("invoice:2026-11").unwrap(),
            month: Month::from_index(24_322),
            after: Month::from_index(0),
            spent: Nanos(562_380_000),
            carried_in: Nanos(3_000_000),
            cents: Cents(56),
            carried_out: Nanos(5_380_000),
        };
        let invoice = invoice(&invoiced, &usage).unwrap();
        let lines: Vec<_> = invoice
            .lines
            .iter()
            .map(|line| (line.day.as_deref(), line.requests, line.cents.0))
            .collect();
        assert_eq!(
            lines,
            [
                (None, 0, 0),
                (Some("2026-11-18"), 2, 2),
                (Some("2026-11-19"), 1, 54)
            ]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn lines_add_up_to_the_invoice_and_none_is_off_by_a_cent(
            amounts in prop::collection::vec(0i64..50_000_000_000, 1..60), carried in 0..CENT,
        ) {
            let mut amounts = nanos(&amounts);
            amounts.insert(0, Nanos(carried));
            let sum: i64 = amounts.iter().map(|amount| amount.0).sum();
            let (total, _) = Nanos(sum).split_cents();
            let cents = allocate(&amounts, total);
            prop_assert_eq!(cents.iter().map(|cents| cents.0).sum::<i64>(), total.0);
            for (amount, cents) in amounts.iter().zip(cents) {
                prop_assert!((amount.0 - cents.0 * CENT).abs() < CENT);
            }
        }

        #[test]
        fn lines_add_up_also_when_something_was_given_back(
            amounts in prop::collection::vec(-50_000_000_000i64..50_000_000_000, 1..60),
        ) {
            let amounts = nanos(&amounts);
            let sum: i64 = amounts.iter().map(|amount| amount.0).sum();
            let total = if sum < 0 { Cents(0) } else { Nanos(sum).split_cents().0 };
            let cents = allocate(&amounts, total);
            prop_assert_eq!(cents.iter().map(|cents| cents.0).sum::<i64>(), total.0);
        }
    }
}
