//! The desk: everything that is not about an account's money in a batch, one job after the other, and the
//! gateway's lease.

use std::time::Duration;

use mesh_core::billing::lease::{GatewayId, Holder};
use mesh_core::limits::{GATEWAY_LEASE_RENEWAL, STORE_TRANSACTION_TIMEOUT};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::connection::Door;
use super::rows::{self, uuid};
use super::statements;
use crate::gateway::store::Role;
use crate::gateway::store::error::StoreError;
use crate::gateway::store::place::Database;

/// Values of a statement.
pub(super) type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A connection for one job at a time.
pub(super) struct Desk {
    me: GatewayId,
    door: Door,
    /// A gateway's only.
    renewals: Option<Interval>,
    /// A transaction has been begun.
    begun: bool,
}

impl Desk {
    pub(super) fn new(database: Database, me: GatewayId, role: Role) -> Self {
        let renewals = match role {
            Role::Gateway => {
                let mut renewals = tokio::time::interval(GATEWAY_LEASE_RENEWAL);
                renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
                Some(renewals)
            }
            Role::Administration => None,
        };
        Self {
            me,
            door: Door::new(database),
            renewals,
            begun: false,
        }
    }

    /// Runs one job; what it began is committed when it succeeds, and else undone.
    pub(super) async fn alone<T>(
        &mut self,
        job: impl AsyncFnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let whole = async {
            let outcome = job(&mut *self).await;
            if !std::mem::take(&mut self.begun) {
                return outcome;
            }
            let link = self.door.open().await?;
            match outcome {
                Ok(value) => {
                    link.client.batch_execute("COMMIT").await?;
                    Ok(value)
                }
                Err(error) => {
                    link.client.batch_execute("ROLLBACK").await?;
                    Err(error)
                }
            }
        };
        let outcome = tokio::time::timeout(STORE_TRANSACTION_TIMEOUT, whole).await;
        let late = || StoreError::Unreachable("it did not answer in time".to_owned());
        let outcome = outcome.unwrap_or_else(|_| Err(late()));
        if outcome.as_ref().is_err_and(StoreError::is_unavailable) {
            // Whatever it was, the next job begins anew.
            self.begun = false;
            self.door.shut();
        }
        outcome
    }

    /// What follows is done together or not at all.
    pub(super) async fn begin(&mut self) -> Result<(), StoreError> {
        self.door
            .open()
            .await?
            .client
            .batch_execute("BEGIN")
            .await?;
        self.begun = true;
        Ok(())
    }

    pub(super) async fn rows(
        &mut self,
        sql: &'static str,
        values: Values<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        let link = self.door.open().await?;
        let statement = link.statement(sql).await?;
        Ok(link.client.query(&statement, values).await?)
    }

    pub(super) async fn find<T>(
        &mut self,
        sql: &'static str,
        values: Values<'_>,
        read: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let rows = self.rows(sql, values).await?;
        rows.first().map(read).transpose()
    }

    pub(super) async fn list<T>(
        &mut self,
        sql: &'static str,
        values: Values<'_>,
        read: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        self.rows(sql, values).await?.iter().map(read).collect()
    }

    pub(super) async fn write(
        &mut self,
        sql: &'static str,
        values: Values<'_>,
    ) -> Result<u64, StoreError> {
        let link = self.door.open().await?;
        let statement = link.statement(sql).await?;
        Ok(link.client.execute(&statement, values).await?)
    }

    /// The gateway that this store is open for.
    pub(super) const fn me(&self) -> GatewayId {
        self.me
    }

    /// When the gateway has to give its sign of life; for administration never.
    pub(super) async fn renewal_is_due(&mut self) {
        match &mut self.renewals {
            Some(renewals) => {
                renewals.tick().await;
            }
            None => std::future::pending().await,
        }
    }

    /// Gives the sign, and takes the holds away of those that have given none for too long.
    pub(super) async fn renew(&mut self) {
        let renewed = self.alone(async |desk: &mut Self| desk.try_to_renew().await);
        if let Err(error) = renewed.await {
            tracing::warn!(%error, "the gateway's lease was not renewed");
            if let Some(renewals) = &mut self.renewals {
                // Soon again: others void what it holds when it is silent for long.
                renewals.reset_at(Instant::now() + Duration::from_secs(1));
            }
        }
    }

    async fn try_to_renew(&mut self) -> Result<(), StoreError> {
        let me = uuid(self.me.as_u128());
        self.write(statements::RENEW, &[&me]).await?;
        let leases = self.rows(statements::LEASES, &[]).await?;
        let mut gone: Vec<Uuid> = Vec::new();
        for row in leases {
            let holder = Holder {
                gateway: rows::gateway_id(&row, 0)?,
                renewed_at: Some(rows::time(&row, 1)?),
            };
            if holder.is_gone(self.me, rows::time(&row, 2)?) {
                gone.push(uuid(holder.gateway.as_u128()));
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        self.begin().await?;
        self.write("DELETE FROM gateways WHERE id = ANY($1)", &[&gone])
            .await?;
        let void = self
            .write("DELETE FROM holds WHERE gateway = ANY($1)", &[&gone])
            .await?;
        tracing::warn!(
            gateways = gone.len(),
            holds = void,
            "gateways have gone: their holds are void"
        );
        Ok(())
    }

    /// The gateway ends: what it still holds is void at once.
    pub(super) async fn leave(mut self) {
        if self.renewals.is_none() {
            return;
        }
        let me = uuid(self.me.as_u128());
        let left = self.alone(async |desk: &mut Self| {
            desk.begin().await?;
            desk.write("DELETE FROM holds WHERE gateway = $1", &[&me])
                .await?;
            desk.write("DELETE FROM gateways WHERE id = $1", &[&me])
                .await
        });
        if let Err(error) = left.await {
            tracing::warn!(%error, "the gateway's holds stay until its lease ends");
        }
    }
}
