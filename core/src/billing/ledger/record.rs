//! What an entry of the ledger records, and where its money goes.

use serde::{Deserialize, Serialize};

use crate::billing::account::Month;
use crate::billing::account::funds::Drawn;
use crate::billing::account::order::Reference;
use crate::billing::money::{Cents, Nanos, Overflow};
use crate::billing::price::Price;
use crate::billing::tier::Tier;
use crate::ids::{DeviceId, GuestId, RequestId};
use crate::time::UnixMillis;
use crate::wire::message::TokensUsed;

/// One charge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// For which request.
    pub request: RequestId,
    /// SHA-256 of its body, as hex.
    #[serde(with = "super::hex32")]
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
    /// The device that asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// The project that it asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The guest who asked, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestId>,
    /// Whether the provider did not count the tokens.
    pub estimated: bool,
}

/// What the operator lost by an answer that a crash cut off: the provider takes it, the account is
/// charged nothing. An estimate, by the last that was known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// For which request.
    pub request: RequestId,
    /// SHA-256 of its body, as hex.
    #[serde(with = "super::hex32")]
    pub body: [u8; 32],
    /// The model, as it was asked for.
    pub model: String,
    /// What was used.
    pub tokens: TokensUsed,
    /// The price.
    pub price: Price,
    /// The tier that it would have been charged in.
    pub tier: Tier,
    /// The provider's price of it.
    pub base: Nanos,
    /// The device that asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
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
    /// An answer was cut off by a crash of the gateway's.
    Lost(Loss),
    /// A charge was given back, wholly or in part, to where it came from.
    Refunded(Refunded),
    /// A payment was taken back by whoever made it.
    Reversed {
        /// Under which name.
        reference: Reference,
        /// Which payment.
        undoes: Reference,
        /// How much.
        amount: Nanos,
        /// The part that was still there, paid in advance; the rest is owed.
        prepaid: Nanos,
    },
    /// A month was invoiced.
    Invoiced(Invoiced),
    /// An invoice was paid.
    Collected {
        /// Under which name.
        reference: Reference,
        /// How much.
        amount: Nanos,
    },
    /// The month's free quota begins anew.
    QuotaReset {
        /// Under which name.
        reference: Reference,
    },
    /// A guest may ask on the account's money, or may no longer.
    GuestSet {
        /// Under which name.
        reference: Reference,
        /// Who.
        guest: GuestId,
        /// The most in a month; nobody's guest any more without.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cap: Option<Nanos>,
    },
}

/// What of a charge was given back, and where each part of it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refunded {
    /// Under which name.
    pub reference: Reference,
    /// Which charge.
    pub undoes: RequestId,
    /// The model that it was for.
    pub model: String,
    /// How much.
    pub amount: Nanos,
    /// From what was owed beyond the hold.
    #[serde(default, skip_serializing_if = "Nanos::is_zero")]
    pub overage: Nanos,
    /// From what was within the ceiling.
    #[serde(default, skip_serializing_if = "Nanos::is_zero")]
    pub postpaid: Nanos,
    /// From what was paid in advance.
    #[serde(default, skip_serializing_if = "Nanos::is_zero")]
    pub prepaid: Nanos,
    /// From credits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credits: Vec<Drawn>,
    /// The part of `credits` whose credit has left the books meanwhile: it ended with it.
    #[serde(default, skip_serializing_if = "Nanos::is_zero")]
    pub ended: Nanos,
    /// The part of `overage` that had been paid meanwhile: it is paid in advance now.
    #[serde(default, skip_serializing_if = "Nanos::is_zero")]
    pub settled: Nanos,
    /// The month whose invoice is lower by `postpaid`.
    pub month: Month,
}

/// What a month came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invoiced {
    /// Under which name.
    pub reference: Reference,
    /// The month; what earlier ones left open is in it too.
    pub month: Month,
    /// The last month that was invoiced before; 0 before the first.
    pub after: Month,
    /// Spent within the ceiling in it.
    pub spent: Nanos,
    /// Left over from the invoice before.
    pub carried_in: Nanos,
    /// To be paid: whole cents.
    pub cents: Cents,
    /// Left over for the next.
    pub carried_out: Nanos,
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
    /// What the operator gave back.
    Refunds,
    /// What the customer was invoiced and has not paid.
    Receivable,
    /// What answers cost the operator that a crash cut off.
    Losses,
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
            | Self::CeilingSet { .. }
            | Self::Lost(_)
            | Self::Refunded(_)
            | Self::Reversed { .. }
            | Self::Invoiced(_)
            | Self::Collected { .. }
            | Self::QuotaReset { .. }
            | Self::GuestSet { .. } => None,
        }
    }

    /// The loss that it records, if it is one.
    #[must_use]
    pub const fn loss(&self) -> Option<&Loss> {
        if let Self::Lost(loss) = self {
            Some(loss)
        } else {
            None
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
            Self::Opened { .. }
            | Self::TierSet { .. }
            | Self::CeilingSet { .. }
            | Self::QuotaReset { .. }
            | Self::GuestSet { .. } => Vec::new(),
            Self::Lost(loss) => lost(loss)?,
            Self::Refunded(refunded) => given_back(refunded)?,
            Self::Reversed {
                amount, prepaid, ..
            } => vec![
                (Book::Prepaid, *prepaid),
                (Book::Owed, amount.minus(*prepaid)?),
                (Book::Cash, negated(*amount)?),
            ],
            Self::Invoiced(invoiced) => {
                let amount = invoiced.cents.to_nanos()?;
                vec![
                    (Book::Receivable, amount),
                    (Book::Postpaid, negated(amount)?),
                ]
            }
            Self::Collected { amount, .. } => {
                vec![(Book::Cash, *amount), (Book::Receivable, negated(*amount)?)]
            }
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

/// What a crash cost: nothing, where the account's own key pays the provider.
fn lost(loss: &Loss) -> Result<Vec<(Book, Nanos)>, Overflow> {
    Ok(match loss.tier {
        Tier::Byok { .. } => Vec::new(),
        Tier::Free { .. } | Tier::Managed { .. } => vec![
            (Book::Losses, loss.base),
            (Book::Provider, Nanos::ZERO.minus(loss.base)?),
        ],
    })
}

/// What a refund moves: back to where the charge was taken from.
fn given_back(refunded: &Refunded) -> Result<Vec<(Book, Nanos)>, Overflow> {
    let negated = |amount: Nanos| Nanos::ZERO.minus(amount);
    let Refunded {
        overage,
        settled,
        ended,
        ..
    } = *refunded;
    let mut drawn = refunded.credits.iter().map(|drawn| drawn.amount);
    let credits = drawn.try_fold(Nanos::ZERO, Nanos::plus)?;
    Ok(vec![
        (Book::Refunds, refunded.amount),
        (Book::Owed, settled.minus(overage)?),
        (Book::Postpaid, negated(refunded.postpaid)?),
        (Book::Prepaid, negated(refunded.prepaid.plus(settled)?)?),
        (Book::Credits, ended.minus(credits)?),
        (Book::Promotion, negated(ended)?),
    ])
}
