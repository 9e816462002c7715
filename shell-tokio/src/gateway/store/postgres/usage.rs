//! What was used, added up beside the ledger.

use std::collections::BTreeMap;

use mesh_core::billing::account::{Day, Month};
use mesh_core::billing::money::Nanos;
use mesh_core::billing::usage::{Key, Sums};
use mesh_core::ids::DeviceId;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::rows::{signed, unsigned};
use crate::gateway::store::error::StoreError;
use crate::gateway::store::types::Span;

/// Sums to be added, as columns.
#[derive(Default)]
pub(super) struct Columns {
    accounts: Vec<Uuid>,
    months: Vec<i32>,
    days: Vec<i32>,
    models: Vec<String>,
    tiers: Vec<String>,
    devices: Vec<Uuid>,
    projects: Vec<String>,
    requests: Vec<i64>,
    estimated: Vec<i64>,
    prompt: Vec<i64>,
    completion: Vec<i64>,
    cache_read: Vec<i64>,
    cache_write: Vec<i64>,
    base: Vec<i64>,
    charge: Vec<i64>,
    refunded: Vec<i64>,
    postpaid: Vec<i64>,
}

impl Columns {
    pub(super) fn push(&mut self, account: Uuid, key: &Key, sums: &Sums) {
        let device = key.device.map_or(0, DeviceId::as_u128);
        self.accounts.push(account);
        self.months.push(key.month.index());
        self.days.push(key.day.index());
        self.models.push(key.model.clone());
        self.tiers.push(key.tier.clone());
        self.devices.push(Uuid::from_u128(device));
        self.projects.push(key.project.clone().unwrap_or_default());
        self.requests.push(signed(sums.requests));
        self.estimated.push(signed(sums.estimated));
        self.prompt.push(signed(sums.prompt));
        self.completion.push(signed(sums.completion));
        self.cache_read.push(signed(sums.cache_read));
        self.cache_write.push(signed(sums.cache_write));
        self.base.push(sums.base.0);
        self.charge.push(sums.charge.0);
        self.refunded.push(sums.refunded.0);
        self.postpaid.push(sums.postpaid.0);
    }

    /// In the order of the table's columns.
    pub(super) fn values(&self) -> [&(dyn ToSql + Sync); 17] {
        [
            &self.accounts,
            &self.months,
            &self.days,
            &self.models,
            &self.tiers,
            &self.devices,
            &self.projects,
            &self.requests,
            &self.estimated,
            &self.prompt,
            &self.completion,
            &self.cache_read,
            &self.cache_write,
            &self.base,
            &self.charge,
            &self.refunded,
            &self.postpaid,
        ]
    }
}

/// The sums of an account in a span of days and months.
pub(super) const READ: &str = "SELECT month, day, model, tier, device, project, requests, \
     estimated, prompt, completion, cache_read, cache_write, base, charge, refunded, postpaid \
     FROM usage WHERE account = $1 AND day >= $2 AND month > $3 AND month <= $4";

/// The values that [`READ`] has for a span: since which day, after which month, through which.
pub(super) const fn bounds(span: Span) -> (i32, i32, i32) {
    match span {
        Span::All => (i32::MIN, i32::MIN, i32::MAX),
        Span::Since(day) => (day.index(), i32::MIN, i32::MAX),
        Span::Months { after, through } => (i32::MIN, after.index(), through.index()),
    }
}

pub(super) fn row(row: &Row) -> Result<(Key, Sums), StoreError> {
    let device: Uuid = row.try_get(4)?;
    let project: String = row.try_get(5)?;
    let key = Key {
        month: Month::from_index(row.try_get(0)?),
        day: Day::from_index(row.try_get(1)?),
        model: row.try_get(2)?,
        tier: row.try_get(3)?,
        device: (!device.is_nil()).then(|| DeviceId::from_u128(device.as_u128())),
        project: (!project.is_empty()).then_some(project),
    };
    let nanos = |column| -> Result<Nanos, StoreError> { Ok(Nanos(row.try_get(column)?)) };
    let sums = Sums {
        requests: unsigned(row, 6)?,
        estimated: unsigned(row, 7)?,
        prompt: unsigned(row, 8)?,
        completion: unsigned(row, 9)?,
        cache_read: unsigned(row, 10)?,
        cache_write: unsigned(row, 11)?,
        base: nanos(12)?,
        charge: nanos(13)?,
        refunded: nanos(14)?,
        postpaid: nanos(15)?,
    };
    Ok((key, sums))
}

/// All sums by their keys.
pub(super) fn all(rows: &[Row]) -> Result<BTreeMap<Key, Sums>, StoreError> {
    rows.iter().map(row).collect()
}
