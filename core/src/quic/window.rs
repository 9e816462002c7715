//! A congestion controller that lets one probe out when the window is full.
//!
//! quinn-proto's own probe timer doubles without bound, and its `ping` waits behind a full window, so
//! a tunnel that was sending when the network went away would stay silent long after it came back.
//! While the window is lifted, [`Controller::window`] reports room; one datagram is taken, and it is
//! lowered again. The controller underneath (CUBIC, RFC 9438) never knows.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use quinn_proto::congestion::{Controller, ControllerFactory, CubicConfig};

/// Far above what is ever in flight, and far below where sums with it overflow.
const LIFTED: u64 = 1 << 40;

/// Shared by all connections of one endpoint: it is lifted for one call only.
#[derive(Clone, Debug, Default)]
pub(super) struct Window(Arc<AtomicBool>);

impl Window {
    pub(super) fn lift(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn lower(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    fn is_lifted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Makes a controller for each path.
#[derive(Debug)]
pub(super) struct Liftable {
    pub(super) window: Window,
    pub(super) inner: Arc<CubicConfig>,
}

impl ControllerFactory for Liftable {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = Arc::clone(&self.inner).build(now, current_mtu);
        Box::new(LiftableController {
            window: self.window.clone(),
            inner,
        })
    }
}

struct LiftableController {
    window: Window,
    inner: Box<dyn Controller>,
}

impl Controller for LiftableController {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &quinn_proto::RttEstimator,
    ) {
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.inner
            .on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.inner
            .on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        if self.window.is_lifted() {
            LIFTED
        } else {
            self.inner.window()
        }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            window: self.window.clone(),
            inner: self.inner.clone_box(),
        })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
