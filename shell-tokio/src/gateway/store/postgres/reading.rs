//! Reading accounts and ledgers, outside of any batch.

use std::collections::BTreeMap;

use mesh_core::billing::account::{Held, Summary};
use mesh_core::billing::ledger::Stored;
use mesh_core::ids::{AccountId, RequestId};
use mesh_core::limits::LEDGER_PAGE_MAX;
use mesh_core::time::UnixMillis;

use super::desk::Desk;
use super::rows::{self, signed, uuid};
use crate::gateway::store::books::{self, Standing};
use crate::gateway::store::error::StoreError;
use crate::gateway::store::types::Booked;

/// An account and its holds as they are at one moment, with the lease behind each.
const STANDING: &str = "SELECT a.state, a.entries, a.head, h.request, h.gateway, h.held, g.renewed_at \
     FROM accounts a LEFT JOIN holds h ON h.account = a.id LEFT JOIN gateways g ON g.id = h.gateway \
     WHERE a.id = $1";

impl Desk {
    pub(in crate::gateway::store) async fn summary(
        &mut self,
        id: AccountId,
        now: UnixMillis,
    ) -> Result<Summary, StoreError> {
        let judge = self.judge().await?;
        let rows = self.rows(STANDING, &[&uuid(id.as_u128())]).await?;
        let first = rows.first().ok_or(StoreError::UnknownAccount)?;
        let (state, entries, head) = rows::standing(first, 0)?;
        let mut standing = Standing::read(state, entries, head)?;
        let mut holds: BTreeMap<RequestId, Held> = BTreeMap::new();
        for row in &rows {
            if row.try_get::<_, Option<uuid::Uuid>>(3)?.is_none() {
                continue;
            }
            let (request, gateway, held) = rows::held(row, 3)?;
            if !judge.is_gone(gateway, rows::maybe_time(row, 6)?) {
                holds.insert(request, held);
            }
        }
        standing.account.holds = holds;
        Ok(standing.account.summary(now)?)
    }

    pub(in crate::gateway::store) async fn booked(
        &mut self,
        id: AccountId,
        request: RequestId,
    ) -> Result<Option<Booked>, StoreError> {
        let sql = "SELECT sequence, canonical, hash FROM entries \
                   WHERE account = $1 AND request = $2";
        let request = request.to_string();
        let account = uuid(id.as_u128());
        let stored = self
            .find(sql, &[&account, &request], |row| rows::stored(row, 0))
            .await?;
        stored.as_ref().map_or(Ok(None), books::booked)
    }

    pub(in crate::gateway::store) async fn entries(
        &mut self,
        id: AccountId,
        from: u64,
    ) -> Result<Vec<Stored>, StoreError> {
        let sql = "SELECT sequence, canonical, hash FROM entries \
                   WHERE account = $1 AND sequence >= $2 ORDER BY sequence LIMIT $3";
        let page = i64::try_from(LEDGER_PAGE_MAX).unwrap_or(i64::MAX);
        self.list(sql, &[&uuid(id.as_u128()), &signed(from), &page], |row| {
            rows::stored(row, 0)
        })
        .await
    }
}
