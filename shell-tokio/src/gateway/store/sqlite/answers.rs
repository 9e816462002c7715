//! What finished answers said, kept beside their charges for a time, and what became of a question.

use bytes::Bytes;
use mesh_core::billing::account::Prior;
use mesh_core::gateway::{Keep, Recalled, Transcript};
use mesh_core::ids::{AccountId, DeviceId, RequestId};
use mesh_core::time::UnixMillis;
use rusqlite::{OptionalExtension, params};

use super::rows::{blob, signed};
use super::writer::Work;
use crate::gateway::store::books::{self, ends_at};
use crate::gateway::store::error::StoreError;

impl Work<'_> {
    /// Keeps what an answer said that is charged in this transaction.
    pub(super) fn keep_answer(
        &self,
        (account, device, request): (AccountId, DeviceId, RequestId),
        keep: &Keep,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.connection
            .prepare_cached(
                "INSERT INTO answers (account, request, device, ends_at, transcript) \
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                blob(account.as_u128()),
                blob(request.as_u128()),
                blob(device.as_u128()),
                signed(ends_at(now, keep.kept).0),
                keep.transcript.as_bytes().as_ref(),
            ])?;
        Ok(())
    }

    /// What became of a question.
    pub(super) fn recall(
        &self,
        account: AccountId,
        device: DeviceId,
        request: RequestId,
        now: UnixMillis,
    ) -> Result<Recalled, StoreError> {
        let recorded = self.recorded_under(account, "request", &request.to_string())?;
        let charge = match recorded.and_then(|entry| Prior::of(&entry.record)) {
            Some(Prior::Charged(charge)) => Box::new(charge),
            Some(Prior::Lost(loss)) => return Ok(books::lost(&loss, device)),
            None => {
                return Ok(match self.holds.held(account, request) {
                    Some(held) if held.device.is_some_and(|other| other != device) => {
                        Recalled::NotYours
                    }
                    Some(_) => Recalled::Elsewhere,
                    None => Recalled::Nothing,
                });
            }
        };
        if charge.device.is_some_and(|other| other != device) {
            return Ok(Recalled::NotYours);
        }
        let kept: Option<Vec<u8>> = self
            .connection
            .prepare_cached(
                "SELECT transcript FROM answers \
                 WHERE account = ?1 AND request = ?2 AND device = ?3 AND ends_at > ?4",
            )?
            .query_row(
                params![
                    blob(account.as_u128()),
                    blob(request.as_u128()),
                    blob(device.as_u128()),
                    signed(now.0),
                ],
                |row| row.get(0),
            )
            .optional()?;
        let transcript = kept.map(|bytes| Transcript::from_bytes(Bytes::from(bytes)));
        Ok(match transcript {
            Some(transcript) => Recalled::Kept { charge, transcript },
            None => Recalled::Charged(charge),
        })
    }

    /// Deletes what has been kept long enough, and says how much that was.
    pub(super) fn forget_answers(&mut self, now: UnixMillis) -> Result<usize, StoreError> {
        let gone = self
            .connection
            .prepare_cached("DELETE FROM answers WHERE ends_at <= ?1")?
            .execute([signed(now.0)])?;
        self.text_was_deleted |= gone > 0;
        Ok(gone)
    }

    /// Deletes what is kept for a device that may not come back for it.
    pub(super) fn forget_answers_of(&mut self, device: DeviceId) -> Result<(), StoreError> {
        let gone = self
            .connection
            .prepare_cached("DELETE FROM answers WHERE device = ?1")?
            .execute([blob(device.as_u128())])?;
        self.text_was_deleted |= gone > 0;
        Ok(())
    }
}
