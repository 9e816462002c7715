//! Tells the machine that the network has changed, and looks names up. What a change is, is
//! [`Route`]'s to say.

use std::net::{SocketAddr, ToSocketAddrs as _};

use async_io::Timer;
use mesh_shell::route::{LOOK_EVERY, Route};
use smol::channel::{self, WeakSender};

use super::host::Order;

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
    let mut route = Route::default();
    loop {
        if route.wants_addresses() {
            let (tell, found) = channel::bounded(1);
            lookup(gateway.clone(), move |result| {
                let _gone = tell.try_send(result);
            });
            if let Ok(Ok(found)) = found.recv().await {
                route.addresses(found);
            }
        }
        if route.look().is_some() {
            let Some(orders) = orders.upgrade() else {
                return;
            };
            if orders.send(Order::NetworkChanged).await.is_err() {
                return;
            }
        }
        Timer::after(LOOK_EVERY).await;
        if orders.upgrade().is_none() {
            return;
        }
    }
}
