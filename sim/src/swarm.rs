//! Many worlds: one after another from a first seed, on every core.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mesh_core::quic::Quic;

use crate::draw;
use crate::plan::Plan;
use crate::record::Violation;
use crate::sometimes::Sometimes;
use crate::wire::plain::Plain;
use crate::wire::{Unbuildable, Wire};
use crate::world::{Finished, World};

/// A plan that was run.
#[derive(Debug)]
pub struct Run {
    /// What came of it.
    pub finished: Finished,
    /// The last notes, or all of them.
    pub notes: Vec<String>,
}

/// Runs a plan on the transport that it names; a panic of a machine is a violation.
///
/// # Errors
///
/// [`Unbuildable`], also when the transport is not known.
pub fn run(plan: &Plan, whole_trace: bool) -> Result<Run, Unbuildable> {
    match plan.transport.as_str() {
        Quic::NAME => run_on::<Quic>(plan, whole_trace),
        Plain::NAME => run_on::<Plain>(plan, whole_trace),
        unknown => Err(Unbuildable(format!(
            "there is no transport {unknown:?}; use quic or plain"
        ))),
    }
}

fn run_on<W: Wire>(plan: &Plan, whole_trace: bool) -> Result<Run, Unbuildable> {
    let mut world = World::<W>::new(plan.clone(), whole_trace)?;
    let finished = match catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(finished) => finished?,
        Err(panic) => panicked(panic.as_ref()),
    };
    let trace = world.trace();
    let notes = if whole_trace {
        trace.whole().iter().map(ToString::to_string).collect()
    } else {
        trace.last().map(ToString::to_string).collect()
    };
    Ok(Run { finished, notes })
}

pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> Finished {
    let words = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|&words| words.to_owned()));
    Finished {
        digest: String::new(),
        virtual_us: 0,
        events: 0,
        datagrams: 0,
        questions: 0,
        answered: 0,
        violation: Some(Violation {
            invariant: "no machine panics".to_owned(),
            found: words.unwrap_or_default(),
        }),
        sometimes: Sometimes::default(),
    }
}

/// What a swarm came to.
#[derive(Debug, Default)]
pub struct Tally {
    /// Worlds run to their end.
    pub worlds: u64,
    /// Virtual time of all of them, µs.
    pub virtual_us: u64,
    /// Events of all of them.
    pub events: u64,
    /// Datagrams of all of them.
    pub datagrams: u64,
    /// Questions asked in all of them.
    pub questions: u64,
    /// Those answered to their end.
    pub answered: u64,
    /// Rare states.
    pub sometimes: Sometimes,
    /// The first seed that failed, on which transport, and how.
    pub failed: Option<(u64, &'static str, Violation)>,
    /// Wall time.
    pub took: Duration,
}

/// Runs worlds from the seed `from` on until the time is over or one fails.
///
/// # Errors
///
/// [`Unbuildable`].
pub fn swarm(from: u64, span: Duration, threads: usize) -> Result<Tally, Unbuildable> {
    let began = Instant::now();
    let (next, over) = (AtomicU64::new(from), AtomicBool::new(false));
    let tally = Mutex::new(Ok(Tally::default()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) && began.elapsed() < span {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    // Every fourth world is on the ideal transport.
                    let transport = if seed % 4 == 0 {
                        Plain::NAME
                    } else {
                        Quic::NAME
                    };
                    let run = run(&draw::plan(seed, transport), false);
                    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                    match (run, tally.as_mut()) {
                        (Ok(run), Ok(tally)) => {
                            tally.add(seed, transport, &run.finished);
                            if tally.failed.is_some() {
                                over.store(true, Ordering::Relaxed);
                            }
                        }
                        (Err(unbuildable), _) => {
                            *tally = Err(unbuildable);
                            over.store(true, Ordering::Relaxed);
                        }
                        (Ok(_), Err(_)) => {}
                    }
                }
            });
        }
    });
    let mut tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner)?;
    tally.took = began.elapsed();
    Ok(tally)
}

impl Tally {
    fn add(&mut self, seed: u64, transport: &'static str, finished: &Finished) {
        self.worlds += 1;
        self.virtual_us += finished.virtual_us;
        self.events += finished.events;
        self.datagrams += finished.datagrams;
        self.questions += finished.questions as u64;
        self.answered += finished.answered as u64;
        self.sometimes.add(&finished.sometimes);
        if let Some(violation) = &finished.violation {
            let earlier = self
                .failed
                .as_ref()
                .is_some_and(|(first, ..)| *first < seed);
            if !earlier {
                self.failed = Some((seed, transport, violation.clone()));
            }
        }
    }
}
