//! Notices that this machine reaches the gateway from another address: another Wi-Fi, a cable
//! pulled, a VPN up or down.
//!
//! Asks the system which of its addresses it would send from. No packet is sent.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use tokio::sync::mpsc;

use super::client::Order;

/// How often the system is asked. A lookup in its routing table costs microseconds.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Names are looked up anew this seldom: a resolver is asked over the network.
const LOOKS_PER_RESOLUTION: u32 = 150;

/// Watches until the client is gone.
pub(super) async fn watch(gateway: String, orders: mpsc::WeakSender<Order>) {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    let mut from: Option<IpAddr> = None;
    let mut looks: u32 = 0;
    loop {
        if addresses.is_empty() || looks.is_multiple_of(LOOKS_PER_RESOLUTION) {
            // A resolver that fails leaves what was known.
            if let Ok(found) = tokio::net::lookup_host(&gateway).await {
                addresses = found.collect();
            }
        }
        looks = looks.wrapping_add(1);
        let now = addresses
            .iter()
            .find_map(|gateway| source_towards(*gateway));
        // No route at all is no new network: what is there may come back.
        if let Some(now) = now {
            if from.is_some_and(|before| before != now) {
                tracing::info!(from = %now, "the network changed");
                let Some(orders) = orders.upgrade() else {
                    return;
                };
                if orders.send(Order::NetworkChanged).await.is_err() {
                    return;
                }
            }
            from = Some(now);
        }
        tokio::time::sleep(LOOK_EVERY).await;
        if orders.strong_count() == 0 {
            return;
        }
    }
}

/// The address that the system would send from.
fn source_towards(gateway: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if gateway.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).ok()?;
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
