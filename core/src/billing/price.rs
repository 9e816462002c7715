//! What tokens cost, and the one place where a charge is rounded.
//!
//! Prices are whole micro-dollars per million tokens, which is numerically pico-dollars per token
//! ($3 per million is 3 000 000). A charge is `round_half_even(Σ tokens × price × rate / 10⁷)`
//! nano-dollars, the rate in basis points, rounded once per event.

pub mod litellm;

use serde::{Deserialize, Serialize};

use super::money::{Nanos, Overflow};
use crate::wire::message::TokensUsed;

/// Basis points in the whole.
pub const WHOLE_BPS: u32 = 10_000;

/// One model's prices, in micro-dollars per million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// The version of the table it is from; every charge stores it.
    pub version: u32,
    /// What they are for a short prompt, or for any.
    #[serde(flatten)]
    pub rates: Rates,
    /// What they are for a long prompt, where the provider makes a difference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long: Option<LongContext>,
}

/// Prices of a request whose prompt is long: of all of its tokens, not only of those beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LongContext {
    /// A prompt of more tokens than this, cached ones included, is long.
    pub over: u64,
    /// What the tokens cost then.
    #[serde(flatten)]
    pub rates: Rates,
}

/// Prices of tokens, in micro-dollars per million of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Input that was not cached.
    pub input: u64,
    /// Output, reasoning included.
    pub output: u64,
    /// Input read from the provider's cache.
    pub cache_read: u64,
    /// Input written to the provider's cache.
    pub cache_write: u64,
}

impl Rates {
    /// Whether nothing costs anything.
    #[must_use]
    pub const fn are_free(&self) -> bool {
        self.input == 0 && self.output == 0 && self.cache_read == 0 && self.cache_write == 0
    }

    /// Whether no token costs less than in `other`.
    #[must_use]
    pub(crate) const fn at_least(&self, other: &Self) -> bool {
        self.input >= other.input
            && self.output >= other.output
            && self.cache_read >= other.cache_read
            && self.cache_write >= other.cache_write
    }

    /// With every token of input at the dearest rate that may apply to it.
    fn dearest(self) -> Self {
        let input = self.input.max(self.cache_read).max(self.cache_write);
        Self { input, ..self }
    }

    fn picos(&self, tokens: &TokensUsed) -> Option<i128> {
        // A provider that counts more cached tokens than tokens is believed about the cached ones.
        let cached = tokens.cache_read.saturating_add(tokens.cache_write);
        let uncached = tokens.prompt.saturating_sub(cached);
        [
            (uncached, self.input),
            (tokens.cache_read, self.cache_read),
            (tokens.cache_write, self.cache_write),
            (tokens.completion, self.output),
        ]
        .into_iter()
        .try_fold(0i128, |sum, (count, price)| {
            sum.checked_add(i128::from(count).checked_mul(i128::from(price))?)
        })
    }
}

impl Price {
    /// Costs nothing.
    pub const FREE: Self = Self::list(0, 0, 0, 0);
    /// Anthropic's list price of Claude Sonnet: $3 in, $15 out per million; cache read 0.1 ×,
    /// cache write 1.25 × the input price.
    pub const CLAUDE_SONNET: Self = Self::list(3_000_000, 15_000_000, 300_000, 3_750_000);
    /// Anthropic's list price of Claude Opus: $15 in, $75 out per million.
    pub const CLAUDE_OPUS: Self = Self::list(15_000_000, 75_000_000, 1_500_000, 18_750_000);
    /// OpenAI's list price of GPT-4 Turbo: $10 in, $30 out per million; it never had a cache price.
    pub const GPT4_TURBO: Self = Self::list(10_000_000, 30_000_000, 10_000_000, 10_000_000);

    /// The built-in prices by name.
    pub const BUILT_IN: [(&str, Self); 4] = [
        ("claude_sonnet", Self::CLAUDE_SONNET),
        ("claude_opus", Self::CLAUDE_OPUS),
        ("gpt4_turbo", Self::GPT4_TURBO),
        ("free", Self::FREE),
    ];

    /// The built-in price of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let mut prices = Self::BUILT_IN.into_iter();
        prices
            .find(|(known, _)| *known == name)
            .map(|(_, price)| price)
    }

    const fn list(input: u64, output: u64, cache_read: u64, cache_write: u64) -> Self {
        let rates = Rates {
            input,
            output,
            cache_read,
            cache_write,
        };
        Self::flat(1, rates)
    }

    /// The same prices for any prompt.
    #[must_use]
    pub const fn flat(version: u32, rates: Rates) -> Self {
        Self {
            version,
            rates,
            long: None,
        }
    }

    /// Whether nothing costs anything.
    #[must_use]
    pub(crate) const fn is_free(&self) -> bool {
        match &self.long {
            Some(long) => self.rates.are_free() && long.rates.are_free(),
            None => self.rates.are_free(),
        }
    }

    /// The rates for a prompt of so many tokens.
    fn rates(&self, prompt: u64) -> &Rates {
        match &self.long {
            Some(long) if prompt > long.over => &long.rates,
            Some(_) | None => &self.rates,
        }
    }

    /// What these tokens cost at `rate_bps` of the price, rounded once, half to even.
    ///
    /// # Errors
    ///
    /// [`Overflow`] past the range of [`Nanos`].
    pub fn cost(&self, tokens: &TokensUsed, rate_bps: u32) -> Result<Nanos, Overflow> {
        let prompt = tokens
            .prompt
            .max(tokens.cache_read.saturating_add(tokens.cache_write));
        let picos = self.rates(prompt).picos(tokens).ok_or(Overflow)?;
        let scaled = picos.checked_mul(i128::from(rate_bps)).ok_or(Overflow)?;
        i64::try_from(div_half_even(scaled, 10_000_000))
            .map(Nanos)
            .map_err(|_| Overflow)
    }

    /// The provider's price of these tokens.
    ///
    /// # Errors
    ///
    /// [`Overflow`] past the range of [`Nanos`].
    pub fn base(&self, tokens: &TokensUsed) -> Result<Nanos, Overflow> {
        self.cost(tokens, WHOLE_BPS)
    }

    /// The most that a call can cost: every input token at the dearest rate that may apply to it.
    ///
    /// # Errors
    ///
    /// [`Overflow`] past the range of [`Nanos`].
    pub fn worst_case(&self, input: u64, output: u64, rate_bps: u32) -> Result<Nanos, Overflow> {
        let dearest = Self::flat(self.version, self.rates(input).dearest());
        let tokens = TokensUsed {
            prompt: input,
            completion: output,
            ..TokensUsed::default()
        };
        dearest.cost(&tokens, rate_bps)
    }
}

/// `n / d`, half to even; `d` is positive and `n` not negative.
const fn div_half_even(n: i128, d: i128) -> i128 {
    let (quotient, twice_rest) = (n / d, n % d * 2);
    if twice_rest > d || (twice_rest == d && quotient % 2 != 0) {
        quotient + 1
    } else {
        quotient
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(prompt: u64, completion: u64) -> TokensUsed {
        TokensUsed {
            prompt,
            completion,
            ..TokensUsed::default()
        }
    }

    #[test]
    fn known_answers_computed_by_hand() {
        // Sonnet, 1 000 in and 500 out: 1 000 × $3/M + 500 × $15/M = $0.003 + $0.0075 = $0.0105;
        // managed adds 3 %: $0.0105 × 1.03 = $0.010815 = 10 815 000 nanos.
        let sonnet = Price::CLAUDE_SONNET;
        assert_eq!(sonnet.base(&tokens(1000, 500)), Ok(Nanos(10_500_000)));
        assert_eq!(
            sonnet.cost(&tokens(1000, 500), 10_300),
            Ok(Nanos(10_815_000))
        );
        // Opus, 10 000 in and 5 000 out: $0.15 + $0.375 = $0.525; × 1.03 = $0.54075;
        // the licence fee of 30 % alone is $0.1575.
        let opus = Price::CLAUDE_OPUS;
        assert_eq!(
            opus.cost(&tokens(10_000, 5000), 10_300),
            Ok(Nanos(540_750_000))
        );
        assert_eq!(
            opus.cost(&tokens(10_000, 5000), 3000),
            Ok(Nanos(157_500_000))
        );
        // GPT-4 Turbo, 1 in and 1 out: $0.00001 + $0.00003 = $0.00004 = 40 000 nanos.
        assert_eq!(Price::GPT4_TURBO.base(&tokens(1, 1)), Ok(Nanos(40_000)));
    }

    #[test]
    fn built_in_prices_are_found_by_their_names() {
        assert_eq!(Price::named("claude_opus"), Some(Price::CLAUDE_OPUS));
        assert_eq!(Price::named("free"), Some(Price::FREE));
        assert_eq!(Price::named("Free"), None);
        assert_eq!(Price::named(""), None);
    }

    #[test]
    fn cached_tokens_have_their_own_prices() {
        // 1 000 in all: 600 read from the cache at $0.30/M = 180 000 nanos, 300 written at
        // $3.75/M = 1 125 000, the other 100 at $3/M = 300 000; together 1 605 000.
        let used = TokensUsed {
            prompt: 1000,
            cache_read: 600,
            cache_write: 300,
            ..tokens(0, 0)
        };
        assert_eq!(Price::CLAUDE_SONNET.base(&used), Ok(Nanos(1_605_000)));
    }

    #[test]
    fn a_tie_goes_to_the_even_nano_and_is_rounded_once() {
        // One token at 500 pico is half a nano: 0 is even. At 1 500 pico, 1.5 nanos go to 2.
        let price = |input| Price::list(input, 0, 0, 0);
        assert_eq!(price(500).base(&tokens(1, 0)), Ok(Nanos(0)));
        assert_eq!(price(1500).base(&tokens(1, 0)), Ok(Nanos(2)));
        assert_eq!(price(501).base(&tokens(1, 0)), Ok(Nanos(1)));
        // Rounded after the sum: two halves make one.
        let both = Price::list(500, 500, 0, 0);
        assert_eq!(both.base(&tokens(1, 1)), Ok(Nanos(1)));
    }

    /// $3 and $15 a million, from 200 000 tokens of prompt on $6 and $22.50, as Anthropic lists them.
    const TIERED: Price = Price {
        long: Some(LongContext {
            over: 200_000,
            rates: Rates {
                input: 6_000_000,
                output: 22_500_000,
                cache_read: 600_000,
                cache_write: 7_500_000,
            },
        }),
        ..Price::CLAUDE_SONNET
    };

    #[test]
    fn a_long_prompt_has_its_own_prices_for_all_of_its_tokens() {
        // 200 000 × $3/M = $0.60 and 1 000 × $15/M = $0.015; one token more: 200 001 × $6/M = $1.200006
        // and 1 000 × $22.50/M = $0.0225.
        assert_eq!(TIERED.base(&tokens(200_000, 1000)), Ok(Nanos(615_000_000)));
        assert_eq!(
            TIERED.base(&tokens(200_001, 1000)),
            Ok(Nanos(1_222_506_000))
        );
        // What was read from the cache counts towards the length: 200 001 × $0.60/M.
        let cached = TokensUsed {
            cache_read: 200_001,
            ..tokens(0, 0)
        };
        assert_eq!(TIERED.base(&cached), Ok(Nanos(120_000_600)));
    }

    #[test]
    fn a_price_is_written_flat_and_an_old_one_is_still_read() {
        let old = r#"{"version":1,"input":3000000,"output":15000000,"cache_read":300000,"cache_write":3750000}"#;
        assert_eq!(
            serde_json::from_str::<Price>(old).unwrap(),
            Price::CLAUDE_SONNET
        );
        assert_eq!(serde_json::to_string(&Price::CLAUDE_SONNET).unwrap(), old);
        let tiered = serde_json::to_string(&TIERED).unwrap();
        assert_eq!(serde_json::from_str::<Price>(&tiered).unwrap(), TIERED);
    }

    #[test]
    fn absurd_counts_are_an_error_value() {
        assert_eq!(
            Price::CLAUDE_OPUS.base(&tokens(u64::MAX, u64::MAX)),
            Err(Overflow)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn a_charge_never_falls_when_tokens_grow(
            prompt in 0u64..400_000, completion in 0u64..1_000_000,
            more in 0u64..100_000, rate in 0u32..20_000,
        ) {
            let price = TIERED;
            let less = price.cost(&tokens(prompt, completion), rate)?;
            prop_assert!(price.cost(&tokens(prompt + more, completion), rate)? >= less);
            prop_assert!(price.cost(&tokens(prompt, completion + more), rate)? >= less);
        }

        #[test]
        fn the_worst_case_covers_every_split_of_the_same_tokens(
            read in 0u64..100_000, write in 0u64..100_000, plain in 0u64..100_000,
            completion in 0u64..100_000, rate in 0u32..20_000,
        ) {
            let price = TIERED;
            let prompt = read + write + plain;
            let used = TokensUsed { cache_read: read, cache_write: write, ..tokens(prompt, completion) };
            let worst = price.worst_case(prompt, completion, rate)?;
            prop_assert!(price.cost(&used, rate)? <= worst);
        }

        #[test]
        fn splitting_a_request_within_one_tier_moves_the_price_by_at_most_one_nano_a_piece(
            a in 0u64..1_000_000, b in 0u64..1_000_000, rate in 0u32..20_000,
        ) {
            let price = Price::list(123_457, 0, 0, 0);
            let whole = price.cost(&tokens(a + b, 0), rate)?.0;
            let parts = price.cost(&tokens(a, 0), rate)?.0 + price.cost(&tokens(b, 0), rate)?.0;
            prop_assert!((whole - parts).abs() <= 2);
        }
    }
}
