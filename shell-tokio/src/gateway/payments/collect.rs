//! Month's invoices are collected: one meter event each, through an outbox in the store.

use mesh_core::billing::ledger::Invoiced;
use mesh_core::billing::stripe::meter::{MeterEvent, Step};
use mesh_core::billing::stripe::object::{List, MeterSummary};
use mesh_core::billing::stripe::request::{Failure, Request};
use mesh_core::time::UnixMillis;

use super::Payments;
use crate::gateway::config::Meter;
use crate::gateway::store::{NewTask, StoreError, Task};

/// An invoice that nobody collects yet, as the store writes it.
const INVOICE: &str = "invoice";
/// One that is being collected; its key is the invoice's.
const METER: &str = "stripe-meter";

impl Payments {
    /// Takes every invoice a step further.
    pub(super) async fn collect(&self, meter: &Meter, now: UnixMillis) -> Result<(), StoreError> {
        for task in self.0.store.tasks(INVOICE).await? {
            self.take_up(task, now).await?;
        }
        for task in self.0.store.tasks(METER).await? {
            match serde_json::from_str::<MeterEvent>(&task.body) {
                Ok(event) => self.step(meter, &task.key, event, now).await?,
                Err(error) => {
                    tracing::error!(key = task.key, %error, "an invoice is not understood")
                }
            }
        }
        Ok(())
    }

    /// From the store's outbox to ours, where it is named and dated.
    async fn take_up(&self, task: Task, now: UnixMillis) -> Result<(), StoreError> {
        let Some(customer) = self.customer_of(task.account).await? else {
            tracing::info!(
                invoice = task.key,
                "not collected: the account has never paid through Stripe"
            );
            return Ok(());
        };
        let invoiced: Invoiced = match serde_json::from_str(&task.body) {
            Ok(invoiced) => invoiced,
            Err(error) => {
                tracing::error!(invoice = task.key, %error, "an invoice is not understood");
                return Ok(());
            }
        };
        let cents = invoiced.cents.0;
        let event = MeterEvent::new(task.account, invoiced.month, cents, customer, now);
        let body = written(&event)?;
        let ours = NewTask {
            kind: METER.to_owned(),
            key: task.key.clone(),
            account: task.account,
            body,
        };
        self.0.store.put_task(ours, now).await?;
        self.0
            .store
            .update_task(INVOICE, task.key, task.body, Some(now))
            .await
    }

    async fn step(
        &self,
        meter: &Meter,
        key: &str,
        mut event: MeterEvent,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        if let Step::Look { from, to } = event.step(now) {
            self.look_up(meter, key, &mut event, (from, to), now)
                .await?;
        }
        // Also what was just seen not to be there.
        if let Step::Send { at } = event.step(now) {
            self.send(meter, key, &mut event, at, now).await?;
        }
        match event.step(now) {
            Step::Done => {
                tracing::info!(
                    invoice = key,
                    cents = event.cents,
                    "collected through Stripe"
                );
                self.keep(key, &event, Some(now)).await
            }
            Step::Stuck(why) => {
                tracing::error!(invoice = key, cents = event.cents, %why, "an invoice cannot be collected: look at it");
                Ok(())
            }
            Step::Send { .. } | Step::Look { .. } | Step::Wait(_) => Ok(()),
        }
    }

    async fn send(
        &self,
        meter: &Meter,
        key: &str,
        event: &mut MeterEvent,
        at: u64,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        event.sending(now);
        self.keep(key, event, None).await?;
        let (name, identifier) = (&meter.event_name, event.identifier());
        let request = Request::meter_event(name, &event.customer, event.cents, at, &identifier);
        match self.0.provider.exchange(&request).await {
            Ok(_) | Err(Failure::Repeated) => event.recorded(),
            // Whatever it says, it may have been counted: looked up when that is certain.
            Err(failure) => tracing::warn!(invoice = key, %failure, "not collected yet"),
        }
        Ok(())
    }

    async fn look_up(
        &self,
        meter: &Meter,
        key: &str,
        event: &mut MeterEvent,
        (from, to): (u64, u64),
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let request = Request::meter_summaries(&meter.id, &event.customer, from, to);
        let counted: Result<List<MeterSummary>, Failure> = self.ask(&request).await;
        match counted.map(|list| MeterSummary::cents(&list.data)) {
            Ok(Some(cents)) => event.counted(now, cents),
            Ok(None) => tracing::error!(invoice = key, "its meter has not counted whole cents"),
            Err(failure) => tracing::warn!(invoice = key, %failure, "cannot be looked up yet"),
        }
        self.keep(key, event, None).await
    }

    async fn keep(
        &self,
        key: &str,
        event: &MeterEvent,
        done_at: Option<UnixMillis>,
    ) -> Result<(), StoreError> {
        let body = written(event)?;
        self.0
            .store
            .update_task(METER, key.to_owned(), body, done_at)
            .await
    }
}

fn written(event: &MeterEvent) -> Result<String, StoreError> {
    serde_json::to_string(event).map_err(|error| StoreError::Failed(error.to_string()))
}
