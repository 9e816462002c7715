//! An invoice, collected exactly once by a service that forgets.
//!
//! Stripe counts a meter event once for each identifier, and forgets identifiers after about a day. So
//! while it surely remembers, a doubtful event is simply sent again; after that, what it has counted is
//! looked up first. For that to be conclusive each event has a minute of its own.
//!
//! ```text
//!                    ┌──────── no word, soon: again ───────┐
//!   Unsent ──────▶ Sent ◀──────────────────────────────────┘
//!                  │  │ no word for half a day
//!     has counted  │  └───▶ (look) ── counted ─────▶ Confirmed
//!                  │           │ not counted ──────▶ Missing ──▶ Sent
//!                  ▼           └ something else ───▶ Stuck
//!              Confirmed
//! ```
//!
//! # Invariants
//!
//! 1. An event is on disk as `Sent` before a request leaves.
//! 2. None is sent after [`METER_BLIND`] of doubt unless Stripe has been seen not to have it, when
//!    nothing could be under way any more.
//! 3. What cannot be made certain is `Stuck`, for a person: nothing is ever collected twice.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::id::CustomerId;
use crate::billing::account::Month;
use crate::ids::AccountId;
use crate::limits::{METER_AGE_MAX, METER_BLIND, METER_RETRY_BASE, METER_RETRY_MAX, METER_SETTLES};
use crate::time::UnixMillis;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// One invoice on its way to be collected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeterEvent {
    /// Whose.
    pub account: AccountId,
    /// Of which month.
    pub month: Month,
    /// How much, whole cents.
    pub cents: i64,
    /// Who pays.
    pub customer: CustomerId,
    /// The minute that it names, seconds.
    minute: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Unsent,
    Sent {
        /// When it was first sent since it was last seen not to be there.
        first: UnixMillis,
        /// When it was last sent.
        last: UnixMillis,
        /// How often since `first`.
        tries: u32,
    },
    /// Seen not to be there, when nothing could be under way.
    Missing,
    Confirmed,
    Stuck(Stuck),
}

/// Why a person must look at an invoice's collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Stuck {
    /// Something else was counted in its minute.
    #[error("Stripe has counted {found} cents there")]
    Differs {
        /// How much.
        found: i64,
    },
    /// It was not possible for longer than Stripe takes events from.
    #[error("it could not be sent for more than a month")]
    TooOld,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Say so ([`MeterEvent::sending`]), and send it with this moment, seconds.
    Send {
        /// The moment.
        at: u64,
    },
    /// Look what was counted from here to there, seconds; say so ([`MeterEvent::counted`]).
    Look {
        /// The first second.
        from: u64,
        /// The first second that does not belong to it.
        to: u64,
    },
    /// Nothing before then.
    Wait(UnixMillis),
    /// Nothing any more.
    Done,
    /// Tell a person.
    Stuck(Stuck),
}

impl MeterEvent {
    /// An invoice that is to be collected; nothing is to be done for one of nothing. To be on disk
    /// before it is looked at.
    #[must_use]
    pub fn new(
        account: AccountId,
        month: Month,
        cents: i64,
        customer: CustomerId,
        now: UnixMillis,
    ) -> Self {
        let state = if cents > 0 {
            State::Unsent
        } else {
            State::Confirmed
        };
        Self {
            account,
            month,
            cents,
            customer,
            minute: minute_of(month, now),
            state,
        }
    }

    /// Names it for Stripe, always the same.
    #[must_use]
    pub fn identifier(&self) -> String {
        format!("synesis:{}:{}", self.account, self.month)
    }

    /// What is to be done.
    #[must_use]
    pub fn step(&self, now: UnixMillis) -> Step {
        match self.state {
            State::Unsent | State::Missing => self.send(now),
            State::Sent { first, last, tries } => {
                let again = last.saturating_add(retry_after(tries));
                let blind = first.saturating_add(METER_BLIND);
                // A request that leaves now is there well before its first one is forgotten.
                if now < blind {
                    return if now < again && again < blind {
                        Step::Wait(again)
                    } else if now < again {
                        Step::Wait(blind)
                    } else {
                        self.send(now)
                    };
                }
                let settled = last.saturating_add(METER_SETTLES);
                if now < settled {
                    return Step::Wait(settled);
                }
                Step::Look {
                    from: self.minute,
                    to: self.minute + MINUTE,
                }
            }
            State::Confirmed => Step::Done,
            State::Stuck(why) => Step::Stuck(why),
        }
    }

    /// A request is about to leave. To be on disk before it does.
    pub fn sending(&mut self, now: UnixMillis) {
        self.state = match self.state {
            State::Unsent | State::Missing => State::Sent {
                first: now,
                last: now,
                tries: 1,
            },
            State::Sent { first, tries, .. } => State::Sent {
                first,
                last: now,
                tries: tries.saturating_add(1),
            },
            done @ (State::Confirmed | State::Stuck(_)) => done,
        };
    }

    /// Sends it, unless Stripe takes events of that age no more.
    fn send(&self, now: UnixMillis) -> Step {
        let age = Duration::from_secs(now.as_secs().saturating_sub(self.minute));
        if age > METER_AGE_MAX {
            Step::Stuck(Stuck::TooOld)
        } else {
            Step::Send { at: self.minute }
        }
    }

    /// Stripe has it: it said so, now or when it was sent before.
    pub fn recorded(&mut self) {
        if matches!(self.state, State::Sent { .. }) {
            self.state = State::Confirmed;
        }
    }

    /// What Stripe has counted in the event's minute, when a [`Step::Look`] asked for it.
    pub fn counted(&mut self, now: UnixMillis, cents: i64) {
        // A word from before something was sent again proves nothing.
        if !matches!(self.step(now), Step::Look { .. }) {
            return;
        }
        self.state = if cents == self.cents {
            State::Confirmed
        } else if cents != 0 {
            State::Stuck(Stuck::Differs { found: cents })
        } else {
            State::Missing
        };
    }
}

/// A minute of its own within the account: of the hour before this one, the minute that the month has
/// among sixty. Invoices of one hour differ in the month, others in the hour.
fn minute_of(month: Month, now: UnixMillis) -> u64 {
    let hour = (now.as_secs() / HOUR).saturating_sub(1) * HOUR;
    let place = month.index().rem_euclid(60);
    hour + u64::from(place.unsigned_abs()) * MINUTE
}

fn retry_after(tries: u32) -> Duration {
    let doubled = 2u32.saturating_pow(tries.saturating_sub(1));
    METER_RETRY_BASE
        .saturating_mul(doubled)
        .min(METER_RETRY_MAX)
}

#[cfg(test)]
mod tests;
