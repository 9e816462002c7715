//! Notices that this machine reaches the gateway from another address: another Wi-Fi, a cable
//! pulled, a VPN up or down.
//!
//! Asks the system which of its addresses it would send from. No packet is sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// How often to [look](Route::look). A lookup in the system's routing table costs microseconds.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Names are looked up anew this seldom: a resolver is asked over the network.
const LOOKS_PER_RESOLUTION: u32 = 150;

/// The way to a gateway, as it was seen last.
#[derive(Debug, Default)]
pub struct Route {
    /// The gateway's.
    addresses: Vec<SocketAddr>,
    /// This machine's.
    from: Option<IpAddr>,
    looks: u32,
}

impl Route {
    /// Whether the gateway's name is to be looked up before the next look. A resolver that fails
    /// leaves what was known.
    #[must_use]
    pub fn wants_addresses(&self) -> bool {
        self.addresses.is_empty() || self.looks.is_multiple_of(LOOKS_PER_RESOLUTION)
    }

    /// The gateway's addresses, as they were looked up.
    pub fn addresses(&mut self, addresses: Vec<SocketAddr>) {
        self.addresses = addresses;
    }

    /// Looks; the address that this machine sends from, if it was another one at the last look.
    pub fn look(&mut self) -> Option<IpAddr> {
        self.looks = self.looks.wrapping_add(1);
        let gateways = self.addresses.iter();
        let now = gateways.copied().find_map(source_towards);
        self.seen(now)
    }

    fn seen(&mut self, now: Option<IpAddr>) -> Option<IpAddr> {
        // No route at all is no new network: what is there may come back.
        let now = now?;
        let before = self.from.replace(now)?;
        (before != now).then_some(now)
    }
}

/// The address that the system would send from.
fn source_towards(gateway: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if gateway.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    // Connecting a UDP socket chooses a route and sends nothing.
    socket.connect(gateway).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn loopback_is_reached_from_loopback() {
        let source = source_towards(([127, 0, 0, 1], 4443).into());
        assert_eq!(source, Some(LOOPBACK));
    }

    #[test]
    fn another_address_than_before_is_news_and_none_at_all_is_not() {
        let other = IpAddr::from([192, 0, 2, 7]);
        let mut route = Route::default();
        let seen = [None, Some(LOOPBACK), Some(LOOPBACK), None, Some(LOOPBACK)];
        assert_eq!(seen.map(|now| route.seen(now)), [None; 5]);
        assert_eq!(route.seen(Some(other)), Some(other));
        assert_eq!(route.seen(Some(other)), None);
        assert_eq!(route.seen(None), None);
        assert_eq!(route.seen(Some(LOOPBACK)), Some(LOOPBACK));
    }

    #[test]
    fn names_are_looked_up_until_there_is_an_answer_and_then_seldom() {
        let mut route = Route::default();
        for _ in 0..3 {
            assert!(route.wants_addresses());
            assert_eq!(route.look(), None);
        }
        route.addresses(vec![(LOOPBACK, 4443).into()]);
        let mut looks = 3;
        while !route.wants_addresses() {
            assert_eq!(route.look(), None, "it stays the same");
            looks += 1;
        }
        assert_eq!(looks, LOOKS_PER_RESOLUTION);
    }
}
