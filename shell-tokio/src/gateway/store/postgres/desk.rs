//! The desk: everything that is not about an account's money in a batch, one job after the other, and the
//! gateway's lease.

use std::time::Duration;

use mesh_core::billing::account::Command;
use mesh_core::billing::lease::{GatewayId, Judge, Lease, Term};
use mesh_core::limits::{STORE_BATCH_MAX, STORE_TRANSACTION_TIMEOUT};
use mesh_core::time::UnixMillis;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::batch::{self, Ask, Asked};
use super::connection::Door;
use super::rows::{self, signed, uuid};
use super::statements;
use crate::gateway::store::Role;
use crate::gateway::store::error::StoreError;
use crate::gateway::store::place::Database;

/// Values of a statement.
pub(super) type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A connection for one job at a time.
pub(in crate::gateway::store) struct Desk {
    me: GatewayId,
    term: Term,
    door: Door,
    /// A gateway's only.
    renewals: Option<Interval>,
    /// A transaction has been begun.
    begun: bool,
}

impl Desk {
    pub(super) fn new(database: Database, me: GatewayId, role: Role) -> Self {
        let term = database.term();
        let renewals = match role {
            Role::Gateway => {
                let mut renewals = tokio::time::interval(term.renewal());
                renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
                Some(renewals)
            }
            Role::Administration => None,
        };
        Self {
            me,
            term,
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
        let mut outcome = renewed.await;
        if outcome.is_ok() {
            let lost = self.alone(async |desk: &mut Self| {
                let now = desk.judge().await?.now;
                desk.lose_all(now).await
            });
            outcome = lost.await.map(|lost| {
                if lost > 0 {
                    tracing::warn!(lost, "answers were cut off when their gateway went down");
                }
            });
        }
        if let Err(error) = outcome {
            tracing::warn!(%error, "the gateway's lease was not renewed");
            if let Some(renewals) = &mut self.renewals {
                // Soon again: others void what it holds when it is silent for long.
                renewals.reset_at(Instant::now() + Duration::from_secs(1));
            }
        }
    }

    async fn try_to_renew(&mut self) -> Result<(), StoreError> {
        let judge = self.judge().await?;
        let lease = Lease::renewed(judge.lease, judge.now, self.term);
        let me = uuid(self.me.as_u128());
        let (since, renewed_at) = (signed(lease.since.0), signed(lease.renewed_at.0));
        self.write(statements::RENEW, &[&me, &since, &renewed_at])
            .await?;
        let mut gone: Vec<Uuid> = Vec::new();
        for row in self.rows(statements::LEASES, &[]).await? {
            let Some(other) = rows::lease(&row, 2)? else {
                continue;
            };
            let gateway = rows::gateway_id(&row, 1)?;
            let lease = Some(lease);
            if (Judge { lease, ..judge }).is_gone(gateway, Some(other.renewed_at)) {
                gone.push(uuid(gateway.as_u128()));
            }
        }
        if !gone.is_empty() {
            self.begin().await?;
            self.write("DELETE FROM gateways WHERE id = ANY($1)", &[&gone])
                .await?;
            let void = self
                .write("DELETE FROM holds WHERE gateway = ANY($1)", &[&gone])
                .await?;
            let gateways = gone.len();
            tracing::warn!(
                gateways,
                holds = void,
                "gateways have gone: their holds are void"
            );
        }
        Ok(())
    }

    /// This gateway, its lease and the server's clock.
    pub(super) async fn judge(&mut self) -> Result<Judge, StoreError> {
        let me = self.me;
        let rows = self.rows(statements::LEASES, &[]).await?;
        let mut judge = Judge {
            me,
            lease: None,
            now: UnixMillis(0),
        };
        for row in &rows {
            judge.now = rows::time(row, 0)?;
            if row.try_get::<_, Option<Uuid>>(1)? == Some(uuid(me.as_u128())) {
                judge.lease = rows::lease(row, 2)?;
            }
        }
        Ok(judge)
    }

    /// Books what gateways were in the middle of that have gone, and says how much that was.
    pub(in crate::gateway::store) async fn lose_all(
        &mut self,
        now: UnixMillis,
    ) -> Result<usize, StoreError> {
        let judge = self.judge().await?;
        let sql = "SELECT r.account, r.gateway, g.renewed_at, r.lose FROM running r \
                   LEFT JOIN gateways g ON g.id = r.gateway";
        let mut lost = Vec::new();
        for row in self.rows(sql, &[]).await? {
            let renewed_at = rows::maybe_time(&row, 2)?;
            if judge.is_gone(rows::gateway_id(&row, 1)?, renewed_at) {
                let lose = rows::json("a running answer", &row, 3)?;
                lost.push((
                    rows::account_id(&row, 0)?,
                    Ask::Command {
                        command: Command::Lose(lose),
                        keep: None,
                    },
                ));
            }
        }
        for some in lost.chunks(STORE_BATCH_MAX) {
            let asked: Vec<Asked<'_>> = some
                .iter()
                .map(|(account, ask)| Asked {
                    account: *account,
                    ask,
                    now,
                })
                .collect();
            let link = self.door.open().await?;
            // What it does not carry out here stands in the table still, for the next time.
            let answers = batch::run(link, self.me, &asked).await;
            if answers.is_err() {
                self.door.shut();
            }
            answers?
                .into_iter()
                .try_for_each(|answer| answer.map(drop))?;
        }
        Ok(lost.len())
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
