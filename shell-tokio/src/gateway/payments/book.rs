//! What Stripe says becomes entries of the ledger.

use mesh_core::api::TopUpState;
use mesh_core::billing::account::order::{Order, What};
use mesh_core::billing::stripe::credit::{self, Movement, NoMovement, NoPayment, Payment};
use mesh_core::billing::stripe::id::{ChargeId, DisputeId, IntentId, RefundId, SessionId};
use mesh_core::billing::stripe::object::{Dispute, List, Refund, Session};
use mesh_core::billing::stripe::request::{Failure, Request};
use mesh_core::ids::AccountId;
use mesh_core::time::UnixMillis;

use super::{NotNow, Payments};
use crate::gateway::store::StoreError;

impl Payments {
    /// A session, as it stands now; `None` when Stripe knows none of that name.
    pub(super) async fn session(
        &self,
        id: &SessionId,
        now: UnixMillis,
    ) -> Result<Option<TopUpState>, NotNow> {
        match self.ask::<Session>(&Request::session(id)).await {
            Ok(session) => self.settle(&session, now).await.map(Some),
            Err(failure) => self.nothing_of(id.as_str(), failure).map(|()| None),
        }
    }

    /// Credits a session if it is paid, and says how its top-up stands then.
    pub(super) async fn settle(
        &self,
        session: &Session,
        now: UnixMillis,
    ) -> Result<TopUpState, NotNow> {
        let state = match credit::payment(session) {
            Ok(payment) => {
                self.pay(&payment, now).await?;
                let customer = session.customer.clone();
                self.customer_seen(payment.account, customer, now).await?;
                TopUpState::Credited
            }
            Err(refused) => Self::state(session, refused),
        };
        self.stands(session, state, now).await?;
        Ok(state)
    }

    async fn pay(&self, payment: &Payment, now: UnixMillis) -> Result<(), NotNow> {
        let reference = payment.session.reference();
        let what = What::Pay {
            amount: payment.amount,
        };
        self.order(payment.account, Order { reference, what }, now)
            .await
    }

    pub(super) async fn refund(&self, id: &RefundId, now: UnixMillis) -> Result<(), NotNow> {
        match self.ask::<Refund>(&Request::refund(id)).await {
            Ok(refund) => self.refunded(&refund, now).await,
            Err(failure) => self.nothing_of(id.as_str(), failure),
        }
    }

    pub(super) async fn refunds(&self, charge: &ChargeId, now: UnixMillis) -> Result<(), NotNow> {
        let refunds: List<Refund> = match self.ask(&Request::refunds_of(charge)).await {
            Ok(refunds) => refunds,
            Err(failure) => return self.nothing_of(charge.as_str(), failure),
        };
        let mut word = Ok(());
        for refund in &refunds.data {
            // One that cannot be booked now does not keep the others waiting.
            word = word.and(self.refunded(refund, now).await);
        }
        word
    }

    async fn refunded(&self, refund: &Refund, now: UnixMillis) -> Result<(), NotNow> {
        let intent = refund.payment_intent.as_ref().map(|intent| intent.id());
        let moved = credit::of_refund(refund);
        self.moved(refund.id.as_str(), intent, moved, now).await
    }

    pub(super) async fn dispute(&self, id: &DisputeId, now: UnixMillis) -> Result<(), NotNow> {
        let dispute: Dispute = match self.ask(&Request::dispute(id)).await {
            Ok(dispute) => dispute,
            Err(failure) => return self.nothing_of(id.as_str(), failure),
        };
        let intent = dispute.payment_intent.as_ref().map(|intent| intent.id());
        let moved = credit::of_dispute(&dispute);
        self.moved(id.as_str(), intent, moved, now).await
    }

    /// Books what a refund or dispute has moved of a payment; the payment itself before that, for its
    /// own webhook may come later.
    async fn moved(
        &self,
        id: &str,
        intent: Option<&IntentId>,
        moved: Result<Movement, NoMovement>,
        now: UnixMillis,
    ) -> Result<(), NotNow> {
        if moved == Ok(Movement::Nothing) {
            return Ok(());
        }
        let Some(payment) = self.payment_of(id, intent).await? else {
            return Ok(());
        };
        let movement = match moved {
            Ok(movement) => movement,
            Err(refused) => {
                tracing::error!(id, %refused, "a refund or dispute cannot be booked: look at it");
                return Ok(());
            }
        };
        self.pay(&payment, now).await?;
        let order = match movement {
            Movement::Nothing => return Ok(()),
            Movement::Out { reference, amount } => Order {
                reference,
                what: What::Reverse {
                    payment: payment.session.reference(),
                    amount,
                },
            },
            Movement::Back {
                taken,
                reference,
                amount,
            } => {
                let store = &self.0.store;
                if store.ordered(payment.account, taken).await?.is_none() {
                    return Ok(());
                }
                let what = What::Pay { amount };
                Order { reference, what }
            }
        };
        self.order(payment.account, order, now).await
    }

    /// The payment of ours that an intent belongs to.
    async fn payment_of(
        &self,
        id: &str,
        intent: Option<&IntentId>,
    ) -> Result<Option<Payment>, NotNow> {
        let Some(intent) = intent else {
            tracing::debug!(id, "not of a payment of ours");
            return Ok(None);
        };
        let sessions: List<Session> = match self.ask(&Request::session_of(intent)).await {
            Ok(sessions) => sessions,
            Err(failure) => return self.nothing_of(id, failure).map(|()| None),
        };
        let Some(session) = sessions.data.first() else {
            tracing::debug!(id, "not of a payment of ours");
            return Ok(None);
        };
        match credit::payment(session) {
            Ok(payment) => Ok(Some(payment)),
            Err(NoPayment::NotOurs | NoPayment::NotAPayment) => Ok(None),
            Err(refused) => {
                tracing::error!(id, session = %session.id, %refused, "a refund or dispute of what was never credited");
                Ok(None)
            }
        }
    }

    /// Carries an order out. What the rules refuse they would refuse again: that is for a person.
    async fn order(&self, account: AccountId, order: Order, now: UnixMillis) -> Result<(), NotNow> {
        let reference = order.reference.clone();
        match self.0.store.order(account, order, now).await {
            Ok(done) => {
                if !done.repeated {
                    tracing::info!(%account, %reference, "booked");
                }
                Ok(())
            }
            Err(StoreError::UnknownAccount) => {
                tracing::warn!(%account, %reference, "of an account of another gateway");
                Ok(())
            }
            Err(StoreError::Refused(refused)) => {
                tracing::error!(%account, %reference, %refused, "a payment cannot be booked: look at it");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A failure that no repetition changes is the end of it.
    fn nothing_of(&self, id: &str, failure: Failure) -> Result<(), NotNow> {
        if failure.may_pass() {
            return Err(failure.into());
        }
        if failure == Failure::NotFound {
            // Of the test mode, or another's.
            tracing::debug!(id, "Stripe knows nothing of it under our key");
        } else {
            tracing::error!(id, %failure, "Stripe would not say how it stands: look at it");
        }
        Ok(())
    }
}
