//! Several gateways on one store: whose a hold is, and when it is void.
//!
//! A gateway that is alive renews its lease. Holds of one that has not for [`GATEWAY_LEASE`] are void, and
//! whoever comes across them takes them away: a gateway that died sets nothing aside for ever. All times
//! are the store's own clock, which every gateway reads alike.
//!
//! # Invariants
//!
//! 1. A gateway's own hold is not void to it, however long it was away.
//! 2. A release voids a hold of its own gateway's and no other: each numbers its holds by itself.

use rand::Rng;

use super::account::{HoldId, Release};
use crate::limits::{GATEWAY_LEASE, GATEWAY_LEASE_RENEWAL};
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

/// Whose a hold is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The gateway that made it.
    pub gateway: GatewayId,
    /// When that last renewed its lease; `None` if it has none any more.
    pub renewed_at: Option<UnixMillis>,
}

impl Holder {
    /// Whether its holds are void, as the gateway `me` sees it.
    #[must_use]
    pub fn is_gone(&self, me: GatewayId, now: UnixMillis) -> bool {
        self.gateway != me
            && self
                .renewed_at
                .is_none_or(|at| age_ms(at, now) > ms(GATEWAY_LEASE))
    }
}

/// Whether a gateway has to renew its lease now.
#[must_use]
pub fn is_due(renewed_at: Option<UnixMillis>, now: UnixMillis) -> bool {
    renewed_at.is_none_or(|at| age_ms(at, now) >= ms(GATEWAY_LEASE_RENEWAL))
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

fn ms(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::RequestId;

    const ME: GatewayId = GatewayId::from_u128(1);
    const OTHER: GatewayId = GatewayId::from_u128(2);
    const NOW: UnixMillis = UnixMillis(1_795_000_000_000);

    fn holder(gateway: GatewayId, seconds_ago: u64) -> Holder {
        let renewed_at = Some(UnixMillis(NOW.0 - seconds_ago * 1000));
        Holder {
            gateway,
            renewed_at,
        }
    }

    #[test]
    fn holds_of_a_gateway_that_was_silent_for_more_than_a_minute_are_void() {
        assert!(!holder(OTHER, 0).is_gone(ME, NOW));
        assert!(!holder(OTHER, 60).is_gone(ME, NOW));
        assert!(holder(OTHER, 61).is_gone(ME, NOW));
        let without = Holder {
            gateway: OTHER,
            renewed_at: None,
        };
        assert!(without.is_gone(ME, NOW));
    }

    #[test]
    fn a_gateways_own_holds_are_never_void_to_it() {
        assert!(!holder(ME, 1_000_000).is_gone(ME, NOW));
        assert!(holder(ME, 1_000_000).is_gone(OTHER, NOW));
    }

    #[test]
    fn a_lease_is_renewed_every_ten_seconds() {
        assert!(is_due(None, NOW));
        assert!(!is_due(Some(UnixMillis(NOW.0 - 9_999)), NOW));
        assert!(is_due(Some(UnixMillis(NOW.0 - 10_000)), NOW));
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
            let holder = Holder { gateway: OTHER, renewed_at: Some(at) };
            prop_assert!(is_due(Some(at), now) || !holder.is_gone(ME, now));
        }

        #[test]
        fn a_clock_that_was_set_back_voids_nothing(at: u64, now: u64) {
            let holder = Holder { gateway: OTHER, renewed_at: Some(UnixMillis(at)) };
            prop_assert!(now > at || !holder.is_gone(ME, UnixMillis(now)));
        }
    }
}
