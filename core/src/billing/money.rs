//! Nano-dollars: exact sums of money, with checked arithmetic only.
//!
//! An `i64` of nano-dollars reaches ±9.2 billion dollars. Overflow is an error value, never a wrap.

use std::fmt;

use serde::{Deserialize, Serialize};

const NANOS_PER_DOLLAR: i64 = 1_000_000_000;
const NANOS_PER_CENT: i64 = 10_000_000;

/// Nano-dollars (10⁻⁹ USD).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Nanos(pub i64);

/// Whole cents (US): only for invoices and the wire's advisory field.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Cents(pub i64);

impl Cents {
    /// Exactly as many nano-dollars.
    ///
    /// # Errors
    ///
    /// [`Overflow`] past the range of [`Nanos`].
    pub fn to_nanos(self) -> Result<Nanos, Overflow> {
        self.0
            .checked_mul(NANOS_PER_CENT)
            .map(Nanos)
            .ok_or(Overflow)
    }
}

impl fmt::Display for Cents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let cents = self.0.unsigned_abs();
        f.pad(&format!("{sign}${}.{:02}", cents / 100, cents % 100))
    }
}

/// A sum of money left the range of [`Nanos`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the amount is larger than the ledger can hold")]
pub struct Overflow;

/// Why a text is no amount of dollars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an amount in dollars; write it like 20, 0.25 or 0.010815 (at most nine decimals)")]
pub struct NotDollars;

impl Nanos {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Whether it is nothing.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        self.0 == 0
    }

    /// Whole dollars.
    ///
    /// # Errors
    ///
    /// [`Overflow`] past the range.
    pub fn from_dollars(dollars: i64) -> Result<Self, Overflow> {
        dollars
            .checked_mul(NANOS_PER_DOLLAR)
            .map(Self)
            .ok_or(Overflow)
    }

    /// The sum.
    ///
    /// # Errors
    ///
    /// [`Overflow`] past the range.
    pub fn plus(self, other: Self) -> Result<Self, Overflow> {
        self.0.checked_add(other.0).map(Self).ok_or(Overflow)
    }

    /// The difference.
    ///
    /// # Errors
    ///
    /// [`Overflow`] past the range.
    pub fn minus(self, other: Self) -> Result<Self, Overflow> {
        self.0.checked_sub(other.0).map(Self).ok_or(Overflow)
    }

    /// Whole cents, half to even: only for the wire's advisory field.
    #[must_use]
    pub const fn to_cents_half_even(self) -> i64 {
        let (cents, rest) = (
            self.0.div_euclid(NANOS_PER_CENT),
            self.0.rem_euclid(NANOS_PER_CENT),
        );
        let half = NANOS_PER_CENT / 2;
        if rest > half || (rest == half && cents % 2 != 0) {
            cents + 1
        } else {
            cents
        }
    }

    /// The whole cents in it, rounded down, and what is left over: never negative, less than a cent.
    #[must_use]
    pub const fn split_cents(self) -> (Cents, Self) {
        (
            Cents(self.0.div_euclid(NANOS_PER_CENT)),
            Self(self.0.rem_euclid(NANOS_PER_CENT)),
        )
    }

    /// Reads an amount in dollars, exactly, from its decimal text.
    ///
    /// # Errors
    ///
    /// [`NotDollars`] for anything but digits with at most nine decimals, or an amount out of range.
    pub fn parse_dollars(text: &str) -> Result<Self, NotDollars> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let digits = digits.strip_prefix('$').unwrap_or(digits);
        let (whole, decimals) = digits.split_once('.').unwrap_or((digits, "0"));
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole) || !is_number(decimals) || decimals.len() > 9 {
            return Err(NotDollars);
        }
        let nanos: i64 = format!("{whole}{decimals:0<9}")
            .parse()
            .map_err(|_| NotDollars)?;
        Ok(Self(if negative { -nanos } else { nanos }))
    }
}

/// Dollars with every decimal that counts, at least two: `$0.010815`, `$20.00`, `-$0.50`.
impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let nanos = self.0.unsigned_abs();
        let per_dollar = NANOS_PER_DOLLAR.unsigned_abs();
        let decimals = format!("{:09}", nanos % per_dollar);
        let shown = decimals.trim_end_matches('0');
        f.pad(&format!("{sign}${}.{shown:0<2}", nanos / per_dollar))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dollars_are_shown_exactly_and_never_as_nothing() {
        for (nanos, shown) in [
            (0, "$0.00"),
            (1, "$0.000000001"),
            (10_815_000, "$0.010815"),
            (103 * NANOS_PER_CENT, "$1.03"),
            (20 * NANOS_PER_DOLLAR, "$20.00"),
            (-500_000_000, "-$0.50"),
            (i64::MIN, "-$9223372036.854775808"),
        ] {
            assert_eq!(Nanos(nanos).to_string(), shown);
        }
    }

    #[test]
    fn cents_are_rounded_half_to_even() {
        for (nanos, cents) in [
            (4_999_999, 0),
            (5_000_000, 0),
            (5_000_001, 1),
            (15_000_000, 2),
            (-5_000_000, 0),
        ] {
            assert_eq!(Nanos(nanos).to_cents_half_even(), cents, "{nanos}");
        }
    }

    #[test]
    fn whole_cents_are_split_off_downwards() {
        for (nanos, cents, rest) in [
            (0, 0, 0),
            (9_999_999, 0, 9_999_999),
            (10_000_000, 1, 0),
            (1_030_000_001, 103, 1),
            (-1, -1, 9_999_999),
        ] {
            assert_eq!(Nanos(nanos).split_cents(), (Cents(cents), Nanos(rest)));
        }
        assert_eq!(Cents(103).to_nanos(), Ok(Nanos(1_030_000_000)));
        assert_eq!(Cents(i64::MAX).to_nanos(), Err(Overflow));
        assert_eq!(
            (Cents(10_815).to_string(), Cents(-5).to_string()),
            ("$108.15".to_owned(), "-$0.05".to_owned())
        );
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "1e3",
            "0.0000000001",
            "1,5",
            " 1",
            "--1",
            "9223372037",
        ] {
            assert_eq!(Nanos::parse_dollars(text), Err(NotDollars), "{text}");
        }
    }

    #[test]
    fn overflow_is_an_error_value() {
        assert_eq!(Nanos(i64::MAX).plus(Nanos(1)), Err(Overflow));
        assert_eq!(Nanos(i64::MIN).minus(Nanos(1)), Err(Overflow));
        assert_eq!(Nanos::from_dollars(i64::MAX), Err(Overflow));
    }

    proptest! {
        #[test]
        fn every_amount_reads_back_as_itself(nanos in (i64::MIN + 1)..=i64::MAX) {
            prop_assert_eq!(Nanos::parse_dollars(&Nanos(nanos).to_string()), Ok(Nanos(nanos)));
        }
    }
}
