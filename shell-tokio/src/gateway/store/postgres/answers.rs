//! What finished answers said, kept beside their charges for a time, and what became of a question.

use bytes::Bytes;
use mesh_core::billing::account::Prior;
use mesh_core::gateway::{Recalled, Transcript};
use mesh_core::ids::{AccountId, DeviceId, RequestId};

use super::desk::Desk;
use super::rows::{self, uuid};
use crate::gateway::store::books;
use crate::gateway::store::error::StoreError;

/// Everything that is known of a question, as it is at one moment: an answer that ends meanwhile is charged
/// or held, and never neither.
const RECALL: &str = "SELECT e.sequence, e.canonical, e.hash, h.request, h.gateway, h.held, \
     g.renewed_at, a.transcript FROM (SELECT 1) AS one \
     LEFT JOIN entries e ON e.account = $1 AND e.request = $2 AND e.request IS NOT NULL \
     LEFT JOIN holds h ON h.account = $1 AND h.request = $3 \
     LEFT JOIN gateways g ON g.id = h.gateway \
     LEFT JOIN answers a ON a.account = $1 AND a.request = $3 AND a.device = $4 \
       AND a.ends_at > (extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// What has been kept long enough, by the server's clock.
const FORGET: &str = "DELETE FROM answers \
     WHERE ends_at <= (extract(epoch FROM clock_timestamp()) * 1000)::bigint";

impl Desk {
    /// What became of a question.
    pub(super) async fn recall(
        &mut self,
        account: AccountId,
        device: DeviceId,
        request: RequestId,
    ) -> Result<Recalled, StoreError> {
        let judge = self.judge().await?;
        let (account, name) = (uuid(account.as_u128()), request.to_string());
        let (request, asker) = (uuid(request.as_u128()), uuid(device.as_u128()));
        let found = self
            .rows(RECALL, &[&account, &name, &request, &asker])
            .await?;
        let Some(row) = found.first() else {
            return Ok(Recalled::Nothing);
        };
        if row.try_get::<_, Option<i64>>(0)?.is_some() {
            let entry = books::entry(&rows::stored(row, 0)?)?;
            let charge = match Prior::of(&entry.record) {
                Some(Prior::Charged(charge)) => Box::new(charge),
                Some(Prior::Lost(loss)) => return Ok(books::lost(&loss, device)),
                None => return Ok(Recalled::Lost),
            };
            if charge.device.is_some_and(|other| other != device) {
                return Ok(Recalled::NotYours);
            }
            let kept: Option<&[u8]> = row.try_get(7)?;
            return Ok(match kept.map(Bytes::copy_from_slice) {
                Some(bytes) => Recalled::Kept {
                    charge,
                    transcript: Transcript::from_bytes(bytes),
                },
                None => Recalled::Charged(charge),
            });
        }
        if row.try_get::<_, Option<uuid::Uuid>>(3)?.is_none() {
            return Ok(Recalled::Nothing);
        }
        let (_, gateway, held) = rows::held(row, 3)?;
        Ok(if held.device.is_some_and(|other| other != device) {
            Recalled::NotYours
        } else if judge.is_gone(gateway, rows::maybe_time(row, 6)?) {
            // What it was in the middle of is booked with the next round.
            Recalled::Lost
        } else {
            Recalled::Elsewhere
        })
    }

    /// Deletes what has been kept long enough, and says how much that was.
    pub(super) async fn forget_answers(&mut self) -> Result<usize, StoreError> {
        let gone = self.write(FORGET, &[]).await?;
        Ok(usize::try_from(gone).unwrap_or(usize::MAX))
    }
}
