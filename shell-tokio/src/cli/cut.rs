//! The network that `synesis up --cut` takes away: a relay over loopback between the device's socket
//! and the gateway's.
//!
//! ```text
//!   Whole ── cut ──▶ Dark (nothing passes) ── heal ──▶ Healed: only connections made from then on pass
//! ```
//!
//! What was connected before stays dead, as behind a router that was restarted: otherwise the old
//! session would live through any short outage, and there would be nothing to see.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::error::Error;

/// Connection ids that both sides give out, bytes.
const CID_BYTES: usize = 8;
/// Connections remembered at most; one has a handful of ids. Over it: nothing more is remembered.
const CIDS_MAX: usize = 4096;
/// Larger than any datagram.
const DATAGRAM_BYTES_MAX: usize = 65_536;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Whole,
    Dark,
    Healed,
}

/// See the module documentation. Ends when dropped.
#[derive(Debug)]
pub(super) struct Network {
    address: SocketAddr,
    state: watch::Sender<State>,
    task: JoinHandle<()>,
}

impl Network {
    /// One that leads to a gateway.
    ///
    /// # Errors
    ///
    /// When loopback has no free port.
    pub(super) async fn to(gateway: SocketAddr) -> Result<Self, Error> {
        let failed = |error| Error::io("the relay's UDP socket", error);
        let public = UdpSocket::bind("127.0.0.1:0").await.map_err(failed)?;
        let address = public.local_addr().map_err(failed)?;
        let inner = UdpSocket::bind("127.0.0.1:0").await.map_err(failed)?;
        inner.connect(gateway).await.map_err(failed)?;
        let (state, follow) = watch::channel(State::Whole);
        let task = tokio::spawn(relay(public, inner, follow));
        Ok(Self {
            address,
            state,
            task,
        })
    }

    /// What the device takes for the gateway's address.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Nothing passes from now on.
    pub(super) fn cut(&self) {
        self.state.send_replace(State::Dark);
    }

    /// What connects from now on passes.
    pub(super) fn heal(&self) {
        self.state.send_replace(State::Healed);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(public: UdpSocket, inner: UdpSocket, state: watch::Receiver<State>) {
    let (mut up, mut down) = (vec![0; DATAGRAM_BYTES_MAX], vec![0; DATAGRAM_BYTES_MAX]);
    let mut device = None;
    let mut known = Known::default();
    loop {
        // A datagram that cannot be passed on is lost, as on any network.
        tokio::select! {
            received = public.recv_from(&mut up) => if let Ok((length, from)) = received {
                device = Some(from);
                if known.passes(*state.borrow(), &up[..length]) {
                    let _lost = inner.send(&up[..length]).await;
                }
            },
            received = inner.recv(&mut down) => if let (Ok(length), Some(device)) = (received, device)
                && known.passes(*state.borrow(), &down[..length])
            {
                let _lost = public.send_to(&down[..length], device).await;
            },
        }
    }
}

/// The connections from before the cut.
#[derive(Debug, Default)]
struct Known(BTreeSet<Vec<u8>>);

impl Known {
    fn passes(&mut self, state: State, datagram: &[u8]) -> bool {
        // A short header (RFC 9000 §17.3) has the connection's id behind its first byte; long ones
        // are a handshake's.
        let short = datagram.first().is_some_and(|first| first & 0x80 == 0);
        let id = datagram.get(1..=CID_BYTES).filter(|_| short);
        match (state, id) {
            (State::Whole, Some(id)) => {
                if self.0.len() < CIDS_MAX && !self.0.contains(id) {
                    self.0.insert(id.to_vec());
                }
                true
            }
            (State::Whole | State::Healed, None) => true,
            (State::Dark, _) => false,
            (State::Healed, Some(id)) => !self.0.contains(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_cut_only_what_connects_anew_passes() {
        let mut known = Known::default();
        let (long, old, new) = ([0xC0; 30], [0x40; 30], [0x41; 30]);
        for (state, passes) in [
            (State::Whole, [true, true]),
            (State::Dark, [false, false]),
            (State::Healed, [true, false]),
        ] {
            assert_eq!(known.passes(state, &long), passes[0], "{state:?}");
            assert_eq!(known.passes(state, &old), passes[1], "{state:?}");
        }
        assert!(known.passes(State::Healed, &new));
    }
}
