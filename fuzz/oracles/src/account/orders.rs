//! Orders: what is said, and what the model makes of it.

use arbitrary::Arbitrary;
use mesh_core::billing::account::Month;
use mesh_core::billing::account::funds::Drawn;
use mesh_core::billing::account::order::{Order, Reference, Refused, What};
use mesh_core::billing::ledger::{Charge, Invoiced, Record, Refunded};
use mesh_core::billing::money::{Cents, Nanos};
use mesh_core::billing::tier::Tier;
use mesh_core::ids::RequestId;
use mesh_core::time::UnixMillis;

use super::model::{Given, Model, Place, fits, month};

const DAY_MS: u64 = 86_400_000;

#[derive(Clone, Copy, Debug, Arbitrary)]
pub(super) enum Sum {
    Minus,
    Nothing,
    Nanos(u32),
    Cents(u8),
    Dollars(u8),
    Most,
}

impl Sum {
    fn nanos(self) -> Nanos {
        Nanos(match self {
            Self::Minus => -1,
            Self::Nothing => 0,
            Self::Nanos(nanos) => nanos.into(),
            Self::Cents(cents) => i64::from(cents) * 10_000_000,
            Self::Dollars(dollars) => i64::from(dollars) * 1_000_000_000,
            Self::Most => i64::MAX,
        })
    }
}

#[derive(Clone, Copy, Debug, Arbitrary)]
pub(super) enum Said {
    Pay(Sum),
    Grant { amount: Sum, days: u8 },
    Free(Sum),
    Managed { markup_bps: u16 },
    Byok { fee_bps: u16 },
    Ceiling(Sum),
    Refund { request: u8, amount: Sum },
    Reverse { payment: u8, amount: Sum },
    Close { months_ago: u8 },
    Collect(Sum),
    ResetQuota,
}

/// The reference of a number. Few, so that they meet.
fn reference(number: u8) -> Reference {
    match Reference::new(format!("r:{}", number % 16)) {
        Ok(reference) => reference,
        Err(error) => unreachable!("{error}"),
    }
}

impl Said {
    /// What it is, said at this moment.
    pub(super) fn order(self, number: u8, now_ms: u64) -> Order {
        let what = match self {
            Self::Pay(amount) => What::Pay {
                amount: amount.nanos(),
            },
            Self::Grant { amount, days } => What::Grant {
                amount: amount.nanos(),
                expires_at: UnixMillis(now_ms + u64::from(days) * DAY_MS / 4),
            },
            Self::Free(quota) => What::SetTier {
                tier: Tier::Free {
                    monthly_quota: Nanos(quota.nanos().0.max(0)),
                },
            },
            Self::Managed { markup_bps } => What::SetTier {
                tier: Tier::Managed {
                    markup_bps: markup_bps.into(),
                },
            },
            Self::Byok { fee_bps } => What::SetTier {
                tier: Tier::Byok {
                    fee_bps: fee_bps.into(),
                },
            },
            Self::Ceiling(ceiling) => What::SetCeiling {
                ceiling: ceiling.nanos(),
            },
            Self::Refund { request, amount } => What::Refund {
                charge: RequestId::from_u128(u128::from(request % 8)),
                amount: amount.nanos(),
            },
            Self::Reverse { payment, amount } => What::Reverse {
                payment: reference(payment),
                amount: amount.nanos(),
            },
            Self::Close { months_ago } => {
                let month = month(now_ms) - i32::from(months_ago % 4);
                return Order::close(Month::from_index(month));
            }
            Self::Collect(amount) => What::Collect {
                amount: amount.nanos(),
            },
            Self::ResetQuota => What::ResetQuota,
        };
        Order {
            reference: reference(number),
            what,
        }
    }
}

/// What was done under a reference.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub(super) what: What,
    pub(super) record: Record,
}

/// How much of a charge has been given back, part by part.
struct Left {
    overage: i128,
    postpaid: i128,
    prepaid: i128,
    /// The last to be given back first.
    credits: Vec<(Reference, i128)>,
}

fn wide(nanos: Nanos) -> i128 {
    nanos.0.into()
}

fn narrow(amount: i128) -> Result<Nanos, Refused> {
    fits(amount).map(Nanos).map_err(|_| Refused::Overflow)
}

impl Left {
    fn of(charge: &Charge, returned: &[&Refunded]) -> Self {
        let sum = |of: fn(&Refunded) -> Nanos| -> i128 {
            returned.iter().map(|refunded| wide(of(refunded))).sum()
        };
        let credited: i128 = charge.credits.iter().map(|drawn| wide(drawn.amount)).sum();
        let within = wide(charge.charge) - wide(charge.overage);
        let drawn = |credit: &Reference| -> i128 {
            let all = returned.iter().flat_map(|refunded| &refunded.credits);
            let same = all.filter(|drawn| drawn.credit == *credit);
            same.map(|drawn| wide(drawn.amount)).sum()
        };
        let credits = charge.credits.iter().rev();
        Self {
            overage: wide(charge.overage) - sum(|refunded| refunded.overage),
            postpaid: within - wide(charge.prepaid) - credited - sum(|refunded| refunded.postpaid),
            prepaid: wide(charge.prepaid) - sum(|refunded| refunded.prepaid),
            credits: credits
                .map(|part| {
                    let left = wide(part.amount) - drawn(&part.credit);
                    (part.credit.clone(), left)
                })
                .collect(),
        }
    }

    fn all(&self) -> i128 {
        let credits: i128 = self.credits.iter().map(|(_, left)| left).sum();
        self.overage + self.postpaid + self.prepaid + credits
    }
}

impl Model {
    /// What an order leads to; nothing when it was carried out before.
    pub(super) fn order(&mut self, order: &Order, now_ms: u64) -> Result<Vec<Record>, Refused> {
        if let Some(done) = self.orders.get(&order.reference) {
            return if done.what == order.what {
                Ok(Vec::new())
            } else {
                Err(Refused::Conflict)
            };
        }
        let mut next = self.clone();
        let mut records = next.lapse(now_ms);
        let record = next.carry_out(order, now_ms)?;
        let sums = [
            Place::Prepaid,
            Place::Owed,
            Place::Invoiced,
            Place::Residue,
            Place::Spent(next.month),
            Place::Used(next.month),
        ];
        let open = next.open().into_values();
        let mut all = sums.iter().map(|place| next.sum(*place)).chain(open);
        if all.any(|sum| fits(sum).is_err()) || next.available(now_ms).is_err() {
            return Err(Refused::Overflow);
        }
        records.push(record.clone());
        let what = order.what.clone();
        next.orders
            .insert(order.reference.clone(), Done { what, record });
        *self = next;
        Ok(records)
    }

    /// Credits that leave the books.
    pub(super) fn lapse(&mut self, now_ms: u64) -> Vec<Record> {
        let mut records = Vec::new();
        for credit in std::mem::take(&mut self.credits) {
            let left = self.sum(Place::Credit(credit.number));
            let ended = credit.ends_ms <= now_ms;
            if ended && left == 0 || credit.ends_ms + DAY_MS <= now_ms {
                self.put(Place::Credit(credit.number), -left);
                records.push(Record::Lapsed {
                    credit: credit.reference,
                    amount: Nanos(fits(left).unwrap_or_default()),
                });
            } else {
                self.credits.push(credit);
            }
        }
        records
    }

    fn carry_out(&mut self, order: &Order, now_ms: u64) -> Result<Record, Refused> {
        let reference = order.reference.clone();
        let positive = |amount: Nanos| {
            if amount.0 > 0 {
                Ok(wide(amount))
            } else {
                Err(Refused::NotPositive)
            }
        };
        Ok(match &order.what {
            What::Pay { amount } => {
                let settled = positive(*amount)?.min(self.sum(Place::Owed));
                self.put(Place::Owed, -settled);
                self.put(Place::Prepaid, wide(*amount) - settled);
                Record::Paid {
                    reference,
                    amount: *amount,
                    settled: narrow(settled)?,
                }
            }
            What::Grant { amount, expires_at } => {
                positive(*amount)?;
                if expires_at.0 <= now_ms {
                    return Err(Refused::EndsTooEarly);
                }
                self.grant(reference.clone(), *amount, expires_at.0);
                Record::Granted {
                    reference,
                    amount: *amount,
                    expires_at: *expires_at,
                }
            }
            What::SetTier { tier } => {
                self.tier = *tier;
                Record::TierSet {
                    reference,
                    tier: *tier,
                }
            }
            What::SetCeiling { ceiling } => {
                if ceiling.0 < 0 {
                    return Err(Refused::NegativeCeiling);
                }
                self.ceiling = ceiling.0;
                Record::CeilingSet {
                    reference,
                    ceiling: *ceiling,
                }
            }
            What::Refund { charge, amount } => {
                positive(*amount)?;
                self.refund(reference, *charge, *amount, now_ms)?
            }
            What::Reverse { payment, amount } => {
                positive(*amount)?;
                self.reverse(reference, payment, *amount)?
            }
            What::Close { month } => self.close(reference, *month, now_ms)?,
            What::Collect { amount } => {
                let (asked, left) = (positive(*amount)?, self.sum(Place::Invoiced));
                if asked > left {
                    let left = narrow(left)?;
                    return Err(Refused::MoreThanThere { left });
                }
                self.put(Place::Invoiced, -asked);
                Record::Collected {
                    reference,
                    amount: *amount,
                }
            }
            What::ResetQuota => {
                let place = Place::Used(self.month);
                self.put(place, -self.sum(place));
                Record::QuotaReset { reference }
            }
            What::SetGuest { .. } => unreachable!("no script says it"),
        })
    }

    fn grant(&mut self, reference: Reference, amount: Nanos, ends_ms: u64) {
        let number = self.grants;
        self.grants += 1;
        self.put(Place::Credit(number), wide(amount));
        self.credits.push(Given {
            ends_ms,
            reference,
            number,
        });
        self.credits
            .sort_by(|a, b| (a.ends_ms, &a.reference).cmp(&(b.ends_ms, &b.reference)));
    }

    fn refund(
        &mut self,
        reference: Reference,
        request: RequestId,
        amount: Nanos,
        now_ms: u64,
    ) -> Result<Record, Refused> {
        let Some((at_ms, charge)) = self.charged.get(&request).cloned() else {
            return Err(Refused::UnknownCharge);
        };
        let returned: Vec<&Refunded> = self
            .orders
            .values()
            .filter_map(|done| {
                let Record::Refunded(refunded) = &done.record else {
                    return None;
                };
                (refunded.undoes == request).then_some(refunded)
            })
            .collect();
        let left = Left::of(&charge, &returned);
        if wide(amount) > left.all() {
            let left = narrow(left.all())?;
            return Err(Refused::MoreThanThere { left });
        }
        let mut rest = wide(amount);
        let mut take = |there: i128| {
            let part = there.min(rest);
            rest -= part;
            part
        };
        let (overage, postpaid) = (take(left.overage), take(left.postpaid));
        let prepaid = take(left.prepaid);
        let (mut credits, mut ended) = (Vec::new(), 0);
        for (credit, there) in left.credits {
            let part = take(there);
            if part == 0 {
                continue;
            }
            match self.credit(&credit) {
                Some(number) => self.put(Place::Credit(number), part),
                None => ended += part,
            }
            let amount = narrow(part)?;
            credits.push(Drawn { credit, amount });
        }
        let settled = overage - overage.min(self.sum(Place::Owed));
        let own = month(at_ms).max(charge.month.map_or(0, Month::index));
        let known = self.open().contains_key(&own);
        let counts_in = if known {
            own
        } else {
            month(now_ms).max(self.month)
        };
        self.put(Place::Owed, settled - overage);
        self.put(Place::Prepaid, prepaid + settled);
        if postpaid > 0 {
            self.put(Place::Open(counts_in), -postpaid);
            if counts_in == self.month {
                let spent = self.sum(Place::Spent(counts_in));
                self.put(Place::Spent(counts_in), -postpaid.min(spent));
            }
        }
        Ok(Record::Refunded(Refunded {
            reference,
            undoes: request,
            model: charge.model,
            amount,
            overage: narrow(overage)?,
            postpaid: narrow(postpaid)?,
            prepaid: narrow(prepaid)?,
            credits,
            ended: narrow(ended)?,
            settled: narrow(settled)?,
            month: Month::from_index(counts_in),
        }))
    }

    fn reverse(
        &mut self,
        reference: Reference,
        payment: &Reference,
        amount: Nanos,
    ) -> Result<Record, Refused> {
        let done = self.orders.get(payment).map(|done| &done.record);
        let Some(Record::Paid { amount: paid, .. }) = done else {
            return Err(Refused::UnknownPayment);
        };
        let back: i128 = self
            .orders
            .values()
            .filter_map(|done| {
                let Record::Reversed { undoes, amount, .. } = &done.record else {
                    return None;
                };
                (undoes == payment).then_some(wide(*amount))
            })
            .sum();
        let left = wide(*paid) - back;
        if wide(amount) > left {
            let left = narrow(left)?;
            return Err(Refused::MoreThanThere { left });
        }
        let prepaid = wide(amount).min(self.sum(Place::Prepaid));
        self.put(Place::Prepaid, -prepaid);
        self.put(Place::Owed, wide(amount) - prepaid);
        Ok(Record::Reversed {
            reference,
            undoes: payment.clone(),
            amount,
            prepaid: narrow(prepaid)?,
        })
    }

    fn close(
        &mut self,
        reference: Reference,
        closing: Month,
        now_ms: u64,
    ) -> Result<Record, Refused> {
        let index = closing.index();
        if index >= month(now_ms) {
            return Err(Refused::MonthNotOver { month: closing });
        }
        if index <= self.closed {
            return Err(Refused::MonthClosed { month: closing });
        }
        let spent: i128 = self.open().range(..=index).map(|(_, open)| open).sum();
        let carried_in = self.sum(Place::Residue);
        let total = spent + carried_in;
        let cents = if total < 0 { 0 } else { total / 10_000_000 };
        let carried_out = total - cents * 10_000_000;
        let after = Month::from_index(self.closed);
        self.put(Place::Residue, carried_out - carried_in);
        self.put(Place::Invoiced, cents * 10_000_000);
        self.closed = index;
        self.month = self.month.max(index + 1);
        Ok(Record::Invoiced(Invoiced {
            reference,
            month: closing,
            after,
            spent: narrow(spent)?,
            carried_in: narrow(carried_in)?,
            cents: Cents(fits(cents).unwrap_or_default()),
            carried_out: narrow(carried_out)?,
        }))
    }
}
