//! What an account is charged on top of, or instead of, the provider's price.

use serde::{Deserialize, Serialize};

use super::money::Nanos;
use super::price::WHOLE_BPS;

/// How an account is charged. Rates are in basis points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "tier", rename_all = "snake_case")]
pub enum Tier {
    /// Nothing, within a monthly quota measured in the provider's price.
    Free {
        /// Each month (UTC).
        monthly_quota: Nanos,
    },
    /// The provider's price and a markup.
    Managed {
        /// On top of the provider's price.
        markup_bps: u32,
    },
    /// The account's own provider key pays the provider; a licence fee is charged.
    Byok {
        /// Of the provider's price.
        fee_bps: u32,
    },
}

/// A tier without its rates, as people name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TierName {
    /// Nothing, within a monthly quota.
    Free,
    /// The provider's price and a markup.
    Managed,
    /// The account's own provider keys, and a licence fee.
    Byok,
}

impl std::str::FromStr for TierName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "free" => Ok(Self::Free),
            "managed" => Ok(Self::Managed),
            "byok" => Ok(Self::Byok),
            _ => Err("there are the tiers free, managed and byok"),
        }
    }
}

impl Tier {
    /// The default: the provider's price and 3 %.
    pub const MANAGED: Self = Self::Managed { markup_bps: 300 };
    /// A licence fee of 30 %.
    pub const BYOK: Self = Self::Byok { fee_bps: 3000 };

    /// The charge as a part of the provider's price, basis points.
    #[must_use]
    pub const fn rate_bps(self) -> u32 {
        match self {
            Self::Free { .. } => 0,
            Self::Managed { markup_bps } => WHOLE_BPS.saturating_add(markup_bps),
            Self::Byok { fee_bps } => fee_bps,
        }
    }

    /// The tier's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free { .. } => "free",
            Self::Managed { .. } => "managed",
            Self::Byok { .. } => "byok",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::billing::price::{Price, Rates};
    use crate::wire::message::TokensUsed;

    #[test]
    fn ten_events_of_ten_cents_base_are_103_cents_managed() {
        // 10 ¢ = 100 000 000 nanos; 3 % of it is 3 000 000. Ten times 103 000 000 is $1.03.
        let rates = Rates {
            input: 100_000_000_000,
            ..Rates::default()
        };
        let price = Price::flat(1, rates);
        let one = TokensUsed {
            prompt: 1,
            ..TokensUsed::default()
        };
        let charge = price.cost(&one, Tier::MANAGED.rate_bps()).unwrap();
        assert_eq!(price.base(&one), Ok(Nanos(100_000_000)));
        assert_eq!(10 * charge.0, 1_030_000_000);
    }

    #[test]
    fn the_rates_are_the_documented_ones() {
        assert_eq!(Tier::MANAGED.rate_bps(), 10_300);
        assert_eq!(Tier::BYOK.rate_bps(), 3000);
        assert_eq!(
            Tier::Free {
                monthly_quota: Nanos(5)
            }
            .rate_bps(),
            0
        );
    }
}
