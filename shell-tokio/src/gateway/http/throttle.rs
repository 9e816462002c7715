//! Who showed bad API keys lately. A key has 256 bits, so this is not what keeps keys from being
//! guessed: it keeps guessing cheap for the store.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use mesh_core::limits::{HTTP_BAD_KEY_ADDRESSES_MAX, HTTP_BAD_KEYS_MAX};

/// Bad keys are counted for this long, from an address's first.
const WINDOW: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Window {
    began: Instant,
    bad: u32,
}

/// A table of addresses. Full, it forgets the one whose count began first.
#[derive(Debug, Default)]
pub(super) struct BadKeys(BTreeMap<IpAddr, Window>);

impl BadKeys {
    /// How long this address is not listened to yet, if it is not.
    pub(super) fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let window = self.0.get(&network(address))?;
        let left = WINDOW.checked_sub(now.saturating_duration_since(window.began))?;
        (window.bad >= HTTP_BAD_KEYS_MAX && !left.is_zero()).then_some(left)
    }

    /// This address showed a bad key.
    pub(super) fn count(&mut self, address: IpAddr, now: Instant) {
        self.0
            .retain(|_, window| now.saturating_duration_since(window.began) < WINDOW);
        let address = network(address);
        if self.0.len() >= HTTP_BAD_KEY_ADDRESSES_MAX && !self.0.contains_key(&address) {
            let oldest = self.0.iter().min_by_key(|(_, window)| window.began);
            if let Some(oldest) = oldest.map(|(&oldest, _)| oldest) {
                self.0.remove(&oldest);
            }
        }
        let window = self
            .0
            .entry(address)
            .or_insert(Window { began: now, bad: 0 });
        window.bad = window.bad.saturating_add(1);
    }
}

/// The address; of IPv6 its first 64 bits, since whoever has one such address has them all.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(bits: u32) -> IpAddr {
        IpAddr::V4(bits.into())
    }

    #[test]
    fn the_twentieth_bad_key_shuts_an_address_out_for_the_rest_of_its_minute() {
        let (mut keys, now) = (BadKeys::default(), Instant::now());
        for _ in 0..19 {
            keys.count(v4(1), now);
        }
        assert_eq!(keys.wait(v4(1), now), None);
        keys.count(v4(1), now + Duration::from_secs(10));
        assert_eq!(
            keys.wait(v4(1), now + Duration::from_secs(10)),
            Some(Duration::from_secs(50))
        );
        assert_eq!(keys.wait(v4(2), now), None, "others are listened to");
        assert_eq!(keys.wait(v4(1), now + WINDOW), None);
        keys.count(v4(1), now + WINDOW);
        assert_eq!(keys.wait(v4(1), now + WINDOW), None, "counted anew");
    }

    #[test]
    fn a_whole_ipv6_network_is_one_address_and_a_mapped_ipv4_one_is_itself() {
        let (mut keys, now) = (BadKeys::default(), Instant::now());
        for host in 0..20 {
            keys.count(format!("2001:db8:0:1::{host}").parse().unwrap(), now);
            keys.count("::ffff:10.0.0.1".parse().unwrap(), now);
        }
        assert!(
            keys.wait("2001:db8:0:1:ffff::".parse().unwrap(), now)
                .is_some()
        );
        assert!(keys.wait("2001:db8:0:2::".parse().unwrap(), now).is_none());
        assert!(keys.wait("10.0.0.1".parse().unwrap(), now).is_some());
    }

    #[test]
    fn a_full_table_forgets_the_oldest_and_grows_no_further() {
        let (mut keys, now) = (BadKeys::default(), Instant::now());
        for _ in 0..HTTP_BAD_KEYS_MAX {
            keys.count(v4(0), now);
        }
        let later = now + Duration::from_secs(1);
        for other in 1..HTTP_BAD_KEY_ADDRESSES_MAX {
            keys.count(v4(u32::try_from(other).unwrap()), later);
        }
        assert!(keys.wait(v4(0), later).is_some());
        keys.count(v4(u32::MAX), later);
        assert_eq!(keys.0.len(), HTTP_BAD_KEY_ADDRESSES_MAX);
        assert!(keys.wait(v4(0), later).is_none());
    }
}
