//! Who there is: accounts, their keys and devices, what was revoked, and the authorities of the deployment.

use mesh_core::gateway::Admitted;
use mesh_core::identity::Fingerprint;
use mesh_core::identity::api_key::KeyHash;
use mesh_core::ids::{AccountId, DeviceId, KeyId};
use mesh_core::time::UnixMillis;

use super::{
    AccountRow, DeviceRow, KeyRow, Kind, NewAccount, NewDevice, NewKey, Revocation, Store,
    StoreError, postgres, work,
};

impl Store {
    /// Opens an account.
    ///
    /// # Errors
    ///
    /// [`StoreError::NameTaken`], [`StoreError::BadName`], or the store is unavailable.
    pub async fn create_account(
        &self,
        account: NewAccount,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        work!(self, desk => desk.create_account(&account, now))
    }

    /// Every account by name, at most [`STORE_LIST_MAX`](mesh_core::limits::STORE_LIST_MAX).
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError> {
        work!(self, desk => desk.accounts())
    }

    /// The account of that name.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownAccount`], or the store is unavailable.
    pub async fn account_named(&self, name: &str) -> Result<AccountRow, StoreError> {
        let name = name.to_owned();
        work!(self, desk => desk.account_named(&name))
    }

    /// Stores a key.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownAccount`], [`StoreError::BadName`], or the store is unavailable.
    pub async fn create_key(&self, key: NewKey, now: UnixMillis) -> Result<(), StoreError> {
        work!(self, desk => desk.create_key(&key, now))
    }

    /// The keys of one account, or of all, the oldest first.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn keys(&self, account: Option<AccountId>) -> Result<Vec<KeyRow>, StoreError> {
        work!(self, desk => desk.keys(account))
    }

    /// The key with this hash, unless it was revoked.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownKey`], [`StoreError::KeyRevoked`], or the store is unavailable.
    pub async fn key(&self, hash: KeyHash) -> Result<KeyRow, StoreError> {
        work!(self, desk => desk.key_by_hash(&hash))
    }

    /// Revokes a key and says which devices it had enrolled that are not revoked yet; with
    /// `devices_too` those are revoked along with it. Again is no error.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownKey`], or the store is unavailable.
    pub async fn revoke_key(
        &self,
        key: KeyId,
        devices_too: bool,
        now: UnixMillis,
    ) -> Result<Vec<DeviceRow>, StoreError> {
        work!(self, desk => desk.revoke_key(key, devices_too, now))
    }

    /// Enrols a device into the account of the key, and says which that is.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownKey`], [`StoreError::KeyRevoked`], [`StoreError::DeviceTaken`],
    /// [`StoreError::TooManyDevices`], or the store is unavailable.
    pub async fn enrol(&self, device: NewDevice, now: UnixMillis) -> Result<AccountId, StoreError> {
        work!(self, desk => desk.enrol(&device, now))
    }

    /// The devices of one account, or of all, the oldest first.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn devices(&self, account: Option<AccountId>) -> Result<Vec<DeviceRow>, StoreError> {
        work!(self, desk => desk.devices(account))
    }

    /// Revokes a device. Again is no error.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownDevice`], or the store is unavailable.
    pub async fn revoke_device(&self, device: DeviceId, now: UnixMillis) -> Result<(), StoreError> {
        work!(self, desk => desk.revoke_device(device, now))
    }

    /// The revocations after one that was seen (0: from the beginning), the oldest first, also those
    /// that another process made. A gateway asks from time to time, and ends the devices' sessions.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn revocations(&self, after: u64) -> Result<Vec<Revocation>, StoreError> {
        work!(self, desk => desk.revocations(after))
    }

    /// The number of the last revocation; 0 if there was none.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn last_revocation(&self) -> Result<u64, StoreError> {
        work!(self, desk => desk.last_revocation())
    }

    /// Lets a device in and numbers its session.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotAdmitted`] with the reason, or the store is unavailable.
    pub async fn admit(
        &self,
        device: DeviceId,
        certificate: Fingerprint,
        now: UnixMillis,
    ) -> Result<Admitted, StoreError> {
        work!(self.as_gateway()?, desk => desk.admit(device, certificate, now))
    }

    /// Which certificate authorities the gateways of this store have, by their fingerprint; `None` before
    /// the first start.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn authorities(&self) -> Result<Option<Fingerprint>, StoreError> {
        work!(self, desk => desk.authorities())
    }

    /// The same; these are written down if none were, so that of several that begin at once one is the
    /// first for all.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn claim_authorities(&self, own: Fingerprint) -> Result<Fingerprint, StoreError> {
        work!(self, desk => desk.claim_authorities(own))
    }

    /// Writes these down in place of any others.
    ///
    /// # Errors
    ///
    /// The store is unavailable.
    pub async fn adopt_authorities(&self, own: Fingerprint) -> Result<(), StoreError> {
        work!(self, desk => desk.adopt_authorities(own))
    }
}
