//! Checking the ledger: every entry of every account, and what the accounts say of themselves.
//!
//! A store reads, over one snapshot and without holding up a running gateway; what is checked is
//! the same for all of them.

use std::collections::{BTreeMap, BTreeSet};

use mesh_core::billing::ledger::seal::{Head, Seal};
use mesh_core::billing::ledger::{Fault, Hash, Stored, Verified, Verifier};
use mesh_core::billing::usage::{Key, Sums};
use mesh_core::ids::AccountId;

use super::books::{self, Rebuilt, Standing};
use super::error::{OpenError, StoreError};

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Every account, by name, and last those that have entries but no name.
    pub accounts: Vec<AccountReport>,
    /// What the database itself says is wrong with its file, if it says so.
    pub file: Option<String>,
}

/// What a check found in one account's ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountReport {
    /// Which.
    pub account: AccountId,
    /// What its operator calls it.
    pub name: String,
    /// What holds, or the first entry that does not.
    pub verified: Result<Verified, Fault>,
}

/// Why a ledger could not be checked at all.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The store could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It could not be read.
    #[error("the ledger cannot be read: {0}")]
    Read(#[from] StoreError),
}

impl AccountReport {
    /// Of one that is not there.
    const fn nameless(account: AccountId, fault: Fault) -> Self {
        Self {
            account,
            name: String::new(),
            verified: Err(fault),
        }
    }
}

impl Report {
    /// Of the accounts that were checked, of those that only have `entries`, and of those that only a seal
    /// knows.
    pub(super) fn of(
        mut accounts: Vec<AccountReport>,
        entries: Vec<AccountId>,
        seal: Option<&Seal>,
    ) -> Self {
        let orphaned = entries
            .into_iter()
            .map(|id| AccountReport::nameless(id, orphaned(id)));
        accounts.extend(orphaned);
        let sealed = seal.into_iter().flat_map(|seal| seal.heads.keys().copied());
        let known: BTreeSet<AccountId> = accounts.iter().map(|report| report.account).collect();
        let gone = sealed
            .filter(|id| !known.contains(id))
            .map(|id| AccountReport::nameless(id, gone(id)));
        accounts.extend(gone);
        Self {
            accounts,
            file: None,
        }
    }

    /// Whether nothing at all is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.file.is_none() && self.faults().next().is_none()
    }

    /// The first entry of each account that does not hold.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.accounts
            .iter()
            .filter_map(|account| account.verified.as_ref().err())
    }

    /// Where every account's chain ends that holds.
    #[must_use]
    pub fn heads(&self) -> BTreeMap<AccountId, Head> {
        let head = |account: &AccountReport| {
            let verified = account.verified.as_ref().ok()?;
            let (entries, hash): (u64, Hash) = (verified.entries, verified.head);
            Some((account.account, Head { entries, hash }))
        };
        self.accounts.iter().filter_map(head).collect()
    }

    /// How many entries hold.
    #[must_use]
    pub fn entries(&self) -> u64 {
        let verified = self
            .accounts
            .iter()
            .filter_map(|account| account.verified.as_ref().ok());
        verified.map(|verified| verified.entries).sum()
    }
}

/// Checks one account's ledger, entry by entry in their order.
#[derive(Debug)]
pub(super) struct Chain {
    verifier: Verifier,
    rebuilt: Rebuilt,
}

impl Chain {
    pub(super) fn new(account: AccountId, sealed: Option<Head>) -> Self {
        Self {
            verifier: Verifier::new(account).sealed(sealed),
            rebuilt: Rebuilt::default(),
        }
    }

    /// Checks the next entry, and what the store files it under if it says so.
    pub(super) fn check(&mut self, stored: &Stored, filed: Option<&Filed>) -> Result<(), Fault> {
        let too_large = self.verifier.fault("larger than the ledger can hold");
        let misfiled = self.verifier.fault("filed under another request");
        let entry = self.verifier.check(stored)?;
        if filed.is_some_and(|filed| filed.0 != books::filed_under(&entry.record)) {
            return Err(misfiled);
        }
        self.rebuilt
            .read(entry.at, &entry.record)
            .map_err(|_| too_large)
    }

    /// A fault at the entry that would come next.
    pub(super) const fn fault(&self, what: &'static str) -> Fault {
        self.verifier.fault(what)
    }

    /// After the last entry: compares with what the account says of itself.
    pub(super) fn finish(
        self,
        said: Result<Standing, StoreError>,
        used: &BTreeMap<Key, Sums>,
    ) -> Result<Verified, Fault> {
        let verified = self.verifier.finish()?;
        match (said, self.rebuilt.account) {
            (Ok(said), _) if (said.entries, said.head) != (verified.entries, verified.head) => {
                Err(self
                    .verifier
                    .fault("missing: the account knows of more entries, or of others"))
            }
            (Ok(said), Some(replayed)) if said.account == replayed => {
                if self.rebuilt.usage == *used {
                    Ok(verified)
                } else {
                    let what = "the sums of what was used are not what the entries add up to";
                    Err(self.verifier.fault(what))
                }
            }
            _ => Err(self
                .verifier
                .fault("what the account says it spent is not what its entries add up to")),
        }
    }
}

/// What a store files an entry under, where it is not computed from the entry itself.
#[derive(Clone, Debug)]
pub(super) struct Filed(pub(super) Option<String>);

/// The fault of an account that a seal knows and the store does not.
const fn gone(account: AccountId) -> Fault {
    Verifier::new(account).fault("cut off: the seal knows of an account that is not here")
}

/// The fault of entries without an account.
const fn orphaned(account: AccountId) -> Fault {
    Verifier::new(account).fault("the account that it belongs to is missing")
}
