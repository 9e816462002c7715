//! Being paid: top-ups are begun, watched and credited; refunds and disputes are booked.
//!
//! ```text
//!   device ── checkout ──▶ Payments ── makes a session ──▶ Stripe ◀── somebody pays
//!      │                     │  ▲                            │
//!      └────── status ───────┤  └───────── webhook ──────────┤
//!                            │      (only says what to ask)  │
//!                            └──────── asks again ───────────┘
//!                                          │ the rules say what it makes
//!                                          ▼
//!                                     store: an order, once
//! ```
//!
//! # Invariants
//!
//! 1. What is booked is what Stripe says when it is asked, never what a webhook or a device says.
//! 2. A webhook is acknowledged when what it led to is on disk, or when nothing will come of it however
//!    often it is repeated.
//! 3. No secret is in a log line, an error or an answer.

mod book;
mod collect;
mod https;
mod port;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use mesh_core::api::{TopUp, TopUpBegun, TopUpNamed, TopUpState, TopUpStatus, refusal};
use mesh_core::billing::stripe::credit::{self, NoPayment};
use mesh_core::billing::stripe::event::{self, Event};
use mesh_core::billing::stripe::object::{Session, Standing};
use mesh_core::billing::stripe::request::{self, Failure, Request};
use mesh_core::billing::stripe::signature::{self, BadSignature, WebhookSecret};
use mesh_core::error::ErrorCode;
use mesh_core::gateway::Unavailable;
use mesh_core::ids::AccountId;
use mesh_core::limits::PAYMENT_CALLS_MAX;
use mesh_core::time::UnixMillis;
use mesh_core::wire::message::ErrorMessage;
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;

pub use self::https::{Https, SecretKey};
pub use self::port::{Exchange, PaymentProvider};
use self::watch::Looks;
use super::store::{Store, StoreError};
use crate::gateway::config::{Meter, Stripe};
use crate::random;

/// Between two rounds of looking after what nobody tells of.
const EVERY: Duration = Duration::from_secs(30);

/// See the module documentation. Clones share it.
#[derive(Clone, Debug)]
pub struct Payments(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    provider: Box<dyn PaymentProvider>,
    webhook_secret: Option<WebhookSecret>,
    success_url: String,
    cancel_url: String,
    meter: Option<Meter>,
    /// Calls of devices that ask Stripe something.
    calls: Semaphore,
}

/// Why something could not be booked now; asked again later, it may.
#[derive(Debug, thiserror::Error)]
pub enum NotNow {
    /// Stripe did not say how things stand.
    #[error(transparent)]
    Stripe(#[from] Failure),
    /// It could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a webhook is refused.
#[derive(Debug, thiserror::Error)]
pub enum WebhookRefused {
    /// There is no secret to check it with.
    #[error("this gateway was given no webhook secret")]
    NoSecret,
    /// It is not Stripe's, or not of now.
    #[error(transparent)]
    Signature(#[from] BadSignature),
    /// Stripe has signed something that is no event.
    #[error(transparent)]
    NotAnEvent(#[from] event::NotAnEvent),
    /// To be repeated.
    #[error(transparent)]
    NotNow(#[from] NotNow),
}

impl Payments {
    /// Opens no connection. `page` is where people are sent who need a page of the gateway's.
    #[must_use]
    pub fn new(
        config: Stripe,
        provider: Box<dyn PaymentProvider>,
        store: Store,
        page: &str,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            provider,
            webhook_secret: config.webhook_secret,
            success_url: config
                .success_url
                .unwrap_or_else(|| format!("{page}/v2/payments/paid")),
            cancel_url: config
                .cancel_url
                .unwrap_or_else(|| format!("{page}/v2/payments/cancelled")),
            meter: config.meter,
            calls: Semaphore::new(PAYMENT_CALLS_MAX),
        }))
    }

    /// Looks after what nobody tells of, until it is aborted.
    pub async fn run(self, wall: impl Fn() -> UnixMillis + Send) {
        let mut rounds = tokio::time::interval(EVERY);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = Looks::default();
        loop {
            rounds.tick().await;
            if let Err(error) = self.look(&mut looks, wall()).await {
                tracing::warn!(%error, "top-ups wait for the store");
            }
            if let Some(meter) = &self.0.meter
                && let Err(error) = self.collect(meter, wall()).await
            {
                tracing::warn!(%error, "invoices wait for the store");
            }
        }
    }

    /// Begins a top-up.
    ///
    /// # Errors
    ///
    /// What the device is told.
    pub async fn checkout(
        &self,
        account: AccountId,
        wish: TopUp,
        now: UnixMillis,
    ) -> Result<TopUpBegun, ErrorMessage> {
        wish.check()?;
        let _place = self.place()?;
        let key = top_up_key()?;
        let customer = self
            .customer_of(account)
            .await
            .map_err(|_| Unavailable.in_words())?;
        let request = Request::top_up(&request::TopUp {
            account,
            cents: wish.amount_cents,
            success_url: &self.0.success_url,
            cancel_url: &self.0.cancel_url,
            customer: customer.as_ref(),
            key: &key,
        });
        let session: Session = self.ask(&request).await.map_err(|failure| told(&failure))?;
        let Some(url) = session.payable_at() else {
            tracing::error!(session = %session.id, "Stripe gave no address to pay at");
            return Err(told(&Failure::NotUnderstood));
        };
        let begun = self
            .begun(account, &session.id, wish.amount_cents, now)
            .await;
        begun.map_err(|_| Unavailable.in_words())?;
        tracing::info!(%account, session = %session.id, cents = wish.amount_cents, "a top-up was begun");
        Ok(TopUpBegun {
            url: url.to_owned(),
            session: session.id,
        })
    }

    /// How a top-up of the account's stands. If it is paid, it is in the ledger when this answers.
    ///
    /// # Errors
    ///
    /// What the device is told.
    pub async fn status(
        &self,
        account: AccountId,
        named: &TopUpNamed,
        now: UnixMillis,
    ) -> Result<TopUpStatus, ErrorMessage> {
        let _place = self.place()?;
        let unknown = || refusal(ErrorCode::NotFound, "this account has no such top-up");
        let asked = self.ask(&Request::session(&named.session)).await;
        let session: Session = match asked {
            Err(Failure::NotFound) => return Err(unknown()),
            asked => asked.map_err(|failure| told(&failure))?,
        };
        if credit::account_of(&session) != Ok(account) {
            return Err(unknown());
        }
        let state = self.settle(&session, now).await.map_err(|error| {
            tracing::warn!(%error, session = %session.id, "a top-up could not be booked");
            Unavailable.in_words()
        })?;
        Ok(TopUpStatus {
            session: session.id,
            amount_cents: session.amount_total.unwrap_or_default(),
            state,
        })
    }

    /// Takes a webhook.
    ///
    /// # Errors
    ///
    /// [`WebhookRefused`].
    pub async fn webhook(
        &self,
        signature: &str,
        body: &[u8],
        now: UnixMillis,
    ) -> Result<(), WebhookRefused> {
        let secret = self
            .0
            .webhook_secret
            .as_ref()
            .ok_or(WebhookRefused::NoSecret)?;
        signature::verify(secret, signature, body, now)?;
        let event = event::parse(body)?;
        Ok(self.happened(&event, now).await?)
    }

    /// Books what has happened at Stripe.
    async fn happened(&self, event: &Event, now: UnixMillis) -> Result<(), NotNow> {
        match event {
            Event::Session(id) => self.session(id, now).await.map(drop),
            Event::Refund(id) => self.refund(id, now).await,
            Event::Refunds(charge) => self.refunds(charge, now).await,
            Event::Dispute(id) => self.dispute(id, now).await,
            Event::Other => Ok(()),
        }
    }

    /// What is still open of what a session was made for.
    fn state(session: &Session, refused: NoPayment) -> TopUpState {
        match refused {
            NoPayment::NotPaid(Standing::Open) => TopUpState::Open,
            NoPayment::NotPaid(Standing::Processing | Standing::Paid) => TopUpState::Processing,
            NoPayment::NotPaid(Standing::Expired) => TopUpState::Expired,
            NoPayment::NotPaid(Standing::Failed) | NoPayment::NotOurs | NoPayment::NotAPayment => {
                TopUpState::Failed
            }
            NoPayment::Currency
            | NoPayment::WrongAccount
            | NoPayment::AmountAltered { .. }
            | NoPayment::NoAmount => {
                tracing::error!(session = %session.id, %refused, "a payment cannot be credited: look at it");
                TopUpState::Failed
            }
        }
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, request: &Request) -> Result<T, Failure> {
        port::ask(&*self.0.provider, request).await
    }

    /// A place among those that ask Stripe for devices.
    fn place(&self) -> Result<tokio::sync::SemaphorePermit<'_>, ErrorMessage> {
        self.0.calls.try_acquire().map_err(|_| ErrorMessage {
            retry_after_secs: Some(1),
            ..refusal(
                ErrorCode::RateLimited,
                "too many payments are asked about at once; try again shortly",
            )
        })
    }
}

/// Names one asking for a session: what is repeated under it is done once.
fn top_up_key() -> Result<String, ErrorMessage> {
    let seed =
        random::seed().map_err(|_| refusal(ErrorCode::Internal, "the gateway has no chance"))?;
    let id = AccountId::random(&mut seed.secret("top-up"));
    Ok(format!("synesis-topup-{:032x}", id.as_u128()))
}

/// What a device is told of Stripe's failures.
fn told(failure: &Failure) -> ErrorMessage {
    tracing::warn!(%failure, "Stripe did not do what a device asked for");
    let words = match failure {
        Failure::Unknown | Failure::TooOften => "Stripe cannot be reached; try again shortly",
        Failure::Key => "Stripe refuses the gateway's key; tell its operator",
        Failure::NotFound
        | Failure::Repeated
        | Failure::Refused { .. }
        | Failure::NotUnderstood => "Stripe refuses; the gateway's log says why",
    };
    ErrorMessage {
        retryable: failure.may_pass(),
        ..refusal(ErrorCode::UpstreamError, words)
    }
}

#[cfg(test)]
mod tests;
