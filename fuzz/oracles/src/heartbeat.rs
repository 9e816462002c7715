//! A session's heart under arbitrary inputs and times: the properties of every machine, and the
//! rules of beats, probes and doubt.

use std::time::Duration;

use arbitrary::Arbitrary;
use mesh_core::heartbeat::{Heartbeat, Input, Output, Rejected, Traffic};
use mesh_core::machine::Machine;
use mesh_core::machine::properties::{self, Subject};
use mesh_core::time::Now;

use crate::steps::{self, Span};

/// Beats come at least this far apart, and at most.
const EVERY: std::ops::RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(60);
/// Between two probes in doubt.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// A probe a second for so long, undrained, and there is room left.
const UNDRAINED_MAX: Duration = Duration::from_secs(600);

#[derive(Debug, Arbitrary)]
struct Step {
    wait: Span,
    what: What,
}

#[derive(Clone, Debug, Arbitrary)]
enum What {
    /// One of the last beats, or one that never was.
    Acked {
        sequence: u8,
    },
    Traffic {
        received_ago: Span,
        in_flight: bool,
        rtt: Span,
    },
    ProbeNow,
    PresumeSilent,
    Timeout,
}

struct Hearts {
    every: Duration,
}

fn input(now: Now, what: &What) -> Input {
    match what {
        What::Acked { sequence } => Input::Acked {
            sequence: u64::from(*sequence),
        },
        What::Traffic {
            received_ago,
            in_flight,
            rtt,
        } => Input::Traffic(Traffic {
            last_received: now
                .instant
                .checked_sub(received_ago.duration())
                .unwrap_or(now.instant)
                .max(steps::origin().instant),
            in_flight: *in_flight,
            rtt: rtt.duration(),
        }),
        What::ProbeNow => Input::ProbeNow,
        What::PresumeSilent => Input::PresumeSilent,
        What::Timeout => Input::Timeout,
    }
}

impl Subject for Hearts {
    type Machine = Heartbeat;
    type Step = What;

    fn make(&self) -> Heartbeat {
        Heartbeat::new(steps::origin().instant, self.every)
    }

    fn apply(&self, heart: &mut Heartbeat, now: Now, what: &What) -> Result<(), Rejected> {
        heart.handle_input(now, input(now, what))
    }

    fn timeout(&self, heart: &mut Heartbeat, now: Now) {
        assert_eq!(heart.handle_input(now, Input::Timeout), Ok(()));
    }

    fn digest(&self, heart: &Heartbeat) -> String {
        format!("{heart:?}")
    }
}

/// What the rules say of a heart that is watched from outside.
#[derive(Default)]
struct Watch {
    beats: u64,
    last_beat: Option<Now>,
    doubt: bool,
    silent: bool,
    last_probe: Option<Now>,
}

impl Watch {
    /// What came out of one input at `now`.
    fn outputs(&mut self, now: Now, asked: bool, heart: &mut Heartbeat) {
        let mut asked = usize::from(asked);
        while let Some(output) = heart.poll_output() {
            match output {
                Output::Beat { sequence } => {
                    assert_eq!(sequence, self.beats, "beats count from 0 by one");
                    assert!(!self.silent, "a beat into silence");
                    if let Some(last) = self.last_beat {
                        let apart = now.instant.duration_since(last.instant);
                        assert!(apart >= *EVERY.start(), "beats {apart:?} apart");
                    }
                    self.beats += 1;
                    self.last_beat = Some(now);
                }
                Output::Probe => {
                    if asked > 0 && !self.doubt {
                        asked -= 1;
                    } else {
                        assert!(self.doubt, "a probe that nobody asked for");
                        self.last_probe = Some(now);
                    }
                }
                Output::Doubt(doubt) => {
                    assert_ne!(doubt, self.doubt, "doubt comes and goes in turn");
                    (self.doubt, self.silent) = (doubt, false);
                }
                Output::Silent => {
                    assert!(self.doubt && !self.silent, "silence comes once, in doubt");
                    self.silent = true;
                }
            }
        }
        assert_eq!(heart.in_doubt(), self.doubt);
        assert_eq!(heart.sent(), self.beats);
        assert!(heart.acked() <= self.beats, "more answers than beats");
        assert!(heart.missed() <= self.beats);
        let Some((due, _)) = heart.poll_timeout() else {
            unreachable!("a heart without a deadline");
        };
        let ahead = due.saturating_duration_since(now.instant);
        assert!(ahead <= *EVERY.end(), "nothing is due for {ahead:?}");
        if self.doubt {
            assert!(
                ahead <= PROBE_EVERY,
                "in doubt, and the next probe in {ahead:?}"
            );
        }
    }
}

/// See the module documentation.
pub fn run(data: &[u8]) {
    let Some((every, steps)) = steps::script::<Span, Step>(data) else {
        return;
    };
    let hearts = Hearts {
        every: every.duration(),
    };
    let script: Vec<_> = steps
        .into_iter()
        .map(|step| (step.wait.duration(), step.what))
        .collect();
    let start = steps::within(&script, UNDRAINED_MAX);
    properties::check(&hearts, steps::origin(), start);

    let mut heart = hearts.make();
    let (mut now, mut watch) = (steps::origin(), Watch::default());
    for (wait, what) in &script {
        let end = now.after(*wait);
        while let Some((due, _)) = heart.poll_timeout().filter(|(at, _)| *at <= end.instant) {
            now = now.after(due.saturating_duration_since(now.instant));
            hearts.timeout(&mut heart, now);
            watch.outputs(now, false, &mut heart);
        }
        now = end;
        assert_eq!(hearts.apply(&mut heart, now, what), Ok(()));
        watch.outputs(now, matches!(what, What::ProbeNow), &mut heart);
    }
}
