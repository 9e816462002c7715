//! Tells the machine that the network has changed. What a change is, is [`Route`]'s to say.

use mesh_shell::route::{LOOK_EVERY, Route};
use tokio::sync::mpsc;

use super::client::Order;

/// Watches until the client is gone.
pub(super) async fn watch(gateway: String, orders: mpsc::WeakSender<Order>) {
    let mut route = Route::default();
    loop {
        if route.wants_addresses()
            && let Ok(found) = tokio::net::lookup_host(&gateway).await
        {
            route.addresses(found.collect());
        }
        if let Some(now) = route.look() {
            tracing::info!(from = %now, "the network changed");
            let Some(orders) = orders.upgrade() else {
                return;
            };
            if orders.send(Order::NetworkChanged).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
        if orders.strong_count() == 0 {
            return;
        }
    }
}
