//! Guests: people who ask on the host's money, each within a cap a month.

use serde::{Deserialize, Serialize};

use super::{Account, Denied, Month};
use crate::billing::money::{Nanos, Overflow};
use crate::ids::GuestId;

/// One guest as the rules see it. The cap is a limit on the host's money, not a fund.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// The most that may be charged for the guest in a month.
    pub cap: Nanos,
    /// The month that `spent` is of.
    #[serde(default)]
    pub month: Month,
    /// Charged for the guest in it.
    #[serde(default)]
    pub spent: Nanos,
}

impl Guest {
    /// A new guest.
    #[must_use]
    pub const fn new(cap: Nanos) -> Self {
        Self {
            cap,
            month: Month::from_index(0),
            spent: Nanos::ZERO,
        }
    }

    /// Charged in a month, or in the guest's own if that is later.
    fn spent_in(&self, month: Month) -> Nanos {
        if month > self.month {
            Nanos::ZERO
        } else {
            self.spent
        }
    }

    /// After a charge that counts in `month`.
    pub(super) fn charged(&self, month: Month, charge: Nanos) -> Result<Self, Overflow> {
        Ok(Self {
            spent: self.spent_in(month).plus(charge)?,
            month: self.month.max(month),
            ..*self
        })
    }
}

/// Whether the cap of whoever asks covers `needed`.
pub(super) fn admits(
    account: &Account,
    guest: Option<GuestId>,
    month: Month,
    needed: Nanos,
) -> Result<(), Denied> {
    let Some(id) = guest else {
        return Ok(());
    };
    let guest = account.guests.get(&id).ok_or(Denied::UnknownGuest)?;
    let own = account.holds.values().filter(|held| held.guest == Some(id));
    let held = own
        .map(|held| held.charge)
        .try_fold(Nanos::ZERO, Nanos::plus)?;
    let available = guest.cap.minus(guest.spent_in(month))?.minus(held)?;
    if needed > available {
        let available = available.max(Nanos::ZERO);
        return Err(Denied::GuestCap { needed, available });
    }
    Ok(())
}
