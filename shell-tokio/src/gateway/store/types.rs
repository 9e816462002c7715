//! What a store is given and gives back.

use mesh_core::billing::account::{Day, Month};
use mesh_core::billing::ledger::{Charge, Hash, Record};
use mesh_core::billing::money::Nanos;
use mesh_core::billing::tier::Tier;
use mesh_core::identity::Fingerprint;
use mesh_core::identity::api_key::{KeyHash, Scopes};
use mesh_core::ids::{AccountId, DeviceId, KeyId};
use mesh_core::limits::NAME_CHARS_MAX;
use mesh_core::time::UnixMillis;

use super::error::StoreError;

/// The ceiling of a new account, a month: $100.00.
pub const CEILING_DEFAULT: Nanos = Nanos(100_000_000_000);

/// An account to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAccount {
    /// Its id, fresh.
    pub id: AccountId,
    /// What its operator calls it; no two have the same.
    pub name: String,
    /// How it is charged.
    pub tier: Tier,
    /// The most that may be spent in a month.
    pub ceiling: Nanos,
}

impl NewAccount {
    /// On the terms of a new account: managed, with [`CEILING_DEFAULT`].
    #[must_use]
    pub fn managed(id: AccountId, name: impl Into<String>) -> Self {
        let name = name.into();
        let (tier, ceiling) = (Tier::MANAGED, CEILING_DEFAULT);
        Self {
            id,
            name,
            tier,
            ceiling,
        }
    }
}

/// An account that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRow {
    /// Its id.
    pub id: AccountId,
    /// What its operator calls it.
    pub name: String,
    /// How it is charged.
    pub tier: Tier,
    /// The most that may be spent in a month.
    pub ceiling: Nanos,
    /// When it was opened.
    pub created_at: UnixMillis,
}

/// A key to be stored: its hash, never itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// Its id, fresh.
    pub id: KeyId,
    /// Whose.
    pub account: AccountId,
    /// What its operator calls it.
    pub label: String,
    /// SHA-256 of the key.
    pub hash: KeyHash,
    /// What it may do.
    pub scopes: Scopes,
}

/// A key that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// Its id.
    pub id: KeyId,
    /// Whose.
    pub account: AccountId,
    /// What its operator calls it.
    pub label: String,
    /// What it may do.
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When it was revoked, if it was.
    pub revoked_at: Option<UnixMillis>,
}

/// A device to be enrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDevice {
    /// Its id, fresh.
    pub id: DeviceId,
    /// The key that enrols it. The device joins that key's account.
    pub key: KeyId,
    /// SHA-256 of its certificate.
    pub certificate: Fingerprint,
    /// When the certificate ends.
    pub not_after: UnixMillis,
}

/// A device that was enrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRow {
    /// Its id.
    pub id: DeviceId,
    /// Whose.
    pub account: AccountId,
    /// The key that enrolled it.
    pub key: KeyId,
    /// SHA-256 of its certificate.
    pub certificate: Fingerprint,
    /// When the certificate ends.
    pub not_after: UnixMillis,
    /// When it was enrolled.
    pub enrolled_at: UnixMillis,
    /// When it was revoked, if it was.
    pub revoked_at: Option<UnixMillis>,
    /// When it last began a session, if it ever did.
    pub seen_at: Option<UnixMillis>,
}

/// A device was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// 1, 2, 3 … over all devices.
    pub sequence: u64,
    /// Which.
    pub device: DeviceId,
}

/// A charge and its place in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booked {
    /// The entry's number within the account.
    pub sequence: u64,
    /// When.
    pub at: UnixMillis,
    /// What was charged.
    pub charge: Charge,
    /// The entry's link in the account's chain.
    pub hash: Hash,
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ordered {
    /// What stands in the ledger under its reference.
    pub record: Record,
    /// It had been carried out before: nothing happened now.
    pub repeated: bool,
}

/// Something to be done outside of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTask {
    /// What kind of thing.
    pub kind: String,
    /// Its name among its kind: put again, nothing happens.
    pub key: String,
    /// Whose.
    pub account: AccountId,
    /// What exactly, or how far it is.
    pub body: String,
}

/// Something to be done outside of the store that is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// What kind of thing.
    pub kind: String,
    /// Its name among its kind.
    pub key: String,
    /// Whose.
    pub account: AccountId,
    /// What exactly, or how far it is.
    pub body: String,
    /// Since when.
    pub created_at: UnixMillis,
}

/// Which sums of usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// All of them.
    All,
    /// From a day on.
    Since(Day),
    /// Those that count in the months after one, up to another.
    Months {
        /// Not this one.
        after: Month,
        /// This one too.
        through: Month,
    },
}

/// A name that may be given.
pub(super) fn check_name(name: &str) -> Result<(), StoreError> {
    let length = name.chars().count();
    if length == 0 || length > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        return Err(StoreError::BadName);
    }
    Ok(())
}

/// The key, if it is there and good.
pub(super) fn unrevoked(key: Option<KeyRow>) -> Result<KeyRow, StoreError> {
    let key = key.ok_or(StoreError::UnknownKey)?;
    if key.revoked_at.is_some() {
        Err(StoreError::KeyRevoked)
    } else {
        Ok(key)
    }
}
