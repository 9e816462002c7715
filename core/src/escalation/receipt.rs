//! What a question cost: fields for programs, words for people. Every shell prints the same.

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;

use crate::billing::money::Nanos;
use crate::device::route::Route;
use crate::escalation::words::{grouped, printable, span};
use crate::wire::message::{FinishReason, StreamEnd, TokensUsed};

/// A receipt's figures, exact.
#[derive(Clone, Debug, Serialize)]
pub struct Receipt {
    request_id: String,
    model: String,
    tokens: Tokens,
    /// Exact, in nano-dollars.
    base_nanos: i64,
    markup_nanos: i64,
    charge_nanos: i64,
    /// The same, in dollars; text, because JSON's numbers are not exact.
    base: String,
    markup: String,
    charge: String,
    /// At the gateway, from the question's arrival to the answer's end.
    latency_ms: u64,
    finish_reason: FinishReason,
    /// Whether tokens were estimated because the provider counted none.
    estimated: bool,
    /// How many values were replaced by tokens before the question left the device.
    hidden: u32,
    /// Which way it took.
    route: Route,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Tokens {
    prompt: u64,
    completion: u64,
    total: u64,
    cache_read: u64,
    cache_write: u64,
    reasoning: u64,
}

impl From<TokensUsed> for Tokens {
    fn from(used: TokensUsed) -> Self {
        Self {
            prompt: used.prompt,
            completion: used.completion,
            total: used.prompt.saturating_add(used.completion),
            cache_read: used.cache_read,
            cache_write: used.cache_write,
            reasoning: used.reasoning,
        }
    }
}

impl From<&StreamEnd> for Receipt {
    fn from(end: &StreamEnd) -> Self {
        let markup = markup(end);
        Self {
            request_id: end.request_id.to_string(),
            model: end.model_used.clone(),
            tokens: end.tokens_used.into(),
            base_nanos: end.base_nanos.0,
            markup_nanos: markup.0,
            charge_nanos: end.cost_nanos.0,
            base: end.base_nanos.to_string(),
            markup: markup.to_string(),
            charge: end.cost_nanos.to_string(),
            latency_ms: end.latency_ms,
            finish_reason: end.finish_reason,
            estimated: end.estimated,
            hidden: end.hidden,
            route: end.route,
        }
    }
}

/// What was charged beyond the provider's price. Negative under a tier that charges less than it.
#[must_use]
pub fn markup(end: &StreamEnd) -> Nanos {
    Nanos(end.cost_nanos.0.saturating_sub(end.base_nanos.0))
}

/// The receipt as one line.
#[must_use]
pub fn line(end: &StreamEnd) -> String {
    let used = end.tokens_used;
    let cached = match used.cache_read {
        0 => String::new(),
        read => format!(" ({} cached)", grouped(read)),
    };
    let estimated = if end.estimated { ", estimated" } else { "" };
    let hidden = match end.hidden {
        0 => String::new(),
        1 => " · 1 private value stayed here".to_owned(),
        more => format!(" · {} private values stayed here", grouped(more.into())),
    };
    format!(
        "{} · {} in{cached}, {} out{estimated} · {} · {} · {}{hidden}",
        model(end),
        grouped(used.prompt),
        grouped(used.completion),
        match end.route {
            Route::Local => "on this device".to_owned(),
            Route::Cloud => price(end),
        },
        span(Duration::from_millis(end.latency_ms)),
        end.request_id,
    )
}

/// The provider's name of the model; it is not known before the provider says it.
#[must_use]
pub fn model(end: &StreamEnd) -> Cow<'_, str> {
    if end.model_used.is_empty() {
        return Cow::Borrowed("no model answered");
    }
    printable(&end.model_used)
}

/// How the charge comes about, in words.
#[must_use]
pub fn price(end: &StreamEnd) -> String {
    let (base, charge) = (end.base_nanos, end.cost_nanos);
    if charge < base {
        // A tier that charges less than the provider does: its price is paid elsewhere.
        format!("charge {charge} (the provider's price, {base}, is not part of it)")
    } else {
        format!("base {base} + markup {} = {charge}", markup(end))
    }
}

/// What the person should know about an answer that did not end by itself.
#[must_use]
pub const fn not_whole(reason: FinishReason) -> Option<&'static str> {
    match reason {
        FinishReason::Stop => None,
        FinishReason::Length => {
            Some("the answer was cut off at its longest; ask for more with --max-tokens")
        }
        FinishReason::ToolCalls => Some("the model asked for a tool, which this command has not"),
        FinishReason::ContentFilter => Some("the provider's filter ended the answer"),
        FinishReason::Cancelled => Some("the answer was cancelled; what was produced is charged"),
        FinishReason::Error => {
            Some("the model server broke off; the answer ends here, what was produced is charged")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RequestId;

    #[test]
    fn a_receipts_dollars_are_exact_and_add_up() {
        let end = StreamEnd {
            request_id: RequestId::from_u128(1),
            tokens_used: TokensUsed {
                prompt: 1000,
                completion: 500,
                ..TokensUsed::default()
            },
            cost_cents: 1,
            cost_nanos: Nanos(10_815_000),
            base_nanos: Nanos(10_500_000),
            model_used: "claude".into(),
            finish_reason: FinishReason::Stop,
            latency_ms: 7,
            estimated: false,
            hidden: 2,
            route: Route::Cloud,
            notice: None,
        };
        let json = serde_json::to_value(Receipt::from(&end)).unwrap();
        assert_eq!(json["charge"], "$0.010815");
        assert_eq!(json["base"], "$0.0105");
        assert_eq!(json["markup"], "$0.000315");
        assert_eq!(json["markup_nanos"], 315_000);
        assert_eq!(json["tokens"]["total"], 1500);
        assert_eq!(json["hidden"], 2);
        assert_eq!(json["route"], "cloud");
        assert!(line(&end).contains("2 private values stayed here"));
    }
}
