//! What a batch has to write, as columns, so that each table takes one statement.

use std::collections::BTreeMap;

use mesh_core::billing::usage::{Key, Sums};
use mesh_core::ids::AccountId;
use uuid::Uuid;

use super::Batch;
use super::book::Book;
use crate::gateway::store::error::StoreError;
use crate::gateway::store::postgres::rows::{signed, uuid};
use crate::gateway::store::postgres::usage;

/// Everything that is to be written, as columns.
#[derive(Default)]
pub(super) struct Columns<'a> {
    pub(super) touched_accounts: Vec<Uuid>,
    pub(super) touched_requests: Vec<Uuid>,
    pub(super) gone_accounts: Vec<Uuid>,
    pub(super) gone_requests: Vec<Uuid>,
    pub(super) held_accounts: Vec<Uuid>,
    pub(super) held_requests: Vec<Uuid>,
    pub(super) helds: Vec<String>,
    pub(super) entry_accounts: Vec<Uuid>,
    pub(super) sequences: Vec<i64>,
    pub(super) canonicals: Vec<&'a str>,
    pub(super) hashes: Vec<&'a [u8]>,
    pub(super) usage: usage::Columns,
    pub(super) accounts: Vec<Uuid>,
    pub(super) states: Vec<String>,
    pub(super) entries: Vec<i64>,
    pub(super) heads: Vec<&'a [u8]>,
    pub(super) answer_accounts: Vec<Uuid>,
    pub(super) answer_requests: Vec<Uuid>,
    pub(super) answer_devices: Vec<Uuid>,
    pub(super) answer_ends: Vec<i64>,
    pub(super) transcripts: Vec<&'a [u8]>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(batch: &'a Batch) -> Result<Self, StoreError> {
        let mut columns = Self::default();
        for (id, book) in &batch.books {
            if let Ok(book) = book {
                columns.take(*id, book)?;
            }
        }
        Ok(columns)
    }

    fn take(&mut self, id: AccountId, book: &'a Book) -> Result<(), StoreError> {
        let account = uuid(id.as_u128());
        for line in &book.lines {
            self.entry_accounts.push(account);
            self.sequences.push(signed(line.entry.sequence));
            self.canonicals.push(&line.canonical);
            self.hashes.push(&line.hash.0);
        }
        if !book.lines.is_empty() {
            self.accounts.push(account);
            self.states.push(book.standing.state()?);
            self.entries.push(signed(book.standing.entries));
            self.heads.push(&book.standing.head.0);
        }
        let mut sums: BTreeMap<&Key, Sums> = BTreeMap::new();
        for (key, more) in &book.usage {
            let sum = sums.entry(key).or_default();
            *sum = sum.plus(more)?;
        }
        for (key, sums) in sums {
            self.usage.push(account, key, &sums);
        }
        for spoken in &book.answers {
            self.answer_accounts.push(account);
            self.answer_requests.push(uuid(spoken.request.as_u128()));
            self.answer_devices.push(uuid(spoken.device.as_u128()));
            self.answer_ends.push(signed(spoken.ends_at.0));
            self.transcripts.push(spoken.transcript.as_bytes());
        }
        for request in &book.touched {
            self.touched_accounts.push(account);
            self.touched_requests.push(uuid(request.as_u128()));
        }
        for request in book.touched.union(&book.void) {
            let name = uuid(request.as_u128());
            if let Some(held) = book.standing.account.holds.get(request) {
                self.held_accounts.push(account);
                self.held_requests.push(name);
                let text = serde_json::to_string(held);
                self.helds
                    .push(text.map_err(|error| StoreError::Failed(error.to_string()))?);
            } else {
                self.gone_accounts.push(account);
                self.gone_requests.push(name);
            }
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.gone_accounts.is_empty()
            && self.held_accounts.is_empty()
            && self.entry_accounts.is_empty()
    }
}
