//! What is remembered of top-ups until they are over, and asked about although no webhook comes.

use std::collections::BTreeMap;

use mesh_core::api::{TopUpState, TopUpStatus};
use mesh_core::billing::stripe::id::{CustomerId, SessionId};
use mesh_core::billing::stripe::object::{Named, Session};
use mesh_core::billing::stripe::pending::Pending;
use mesh_core::gateway::Unavailable;
use mesh_core::ids::AccountId;
use mesh_core::time::UnixMillis;
use mesh_core::wire::message::ErrorMessage;

use super::Payments;
use crate::gateway::store::{NewTask, StoreError, Task};

/// A top-up that is not over; its key is the session.
const TOP_UP: &str = "stripe-topup";
/// Who an account is at Stripe, which is never done; its key is the account.
const CUSTOMER: &str = "stripe-customer";

/// When to look next at what is not over.
#[derive(Debug, Default)]
pub(super) struct Looks(BTreeMap<String, UnixMillis>);

impl Payments {
    /// Remembers a top-up.
    pub(super) async fn begun(
        &self,
        account: AccountId,
        session: &SessionId,
        cents: i64,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let task = NewTask {
            kind: TOP_UP.to_owned(),
            key: session.to_string(),
            account,
            body: written(&Pending::new(cents))?,
        };
        self.0.store.put_task(task, now).await
    }

    /// Which of the account's top-ups are not over.
    ///
    /// # Errors
    ///
    /// What the device is told.
    pub async fn pending(&self, account: AccountId) -> Result<Vec<TopUpStatus>, ErrorMessage> {
        let tasks = self.0.store.tasks(TOP_UP).await;
        let tasks = tasks.map_err(|_| Unavailable.in_words())?;
        let own = tasks.iter().filter(|task| task.account == account);
        let shown = own.filter_map(|task| {
            let (session, pending) = read(task)?;
            Some(TopUpStatus {
                session,
                amount_cents: pending.cents,
                state: pending.state,
            })
        });
        Ok(shown.collect())
    }

    /// Writes down how a top-up stands. One that we have not made is none of ours to remember.
    pub(super) async fn stands(
        &self,
        session: &Session,
        state: TopUpState,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let cents = session.amount_total.unwrap_or_default();
        let body = written(&Pending { cents, state })?;
        let done_at = (!state.is_pending()).then_some(now);
        let key = session.id.to_string();
        self.0.store.update_task(TOP_UP, key, body, done_at).await
    }

    /// Remembers who an account is at Stripe: whoever paid first.
    pub(super) async fn customer_seen(
        &self,
        account: AccountId,
        customer: Option<Named<CustomerId>>,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let Some(customer) = customer else {
            return Ok(());
        };
        let task = NewTask {
            kind: CUSTOMER.to_owned(),
            key: account.to_string(),
            account,
            body: customer.into_id().to_string(),
        };
        self.0.store.put_task(task, now).await
    }

    /// Who an account is at Stripe, if that is known.
    pub(super) async fn customer_of(
        &self,
        account: AccountId,
    ) -> Result<Option<CustomerId>, StoreError> {
        let known = self.0.store.tasks(CUSTOMER).await?;
        let own = known.into_iter().find(|task| task.account == account);
        Ok(own.and_then(|task| task.body.parse().ok()))
    }

    /// Asks about the top-ups that it is time to ask about.
    pub(super) async fn look(&self, looks: &mut Looks, now: UnixMillis) -> Result<(), StoreError> {
        let tasks = self.0.store.tasks(TOP_UP).await?;
        looks
            .0
            .retain(|key, _| tasks.iter().any(|task| task.key == *key));
        for task in &tasks {
            if looks.0.get(&task.key).is_some_and(|next| now < *next) {
                continue;
            }
            let Some((session, mut pending)) = read(task) else {
                self.forget(task, now).await?;
                continue;
            };
            match self.session(&session, now).await {
                Ok(Some(state)) => pending.state = state,
                Ok(None) => pending.state = TopUpState::Failed,
                Err(error) => tracing::debug!(%session, %error, "a top-up cannot be looked at"),
            }
            match pending.look_again(task.created_at, now) {
                Some(next) => {
                    looks.0.insert(task.key.clone(), next);
                }
                None => self.forget(task, now).await?,
            }
        }
        Ok(())
    }

    async fn forget(&self, task: &Task, now: UnixMillis) -> Result<(), StoreError> {
        let (key, body) = (task.key.clone(), task.body.clone());
        self.0.store.update_task(TOP_UP, key, body, Some(now)).await
    }
}

fn read(task: &Task) -> Option<(SessionId, Pending)> {
    Some((
        task.key.parse().ok()?,
        serde_json::from_str(&task.body).ok()?,
    ))
}

fn written(pending: &Pending) -> Result<String, StoreError> {
    serde_json::to_string(pending).map_err(|error| StoreError::Failed(error.to_string()))
}
