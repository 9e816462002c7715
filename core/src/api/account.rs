//! The calls about an account's money: what is asked, and what is given.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::billing::tier::TierName;
use crate::billing::usage::{By, Period};

/// The parameters of [`Method::AccountUsage`](super::Method::AccountUsage), answered by a
/// [`Report`](crate::billing::usage::Report).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UsageQuery {
    /// Since when.
    pub period: Period,
    /// Added up by what.
    pub by: By,
}

/// The parameters of [`Method::AccountInvoice`](super::Method::AccountInvoice), answered by an
/// [`Invoice`](crate::billing::invoice::Invoice).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InvoiceQuery {
    /// `2026-11`; the last that was invoiced without.
    pub month: Option<String>,
}

/// The parameters of [`Method::AccountTier`](super::Method::AccountTier), answered by [`Tiers`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TierQuery {
    /// The tier to change to; none changes nothing.
    pub change_to: Option<TierName>,
}

/// How an account is charged, and how it may choose to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tiers {
    /// Its tier.
    pub tier: crate::billing::tier::Tier,
    /// What it may change to by itself.
    pub choices: Vec<crate::billing::tier::Tier>,
}

/// The parameters of [`Method::AccountProviderKey`](super::Method::AccountProviderKey), answered by
/// [`ProviderKeySet`]. `Debug` shows no key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderKeyQuery {
    /// The provider's name at the gateway.
    pub provider: String,
    /// The key; none forgets the one that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl fmt::Debug for ProviderKeyQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderKeyQuery")
            .field("provider", &self.provider)
            .field("sets", &self.key.is_some())
            .finish()
    }
}

/// Whether an account has a key of its own for a provider. The key itself is never shown again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderKeySet {
    /// The provider's name at the gateway.
    pub provider: String,
    /// Whether there is a key now.
    pub set: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_takes_its_default_and_a_key_is_never_shown() {
        let query: UsageQuery = serde_json::from_str(r#"{"by":"model"}"#).unwrap();
        assert_eq!((query.period, query.by), (Period::Month, By::Model));
        assert!(serde_json::from_str::<UsageQuery>(r#"{"by":"moon"}"#).is_err());
        let query = ProviderKeyQuery {
            provider: "anthropic".to_owned(),
            key: Some("sk-canary".to_owned()),
        };
        assert!(!format!("{query:?}").contains("canary"));
    }
}
