//! One session's heart: beats, their acknowledgements, and the suspicion that the path is dead.
//!
//! ```text
//!            a missed ack, or something in flight and silence
//!   Sure ──────────────────────────────────────────────────────▶ Doubt: a probe at once and every
//!     ▲                                                            │     second
//!     └────────────────── anything is received ────────────────────┤
//!                                                                  └─ 20 s of it ─▶ Silent (said
//!                                                                     once; the probes go on)
//! ```
//!
//! A QUIC sender's own probe timer doubles without bound (RFC 9002 §6.2.1), so a tunnel that was
//! quiet during an outage would stay dead long after the network healed. This clock does not double.
//!
//! # Invariants
//!
//! 1. Sequence numbers grow by one from 0 and never repeat.
//! 2. In doubt there is a probe every [`limits::PROBE_EVERY`]; without doubt there is none but those
//!    asked for.
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
    /// Doubt begins, or ends because something was received.
    Doubt(bool),
    /// Nothing was received for [`limits::HALF_OPEN_SILENCE`] of probing.
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
    next_beat: Instant,
    next_sequence: u64,
    /// The oldest beat without an answer.
    awaited: Option<Awaited>,
    acked: u64,
    missed: u64,
    latency: Option<Duration>,
    traffic: Traffic,
    in_flight_since: Option<Instant>,
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
            next_beat: now,
            next_sequence: 0,
            awaited: None,
            acked: 0,
            missed: 0,
            latency: None,
            traffic: Traffic {
                last_received: now,
                in_flight: false,
                rtt: Duration::ZERO,
            },
            in_flight_since: None,
            trust: Trust::Sure,
            outputs: VecDeque::new(),
        }
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
        if sequence >= self.next_sequence {
            return;
        }
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

    fn learn(&mut self, now: Instant, traffic: Traffic) {
        self.in_flight_since = match self.in_flight_since {
            since @ Some(_) if traffic.in_flight => since,
            _ => traffic.in_flight.then_some(now),
        };
        self.traffic = traffic;
        if let Trust::Doubt { since, .. } = self.trust
            && traffic.last_received > since
        {
            self.trust = Trust::Sure;
            self.outputs.push_back(Output::Doubt(false));
        }
    }

    fn doubt(&mut self, now: Instant) {
        self.trust = Trust::Doubt {
            since: now,
            next_probe: now + limits::PROBE_EVERY,
            silent: false,
        };
        self.outputs.push_back(Output::Doubt(true));
        self.outputs.push_back(Output::Probe);
    }

    fn presume_silent(&mut self, now: Instant) {
        if !self.in_doubt() {
            self.doubt(now);
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
        let missed = due(self.ack_due());
        if missed {
            self.missed += 1;
            self.awaited = None;
        }
        match &mut self.trust {
            Trust::Sure => {
                if missed || due(self.doubt_at()) {
                    self.doubt(now);
                }
            }
            Trust::Doubt {
                since,
                next_probe,
                silent,
            } => {
                if *next_probe <= now {
                    *next_probe = now + limits::PROBE_EVERY;
                    self.outputs.push_back(Output::Probe);
                }
                if !*silent && *since + limits::HALF_OPEN_SILENCE <= now {
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
            Input::Acked { sequence } => self.acknowledge(now.instant, sequence),
            Input::Traffic(traffic) => self.learn(now.instant, traffic),
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
            Trust::Sure => self.doubt_at().map(|at| (at, "suspicion")),
            Trust::Doubt {
                next_probe,
                since,
                silent,
            } => earliest(
                Some((next_probe, "probe")),
                (!silent).then_some((since + limits::HALF_OPEN_SILENCE, "half-open")),
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
mod tests {
    use super::*;
    use crate::machine::properties::{self, Subject};
    use crate::time::{UnixMillis, origin};

    struct Heart {
        start: Now,
        now: Now,
        heart: Heartbeat,
    }

    impl Heart {
        fn new() -> Self {
            let start = Now {
                instant: origin(),
                wall: UnixMillis(0),
            };
            let heart = Heartbeat::new(start.instant, limits::HEARTBEAT_EVERY);
            Self {
                start,
                now: start,
                heart,
            }
        }

        /// Gives an input at so many milliseconds after the start, and takes what is said.
        fn at(&mut self, ms: u64, input: Input) -> Vec<Output> {
            self.now = self.start.after(Duration::from_millis(ms));
            self.heart.handle_input(self.now, input).unwrap();
            std::iter::from_fn(|| self.heart.poll_output()).collect()
        }

        fn traffic(&self, last_received_ms: u64, in_flight: bool, rtt_ms: u64) -> Input {
            Input::Traffic(Traffic {
                last_received: self.start.instant + Duration::from_millis(last_received_ms),
                in_flight,
                rtt: Duration::from_millis(rtt_ms),
            })
        }

        fn due_ms(&self) -> (u128, &'static str) {
            let (at, why) = self.heart.poll_timeout().unwrap();
            ((at - self.start.instant).as_millis(), why)
        }
    }

    const PROBE: Output = Output::Probe;

    #[test]
    fn it_beats_at_once_and_every_thirty_seconds_and_counts_answers() {
        let mut heart = Heart::new();
        assert_eq!(heart.at(0, Input::Timeout), [Output::Beat { sequence: 0 }]);
        assert_eq!(heart.due_ms(), (10_000, "heartbeat ack"));
        assert_eq!(heart.at(80, Input::Acked { sequence: 0 }), []);
        assert_eq!(heart.due_ms(), (30_000, "heartbeat"));
        assert_eq!(
            heart.at(30_000, Input::Timeout),
            [Output::Beat { sequence: 1 }]
        );
        heart.at(30_160, Input::Acked { sequence: 1 });
        // (7 × 80 + 160) / 8 = 90.
        assert_eq!(heart.heart.latency(), Some(Duration::from_millis(90)));
        assert_eq!(
            (
                heart.heart.sent(),
                heart.heart.acked(),
                heart.heart.missed()
            ),
            (2, 2, 0)
        );
    }

    #[test]
    fn an_answer_to_a_beat_never_sent_counts_for_nothing() {
        let mut heart = Heart::new();
        heart.at(0, Input::Timeout);
        heart.at(1, Input::Acked { sequence: 7 });
        assert_eq!(heart.heart.acked(), 0);
        assert_eq!(heart.due_ms(), (10_000, "heartbeat ack"));
    }

    #[test]
    fn one_missed_ack_is_doubt_and_anything_received_ends_it() {
        let mut heart = Heart::new();
        heart.at(0, Input::Timeout);
        assert_eq!(
            heart.at(10_000, Input::Timeout),
            [Output::Doubt(true), PROBE]
        );
        assert_eq!(heart.at(11_000, Input::Timeout), [PROBE]);
        // Something from before the doubt proves nothing.
        assert_eq!(heart.at(11_500, heart.traffic(9_999, true, 20)), []);
        assert_eq!(
            heart.at(11_600, heart.traffic(11_600, true, 20)),
            [Output::Doubt(false)]
        );
        assert_eq!(heart.heart.missed(), 1);
    }

    #[test]
    fn silence_with_something_in_flight_is_doubt_after_a_second() {
        let mut heart = Heart::new();
        heart.at(0, Input::Timeout);
        heart.at(20, Input::Acked { sequence: 0 });
        assert_eq!(heart.at(5_000, heart.traffic(20, true, 20)), []);
        // Counted from the send, not from the silence before it.
        assert_eq!(heart.due_ms(), (6_000, "suspicion"));
        assert_eq!(heart.at(5_500, heart.traffic(5_400, true, 20)), []);
        assert_eq!(heart.due_ms(), (6_400, "suspicion"));
        assert_eq!(
            heart.at(6_400, Input::Timeout),
            [Output::Doubt(true), PROBE]
        );
    }

    #[test]
    fn on_a_long_path_patience_is_four_round_trips() {
        let mut heart = Heart::new();
        heart.at(0, Input::Timeout);
        heart.at(600, Input::Acked { sequence: 0 });
        heart.at(1_000, heart.traffic(600, true, 600));
        assert_eq!(heart.due_ms(), (3_400, "suspicion"));
    }

    #[test]
    fn nothing_in_flight_is_no_reason_for_doubt() {
        let mut heart = Heart::new();
        heart.at(0, Input::Timeout);
        heart.at(20, Input::Acked { sequence: 0 });
        heart.at(100, heart.traffic(20, true, 20));
        heart.at(130, heart.traffic(120, false, 20));
        assert_eq!(heart.due_ms(), (30_000, "heartbeat"));
    }

    #[test]
    fn twenty_seconds_of_probing_without_an_answer_are_said_once_and_the_probes_go_on() {
        let mut heart = Heart::new();
        heart.at(0, heart.traffic(0, true, 20));
        let mut said = Vec::new();
        let (mut probes, mut end) = (0, 0);
        while end < 40_000 {
            let (due, _) = heart.due_ms();
            end = u64::try_from(due).unwrap();
            let (probed, other): (Vec<_>, Vec<_>) = heart
                .at(end, Input::Timeout)
                .into_iter()
                .partition(|output| *output == PROBE);
            probes += probed.len();
            said.extend(other.into_iter().map(|output| (end, output)));
        }
        // The beat of the first moment was said by the first input.
        assert_eq!(
            said,
            [(1_000, Output::Doubt(true)), (21_000, Output::Silent)]
        );
        assert_eq!(probes, 40, "at 1, 2, … 40 s");
        assert_eq!(
            heart.at(40_500, heart.traffic(40_400, false, 20)),
            [Output::Doubt(false), Output::Beat { sequence: 1 }]
        );
    }

    #[test]
    fn a_gateway_cannot_ask_for_a_beat_too_fast_or_too_slow() {
        for (asked, kept) in [(0, 5), (30, 30), (3600, 60)] {
            let t = origin();
            let mut heart = Heartbeat::new(t, Duration::from_secs(asked));
            let now = Now {
                instant: t,
                wall: UnixMillis(0),
            };
            heart.handle_input(now, Input::Timeout).unwrap();
            assert_eq!(heart.next_beat, t + Duration::from_secs(kept));
        }
    }

    struct Hearts(Instant);

    impl Subject for Hearts {
        type Machine = Heartbeat;
        type Step = Input;

        fn make(&self) -> Heartbeat {
            Heartbeat::new(self.0, limits::HEARTBEAT_EVERY)
        }

        fn apply(&self, machine: &mut Heartbeat, now: Now, step: &Input) -> Result<(), Rejected> {
            machine.handle_input(now, *step)
        }

        fn timeout(&self, machine: &mut Heartbeat, now: Now) {
            machine.handle_input(now, Input::Timeout).unwrap();
        }

        fn digest(&self, machine: &Heartbeat) -> String {
            format!("{machine:?}")
        }
    }

    #[test]
    fn it_keeps_the_contract_of_machines() {
        let start = Heart::new();
        let subject = Hearts(start.start.instant);
        let secs = Duration::from_secs;
        let script = [
            (secs(0), Input::Timeout),
            (secs(1), Input::Acked { sequence: 0 }),
            (secs(1), start.traffic(1_000, true, 50)),
            (secs(40), Input::ProbeNow),
            (secs(1), start.traffic(43_000, false, 50)),
            (secs(90), Input::Acked { sequence: 9 }),
            (secs(1), Input::PresumeSilent),
        ];
        properties::check(&subject, start.start, &script);
        properties::backlog_is_bounded(&subject, start.start, &script, |_| Input::ProbeNow);
    }
}
