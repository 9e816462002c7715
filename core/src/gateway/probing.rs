//! Tunnels that fell silent while an answer is on its way over them.
//!
//! The device suspects a tunnel when it is *its* words that nobody acknowledges. While an answer
//! streams, it says nothing for as long as a heartbeat's pause, and the gateway is the one that has
//! something in flight; QUIC's own probe timer doubles without bound (RFC 9002 §6.2.1), so after a
//! black-out the rest of the answer would come as late again as the network was gone. So a tunnel
//! that carries an answer is looked at every [`limits::PROBE_EVERY`]:
//!
//! 1. Silence with something in flight is probed, once a look.
//! 2. When a silent tunnel is heard again it is probed once more: what was heard may be the device's
//!    own probe, and only an acknowledgement shows what of ours was lost.
//! 3. A tunnel with nothing in flight is not probed, one without answers not even looked at.

use super::{Due, Gateway};
use crate::limits;
use crate::time::Now;
use crate::transport::{ConnId, Transport};

impl<T: Transport> Gateway<T> {
    /// An answer begins to go out over this tunnel.
    pub(super) fn watch(&mut self, now: Now, conn: ConnId) {
        let Some(tunnel) = self.tunnels.get_mut(&conn) else {
            return;
        };
        if !std::mem::replace(&mut tunnel.watched, true) {
            let look_at = now.instant + limits::PROBE_EVERY;
            self.deadlines.set(Due::Look(conn), Some(look_at));
        }
    }

    /// Looks at a tunnel that is watched, and says when to look again.
    pub(super) fn look(&mut self, now: Now, conn: ConnId) {
        let Some(tunnel) = self.tunnels.get_mut(&conn) else {
            return;
        };
        let Some(stats) = self.transport.stats(conn) else {
            tunnel.watched = false;
            return;
        };
        let patience = limits::SUSPICION_SILENCE_MIN.max(stats.rtt * limits::SUSPICION_RTTS);
        let silence = now.instant.saturating_duration_since(stats.last_received);
        let silent = stats.in_flight && silence >= patience;
        let was_silent = std::mem::replace(&mut tunnel.silent, silent);
        if silent || was_silent {
            self.transport.probe(now, conn);
        }
        let go_on = silent || was_silent || stats.in_flight || tunnel.is_speaking();
        tunnel.watched = go_on;
        let look_at = go_on.then(|| now.instant + limits::PROBE_EVERY);
        self.deadlines.set(Due::Look(conn), look_at);
    }
}
