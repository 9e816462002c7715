//! Who is who: accounts by name, API keys, devices.

use mesh_core::gateway::{Admitted, NotAdmitted};
use mesh_core::identity::Fingerprint;
use mesh_core::identity::api_key::KeyHash;
use mesh_core::ids::{AccountId, DeviceId, KeyId};
use mesh_core::limits::{DEVICES_PER_ACCOUNT_MAX, STORE_LIST_MAX};
use mesh_core::time::UnixMillis;
use rusqlite::{OptionalExtension, Params, Row, params};

use super::rows::{self, blob, signed};
use super::writer::Work;
use crate::gateway::store::error::StoreError;
use crate::gateway::store::types::{
    AccountRow, DeviceRow, KeyRow, NewAccount, NewDevice, NewKey, Revocation, check_name, unrevoked,
};

impl Work<'_> {
    fn find<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: fn(&Row<'_>) -> Result<T, rusqlite::Error>,
    ) -> Result<Option<T>, StoreError> {
        Ok(self
            .connection
            .prepare_cached(sql)?
            .query_row(params, read)
            .optional()?)
    }

    fn list<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: fn(&Row<'_>) -> Result<T, rusqlite::Error>,
    ) -> Result<Vec<T>, StoreError> {
        let mut query = self.connection.prepare_cached(sql)?;
        Ok(query
            .query_map(params, read)?
            .take(STORE_LIST_MAX)
            .collect::<Result<_, _>>()?)
    }

    fn write(&self, sql: &str, params: impl Params) -> Result<usize, StoreError> {
        Ok(self.connection.prepare_cached(sql)?.execute(params)?)
    }

    pub(in crate::gateway::store) fn create_account(
        &mut self,
        account: &NewAccount,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        check_name(&account.name)?;
        match self.account_named(&account.name) {
            Ok(_) => Err(StoreError::NameTaken),
            Err(StoreError::UnknownAccount) => self.open_ledger(account, now),
            Err(error) => Err(error),
        }
    }

    pub(in crate::gateway::store) fn accounts(&self) -> Result<Vec<AccountRow>, StoreError> {
        let sql = format!("SELECT {} FROM accounts ORDER BY name", rows::ACCOUNT);
        self.list(&sql, [], rows::account_row)
    }

    pub(in crate::gateway::store) fn account_named(
        &self,
        name: &str,
    ) -> Result<AccountRow, StoreError> {
        let sql = format!("SELECT {} FROM accounts WHERE name = ?1", rows::ACCOUNT);
        self.find(&sql, [name], rows::account_row)?
            .ok_or(StoreError::UnknownAccount)
    }

    pub(in crate::gateway::store) fn create_key(
        &self,
        key: &NewKey,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        check_name(&key.label)?;
        let account = blob(key.account.as_u128());
        let known = self.find(
            "SELECT 1 FROM accounts WHERE id = ?1",
            [account],
            |_| Ok(()),
        )?;
        known.ok_or(StoreError::UnknownAccount)?;
        self.write(
            "INSERT INTO keys (id, account, label, hash, scopes, created_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                blob(key.id.as_u128()),
                account,
                key.label,
                key.hash,
                key.scopes.bits(),
                signed(now.0),
            ],
        )?;
        Ok(())
    }

    pub(in crate::gateway::store) fn keys(
        &self,
        account: Option<AccountId>,
    ) -> Result<Vec<KeyRow>, StoreError> {
        let sql = format!(
            "SELECT {} FROM keys WHERE ?1 IS NULL OR account = ?1 ORDER BY created_at, id",
            rows::KEY
        );
        self.list(&sql, [account.map(|id| blob(id.as_u128()))], rows::key_row)
    }

    pub(in crate::gateway::store) fn key_by_hash(
        &self,
        hash: &KeyHash,
    ) -> Result<KeyRow, StoreError> {
        let sql = format!("SELECT {} FROM keys WHERE hash = ?1", rows::KEY);
        unrevoked(self.find(&sql, [hash], rows::key_row)?)
    }

    fn key_by_id(&self, key: KeyId) -> Result<Option<KeyRow>, StoreError> {
        let sql = format!("SELECT {} FROM keys WHERE id = ?1", rows::KEY);
        self.find(&sql, [blob(key.as_u128())], rows::key_row)
    }

    pub(in crate::gateway::store) fn revoke_key(
        &mut self,
        key: KeyId,
        devices_too: bool,
        now: UnixMillis,
    ) -> Result<Vec<DeviceRow>, StoreError> {
        self.key_by_id(key)?.ok_or(StoreError::UnknownKey)?;
        let id = blob(key.as_u128());
        self.write(
            "UPDATE keys SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL",
            params![id, signed(now.0)],
        )?;
        let sql = format!(
            "SELECT {} FROM devices WHERE key = ?1 AND revoked_at IS NULL ORDER BY enrolled_at, id",
            rows::DEVICE
        );
        let devices = self.list(&sql, [id], rows::device_row)?;
        if devices_too {
            for device in &devices {
                self.revoke_device(device.id, now)?;
            }
        }
        Ok(devices)
    }

    pub(in crate::gateway::store) fn enrol(
        &self,
        device: &NewDevice,
        now: UnixMillis,
    ) -> Result<AccountId, StoreError> {
        let key = unrevoked(self.key_by_id(device.key)?)?;
        let (id, account) = (blob(device.id.as_u128()), blob(key.account.as_u128()));
        if self
            .find("SELECT 1 FROM devices WHERE id = ?1", [id], |_| Ok(()))?
            .is_some()
        {
            return Err(StoreError::DeviceTaken);
        }
        let count = "SELECT count(*) FROM devices WHERE account = ?1";
        let enrolled = self.find(count, [account], |row| rows::sequence(row, 0))?;
        if enrolled.is_some_and(|enrolled| enrolled >= DEVICES_PER_ACCOUNT_MAX) {
            return Err(StoreError::TooManyDevices);
        }
        self.write(
            "INSERT INTO devices (id, account, key, certificate, not_after, enrolled_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                id,
                account,
                blob(device.key.as_u128()),
                device.certificate.0,
                signed(device.not_after.0),
                signed(now.0),
            ],
        )?;
        Ok(key.account)
    }

    pub(in crate::gateway::store) fn devices(
        &self,
        account: Option<AccountId>,
    ) -> Result<Vec<DeviceRow>, StoreError> {
        let sql = format!(
            "SELECT {} FROM devices WHERE ?1 IS NULL OR account = ?1 ORDER BY enrolled_at, id",
            rows::DEVICE
        );
        self.list(
            &sql,
            [account.map(|id| blob(id.as_u128()))],
            rows::device_row,
        )
    }

    fn device(&self, device: DeviceId) -> Result<Option<DeviceRow>, StoreError> {
        let sql = format!("SELECT {} FROM devices WHERE id = ?1", rows::DEVICE);
        self.find(&sql, [blob(device.as_u128())], rows::device_row)
    }

    pub(in crate::gateway::store) fn revoke_device(
        &mut self,
        device: DeviceId,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.device(device)?.ok_or(StoreError::UnknownDevice)?;
        let id = blob(device.as_u128());
        let revoked = self.write(
            "UPDATE devices SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL",
            params![id, signed(now.0)],
        )?;
        if revoked > 0 {
            self.write("INSERT INTO revocations (device) VALUES (?1)", [id])?;
            self.forget_answers_of(device)?;
        }
        Ok(())
    }

    pub(in crate::gateway::store) fn revocations(
        &self,
        after: u64,
    ) -> Result<Vec<Revocation>, StoreError> {
        self.list(
            "SELECT sequence, device FROM revocations WHERE sequence > ?1 ORDER BY sequence",
            [signed(after)],
            |row| {
                let (sequence, device) = (rows::sequence(row, 0)?, rows::device_id(row, 1)?);
                Ok(Revocation { sequence, device })
            },
        )
    }

    pub(in crate::gateway::store) fn last_revocation(&self) -> Result<u64, StoreError> {
        let sql = "SELECT coalesce(max(sequence), 0) FROM revocations";
        Ok(self
            .find(sql, [], |row| rows::sequence(row, 0))?
            .unwrap_or_default())
    }

    pub(in crate::gateway::store) fn authorities(&self) -> Result<Option<Fingerprint>, StoreError> {
        self.find("SELECT fingerprint FROM authorities", [], |row| {
            Ok(Fingerprint(row.get(0)?))
        })
    }

    pub(in crate::gateway::store) fn claim_authorities(
        &self,
        own: Fingerprint,
    ) -> Result<Fingerprint, StoreError> {
        self.write(
            "INSERT INTO authorities (one, fingerprint) VALUES (1, ?1) ON CONFLICT DO NOTHING",
            [own.0],
        )?;
        Ok(self.authorities()?.unwrap_or(own))
    }

    pub(in crate::gateway::store) fn adopt_authorities(
        &self,
        own: Fingerprint,
    ) -> Result<(), StoreError> {
        self.write(
            "INSERT INTO authorities (one, fingerprint) VALUES (1, ?1) \
             ON CONFLICT (one) DO UPDATE SET fingerprint = excluded.fingerprint",
            [own.0],
        )?;
        Ok(())
    }

    pub(in crate::gateway::store) fn admit(
        &self,
        device: DeviceId,
        certificate: Fingerprint,
        now: UnixMillis,
    ) -> Result<Admitted, StoreError> {
        let refused = StoreError::NotAdmitted;
        let known = self.device(device)?.ok_or(refused(NotAdmitted::Unknown))?;
        if known.revoked_at.is_some() {
            return Err(refused(NotAdmitted::Revoked));
        }
        if known.certificate != certificate {
            return Err(refused(NotAdmitted::Mismatched));
        }
        let epoch = self.find(
            "UPDATE devices SET epoch = epoch + 1, seen_at = ?2 WHERE id = ?1 RETURNING epoch",
            params![blob(device.as_u128()), signed(now.0)],
            |row| rows::sequence(row, 0),
        )?;
        let epoch = epoch.ok_or(refused(NotAdmitted::Unknown))?;
        Ok(Admitted {
            account: known.account,
            epoch,
        })
    }
}
