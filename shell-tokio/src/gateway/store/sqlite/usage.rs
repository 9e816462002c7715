//! What was used, added up beside the ledger.

use std::collections::BTreeMap;

use mesh_core::billing::account::{Day, Month};
use mesh_core::billing::money::Nanos;
use mesh_core::billing::usage::{Key, Sums};
use mesh_core::ids::{AccountId, DeviceId};
use rusqlite::{Connection, Row, params};

use super::rows::{self, blob, signed};
use super::writer::Work;
use crate::gateway::store::error::StoreError;
use crate::gateway::store::types::Span;

const COLUMNS: &str = "month, day, model, tier, device, project, requests, estimated, prompt, \
                       completion, cache_read, cache_write, base, charge, refunded, postpaid";

/// Adds to the sums under one key.
pub(super) fn add(
    connection: &Connection,
    account: AccountId,
    key: &Key,
    sums: &Sums,
) -> Result<(), StoreError> {
    let sql = format!(
        "INSERT INTO usage (account, {COLUMNS}) VALUES \
         (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17) \
         ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, \
         estimated = estimated + excluded.estimated, prompt = prompt + excluded.prompt, \
         completion = completion + excluded.completion, \
         cache_read = cache_read + excluded.cache_read, \
         cache_write = cache_write + excluded.cache_write, base = base + excluded.base, \
         charge = charge + excluded.charge, refunded = refunded + excluded.refunded, \
         postpaid = postpaid + excluded.postpaid"
    );
    let device = key.device.map(|device| blob(device.as_u128()).to_vec());
    connection.prepare_cached(&sql)?.execute(params![
        blob(account.as_u128()),
        key.month.index(),
        key.day.index(),
        key.model,
        key.tier,
        device.unwrap_or_default(),
        key.project.as_deref().unwrap_or_default(),
        signed(sums.requests),
        signed(sums.estimated),
        signed(sums.prompt),
        signed(sums.completion),
        signed(sums.cache_read),
        signed(sums.cache_write),
        sums.base.0,
        sums.charge.0,
        sums.refunded.0,
        sums.postpaid.0,
    ])?;
    Ok(())
}

/// The sums of an account, all or those of a span.
pub(super) fn read(
    connection: &Connection,
    account: AccountId,
    span: Span,
) -> Result<Vec<(Key, Sums)>, StoreError> {
    let (since, after, through) = match span {
        Span::All => (i32::MIN, i32::MIN, i32::MAX),
        Span::Since(day) => (day.index(), i32::MIN, i32::MAX),
        Span::Months { after, through } => (i32::MIN, after.index(), through.index()),
    };
    let sql = format!(
        "SELECT {COLUMNS} FROM usage \
         WHERE account = ?1 AND day >= ?2 AND month > ?3 AND month <= ?4"
    );
    let mut query = connection.prepare_cached(&sql)?;
    let found = query.query_map(params![blob(account.as_u128()), since, after, through], row)?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// All sums of an account by their keys.
pub(super) fn all(
    connection: &Connection,
    account: AccountId,
) -> Result<BTreeMap<Key, Sums>, StoreError> {
    Ok(read(connection, account, Span::All)?.into_iter().collect())
}

fn row(row: &Row<'_>) -> Result<(Key, Sums), rusqlite::Error> {
    let device: Vec<u8> = row.get(4)?;
    let device = <[u8; 16]>::try_from(device).ok();
    let project: String = row.get(5)?;
    let key = Key {
        month: Month::from_index(row.get(0)?),
        day: Day::from_index(row.get(1)?),
        model: row.get(2)?,
        tier: row.get(3)?,
        device: device.map(|bytes| DeviceId::from_u128(u128::from_be_bytes(bytes))),
        project: (!project.is_empty()).then_some(project),
    };
    let nanos = |column| row.get(column).map(Nanos);
    let sums = Sums {
        requests: rows::sequence(row, 6)?,
        estimated: rows::sequence(row, 7)?,
        prompt: rows::sequence(row, 8)?,
        completion: rows::sequence(row, 9)?,
        cache_read: rows::sequence(row, 10)?,
        cache_write: rows::sequence(row, 11)?,
        base: nanos(12)?,
        charge: nanos(13)?,
        refunded: nanos(14)?,
        postpaid: nanos(15)?,
    };
    Ok((key, sums))
}

impl Work<'_> {
    pub(in crate::gateway::store) fn usage(
        &self,
        account: AccountId,
        span: Span,
    ) -> Result<Vec<(Key, Sums)>, StoreError> {
        read(self.connection, account, span)
    }
}
