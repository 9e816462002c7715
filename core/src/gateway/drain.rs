//! Going away in good order: nobody new is taken in, devices are sent away one after another, and
//! answers under way may be finished for a while.
//!
//! ```text
//!            Drain                    limit, or Stop           no answer runs, nobody listens
//!  serving ─────────▶ GoAway to each ────────────────▶ cut off ─────────────────────────────▶ Stopped
//!                          │                                                          ▲ ▲
//!                          └── no answer runs, and devices have gone or had their turn┘ │
//!                              nothing can be written down for too long: left ──────────┘
//! ```
//!
//! # Invariants
//!
//! 1. From the first step on no handshake, no tunnel and no question is accepted; devices that are
//!    there may still come back to their answers.
//! 2. An answer that is cut off is free for its account; what its provider takes is booked as the
//!    operator's loss before its device is told.
//! 3. Devices are told to reconnect at moments that are spread evenly.
//! 4. Tunnels are closed once no answer runs and what was said has arrived, or its time is over.
//! 5. It comes to its end whether the store answers or not. What could not be written down is left as a
//!    crash leaves it, is said ([`Event::Unbooked`]), and its device is told nothing.

use std::time::{Duration, Instant};

use super::answer::Input;
use super::answers::AnswerId;
use super::streams::Lane;
use super::tunnels::{Phase, Tunnel};
use super::{Due, Event, Gateway, Output};
use crate::ids::DeviceId;
use crate::limits;
use crate::time::Now;
use crate::transport::{ConnId, StreamId, Transport};
use crate::wire::close::CloseCode;
use crate::wire::message::{GoAway, Message};

/// How a gateway goes away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Answers under way may take so long to end; what is left then is cut off.
    pub limit: Duration,
    /// All devices have been sent away after this time. A small fleet is sent away faster, each
    /// device at most [`limits::DRAIN_STEP`] after the one before.
    pub spread: Duration,
    /// What is over may take so long to be written down, from when `limit` is over; then it is left.
    pub store: Duration,
    /// Where they are sent, `host:port`, in turn; where they came from if there is none.
    pub alternates: Vec<String>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            limit: limits::DRAIN_LIMIT,
            spread: limits::DRAIN_SPREAD,
            store: limits::DRAIN_STORE,
            alternates: Vec::new(),
        }
    }
}

/// A gateway that goes away.
#[derive(Debug)]
pub(super) struct Draining {
    /// Answers may run until then.
    answers_until: Instant,
    /// Devices may stay until then, once no answer runs.
    devices_until: Instant,
    /// The store has so long from then on.
    store: Duration,
    cut_off: bool,
    /// What was said last has so long to arrive.
    last_words_by: Option<Instant>,
}

impl Draining {
    fn store_until(&self) -> Instant {
        self.answers_until + self.store
    }
}

impl<T: Transport> Gateway<T> {
    /// Sends the devices away. Said again it changes nothing.
    pub(super) fn drain(&mut self, now: Now, drain: &Drain) {
        if self.draining.is_some() {
            return;
        }
        let limit = drain.limit.min(limits::RETRY_AFTER_MAX);
        self.turn_away_newcomers(now);
        let devices: Vec<(DeviceId, ConnId, StreamId)> = self.controls().collect();
        let count = u32::try_from(devices.len()).unwrap_or(u32::MAX).max(1);
        let step = (drain.spread.min(limit) / count).min(limits::DRAIN_STEP);
        let mut reconnect_in = Duration::ZERO;
        let mut alternates = drain.alternates.iter().cycle();
        for (device, conn, control) in devices {
            let go = GoAway {
                reconnect_in_ms: u64::try_from(reconnect_in.as_millis()).unwrap_or(u64::MAX),
                try_for_secs: u32::try_from(limit.as_secs()).unwrap_or(u32::MAX),
                alternate: alternates.next().cloned(),
            };
            self.send(now, conn, control, &Message::GoAway(go));
            self.event(Event::SentAway {
                device,
                reconnect_in,
            });
            reconnect_in += step;
        }
        self.draining = Some(Draining {
            answers_until: now.instant + limit,
            devices_until: now.instant + (reconnect_in + limits::DRAIN_GRACE).min(limit),
            store: drain.store.min(limits::RETRY_AFTER_MAX),
            cut_off: false,
            last_words_by: None,
        });
    }

    /// Ends everything now.
    pub(super) fn stop(&mut self, now: Now) {
        if self.draining.is_none() {
            self.turn_away_newcomers(now);
        }
        let draining = self.draining.get_or_insert(Draining {
            answers_until: now.instant,
            devices_until: now.instant,
            store: limits::DRAIN_STORE,
            cut_off: false,
            last_words_by: None,
        });
        draining.answers_until = draining.answers_until.min(now.instant);
        draining.devices_until = draining.devices_until.min(now.instant);
    }

    fn turn_away_newcomers(&mut self, now: Now) {
        let is_new =
            |tunnel: &Tunnel| matches!(tunnel.phase, Phase::Handshaking | Phase::Knocking { .. });
        let tunnels = self.tunnels.iter();
        let new: Vec<ConnId> = tunnels
            .filter(|(_, tunnel)| is_new(tunnel))
            .map(|(&conn, _)| conn)
            .collect();
        for conn in new {
            self.close(now, conn, CloseCode::GoingAway, "the gateway is stopping");
        }
    }

    /// The control streams of all sessions.
    fn controls(&self) -> impl Iterator<Item = (DeviceId, ConnId, StreamId)> {
        self.live.iter().filter_map(|(device, conn)| {
            let mut streams = self.tunnels.get(conn)?.streams.iter();
            let control = streams.find(|(_, stream)| stream.lane == Lane::Control)?.0;
            Some((*device, *conn, *control))
        })
    }

    /// After every step: what a gateway that goes away may do next.
    pub(super) fn go_away(&mut self, now: Now) {
        let Some(draining) = &mut self.draining else {
            return;
        };
        if self.stopped {
            return;
        }
        if now.instant >= draining.answers_until && !draining.cut_off {
            draining.cut_off = true;
            self.cut_off(now);
        }
        self.leave_unbooked(now);
        let wait = self.waits_for(now);
        self.deadlines.set(Due::Drain, wait);
        if wait.is_some() || !self.answers.is_empty() {
            return;
        }
        let open: Vec<ConnId> = self.tunnels.keys().copied().collect();
        for conn in open {
            self.close(now, conn, CloseCode::GoingAway, "the gateway is stopping");
        }
        if self.tunnels.is_empty() {
            self.stopped = true;
            self.outputs.push_back(Output::Stopped);
        }
    }

    /// What still runs is stopped.
    fn cut_off(&mut self, now: Now) {
        let ids: Vec<AnswerId> = self.answers.keys().copied().collect();
        for id in ids {
            self.step_answer(now, id, Input::Interrupted);
        }
    }

    /// What the store has not taken in all this time is not waited for any longer.
    fn leave_unbooked(&mut self, now: Now) {
        let Some(draining) = &self.draining else {
            return;
        };
        if now.instant < draining.store_until() {
            return;
        }
        let ids: Vec<AnswerId> = self.answers.keys().copied().collect();
        for id in ids {
            self.deadlines.set(Due::Answer(id), None);
            self.deadlines.set(Due::Kept(id), None);
            self.runs_no_more(id);
            self.shelf.remove(id);
            if let Some(kept) = self.kept.remove(&id) {
                let (account, device, request) = kept.whose();
                self.requests.remove(&(account, request));
                self.event(Event::Unbooked { device, request });
            }
        }
    }

    /// Until when to wait before the tunnels are closed, if it is time alone that is waited for.
    fn waits_for(&mut self, now: Now) -> Option<Instant> {
        let draining = self.draining.as_mut()?;
        if !self.answers.is_empty() {
            return Some(match draining.cut_off {
                true => draining.store_until(),
                false => draining.answers_until,
            });
        }
        // Closing a connection drops what is queued on it.
        let last_words_by = *draining
            .last_words_by
            .get_or_insert(now.instant + limits::LAST_WORDS_TIMEOUT);
        let mut wait = None;
        if self.tunnels.values().any(Tunnel::is_speaking) {
            wait = Some(draining.answers_until.max(last_words_by));
        }
        if !self.live.is_empty() {
            wait = wait.max(Some(draining.devices_until));
        }
        wait.filter(|&at| at > now.instant)
    }
}
