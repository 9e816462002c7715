//! The ledger: append only, double entry, one SHA-256 chain per account.
//!
//! A record is stored as its canonical text: JSON without spaces, fields in the order in which the
//! types below have them. Its hash is
//!
//! ```text
//! SHA-256( "synesis ledger" ‖ version (1 byte) ‖ account (16 bytes) ‖ previous hash (32 bytes)
//!          ‖ length of the text (8 bytes, big-endian) ‖ the text )
//! ```
//!
//! so that a change of one byte, a missing, inserted or reordered entry breaks the chain at that
//! entry. The first entry of an account follows thirty-two zero bytes.
//!
//! # Invariants
//!
//! 1. Debits equal credits in every entry.
//! 2. Sequence numbers begin at 0 and have no gap; entry 0 opens the account, and no other does.
//! 3. A hash covers everything before it.

mod record;
pub mod seal;

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use self::record::{Book, Charge, Invoiced, Loss, Movement, Record, Refunded};
use self::seal::Head;
use super::money::{Nanos, Overflow};
use crate::ids::AccountId;
use crate::time::UnixMillis;

const DOMAIN: &[u8] = b"synesis ledger";
const VERSION: u8 = 1;

/// A link of an account's chain.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// What the first entry follows.
    pub const START: Self = Self([0; 32]);
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One entry of an account's ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// 0, 1, 2 … within the account.
    pub sequence: u64,
    /// The wall clock.
    pub at: UnixMillis,
    /// What happened.
    pub record: Record,
    /// Where the money went.
    pub movements: Vec<Movement>,
}

impl Entry {
    /// The next entry of a chain.
    ///
    /// # Errors
    ///
    /// [`Overflow`] past the range of [`Nanos`].
    pub fn new(sequence: u64, at: UnixMillis, record: Record) -> Result<Self, Overflow> {
        let movements = record.movements()?;
        Ok(Self {
            sequence,
            at,
            record,
            movements,
        })
    }

    /// The canonical text, which is stored and hashed.
    ///
    /// # Errors
    ///
    /// Never: every field has a JSON form.
    pub fn canonical(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

/// The hash of a canonical text that follows `previous` in the account's chain.
#[must_use]
pub fn link(account: AccountId, previous: Hash, canonical: &str) -> Hash {
    let mut hash = Sha256::new();
    hash.update(DOMAIN);
    hash.update([VERSION]);
    hash.update(account.as_u128().to_be_bytes());
    hash.update(previous.0);
    hash.update((canonical.len() as u64).to_be_bytes());
    hash.update(canonical.as_bytes());
    Hash(hash.finalize().into())
}

/// An entry as a store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The row's own number.
    pub sequence: u64,
    /// The canonical text.
    pub canonical: String,
    /// The hash.
    pub hash: Hash,
}

/// A chain that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Entries.
    pub entries: u64,
    /// The last one's hash.
    pub head: Hash,
    /// Everything charged.
    pub charged: Nanos,
}

/// The first entry at which a chain does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {sequence} of {account}: {what}")]
pub struct Fault {
    /// Whose chain.
    pub account: AccountId,
    /// Which entry.
    pub sequence: u64,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Checks an account's chain entry by entry, in the order of the sequence numbers.
#[derive(Clone, Debug)]
pub struct Verifier {
    account: AccountId,
    verified: Verified,
    /// Where a seal says that the chain was.
    sealed: Option<Head>,
}

impl Verifier {
    /// Before the first entry.
    #[must_use]
    pub const fn new(account: AccountId) -> Self {
        let verified = Verified {
            entries: 0,
            head: Hash::START,
            charged: Nanos::ZERO,
        };
        Self {
            account,
            verified,
            sealed: None,
        }
    }

    /// The same, for a chain of which a seal knows where it was.
    #[must_use]
    pub const fn sealed(self, sealed: Option<Head>) -> Self {
        Self { sealed, ..self }
    }

    /// Checks the next entry and reads it.
    ///
    /// # Errors
    ///
    /// [`Fault`] if it was altered, if one before it is missing, was inserted or reordered, or if the
    /// chain up to it is not the one that was sealed.
    pub fn check(&mut self, stored: &Stored) -> Result<Entry, Fault> {
        let sequence = self.verified.entries;
        if stored.sequence != sequence {
            return Err(self.fault("missing, or out of order"));
        }
        let hash = link(self.account, self.verified.head, &stored.canonical);
        if hash != stored.hash {
            return Err(self.fault("altered, or not the one that followed"));
        }
        let entry: Entry =
            serde_json::from_str(&stored.canonical).map_err(|_| self.fault("unreadable"))?;
        if entry.sequence != sequence {
            return Err(self.fault("numbered differently inside"));
        }
        if matches!(entry.record, Record::Opened { .. }) != (sequence == 0) {
            return Err(self.fault("an account is opened once, by its first entry"));
        }
        let balance = entry
            .movements
            .iter()
            .try_fold(Nanos::ZERO, |sum, m| sum.plus(m.amount));
        if balance != Ok(Nanos::ZERO) || entry.record.movements().as_ref() != Ok(&entry.movements) {
            return Err(self.fault("debits and credits do not match the charge"));
        }
        let ends_here = |head: &Head| head.entries == sequence + 1;
        if let Some(head) = self.sealed.as_ref().filter(|head| ends_here(head))
            && head.hash != hash
        {
            return Err(self.fault("rewritten: up to here, it is not the chain that was sealed"));
        }
        if let Record::Charged(charge) = &entry.record {
            let charged = self.verified.charged.plus(charge.charge);
            self.verified.charged =
                charged.map_err(|_| self.fault("larger than the ledger can hold"))?;
        }
        self.verified.entries = sequence + 1;
        self.verified.head = hash;
        Ok(entry)
    }

    /// A fault at the entry that would come next.
    #[must_use]
    pub const fn fault(&self, what: &'static str) -> Fault {
        Fault {
            account: self.account,
            sequence: self.verified.entries,
            what,
        }
    }

    /// What was checked, after the last entry.
    ///
    /// # Errors
    ///
    /// [`Fault`] if the seal knows of more entries: the chain was cut off.
    pub fn finish(&self) -> Result<Verified, Fault> {
        if self
            .sealed
            .is_some_and(|head| head.entries > self.verified.entries)
        {
            return Err(self.fault("cut off: the seal knows of more entries"));
        }
        Ok(self.verified)
    }
}

/// Checks an account's whole chain, in the order of its sequence numbers.
///
/// # Errors
///
/// [`Fault`] with the first entry that was altered, is missing, was inserted or reordered.
pub fn verify(
    account: AccountId,
    entries: impl IntoIterator<Item = Stored>,
) -> Result<Verified, Fault> {
    verify_sealed(account, None, entries)
}

/// Checks an account's whole chain, and that it goes on from where a seal says that it was.
///
/// # Errors
///
/// [`Fault`] as [`verify`] has it, and at the sealed entry where the chain is another or ends before it.
pub fn verify_sealed(
    account: AccountId,
    sealed: Option<Head>,
    entries: impl IntoIterator<Item = Stored>,
) -> Result<Verified, Fault> {
    let mut verifier = Verifier::new(account).sealed(sealed);
    for stored in entries {
        verifier.check(&stored)?;
    }
    verifier.finish()
}

/// Thirty-two bytes as lower-case hex.
pub(in crate::billing) mod hex32 {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::billing) fn serialize<S: Serializer>(
        bytes: &[u8; 32],
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.collect_str(&super::Hash(*bytes))
    }

    pub(in crate::billing) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(d)?;
        let wrong = || serde::de::Error::custom("expected 64 lower-case hex digits");
        if text.len() != 64 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests;
