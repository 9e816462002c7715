//! Notices that this machine reaches the gateway from another address: another Wi-Fi, a cable
//! pulled, a VPN up or down.
//!
//! Asks the system which of its addresses it would send from. No packet is sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::time::Duration;

use async_io::Timer;
use smol::channel::{self, WeakSender};

use super::host::Order;

/// How often the system is asked. A lookup in its routing table costs microseconds.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Names are looked up anew this seldom: a resolver is asked over the network.
const LOOKS_PER_RESOLUTION: u32 = 150;

/// Looks the gateway's addresses up on a thread of its own, where waiting is allowed, and hands
/// them on there. (The threads of smol's pool would stay, and wake twice a second for nothing.)
///
/// A system without room for a thread hands nothing on; the machine has a deadline for that.
pub(super) fn lookup(
    gateway: String,
    then: impl FnOnce(Result<Vec<SocketAddr>, String>) + Send + 'static,
) {
    let resolve = move || {
        let found = gateway.to_socket_addrs();
        then(
            found
                .map(Iterator::collect)
                .map_err(|error| error.to_string()),
        );
    };
    let thread = std::thread::Builder::new().name("lookup".to_owned());
    let _no_room = thread.spawn(resolve);
}

/// Watches until the client is gone.
pub(super) async fn watch(gateway: String, orders: WeakSender<Order>) {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    let mut from: Option<IpAddr> = None;
    let mut looks: u32 = 0;
    loop {
        if addresses.is_empty() || looks.is_multiple_of(LOOKS_PER_RESOLUTION) {
            // A resolver that fails leaves what was known.
            let (tell, found) = channel::bounded(1);
            lookup(gateway.clone(), move |result| {
                let _gone = tell.try_send(result);
            });
            if let Ok(Ok(found)) = found.recv().await {
                addresses = found;
            }
        }
        looks = looks.wrapping_add(1);
        let now = addresses
            .iter()
            .find_map(|gateway| source_towards(*gateway));
        // No route at all is no new network: what is there may come back.
        if let Some(now) = now {
            let Some(orders) = orders.upgrade() else {
                return;
            };
            let moved = from.replace(now).is_some_and(|before| before != now);
            if moved && orders.send(Order::NetworkChanged).await.is_err() {
                return;
            }
        }
        Timer::after(LOOK_EVERY).await;
        if orders.upgrade().is_none() {
            return;
        }
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

    #[test]
    fn loopback_is_reached_from_loopback() {
        let source = source_towards(([127, 0, 0, 1], 4443).into());
        assert_eq!(source, Some([127, 0, 0, 1].into()));
    }
}
