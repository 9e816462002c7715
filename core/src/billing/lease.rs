//! Several gateways on one store: whose a hold is, and when it is void.
//!
//! A gateway that is alive renews its lease. Holds of one that let it end are void, and whoever comes across
//! them takes them away: a gateway that died sets nothing aside for ever. All times are the store's own clock,
//! which every gateway reads alike.
//!
//! A lease lasts [`GATEWAY_LEASE`] from the moment that is written down as its renewal. A gateway whose own
//! lasts shorter or longer ([`Term`]) writes an earlier or a later one, so that nobody has to know of others'.
//!
//! Where the store itself was away, nobody could renew anything. So nobody judges others who has not held a
//! lease for as long without a gap: after an outage everybody gets the time again.
//!
//! # Invariants
//!
//! 1. A gateway's own hold is not void to it, however long it was away.
//! 2. A release voids a hold of its own gateway's and no other: each numbers its holds by itself.
//! 3. Whoever came back later than another voids nothing of the other's for a whole lease's time.

use std::time::Duration;

use rand::Rng;

use super::account::{HoldId, Release};
use crate::limits::{GATEWAY_LEASE, GATEWAY_LEASE_MAX, GATEWAY_LEASE_MIN, GATEWAY_LEASE_RENEWAL};
use crate::time::UnixMillis;

/// One life of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayId(u128);

impl GatewayId {
    /// A fresh one.
    #[must_use]
    pub fn random(rng: &mut impl Rng) -> Self {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        Self(u128::from_be_bytes(bytes))
    }

    /// The id that is exactly these 128 bits.
    #[must_use]
    pub const fn from_u128(bits: u128) -> Self {
        Self(bits)
    }

    /// The id's 128 bits.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        self.0
    }
}

/// How long a gateway's lease lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term(Duration);

impl Default for Term {
    fn default() -> Self {
        Self(GATEWAY_LEASE)
    }
}

impl Term {
    /// So many seconds; `None` outside of [`GATEWAY_LEASE_MIN`] and [`GATEWAY_LEASE_MAX`].
    #[must_use]
    pub fn secs(secs: u64) -> Option<Self> {
        let term = Duration::from_secs(secs);
        (GATEWAY_LEASE_MIN..=GATEWAY_LEASE_MAX)
            .contains(&term)
            .then_some(Self(term))
    }

    /// How often it is renewed.
    #[must_use]
    pub fn renewal(self) -> Duration {
        (self.0 / 6).min(GATEWAY_LEASE_RENEWAL)
    }

    /// What is written down for a renewal at a moment.
    const fn written(self, at: UnixMillis) -> UnixMillis {
        let at = at.0.saturating_add(ms(self.0));
        UnixMillis(at.saturating_sub(ms(GATEWAY_LEASE)))
    }

    /// The moment for which that was written.
    const fn read(self, written: UnixMillis) -> UnixMillis {
        let at = written.0.saturating_add(ms(GATEWAY_LEASE));
        UnixMillis(at.saturating_sub(ms(self.0)))
    }
}

/// A gateway's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Renewed without a gap since then.
    pub since: UnixMillis,
    /// The last time, as it is written down: it ends [`GATEWAY_LEASE`] after this.
    pub renewed_at: UnixMillis,
}

impl Lease {
    /// The lease that is renewed now.
    #[must_use]
    pub fn renewed(before: Option<Self>, now: UnixMillis, term: Term) -> Self {
        let unbroken = before.filter(|lease| age_ms(lease.renewed_at, now) <= ms(GATEWAY_LEASE));
        let since = unbroken.map_or(now, |lease| lease.since);
        let renewed_at = term.written(now);
        Self { since, renewed_at }
    }

    /// Whether a gateway has to renew its own lease now.
    #[must_use]
    pub fn is_due(lease: Option<Self>, now: UnixMillis, term: Term) -> bool {
        lease.is_none_or(|lease| age_ms(term.read(lease.renewed_at), now) >= ms(term.renewal()))
    }
}

/// Who judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judge {
    /// The gateway.
    pub me: GatewayId,
    /// Its lease; without one it takes nobody's silence for an end.
    pub lease: Option<Lease>,
    /// The store's clock.
    pub now: UnixMillis,
}

impl Judge {
    /// Whether the holds of a gateway are void that renewed its lease last at `renewed_at`; `None`: it
    /// has ended, and has no lease any more.
    #[must_use]
    pub fn is_gone(&self, gateway: GatewayId, renewed_at: Option<UnixMillis>) -> bool {
        let Some(renewed_at) = renewed_at else {
            return gateway != self.me;
        };
        let since = self.lease.map_or(self.now, |lease| lease.since);
        gateway != self.me && age_ms(renewed_at.max(since), self.now) > ms(GATEWAY_LEASE)
    }
}

/// Whether a release by the gateway `me` means this hold.
#[must_use]
pub fn means(me: GatewayId, release: &Release, holder: GatewayId, hold: HoldId) -> bool {
    holder == me && release.hold == hold
}

/// A clock that was set back makes nothing old.
const fn age_ms(at: UnixMillis, now: UnixMillis) -> u64 {
    now.0.saturating_sub(at.0)
}

/// Of an hour at most.
#[expect(clippy::cast_possible_truncation, reason = "it fits by far")]
const fn ms(span: Duration) -> u64 {
    span.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::RequestId;

    const ME: GatewayId = GatewayId::from_u128(1);
    const OTHER: GatewayId = GatewayId::from_u128(2);
    const NOW: UnixMillis = UnixMillis(1_795_000_000_000);

    const fn ago(seconds: u64) -> UnixMillis {
        UnixMillis(NOW.0 - seconds * 1000)
    }

    fn judge(me: GatewayId, since: UnixMillis) -> Judge {
        let renewed_at = NOW;
        Judge {
            me,
            lease: Some(Lease { since, renewed_at }),
            now: NOW,
        }
    }

    #[test]
    fn holds_of_a_gateway_that_was_silent_for_more_than_a_minute_are_void() {
        let judge = judge(ME, ago(3600));
        assert!(!judge.is_gone(OTHER, Some(ago(0))));
        assert!(!judge.is_gone(OTHER, Some(ago(60))));
        assert!(judge.is_gone(OTHER, Some(ago(61))));
        assert!(judge.is_gone(OTHER, None));
    }

    #[test]
    fn a_gateways_own_holds_are_never_void_to_it() {
        assert!(!judge(ME, ago(3600)).is_gone(ME, Some(ago(1_000_000))));
        assert!(!judge(ME, ago(3600)).is_gone(ME, None));
        assert!(judge(OTHER, ago(3600)).is_gone(ME, Some(ago(1_000_000))));
    }

    #[test]
    fn after_an_outage_of_the_store_everybody_has_a_minute_to_come_back() {
        let before = Lease {
            since: ago(3600),
            renewed_at: ago(300),
        };
        let back = Lease::renewed(Some(before), NOW, Term::default());
        assert_eq!((back.since, back.renewed_at), (NOW, NOW));
        let at = |seconds: u64| {
            let now = UnixMillis(NOW.0 + seconds * 1000);
            let lease = Some(Lease::renewed(Some(back), now, Term::default()));
            Judge { me: ME, lease, now }
        };
        assert!(!at(60).is_gone(OTHER, Some(ago(300))));
        // A minute and a second later, with a sign in between.
        let now = UnixMillis(NOW.0 + 61_000);
        let lease = Some(Lease::renewed(at(10).lease, now, Term::default()));
        let later = Judge { me: ME, lease, now };
        assert!(later.is_gone(OTHER, Some(ago(300))));
        // Nor does somebody judge who has no lease.
        let lease = None;
        let stranger = Judge {
            me: ME,
            lease,
            now: NOW,
        };
        assert!(!stranger.is_gone(OTHER, Some(ago(300))));
    }

    #[test]
    fn a_lease_is_renewed_every_ten_seconds() {
        let lease = |ms| {
            let renewed_at = UnixMillis(NOW.0 - ms);
            Some(Lease {
                since: renewed_at,
                renewed_at,
            })
        };
        let is_due = |lease| Lease::is_due(lease, NOW, Term::default());
        assert!(is_due(None));
        assert!(!is_due(lease(9_999)));
        assert!(is_due(lease(10_000)));
    }

    #[test]
    fn a_lease_of_another_length_ends_then_for_everybody() {
        assert_eq!(Term::secs(60), Some(Term::default()));
        assert_eq!([14, 3601, u64::MAX].map(Term::secs), [None; 3]);
        for (secs, renewed_every_ms) in [(15, 2_500), (60, 10_000), (600, 10_000)] {
            let term = Term::secs(secs).unwrap();
            let lease = Lease::renewed(None, NOW, term);
            assert_eq!(lease.since, NOW);
            let later = |ms: u64| UnixMillis(NOW.0 + ms);
            assert!(!Lease::is_due(
                Some(lease),
                later(renewed_every_ms - 1),
                term
            ));
            assert!(Lease::is_due(Some(lease), later(renewed_every_ms), term));
            // Whoever judges knows nothing of it.
            let gone_at = |ms: u64| {
                let judge = Judge {
                    now: later(ms),
                    ..judge(ME, ago(7200))
                };
                judge.is_gone(OTHER, Some(lease.renewed_at))
            };
            assert!(!gone_at(secs * 1000), "{secs}");
            assert!(gone_at(secs * 1000 + 1), "{secs}");
            // A gap that is longer breaks it.
            let since = |ms: u64| Lease::renewed(Some(lease), later(ms), term).since;
            assert_eq!(since(secs * 1000), NOW);
            assert_eq!(since(secs * 1000 + 1), later(secs * 1000 + 1));
        }
    }

    #[test]
    fn a_release_means_a_hold_of_its_own_gateway_only() {
        let release = Release {
            request: RequestId::from_u128(7),
            hold: HoldId(1),
        };
        assert!(means(ME, &release, ME, HoldId(1)));
        assert!(!means(ME, &release, ME, HoldId(2)));
        assert!(!means(ME, &release, OTHER, HoldId(1)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn a_lease_that_is_renewed_when_due_never_ends(at: u32, later in 0_u64..10_000) {
            let at = UnixMillis(u64::from(at));
            let now = UnixMillis(at.0 + later);
            let lease = Lease { since: at, renewed_at: at };
            let judge = Judge { me: ME, lease: Some(Lease { since: UnixMillis(0), renewed_at: now }), now };
            prop_assert!(Lease::is_due(Some(lease), now, Term::default()) || !judge.is_gone(OTHER, Some(at)));
        }

        #[test]
        fn a_clock_that_was_set_back_voids_nothing(at: u64, since: u64, now: u64) {
            let lease = Some(Lease { since: UnixMillis(since), renewed_at: UnixMillis(now) });
            let judge = Judge { me: ME, lease, now: UnixMillis(now) };
            prop_assert!(now > at && now > since || !judge.is_gone(OTHER, Some(UnixMillis(at))));
        }

        #[test]
        fn nobody_judges_who_has_not_held_a_lease_as_long(at: u64, since: u64, later in 0_u64..=60_000) {
            let now = UnixMillis(since.saturating_add(later));
            let lease = Some(Lease { since: UnixMillis(since), renewed_at: now });
            let judge = Judge { me: ME, lease, now };
            prop_assert!(!judge.is_gone(OTHER, Some(UnixMillis(at))));
        }
    }
}
