//! Between the values of the program and those of SQLite.

use mesh_core::billing::account::Account;
use mesh_core::billing::ledger::{Hash, Stored};
use mesh_core::identity::Fingerprint;
use mesh_core::identity::api_key::Scopes;
use mesh_core::ids::{AccountId, DeviceId, KeyId};
use mesh_core::time::UnixMillis;
use rusqlite::Row;
use rusqlite::types::{Type, ValueRef};

use crate::gateway::store::types::{AccountRow, DeviceRow, KeyRow};

type Read<T> = Result<T, rusqlite::Error>;

/// An id as it is stored.
pub(super) const fn blob(bits: u128) -> [u8; 16] {
    bits.to_be_bytes()
}

/// A count or a time as it is stored.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(row: &Row<'_>, column: usize) -> Read<u64> {
    let stored: i64 = row.get(column)?;
    u64::try_from(stored).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, stored))
}

fn id(row: &Row<'_>, column: usize) -> Read<u128> {
    row.get(column).map(u128::from_be_bytes)
}

pub(super) fn account_id(row: &Row<'_>, column: usize) -> Read<AccountId> {
    id(row, column).map(AccountId::from_u128)
}

pub(super) fn device_id(row: &Row<'_>, column: usize) -> Read<DeviceId> {
    id(row, column).map(DeviceId::from_u128)
}

fn time(row: &Row<'_>, column: usize) -> Read<UnixMillis> {
    unsigned(row, column).map(UnixMillis)
}

fn maybe_time(row: &Row<'_>, column: usize) -> Read<Option<UnixMillis>> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Text(_) | ValueRef::Blob(_) => {
            time(row, column).map(Some)
        }
    }
}

fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> Read<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
    })
}

/// The columns of [`account_row`].
pub(super) const ACCOUNT: &str = "id, name, state, created_at";

pub(super) fn account_row(row: &Row<'_>) -> Read<AccountRow> {
    let account: Account = json(row, 2)?;
    Ok(AccountRow {
        id: account_id(row, 0)?,
        name: row.get(1)?,
        tier: account.tier,
        ceiling: account.ceiling,
        created_at: time(row, 3)?,
    })
}

/// Reads `state, entries, head`.
pub(super) fn standing(row: &Row<'_>) -> Read<(String, u64, Hash)> {
    Ok((row.get(0)?, unsigned(row, 1)?, Hash(row.get(2)?)))
}

/// Reads `sequence, canonical, hash` without believing any of it: what cannot be read becomes
/// something that no chain holds.
pub(super) fn stored(row: &Row<'_>) -> Read<Stored> {
    let bytes = |column| -> Read<Vec<u8>> {
        Ok(match row.get_ref(column)? {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.to_vec(),
            ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => Vec::new(),
        })
    };
    Ok(Stored {
        sequence: unsigned(row, 0).unwrap_or(u64::MAX),
        canonical: String::from_utf8_lossy(&bytes(1)?).into_owned(),
        hash: Hash(bytes(2)?.try_into().unwrap_or_default()),
    })
}

/// The columns of [`key_row`].
pub(super) const KEY: &str = "id, account, label, scopes, created_at, revoked_at";

pub(super) fn key_row(row: &Row<'_>) -> Read<KeyRow> {
    Ok(KeyRow {
        id: KeyId::from_u128(id(row, 0)?),
        account: account_id(row, 1)?,
        label: row.get(2)?,
        scopes: Scopes::from_bits(row.get(3)?),
        created_at: time(row, 4)?,
        revoked_at: maybe_time(row, 5)?,
    })
}

/// The columns of [`device_row`].
pub(super) const DEVICE: &str =
    "id, account, key, certificate, not_after, enrolled_at, revoked_at, seen_at";

pub(super) fn device_row(row: &Row<'_>) -> Read<DeviceRow> {
    Ok(DeviceRow {
        id: device_id(row, 0)?,
        account: account_id(row, 1)?,
        key: KeyId::from_u128(id(row, 2)?),
        certificate: Fingerprint(row.get(3)?),
        not_after: time(row, 4)?,
        enrolled_at: time(row, 5)?,
        revoked_at: maybe_time(row, 6)?,
        seen_at: maybe_time(row, 7)?,
    })
}

pub(super) fn sequence(row: &Row<'_>, column: usize) -> Read<u64> {
    unsigned(row, column)
}
