//! Between the values of the program and those of PostgreSQL.

use mesh_core::billing::account::{Account, Held};
use mesh_core::billing::lease::{GatewayId, Lease};
use mesh_core::billing::ledger::{Hash, Stored};
use mesh_core::identity::Fingerprint;
use mesh_core::identity::api_key::Scopes;
use mesh_core::ids::{AccountId, DeviceId, KeyId, RequestId};
use mesh_core::time::UnixMillis;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::gateway::store::error::StoreError;
use crate::gateway::store::types::{AccountRow, DeviceRow, KeyRow};

type Read<T> = Result<T, StoreError>;

/// An id as it is stored.
pub(super) const fn uuid(bits: u128) -> Uuid {
    Uuid::from_u128(bits)
}

/// A count or a time as it is stored.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(row: &Row, column: usize) -> Read<u64> {
    let stored: i64 = row.try_get(column)?;
    u64::try_from(stored).map_err(|_| StoreError::Damaged(format!("{stored} is no count")))
}

fn id(row: &Row, column: usize) -> Read<u128> {
    Ok(row.try_get::<_, Uuid>(column)?.as_u128())
}

pub(super) fn account_id(row: &Row, column: usize) -> Read<AccountId> {
    id(row, column).map(AccountId::from_u128)
}

pub(super) fn device_id(row: &Row, column: usize) -> Read<DeviceId> {
    id(row, column).map(DeviceId::from_u128)
}

pub(super) fn gateway_id(row: &Row, column: usize) -> Read<GatewayId> {
    id(row, column).map(GatewayId::from_u128)
}

pub(super) fn time(row: &Row, column: usize) -> Read<UnixMillis> {
    unsigned(row, column).map(UnixMillis)
}

pub(super) fn maybe_time(row: &Row, column: usize) -> Read<Option<UnixMillis>> {
    match row.try_get::<_, Option<i64>>(column)? {
        None => Ok(None),
        Some(_) => time(row, column).map(Some),
    }
}

fn bytes32(row: &Row, column: usize) -> Read<[u8; 32]> {
    let bytes: &[u8] = row.try_get(column)?;
    let damaged = |_| StoreError::Damaged("a hash is not 32 bytes long".to_owned());
    bytes.try_into().map_err(damaged)
}

/// The columns of [`account_row`].
macro_rules! account_columns {
    () => {
        "id, name, state, created_at"
    };
}

/// The columns of [`key_row`].
macro_rules! key_columns {
    () => {
        "id, account, label, scopes, created_at, revoked_at"
    };
}

/// The columns of [`device_row`].
macro_rules! device_columns {
    () => {
        "id, account, key, certificate, not_after, enrolled_at, revoked_at, seen_at"
    };
}

pub(super) use {account_columns, device_columns, key_columns};

pub(super) fn account_row(row: &Row) -> Read<AccountRow> {
    let account: Account = json("an account", row, 2)?;
    Ok(AccountRow {
        id: account_id(row, 0)?,
        name: row.try_get(1)?,
        tier: account.tier,
        ceiling: account.ceiling,
        created_at: time(row, 3)?,
    })
}

pub(super) fn key_row(row: &Row) -> Read<KeyRow> {
    let scopes: i16 = row.try_get(3)?;
    Ok(KeyRow {
        id: KeyId::from_u128(id(row, 0)?),
        account: account_id(row, 1)?,
        label: row.try_get(2)?,
        scopes: Scopes::from_bits(u8::try_from(scopes).unwrap_or_default()),
        created_at: time(row, 4)?,
        revoked_at: maybe_time(row, 5)?,
    })
}

pub(super) fn device_row(row: &Row) -> Read<DeviceRow> {
    Ok(DeviceRow {
        id: device_id(row, 0)?,
        account: account_id(row, 1)?,
        key: KeyId::from_u128(id(row, 2)?),
        certificate: Fingerprint(bytes32(row, 3)?),
        not_after: time(row, 4)?,
        enrolled_at: time(row, 5)?,
        revoked_at: maybe_time(row, 6)?,
        seen_at: maybe_time(row, 7)?,
    })
}

pub(super) fn fingerprint(row: &Row, from: usize) -> Read<Fingerprint> {
    Ok(Fingerprint(bytes32(row, from)?))
}

/// Reads `state, entries, head` from a column on.
pub(super) fn standing(row: &Row, from: usize) -> Read<(&str, u64, Hash)> {
    let head = Hash(bytes32(row, from + 2)?);
    Ok((row.try_get(from)?, unsigned(row, from + 1)?, head))
}

/// Reads `sequence, canonical, hash` from a column on, without believing any of it: what cannot be
/// read becomes something that no chain holds.
pub(super) fn stored(row: &Row, from: usize) -> Read<Stored> {
    Ok(Stored {
        sequence: unsigned(row, from).unwrap_or(u64::MAX),
        canonical: row.try_get(from + 1)?,
        hash: Hash(bytes32(row, from + 2).unwrap_or_default()),
    })
}

/// Reads `request, gateway, held` from a column on.
pub(super) fn held(row: &Row, from: usize) -> Read<(RequestId, GatewayId, Held)> {
    let request = RequestId::from_u128(id(row, from)?);
    let gateway = gateway_id(row, from + 1)?;
    Ok((request, gateway, json("a hold", row, from + 2)?))
}

/// Reads `since, renewed_at` from a column on.
pub(super) fn lease(row: &Row, from: usize) -> Read<Option<Lease>> {
    let (since, renewed_at) = (maybe_time(row, from)?, maybe_time(row, from + 1)?);
    let both = since.zip(renewed_at);
    Ok(both.map(|(since, renewed_at)| Lease { since, renewed_at }))
}

pub(super) fn json<T: serde::de::DeserializeOwned>(
    what: &str,
    row: &Row,
    column: usize,
) -> Read<T> {
    let text: &str = row.try_get(column)?;
    serde_json::from_str(text).map_err(|error| StoreError::Damaged(format!("{what}: {error}")))
}
