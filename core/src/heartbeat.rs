//! One session's heart: beats, their acknowledgements, and the suspicion that the path is dead.
//!
//! ```text
//!            a missed ack, or something in flight and silence
//!   Sure ──────────────────────────────────────────────────────▶ Doubt: a probe at once and every
//!     ▲                                                            │     second
//!     └── anything is received, and the missed beat acknowledged ───┤
//!                                                                  └─ 20 s of it ─▶ Silent (said
//!                                                                     once; the probes go on)
//! ```
//!
//! That packets come does not show that packets arrive: over a path that is dead one way, a gateway is
//! heard asking every second for a word that it does not get. So a doubt with a missed beat in it ends
//! when that beat is acknowledged, or a later one.
//!
//! A QUIC sender's own probe timer doubles without bound (RFC 9002 §6.2.1), so a tunnel that was
//! quiet during an outage would stay dead long after the network healed. This clock does not double.
//!
//! Whoever waits for an answer has nothing in flight and suspects nothing, while a router that has
//! forgotten the way back, or a gateway that has gone, lets them wait. So silence is probed then too, with
//! no doubt yet.
//!
//! # Invariants
//!
//! 1. Sequence numbers grow by one from 0 and never repeat.
//! 2. In doubt there is a probe every [`limits::PROBE_EVERY`]; without doubt there is none but those
//!    asked for, and one for every [`limits::AWAITED_SILENCE`] while an answer is awaited.
//! 3. A session that fell silent gets no beats until it is heard again, and then one at once if it
//!    was due.
//! 4. `Doubt(true)` and `Doubt(false)` alternate, and `Silent` comes between them at most once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits;
use crate::machine::Machine;
use crate::time::{Now, earliest};

/// What the transport knows of a session's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// When the last authenticated packet arrived.
    pub last_received: Instant,
    /// Whether anything sent awaits acknowledgement.
    pub in_flight: bool,
    /// Smoothed round-trip time.
    pub rtt: Duration,
}

/// What a heart is told.
#[derive(Clone, Copy, Debug)]
pub enum Input {
    /// The gateway acknowledged a beat.
    Acked {
        /// The beat's sequence.
        sequence: u64,
    },
    /// The transport's facts, after every step of its owner.
    Traffic(Traffic),
    /// Whether anything is expected of the gateway.
    Awaited(bool),
    /// Something happened that may have killed the path: probe now.
    ProbeNow,
    /// The peer must have given the session up, for a reason outside: as if it had been silent under
    /// probing for long enough.
    PresumeSilent,
    /// The deadline has come.
    Timeout,
}

/// What a heart says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a heartbeat.
    Beat {
        /// Its sequence.
        sequence: u64,
    },
    /// Make the peer answer, also when the congestion window is full.
    Probe,
    /// Doubt begins, or ends because something showed that the path lives.
    Doubt(bool),
    /// Nothing showed it for [`limits::HALF_OPEN_SILENCE`] of probing, or as long as was set.
    Silent,
}

/// How the caller misused the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Outputs have not been drained: drain them first.
    #[error("too many outputs wait to be drained")]
    Backlog,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    Sure,
    Doubt {
        since: Instant,
        next_probe: Instant,
        /// Whether `Silent` has been said.
        silent: bool,
        /// The missed beat that is to be acknowledged before it is over.
        missed: Option<u64>,
    },
}

/// A beat whose acknowledgement is due.
#[derive(Clone, Copy, Debug)]
struct Awaited {
    sequence: u64,
    sent: Instant,
}

/// See the module documentation.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    every: Duration,
    /// Of probing, until the session is taken for silent.
    silence: Duration,
    next_beat: Instant,
    next_sequence: u64,
    /// The oldest beat without an answer.
    awaited: Option<Awaited>,
    /// No beat before this one can be acknowledged any more.
    ackable_from: u64,
    acked: u64,
    missed: u64,
    latency: Option<Duration>,
    traffic: Traffic,
    in_flight_since: Option<Instant>,
    /// Since when an answer is awaited, or silence was last probed for its sake.
    awaited_since: Option<Instant>,
    trust: Trust,
    outputs: VecDeque<Output>,
}

impl Heartbeat {
    /// The heart of a session that is established now; its first beat is due at once. `every` is
    /// brought into the bounds of [`limits`].
    #[must_use]
    pub fn new(now: Instant, every: Duration) -> Self {
        Self {
            every: every.clamp(limits::HEARTBEAT_EVERY_MIN, limits::HEARTBEAT_EVERY_MAX),
            silence: limits::HALF_OPEN_SILENCE,
            next_beat: now,
            next_sequence: 0,
            awaited: None,
            ackable_from: 0,
            acked: 0,
            missed: 0,
            latency: None,
            traffic: Traffic {
                last_received: now,
                in_flight: false,
                rtt: Duration::ZERO,
            },
            in_flight_since: None,
            awaited_since: None,
            trust: Trust::Sure,
            outputs: VecDeque::new(),
        }
    }

    /// The same, taken for silent after another time of probing without an answer.
    #[must_use]
    pub(crate) const fn with_silence(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// Beats sent.
    #[must_use]
    pub const fn sent(&self) -> u64 {
        self.next_sequence
    }

    /// Beats acknowledged.
    #[must_use]
    pub const fn acked(&self) -> u64 {
        self.acked
    }

    /// Beats not acknowledged in time.
    #[must_use]
    pub const fn missed(&self) -> u64 {
        self.missed
    }

    /// From beat to acknowledgement, smoothed as RFC 6298 §2 smooths (α = 1/8).
    #[must_use]
    pub const fn latency(&self) -> Option<Duration> {
        self.latency
    }

    /// Whether the path is in doubt.
    #[must_use]
    pub const fn in_doubt(&self) -> bool {
        matches!(self.trust, Trust::Doubt { .. })
    }

    fn acknowledge(&mut self, now: Instant, sequence: u64) {
        // Acknowledgements come in order, each once.
        if !(self.ackable_from..self.next_sequence).contains(&sequence) {
            return;
        }
        self.ackable_from = sequence + 1;
        self.acked += 1;
        let Some(awaited) = self.awaited else { return };
        if sequence == awaited.sequence {
            let sample = now.saturating_duration_since(awaited.sent);
            self.latency = Some(match self.latency {
                None => sample,
                Some(smoothed) => (smoothed * 7 + sample) / 8,
            });
        }
        if sequence >= awaited.sequence {
            self.awaited = None;
        }
    }

    /// A missed beat was acknowledged after all, or one after it. The doubt ends with the transport's
    /// next word, which has heard it too.
    fn late(&mut self, sequence: u64) {
        if let Trust::Doubt { missed, .. } = &mut self.trust
            && missed.is_some_and(|beat| (beat..self.ackable_from).contains(&sequence))
        {
            *missed = None;
        }
    }

    fn learn(&mut self, now: Instant, traffic: Traffic) {
        self.in_flight_since = match self.in_flight_since {
            since @ Some(_) if traffic.in_flight => since,
            _ => traffic.in_flight.then_some(now),
        };
        self.traffic = traffic;
        if let Trust::Doubt {
            since,
            missed: None,
            ..
        } = self.trust
            && traffic.last_received > since
        {
            self.trust = Trust::Sure;
            self.outputs.push_back(Output::Doubt(false));
        }
    }

    fn doubt(&mut self, now: Instant, missed: Option<u64>) {
        self.trust = Trust::Doubt {
            since: now,
            next_probe: now + limits::PROBE_EVERY,
            silent: false,
            missed,
        };
        self.outputs.push_back(Output::Doubt(true));
        self.outputs.push_back(Output::Probe);
    }

    fn presume_silent(&mut self, now: Instant) {
        if !self.in_doubt() {
            self.doubt(now, None);
        }
        if let Trust::Doubt { silent, .. } = &mut self.trust
            && !std::mem::replace(silent, true)
        {
            self.outputs.push_back(Output::Silent);
        }
    }

    /// When silence with something in flight becomes doubt.
    fn doubt_at(&self) -> Option<Instant> {
        let quiet_since = self.in_flight_since?.max(self.traffic.last_received);
        let patience = limits::SUSPICION_SILENCE_MIN.max(self.traffic.rtt * limits::SUSPICION_RTTS);
        Some(quiet_since + patience)
    }

    /// When silence is probed because an answer is awaited.
    fn quiet_at(&self) -> Option<Instant> {
        // What is in flight already makes the peer answer.
        let since = self.awaited_since.filter(|_| !self.traffic.in_flight)?;
        Some(since.max(self.traffic.last_received) + limits::AWAITED_SILENCE)
    }

    /// A session that fell silent is probed, not told how the device fares: a beat would only wait
    /// in its queue.
    fn beat_due(&self) -> Option<Instant> {
        let silent = matches!(self.trust, Trust::Doubt { silent: true, .. });
        (!silent).then_some(self.next_beat)
    }

    fn ack_due(&self) -> Option<Instant> {
        Some(self.awaited?.sent + limits::HEARTBEAT_ACK_TIMEOUT)
    }

    fn run_timers(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let beat = self.awaited.filter(|_| due(self.ack_due()));
        let beat = beat.map(|awaited| awaited.sequence);
        if beat.is_some() {
            self.missed += 1;
            self.awaited = None;
        }
        match &mut self.trust {
            Trust::Sure => {
                if beat.is_some() || due(self.doubt_at()) {
                    self.doubt(now, beat);
                } else if due(self.quiet_at()) {
                    self.awaited_since = Some(now);
                    self.outputs.push_back(Output::Probe);
                }
            }
            Trust::Doubt {
                since,
                next_probe,
                silent,
                missed,
            } => {
                *missed = missed.or(beat);
                if *next_probe <= now {
                    *next_probe = now + limits::PROBE_EVERY;
                    self.outputs.push_back(Output::Probe);
                }
                if !*silent && *since + self.silence <= now {
                    *silent = true;
                    self.outputs.push_back(Output::Silent);
                }
            }
        }
        if self.beat_due().is_some_and(|at| at <= now) {
            let sequence = self.next_sequence;
            self.next_sequence += 1;
            self.next_beat = now + self.every;
            self.awaited = self.awaited.or(Some(Awaited {
                sequence,
                sent: now,
            }));
            self.outputs.push_back(Output::Beat { sequence });
        }
    }
}

impl Machine for Heartbeat {
    type Input<'a> = Input;
    type Output = Output;
    type Rejected = Rejected;

    fn handle_input(&mut self, now: Now, input: Input) -> Result<(), Rejected> {
        if self.outputs.len() >= limits::OUTPUT_BACKLOG_MAX {
            return Err(Rejected::Backlog);
        }
        match input {
            Input::Acked { sequence } => {
                self.acknowledge(now.instant, sequence);
                self.late(sequence);
            }
            Input::Traffic(traffic) => self.learn(now.instant, traffic),
            Input::Awaited(awaited) => {
                let since = self.awaited_since.unwrap_or(now.instant);
                self.awaited_since = awaited.then_some(since);
            }
            Input::ProbeNow => self.outputs.push_back(Output::Probe),
            Input::PresumeSilent => self.presume_silent(now.instant),
            Input::Timeout => {}
        }
        self.run_timers(now.instant);
        Ok(())
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// A handful of comparisons: nothing to cache.
    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let suspicion = match self.trust {
            Trust::Sure => earliest(
                self.doubt_at().map(|at| (at, "suspicion")),
                self.quiet_at().map(|at| (at, "an answer is awaited")),
            ),
            Trust::Doubt {
                next_probe,
                since,
                silent,
                missed: _,
            } => earliest(
                Some((next_probe, "probe")),
                (!silent).then_some((since + self.silence, "half-open")),
            ),
        };
        let ack = self.ack_due().map(|at| (at, "heartbeat ack"));
        earliest(
            earliest(self.beat_due().map(|at| (at, "heartbeat")), ack),
            suspicion,
        )
    }
}

#[cfg(test)]
mod tests;
