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

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::account::Month;
use super::account::funds::Drawn;
use super::account::order::Reference;
use super::money::{Nanos, Overflow};
use super::price::Price;
use super::tier::Tier;
use crate::ids::{AccountId, RequestId};
use crate::time::UnixMillis;
use crate::wire::message::TokensUsed;

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

/// One charge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// For which request.
    pub request: RequestId,
    /// SHA-256 of its body, as hex.
    #[serde(with = "hex32")]
    pub body: [u8; 32],
    /// The model, as it was asked for.
    pub model: String,
    /// What was used.
    pub tokens: TokensUsed,
    /// The price it was charged at.
    pub price: Price,
    /// The tier it was charged in.
    pub tier: Tier,
    /// The provider's price of it.
    pub base: Nanos,
    /// What was charged.
    pub charge: Nanos,
    /// The part of the charge beyond its hold: owed.
    pub overage: Nanos,
    /// The parts of the charge that credits paid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credits: Vec<Drawn>,
    /// The part of the charge that was paid in advance.
    #[serde(default, skip_serializing_if = "Nanos::is_zero")]
    pub prepaid: Nanos,
    /// The month that it counts in, where that is later than its entry's and the account's: the clock was
    /// ahead when it was set aside. Months since January of the year 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub month: Option<Month>,
    /// Whether the provider did not count the tokens.
    pub estimated: bool,
}

impl Charge {
    /// What credits paid, all together.
    ///
    /// # Errors
    ///
    /// [`Overflow`] past the range of [`Nanos`].
    pub fn credited(&self) -> Result<Nanos, Overflow> {
        let mut parts = self.credits.iter();
        parts.try_fold(Nanos::ZERO, |sum, drawn| sum.plus(drawn.amount))
    }

    /// The part within the month's ceiling.
    ///
    /// # Errors
    ///
    /// [`Overflow`] past the range of [`Nanos`].
    pub fn postpaid(&self) -> Result<Nanos, Overflow> {
        let within = self.charge.minus(self.overage)?;
        within.minus(self.prepaid)?.minus(self.credited()?)
    }
}

/// What an entry of the ledger records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// The account was opened.
    Opened {
        /// How it is charged.
        tier: Tier,
        /// The most that may be spent in a month.
        ceiling: Nanos,
    },
    /// A request was charged.
    Charged(Charge),
    /// Money came in.
    Paid {
        /// Under which name.
        reference: Reference,
        /// How much.
        amount: Nanos,
        /// The part of it that paid what was owed.
        settled: Nanos,
    },
    /// Money was given for a time.
    Granted {
        /// Under which name.
        reference: Reference,
        /// How much.
        amount: Nanos,
        /// Nothing is set aside from it from then on.
        expires_at: UnixMillis,
    },
    /// A credit left the books, spent or at its end.
    Lapsed {
        /// Which.
        credit: Reference,
        /// What was left of it.
        amount: Nanos,
    },
    /// The account is charged differently from here on.
    TierSet {
        /// Under which name.
        reference: Reference,
        /// How.
        tier: Tier,
    },
    /// The account may spend more or less in a month.
    CeilingSet {
        /// Under which name.
        reference: Reference,
        /// How much.
        ceiling: Nanos,
    },
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

/// One movement: the same amount out of one account of the books and into another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Movement {
    /// Which account of the books.
    pub book: Book,
    /// Positive: debit; negative: credit.
    pub amount: Nanos,
}

/// The accounts of the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Book {
    /// What the customer owes for this month, within the ceiling.
    Postpaid,
    /// What the customer owes beyond a hold.
    Owed,
    /// What the operator pays for the customer's free quota.
    FreeQuota,
    /// What the operator owes the provider.
    Provider,
    /// Markup earned.
    Markup,
    /// Licence fees earned.
    LicenceFee,
    /// What the customer paid in advance.
    Prepaid,
    /// What the customer was given for a time.
    Credits,
    /// Money received.
    Cash,
    /// What the operator gave away.
    Promotion,
}

impl Record {
    /// The charge that it records, if it is one.
    #[must_use]
    pub const fn charge(&self) -> Option<&Charge> {
        match self {
            Self::Charged(charge) => Some(charge),
            Self::Opened { .. }
            | Self::Paid { .. }
            | Self::Granted { .. }
            | Self::Lapsed { .. }
            | Self::TierSet { .. }
            | Self::CeilingSet { .. } => None,
        }
    }

    /// Where the money goes. What is zero is left out.
    ///
    /// # Errors
    ///
    /// [`Overflow`] past the range of [`Nanos`].
    pub fn movements(&self) -> Result<Vec<Movement>, Overflow> {
        let negated = |amount: Nanos| Nanos::ZERO.minus(amount);
        let movements = match self {
            Self::Opened { .. } | Self::TierSet { .. } | Self::CeilingSet { .. } => Vec::new(),
            Self::Charged(charge) => charged(charge)?,
            Self::Paid {
                amount, settled, ..
            } => vec![
                (Book::Cash, *amount),
                (Book::Owed, negated(*settled)?),
                (Book::Prepaid, settled.minus(*amount)?),
            ],
            Self::Granted { amount, .. } => vec![
                (Book::Promotion, *amount),
                (Book::Credits, negated(*amount)?),
            ],
            Self::Lapsed { amount, .. } => vec![
                (Book::Credits, *amount),
                (Book::Promotion, negated(*amount)?),
            ],
        };
        Ok(movements
            .into_iter()
            .filter(|(_, amount)| *amount != Nanos::ZERO)
            .map(|(book, amount)| Movement { book, amount })
            .collect())
    }
}

/// What a charge moves: from the customer, to whom it is owed.
fn charged(charge: &Charge) -> Result<Vec<(Book, Nanos)>, Overflow> {
    let negated = |amount: Nanos| Nanos::ZERO.minus(amount);
    let mut moved = vec![
        (Book::Postpaid, charge.postpaid()?),
        (Book::Owed, charge.overage),
        (Book::Prepaid, charge.prepaid),
        (Book::Credits, charge.credited()?),
    ];
    match charge.tier {
        Tier::Free { .. } => moved.extend([
            (Book::FreeQuota, charge.base),
            (Book::Provider, negated(charge.base)?),
        ]),
        Tier::Managed { .. } => moved.extend([
            (Book::Provider, negated(charge.base)?),
            (Book::Markup, charge.base.minus(charge.charge)?),
        ]),
        Tier::Byok { .. } => moved.push((Book::LicenceFee, negated(charge.charge)?)),
    }
    Ok(moved)
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
        Self { account, verified }
    }

    /// Checks the next entry and reads it.
    ///
    /// # Errors
    ///
    /// [`Fault`] if it was altered, or if one before it is missing, was inserted or reordered.
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

    /// What was checked so far.
    #[must_use]
    pub const fn verified(&self) -> Verified {
        self.verified
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
    let mut verifier = Verifier::new(account);
    for stored in entries {
        verifier.check(&stored)?;
    }
    Ok(verifier.verified())
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ACCOUNT: AccountId = AccountId::from_u128(7);

    fn charge(id: u128, tier: Tier, overage: i64) -> Charge {
        Charge {
            request: RequestId::from_u128(id),
            body: [0xAB; 32],
            model: "claude_sonnet".to_owned(),
            tokens: TokensUsed {
                prompt: 1000,
                completion: 500,
                ..TokensUsed::default()
            },
            price: Price::CLAUDE_SONNET,
            tier,
            base: Nanos(10_500_000),
            charge: Nanos(10_815_000),
            overage: Nanos(overage),
            credits: Vec::new(),
            prepaid: Nanos::ZERO,
            month: None,
            estimated: false,
        }
    }

    fn chain(length: u64) -> Vec<Stored> {
        let mut head = Hash::START;
        (0..length)
            .map(|sequence| {
                let record = match sequence {
                    0 => Record::Opened {
                        tier: Tier::MANAGED,
                        ceiling: Nanos(5),
                    },
                    n => Record::Charged(charge(n.into(), Tier::MANAGED, 0)),
                };
                let canonical = Entry::new(sequence, UnixMillis(sequence), record)
                    .unwrap()
                    .canonical()
                    .unwrap();
                head = link(ACCOUNT, head, &canonical);
                Stored {
                    sequence,
                    canonical,
                    hash: head,
                }
            })
            .collect()
    }

    #[test]
    fn a_link_is_what_another_program_computes() {
        // printf 'synesis ledger\x01' + 15 zero bytes + \x07 + 32 zero bytes + 7 zero bytes + \x02
        // + '{}', through sha256sum.
        let expected = "6c7a72659c5c2cf7e2347eacc02c1b52ab7b5c57b193d608731cf5ffb15fea2e";
        assert_eq!(link(ACCOUNT, Hash::START, "{}").to_string(), expected);
    }

    #[test]
    fn debits_equal_credits_in_every_tier() {
        for (tier, books) in [
            (
                Tier::MANAGED,
                vec![Book::Postpaid, Book::Owed, Book::Provider, Book::Markup],
            ),
            (
                Tier::BYOK,
                vec![Book::Postpaid, Book::Owed, Book::LicenceFee],
            ),
        ] {
            let movements = Record::Charged(charge(1, tier, 5)).movements().unwrap();
            assert_eq!(movements.iter().map(|m| m.amount.0).sum::<i64>(), 0);
            assert_eq!(movements.iter().map(|m| m.book).collect::<Vec<_>>(), books);
        }
        let free = Charge {
            charge: Nanos::ZERO,
            ..charge(
                1,
                Tier::Free {
                    monthly_quota: Nanos(1),
                },
                0,
            )
        };
        let movements = Record::Charged(free).movements().unwrap();
        assert_eq!(
            movements.iter().map(|m| m.amount.0).collect::<Vec<_>>(),
            [10_500_000, -10_500_000]
        );
    }

    #[test]
    fn a_chain_that_was_not_touched_verifies() {
        let verified = verify(ACCOUNT, chain(4)).unwrap();
        assert_eq!(
            (verified.entries, verified.charged),
            (4, Nanos(3 * 10_815_000))
        );
        assert!(verify(AccountId::from_u128(8), chain(4)).is_err());
        assert_eq!(verify(ACCOUNT, []).unwrap().head, Hash::START);
    }

    #[test]
    fn only_the_first_entry_opens_the_account() {
        let opened = Record::Opened {
            tier: Tier::MANAGED,
            ceiling: Nanos(5),
        };
        let mut head = Hash::START;
        let twice = [0, 1].map(|sequence| {
            let entry = Entry::new(sequence, UnixMillis(1), opened.clone()).unwrap();
            let canonical = entry.canonical().unwrap();
            head = link(ACCOUNT, head, &canonical);
            Stored {
                sequence,
                canonical,
                hash: head,
            }
        });
        assert_eq!(verify(ACCOUNT, twice).unwrap_err().sequence, 1);
    }

    proptest! {
        #[test]
        fn debits_equal_credits_whatever_is_charged(
            prompt in 0u64..10_000_000, completion in 0u64..1_000_000,
            bps in 0u32..20_000, part in 0i64..=100, tier in 0u8..3,
        ) {
            let tier = match tier {
                0 => Tier::Free { monthly_quota: Nanos(1) },
                1 => Tier::Managed { markup_bps: bps },
                _ => Tier::Byok { fee_bps: bps },
            };
            let price = Price::CLAUDE_SONNET;
            let tokens = TokensUsed { prompt, completion, ..TokensUsed::default() };
            let (base, amount) = (price.base(&tokens)?, price.cost(&tokens, tier.rate_bps())?);
            let overage = Nanos(amount.0 / 100 * part);
            let charge = Charge { tokens, base, charge: amount, overage, ..charge(1, tier, 0) };
            let movements = Record::Charged(charge).movements()?;
            prop_assert_eq!(movements.iter().map(|m| i128::from(m.amount.0)).sum::<i128>(), 0);
            prop_assert!(movements.iter().all(|m| m.amount != Nanos::ZERO));
        }

        #[test]
        fn any_altered_dropped_inserted_or_swapped_entry_is_found_and_named(
            length in 3u64..12, at in any::<prop::sample::Index>(),
            byte in any::<prop::sample::Index>(), what in 0u8..4,
        ) {
            let mut entries = chain(length);
            let at = at.index(entries.len() - 1);
            match what {
                0 => {
                    let mut bytes = entries[at].canonical.clone().into_bytes();
                    let byte = byte.index(bytes.len());
                    bytes[byte] ^= 1;
                    entries[at].canonical = String::from_utf8(bytes).unwrap();
                }
                1 => { entries.remove(at); }
                2 => { let copy = entries[at].clone(); entries.insert(at, copy); }
                _ => entries.swap(at, at + 1),
            }
            let fault = verify(ACCOUNT, entries).unwrap_err();
            let expected = if what == 2 { at + 1 } else { at };
            prop_assert_eq!(fault.sequence, expected as u64);
        }
    }
}
