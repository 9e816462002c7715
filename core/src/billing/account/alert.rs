//! When a person is told that a limit comes near: once at 80 %, once at 100 %.

use serde::{Deserialize, Serialize};

use super::{Account, Month};
use crate::billing::money::Nanos;
use crate::billing::tier::Tier;

/// The parts of a limit, in per cent, at which a person is told.
const STEPS: [u8; 2] = [100, 80];

/// What an account had used of its limits before a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    month: Month,
    spent: Nanos,
    used: Nanos,
}

impl Mark {
    /// Of an account as it is.
    #[must_use]
    pub const fn of(account: &Account) -> Self {
        Self {
            month: account.month,
            spent: account.spent,
            used: account.used,
        }
    }

    /// What had been used in a month.
    fn in_month(&self, month: Month) -> (Nanos, Nanos) {
        if month > self.month {
            (Nanos::ZERO, Nanos::ZERO)
        } else {
            (self.spent, self.used)
        }
    }
}

/// A limit came near or was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// What part of the limit was passed, per cent.
    pub percent: u8,
    /// Which limit.
    pub limit: Limit,
    /// Used of it this month.
    pub used: Nanos,
    /// All of it.
    pub of: Nanos,
    /// Which month.
    pub month: Month,
}

/// What an account can come near to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The ceiling on a month's spending.
    Ceiling,
    /// The month's free quota, in the provider's price.
    Quota,
}

impl Alert {
    /// What a change of an account passes, the highest step of it. As spending within a month only
    /// grows by charges, each step is passed once.
    #[must_use]
    pub fn passed(before: Mark, after: &Account) -> Option<Self> {
        let month = after.month;
        let (spent, used) = before.in_month(month);
        let (limit, was, is, of) = match after.tier {
            Tier::Free { monthly_quota } => (Limit::Quota, used, after.used, monthly_quota),
            Tier::Managed { .. } | Tier::Byok { .. } => {
                (Limit::Ceiling, spent, after.spent, after.ceiling)
            }
        };
        let reached = |amount: Nanos, percent: u8| {
            i128::from(amount.0) * 100 >= i128::from(of.0) * i128::from(percent)
        };
        let fresh = |percent: &u8| !reached(was, *percent) && reached(is, *percent);
        let percent = STEPS.into_iter().find(fresh)?;
        Some(Self {
            percent,
            limit,
            used: is,
            of,
            month,
        })
    }

    /// For a person.
    #[must_use]
    pub fn in_words(&self) -> String {
        let Self {
            percent,
            used,
            of,
            month,
            ..
        } = self;
        let (what, advice) = match self.limit {
            Limit::Ceiling => ("ceiling", "top up, or have the operator raise it"),
            Limit::Quota => ("free quota", "change the tier to go on beyond it"),
        };
        format!("{percent} % of the {what} of {month} is used: {used} of {of}; {advice}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(spent: i64) -> Account {
        Account {
            month: Month::from_index(24_322),
            spent: Nanos(spent),
            ..Account::new(Tier::MANAGED, Nanos(1000))
        }
    }

    fn percent(before: i64, after: i64) -> Option<u8> {
        Alert::passed(Mark::of(&account(before)), &account(after)).map(|alert| alert.percent)
    }

    #[test]
    fn each_step_is_told_of_once() {
        assert_eq!(percent(0, 799), None);
        assert_eq!(percent(799, 800), Some(80));
        assert_eq!(percent(800, 999), None);
        assert_eq!(percent(999, 1000), Some(100));
        assert_eq!(percent(0, 1000), Some(100));
        assert_eq!(percent(1000, 1200), None);
    }

    #[test]
    fn a_new_month_begins_anew_and_a_free_account_has_its_quota() {
        let before = account(1000);
        let after = Account {
            month: before.month.next(),
            ..account(850)
        };
        let alert = Alert::passed(Mark::of(&before), &after).unwrap();
        assert_eq!((alert.percent, alert.limit), (80, Limit::Ceiling));
        assert_eq!(
            alert.in_words(),
            "80 % of the ceiling of 2026-12 is used: $0.00000085 of $0.000001; top up, or have the operator raise it"
        );
        let free = |used| Account {
            tier: Tier::Free {
                monthly_quota: Nanos(10),
            },
            used: Nanos(used),
            ..account(0)
        };
        let alert = Alert::passed(Mark::of(&free(7)), &free(8)).unwrap();
        assert_eq!((alert.limit, alert.of), (Limit::Quota, Nanos(10)));
    }
}
