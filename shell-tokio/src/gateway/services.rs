//! Typed calls that need the outside world only: what each method gives.

use mesh_core::api::{self, Method, Params};
use mesh_core::error::ErrorCode;
use mesh_core::gateway::Unavailable;
use mesh_core::ids::AccountId;
use mesh_core::time::UnixMillis;
use mesh_core::wire::message::ErrorMessage;
use serde_json::value::RawValue;

use super::accounts::Accounts;
use super::payments::Payments;
use super::store::{Store, StoreError};

/// See the module documentation; clones share what they work with.
#[derive(Clone, Debug)]
pub(super) struct Services {
    pub(super) store: Store,
    pub(super) accounts: Accounts,
    pub(super) payments: Option<Payments>,
}

impl Services {
    /// Carries one call out.
    pub(super) async fn serve(
        &self,
        account: AccountId,
        method: Method,
        params: Params,
        now: UnixMillis,
    ) -> Result<Box<RawValue>, ErrorMessage> {
        match method {
            Method::AccountSummary => {
                let summary = self.store.summary(account, now).await;
                api::encode(&summary.map_err(|error| unavailable(&error))?)
            }
            Method::AccountUsage => self.accounts.usage(account, params.read()?, now).await,
            Method::AccountInvoice => self.accounts.invoice(account, params.read()?, now).await,
            Method::AccountTier => {
                api::encode(&self.accounts.tier(account, params.read()?, now).await?)
            }
            Method::AccountProviderKey => {
                let query = params.read()?;
                api::encode(&self.accounts.provider_key(account, query, now).await?)
            }
            Method::PaymentsCheckout => {
                let wish = params.read()?;
                api::encode(&self.payments()?.checkout(account, wish, now).await?)
            }
            Method::PaymentsStatus => {
                let named = params.read()?;
                api::encode(&self.payments()?.status(account, &named, now).await?)
            }
            Method::PaymentsPending => {
                let pending = match &self.payments {
                    Some(payments) => payments.pending(account).await?,
                    None => Vec::new(),
                };
                api::encode(&pending)
            }
            Method::Ping | Method::Models | Method::CountTokens => Err(api::refusal(
                ErrorCode::InvalidRequest,
                "the tunnel answers this itself",
            )),
        }
    }

    fn payments(&self) -> Result<&Payments, ErrorMessage> {
        self.payments.as_ref().ok_or_else(|| {
            api::refusal(
                ErrorCode::NotFound,
                "this gateway takes no payments; on its machine, `synesis admin credit` gives an \
                 account money",
            )
        })
    }
}

/// What a device is told when the store does not do what it was asked.
fn unavailable(error: &StoreError) -> ErrorMessage {
    tracing::debug!(%error, "the store says no");
    Unavailable.in_words()
}
