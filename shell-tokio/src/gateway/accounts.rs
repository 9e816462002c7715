//! What an account's devices may ask and change of its money: usage, invoices, the tier, keys for
//! providers.

use std::sync::Arc;

use mesh_core::api::account::{
    InvoiceQuery, ProviderKeyQuery, ProviderKeySet, TierQuery, Tiers, UsageQuery,
};
use mesh_core::api::{self, refusal};
use mesh_core::billing::account::Month;
use mesh_core::billing::account::order::{Order, Reference, What};
use mesh_core::billing::invoice::{self, Invoice};
use mesh_core::billing::ledger::Record;
use mesh_core::billing::tier::{Tier, TierName};
use mesh_core::billing::usage::{self, Report};
use mesh_core::error::ErrorCode;
use mesh_core::gateway::Unavailable;
use mesh_core::ids::AccountId;
use mesh_core::limits::{FRAME_MEDIUM_BYTES_MAX, PROVIDER_KEY_BYTES_MAX};
use mesh_core::time::UnixMillis;
use mesh_core::wire::message::ErrorMessage;
use serde::Serialize;
use serde_json::value::RawValue;

use super::config::Billing;
use super::keys::Keys;
use super::store::{Span, Store, StoreError};
use super::upstream::ProviderKey;
use crate::random;

/// See the module documentation; clones share what they work with.
#[derive(Clone, Debug)]
pub(super) struct Accounts {
    pub(super) store: Store,
    pub(super) keys: Arc<Keys>,
    pub(super) billing: Billing,
    /// The providers that take a key.
    pub(super) providers: Vec<String>,
}

type Answer<T> = Result<T, ErrorMessage>;

impl Accounts {
    pub(super) async fn usage(
        &self,
        account: AccountId,
        query: UsageQuery,
        now: UnixMillis,
    ) -> Answer<Box<RawValue>> {
        let span = Span::Since(query.period.since(now));
        let rows = self.store.usage(account, span).await.map_err(unavailable)?;
        let report: Report = usage::report(&rows, query.by).map_err(internal)?;
        fitting(&report)
    }

    pub(super) async fn invoice(
        &self,
        account: AccountId,
        query: InvoiceQuery,
        now: UnixMillis,
    ) -> Answer<Box<RawValue>> {
        let month = match query.month {
            Some(month) => month
                .parse()
                .map_err(|error| invalid(&format!("{month:?} is no month: {error}")))?,
            None => self.last_invoiced(account, now).await?,
        };
        let reference = Reference::of_invoice(month);
        let stands = self.store.ordered(account, reference).await;
        let Some(Record::Invoiced(invoiced)) = stands.map_err(unavailable)? else {
            let words = format!(
                "nothing was invoiced for {month}: a month is invoiced when it is over and something \
                 was spent within the ceiling; what is open is in `synesis cloud balance`"
            );
            return Err(refusal(ErrorCode::NotFound, words));
        };
        let (after, through) = (invoiced.after, invoiced.month);
        let span = Span::Months { after, through };
        let rows = self.store.usage(account, span).await.map_err(unavailable)?;
        let invoice: Invoice = invoice::invoice(&invoiced, &rows).map_err(internal)?;
        fitting(&invoice)
    }

    async fn last_invoiced(&self, account: AccountId, now: UnixMillis) -> Answer<Month> {
        let summary = self
            .store
            .summary(account, now)
            .await
            .map_err(unavailable)?;
        let month = summary.last_invoice.and_then(|month| month.parse().ok());
        month.ok_or_else(|| {
            let words =
                "no month has been invoiced yet; what is open is in `synesis cloud balance`";
            refusal(ErrorCode::NotFound, words)
        })
    }

    pub(super) async fn tier(
        &self,
        account: AccountId,
        query: TierQuery,
        now: UnixMillis,
    ) -> Answer<Tiers> {
        let choices = self.billing.choices.clone();
        let tier = self
            .store
            .summary(account, now)
            .await
            .map_err(unavailable)?
            .tier;
        let Some(wanted) = query.change_to else {
            return Ok(Tiers { tier, choices });
        };
        let wanted = self.chosen(wanted)?;
        if wanted != tier {
            let order = Order {
                reference: fresh()?,
                what: What::SetTier { tier: wanted },
            };
            let done = self.store.order(account, order, now).await;
            done.map_err(unavailable)?;
        }
        Ok(Tiers {
            tier: wanted,
            choices,
        })
    }

    /// The tier of that name, if accounts may choose it.
    fn chosen(&self, name: TierName) -> Answer<Tier> {
        let tier = self.billing.tier_named(name);
        if self.billing.choices.contains(&tier) {
            return Ok(tier);
        }
        let names: Vec<&str> = self
            .billing
            .choices
            .iter()
            .map(|tier| tier.name())
            .collect();
        let offered = if names.is_empty() {
            "none can be chosen".to_owned()
        } else {
            format!("{} can be chosen", names.join(" and "))
        };
        let words = format!(
            "at this gateway {offered}; its operator can change the tier with `synesis admin account tier`"
        );
        Err(refusal(ErrorCode::Forbidden, words))
    }

    pub(super) async fn provider_key(
        &self,
        account: AccountId,
        query: ProviderKeyQuery,
        now: UnixMillis,
    ) -> Answer<ProviderKeySet> {
        let ProviderKeyQuery { provider, key } = query;
        if !self.providers.contains(&provider) {
            let known = self.providers.join(", ");
            return Err(invalid(&format!(
                "this gateway has no provider {provider:?} that takes a key; it has {known}"
            )));
        }
        let sealed = match key.as_deref() {
            None => None,
            Some(key) if key.len() > PROVIDER_KEY_BYTES_MAX => {
                return Err(invalid("that is too long for a provider's key"));
            }
            Some(key) => {
                let key = ProviderKey::new(key).filter(ProviderKey::fits_a_header);
                let key = key.ok_or_else(|| invalid("that is no provider's key"))?;
                let sealed = self.keys.seal(account, &provider, &key);
                Some(sealed.map_err(|error| internal(&error))?)
            }
        };
        let set = sealed.is_some();
        let done = self
            .store
            .set_provider_key(account, provider.clone(), sealed, now);
        done.await.map_err(unavailable)?;
        Ok(ProviderKeySet { provider, set })
    }
}

/// A result that fits a reply.
fn fitting(value: &impl Serialize) -> Answer<Box<RawValue>> {
    let raw = api::encode(value)?;
    // Half of it, for the reply's own envelope and JSON's escapes.
    if raw.get().len() > FRAME_MEDIUM_BYTES_MAX / 2 {
        let words = "there is too much of it for one reply: ask for a shorter period, or have the \
                     operator use `synesis ledger export`";
        return Err(refusal(ErrorCode::TooLarge, words));
    }
    Ok(raw)
}

fn fresh() -> Answer<Reference> {
    let seed = random::seed().map_err(internal)?;
    let id = AccountId::random(&mut seed.secret("order"));
    Reference::new(format!("tier:{:032x}", id.as_u128())).map_err(internal)
}

fn invalid(words: &str) -> ErrorMessage {
    refusal(ErrorCode::InvalidRequest, words)
}

fn internal(error: impl std::fmt::Display) -> ErrorMessage {
    refusal(ErrorCode::Internal, error.to_string())
}

/// What a device is told when the store does not do what it was asked.
fn unavailable(error: StoreError) -> ErrorMessage {
    tracing::debug!(%error, "the store says no");
    if let StoreError::Refused(refused) = error {
        return invalid(&refused.to_string());
    }
    Unavailable.in_words()
}
