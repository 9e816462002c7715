//! Who is who: accounts by name, API keys, devices.

use mesh_core::gateway::{Admitted, NotAdmitted};
use mesh_core::identity::Fingerprint;
use mesh_core::identity::api_key::KeyHash;
use mesh_core::ids::{AccountId, DeviceId, KeyId};
use mesh_core::limits::{DEVICES_PER_ACCOUNT_MAX, STORE_LIST_MAX};
use mesh_core::time::UnixMillis;

use super::desk::Desk;
use super::rows::{self, account_columns, device_columns, key_columns, signed, uuid};
use super::statements;
use crate::gateway::store::books::Standing;
use crate::gateway::store::error::StoreError;
use crate::gateway::store::types::{
    AccountRow, DeviceRow, KeyRow, NewAccount, NewDevice, NewKey, Revocation, check_name, unrevoked,
};

/// The lock under which revocations are numbered: `SYNE` and `REVO` in ASCII.
const REVOKING: &str = "SELECT pg_advisory_xact_lock(6005060594180249167)";

fn list_max() -> i64 {
    i64::try_from(STORE_LIST_MAX).unwrap_or(i64::MAX)
}

impl Desk {
    /// Opens an account: its row, and the first entry of its ledger.
    pub(in crate::gateway::store) async fn create_account(
        &mut self,
        account: &NewAccount,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        check_name(&account.name)?;
        let (standing, line) = Standing::open(account.id, account.tier, account.ceiling, now)?;
        let id = uuid(account.id.as_u128());
        self.begin().await?;
        let made = self
            .write(
                "INSERT INTO accounts (id, name, created_at, state, entries, head) \
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (name) DO NOTHING",
                &[
                    &id,
                    &account.name,
                    &signed(now.0),
                    &standing.state()?,
                    &signed(standing.entries),
                    &standing.head.0.as_slice(),
                ],
            )
            .await?;
        if made == 0 {
            return Err(StoreError::NameTaken);
        }
        let (account, sequence) = (vec![id], vec![signed(line.entry.sequence)]);
        let (canonical, hash) = (vec![line.canonical], vec![line.hash.0.as_slice()]);
        self.write(
            statements::ADD_ENTRIES,
            &[&account, &sequence, &canonical, &hash],
        )
        .await?;
        Ok(())
    }

    pub(in crate::gateway::store) async fn accounts(
        &mut self,
    ) -> Result<Vec<AccountRow>, StoreError> {
        let sql = concat!(
            "SELECT ",
            account_columns!(),
            " FROM accounts ORDER BY name COLLATE \"C\" LIMIT $1"
        );
        self.list(sql, &[&list_max()], rows::account_row).await
    }

    pub(in crate::gateway::store) async fn account_named(
        &mut self,
        name: &str,
    ) -> Result<AccountRow, StoreError> {
        // What can be no name is nobody's, and not everything can be asked for.
        check_name(name).map_err(|_| StoreError::UnknownAccount)?;
        let sql = concat!(
            "SELECT ",
            account_columns!(),
            " FROM accounts WHERE name = $1"
        );
        self.find(sql, &[&name], rows::account_row)
            .await?
            .ok_or(StoreError::UnknownAccount)
    }

    pub(in crate::gateway::store) async fn create_key(
        &mut self,
        key: &NewKey,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        check_name(&key.label)?;
        let account = uuid(key.account.as_u128());
        let made = self
            .write(
                "INSERT INTO keys (id, account, label, hash, scopes, created_at) \
                 SELECT $1, id, $3, $4, $5, $6 FROM accounts WHERE id = $2",
                &[
                    &uuid(key.id.as_u128()),
                    &account,
                    &key.label,
                    &key.hash.as_slice(),
                    &i16::from(key.scopes.bits()),
                    &signed(now.0),
                ],
            )
            .await?;
        if made == 0 {
            return Err(StoreError::UnknownAccount);
        }
        Ok(())
    }

    pub(in crate::gateway::store) async fn keys(
        &mut self,
        account: Option<AccountId>,
    ) -> Result<Vec<KeyRow>, StoreError> {
        let sql = concat!(
            "SELECT ",
            key_columns!(),
            " FROM keys WHERE $1::uuid IS NULL OR account = $1 ORDER BY created_at, id LIMIT $2"
        );
        let account = account.map(|id| uuid(id.as_u128()));
        self.list(sql, &[&account, &list_max()], rows::key_row)
            .await
    }

    pub(in crate::gateway::store) async fn key_by_hash(
        &mut self,
        hash: &KeyHash,
    ) -> Result<KeyRow, StoreError> {
        let sql = concat!("SELECT ", key_columns!(), " FROM keys WHERE hash = $1");
        unrevoked(self.find(sql, &[&hash.as_slice()], rows::key_row).await?)
    }

    pub(in crate::gateway::store) async fn revoke_key(
        &mut self,
        key: KeyId,
        devices_too: bool,
        now: UnixMillis,
    ) -> Result<Vec<DeviceRow>, StoreError> {
        self.begin().await?;
        self.write(REVOKING, &[]).await?;
        let id = uuid(key.as_u128());
        // Waits for enrolments with it that are under way, and keeps new ones out.
        let known = "SELECT 1 FROM keys WHERE id = $1 FOR UPDATE";
        self.find(known, &[&id], |_| Ok(()))
            .await?
            .ok_or(StoreError::UnknownKey)?;
        self.write(
            "UPDATE keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL",
            &[&id, &signed(now.0)],
        )
        .await?;
        let sql = concat!(
            "SELECT ",
            device_columns!(),
            " FROM devices WHERE key = $1 AND revoked_at IS NULL ORDER BY enrolled_at, id LIMIT $2"
        );
        let devices = self
            .list(sql, &[&id, &list_max()], rows::device_row)
            .await?;
        if devices_too {
            for device in &devices {
                self.revoke(device.id, now).await?;
            }
        }
        Ok(devices)
    }

    pub(in crate::gateway::store) async fn enrol(
        &mut self,
        device: &NewDevice,
        now: UnixMillis,
    ) -> Result<AccountId, StoreError> {
        self.begin().await?;
        let by = uuid(device.key.as_u128());
        let sql = concat!(
            "SELECT ",
            key_columns!(),
            " FROM keys WHERE id = $1 FOR SHARE"
        );
        let key = unrevoked(self.find(sql, &[&by], rows::key_row).await?)?;
        let (id, account) = (uuid(device.id.as_u128()), uuid(key.account.as_u128()));
        // One enrolment of an account at a time, so that the count counts.
        self.write(
            "SELECT 1 FROM accounts WHERE id = $1 FOR NO KEY UPDATE",
            &[&account],
        )
        .await?;
        let count = "SELECT count(*), count(*) FILTER (WHERE id = $2) FROM devices \
                     WHERE account = $1 OR id = $2";
        let read =
            |row: &tokio_postgres::Row| Ok((rows::unsigned(row, 0)?, rows::unsigned(row, 1)?));
        let counted = self.find(count, &[&account, &id], read).await?;
        let (enrolled, taken) = counted.unwrap_or_default();
        if taken > 0 {
            return Err(StoreError::DeviceTaken);
        }
        if enrolled >= DEVICES_PER_ACCOUNT_MAX {
            return Err(StoreError::TooManyDevices);
        }
        let made = self
            .write(
                "INSERT INTO devices (id, account, key, certificate, not_after, enrolled_at) \
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING",
                &[
                    &id,
                    &account,
                    &by,
                    &device.certificate.0.as_slice(),
                    &signed(device.not_after.0),
                    &signed(now.0),
                ],
            )
            .await?;
        if made == 0 {
            return Err(StoreError::DeviceTaken);
        }
        Ok(key.account)
    }

    pub(in crate::gateway::store) async fn devices(
        &mut self,
        account: Option<AccountId>,
    ) -> Result<Vec<DeviceRow>, StoreError> {
        let sql = concat!(
            "SELECT ",
            device_columns!(),
            " FROM devices WHERE $1::uuid IS NULL OR account = $1 ORDER BY enrolled_at, id LIMIT $2"
        );
        let account = account.map(|id| uuid(id.as_u128()));
        self.list(sql, &[&account, &list_max()], rows::device_row)
            .await
    }

    pub(in crate::gateway::store) async fn revoke_device(
        &mut self,
        device: DeviceId,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.begin().await?;
        self.write(REVOKING, &[]).await?;
        let known = "SELECT 1 FROM devices WHERE id = $1";
        self.find(known, &[&uuid(device.as_u128())], |_| Ok(()))
            .await?
            .ok_or(StoreError::UnknownDevice)?;
        self.revoke(device, now).await
    }

    /// Under the lock of revocations: so that a number is in sight only after all smaller ones.
    async fn revoke(&mut self, device: DeviceId, now: UnixMillis) -> Result<(), StoreError> {
        let id = uuid(device.as_u128());
        let revoked = self
            .write(
                "UPDATE devices SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL",
                &[&id, &signed(now.0)],
            )
            .await?;
        if revoked > 0 {
            let sql = "INSERT INTO revocations (sequence, device) \
                       SELECT coalesce(max(sequence), 0) + 1, $1 FROM revocations";
            self.write(sql, &[&id]).await?;
            self.write("DELETE FROM answers WHERE device = $1", &[&id])
                .await?;
        }
        Ok(())
    }

    pub(in crate::gateway::store) async fn revocations(
        &mut self,
        after: u64,
    ) -> Result<Vec<Revocation>, StoreError> {
        let sql = "SELECT sequence, device FROM revocations WHERE sequence > $1 \
                   ORDER BY sequence LIMIT $2";
        self.list(sql, &[&signed(after), &list_max()], |row| {
            let (sequence, device) = (rows::unsigned(row, 0)?, rows::device_id(row, 1)?);
            Ok(Revocation { sequence, device })
        })
        .await
    }

    pub(in crate::gateway::store) async fn last_revocation(&mut self) -> Result<u64, StoreError> {
        let sql = "SELECT coalesce(max(sequence), 0) FROM revocations";
        let last = self.find(sql, &[], |row| rows::unsigned(row, 0)).await?;
        Ok(last.unwrap_or_default())
    }

    pub(in crate::gateway::store) async fn authorities(
        &mut self,
    ) -> Result<Option<Fingerprint>, StoreError> {
        let sql = "SELECT fingerprint FROM authorities";
        self.find(sql, &[], |row| rows::fingerprint(row, 0)).await
    }

    pub(in crate::gateway::store) async fn claim_authorities(
        &mut self,
        own: Fingerprint,
    ) -> Result<Fingerprint, StoreError> {
        let sql = "INSERT INTO authorities (fingerprint) VALUES ($1) ON CONFLICT DO NOTHING";
        self.write(sql, &[&own.0.as_slice()]).await?;
        Ok(self.authorities().await?.unwrap_or(own))
    }

    pub(in crate::gateway::store) async fn adopt_authorities(
        &mut self,
        own: Fingerprint,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO authorities (fingerprint) VALUES ($1) \
                   ON CONFLICT (one) DO UPDATE SET fingerprint = excluded.fingerprint";
        self.write(sql, &[&own.0.as_slice()]).await?;
        Ok(())
    }

    pub(in crate::gateway::store) async fn admit(
        &mut self,
        device: DeviceId,
        certificate: Fingerprint,
        now: UnixMillis,
    ) -> Result<Admitted, StoreError> {
        let id = uuid(device.as_u128());
        let sql = "UPDATE devices SET epoch = epoch + 1, seen_at = $3 \
                   WHERE id = $1 AND certificate = $2 AND revoked_at IS NULL \
                   RETURNING account, epoch";
        let values: super::desk::Values<'_> = &[&id, &certificate.0.as_slice(), &signed(now.0)];
        let admitted = self.find(sql, values, |row| {
            let (account, epoch) = (rows::account_id(row, 0)?, rows::unsigned(row, 1)?);
            Ok(Admitted { account, epoch })
        });
        if let Some(admitted) = admitted.await? {
            return Ok(admitted);
        }
        let sql = concat!("SELECT ", device_columns!(), " FROM devices WHERE id = $1");
        let known = self.find(sql, &[&id], rows::device_row).await?;
        Err(StoreError::NotAdmitted(match known {
            None => NotAdmitted::Unknown,
            Some(device) if device.revoked_at.is_some() => NotAdmitted::Revoked,
            Some(_) => NotAdmitted::Mismatched,
        }))
    }
}
