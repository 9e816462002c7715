//! The price table that LiteLLM publishes: whatever the text, bounded memory; and of a table made of
//! numbers spelled in every way, each price as a decimal shifted by hand.

use arbitrary::Arbitrary;
use mesh_core::billing::price::litellm;

use crate::{memory, steps};

const MEMORY_FIXED: usize = 32 * 1024;
/// A member of a few bytes becomes a node of a tree.
const MEMORY_PER_BYTE: usize = 256;

/// A number as it may be spelled: digits, a point somewhere in them, an exponent.
#[derive(Debug, Arbitrary)]
struct Spelled {
    digits: u64,
    zeros_before: u8,
    point: u8,
    exponent: i8,
    upper: bool,
    plus: bool,
}

impl Spelled {
    fn text(&self) -> String {
        let zeros = "0".repeat(usize::from(self.zeros_before % 3));
        let digits = format!("{zeros}{}", self.digits);
        // JSON has no numbers that begin with a zero before another digit.
        let at = (usize::from(self.point) % (digits.len() + 1)).max(1);
        let (whole, part) = digits.split_at(at.min(digits.len()));
        let whole = whole.trim_start_matches('0');
        let whole = if whole.is_empty() { "0" } else { whole };
        let point = if part.is_empty() { "" } else { "." };
        let e = if self.upper { 'E' } else { 'e' };
        let plus = if self.plus && self.exponent >= 0 {
            "+"
        } else {
            ""
        };
        format!("{whole}{point}{part}{e}{plus}{}", self.exponent)
    }

    /// Pico-dollars, by writing the number out without an exponent and cutting the string twelve
    /// places after its point; `None` beyond 64 bits.
    fn picos(&self) -> Option<(u64, bool)> {
        let text = self.text().to_lowercase();
        let (mantissa, _) = text.split_once('e')?;
        let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{part}");
        let point = i32::try_from(whole.len()).ok()? + i32::from(self.exponent) + 12;
        let Ok(point) = usize::try_from(point) else {
            return Some((u64::from(self.digits > 0), self.digits > 0));
        };
        let padded = format!("{digits:0<point$}");
        let (picos, rest) = padded.split_at(point);
        let up = rest.bytes().any(|digit| digit != b'0');
        let picos = picos.trim_start_matches('0');
        let picos: u128 = if picos.is_empty() {
            0
        } else {
            picos.parse().ok()?
        };
        let picos = picos.checked_add(u128::from(up))?;
        u64::try_from(picos).ok().map(|picos| (picos, up))
    }
}

fn whatever(text: &str) {
    let (table, used) = memory::used(|| litellm::read(text, 7));
    let allowed = MEMORY_FIXED + MEMORY_PER_BYTE * text.len();
    assert!(used.peak <= allowed, "{used:?} for {} bytes", text.len());
    let Ok(table) = table else { return };
    for (name, price) in &table.prices {
        assert!(!table.unusable.contains_key(name), "{name:?} twice");
        assert_eq!(price.version, 7);
    }
    assert!(
        table
            .rounded
            .iter()
            .all(|name| table.prices.contains_key(name))
    );
}

/// See the module documentation.
pub fn run(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        whatever(text);
    }
    let Some(((), spelled)) = steps::script::<(), Spelled>(data) else {
        return;
    };
    for pair in spelled.chunks_exact(2) {
        let (input, output) = (&pair[0], &pair[1]);
        let text = format!(
            r#"{{"m":{{"input_cost_per_token":{},"output_cost_per_token":{}}}}}"#,
            input.text(),
            output.text()
        );
        let read = litellm::read(&text, 7);
        let Ok(table) = read else {
            unreachable!("{text}: {read:?}");
        };
        match (input.picos(), output.picos()) {
            (Some((input, up)), Some((output, also_up))) => {
                let price = table
                    .prices
                    .get("m")
                    .map(|price| (price.rates.input, price.rates.output));
                assert_eq!(price, Some((input, output)), "{text}");
                assert_eq!(table.rounded.len(), usize::from(up || also_up), "{text}");
            }
            (_, _) => assert!(
                table.prices.is_empty(),
                "{text}: larger than there is room for"
            ),
        }
    }
}
