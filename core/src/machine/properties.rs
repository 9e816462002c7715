//! The properties that every machine is tested with.
//!
//! A test says once how its machine is made and driven ([`Subject`]), writes a script of inputs with
//! the time between them, and calls [`check`]. Between two inputs the timeouts that fall due are
//! given at their deadlines, as a shell would. Outputs are compared by their `Debug` text.
//!
//! | checked | invariant of [`crate::machine`] |
//! |---|---|
//! | [`late_drains_lose_nothing`] | 2 |
//! | [`idle_polls_are_free`] | 3 |
//! | [`rejected_inputs_change_nothing`] | 4 |
//! | [`deadlines_advance`] | 5 |
//! | [`same_inputs_give_same_outputs`] | 6 |
//! | [`backlog_is_bounded`] | the bound of undrained outputs |

use std::fmt::Debug;
use std::time::Duration;

use super::Machine;
use crate::limits;
use crate::time::Now;

/// Timeouts in a row, all at the same instant, that are taken for a machine that spins.
const TIMEOUTS_AT_ONCE_MAX: usize = 64;
/// Timeouts between two inputs that are taken for a machine that never rests.
const TIMEOUTS_BETWEEN_MAX: usize = 1_000_000;

/// How a test makes and drives its machine.
pub trait Subject {
    /// The machine.
    type Machine: Machine<Output: Debug, Rejected: Debug>;
    /// One scripted input, turned into the machine's own at the moment it is given.
    type Step: Debug;

    /// A fresh machine; always the same one.
    fn make(&self) -> Self::Machine;

    /// Gives one scripted input.
    ///
    /// # Errors
    ///
    /// What the machine says.
    fn apply(
        &self,
        machine: &mut Self::Machine,
        now: Now,
        step: &Self::Step,
    ) -> Result<(), <Self::Machine as Machine>::Rejected>;

    /// Gives the timeout input.
    fn timeout(&self, machine: &mut Self::Machine, now: Now);

    /// Everything about the machine that an input may change, as text.
    fn digest(&self, machine: &Self::Machine) -> String;

    /// What a shell does after every step besides draining outputs (a root machine's datagrams).
    fn after_step(&self, _machine: &mut Self::Machine, _now: Now) {}
}

/// A script: each input with the time since the one before.
pub type Script<S> = [(Duration, <S as Subject>::Step)];

/// Checks every property that needs no input of its own.
pub fn check<S: Subject>(subject: &S, origin: Now, script: &Script<S>) {
    same_inputs_give_same_outputs(subject, origin, script);
    late_drains_lose_nothing(subject, origin, script);
    idle_polls_are_free(subject, origin, script);
    rejected_inputs_change_nothing(subject, origin, script);
    deadlines_advance(subject, origin, script);
}

/// The same seed and the same inputs give the same outputs.
pub fn same_inputs_give_same_outputs<S: Subject>(subject: &S, origin: Now, script: &Script<S>) {
    let run = || Run::new(subject, origin).play(script, Drain::EveryStep);
    assert_eq!(run(), run(), "two equal runs differ");
}

/// A caller that drains at the end gets what one that drains after every step gets.
///
/// The script must fit the bound of undrained outputs.
pub fn late_drains_lose_nothing<S: Subject>(subject: &S, origin: Now, script: &Script<S>) {
    let early = Run::new(subject, origin).play(script, Drain::EveryStep);
    let late = Run::new(subject, origin).play(script, Drain::AtTheEnd);
    assert_eq!(early, late, "draining late changed the outputs");
}

/// Polling a drained machine gives nothing and changes nothing.
pub fn idle_polls_are_free<S: Subject>(subject: &S, origin: Now, script: &Script<S>) {
    let mut run = Run::new(subject, origin);
    for step in script {
        run.step(step);
        run.drain();
        let before = (subject.digest(&run.machine), run.machine.poll_timeout());
        for _ in 0..2 {
            assert!(run.machine.poll_output().is_none(), "not drained: {step:?}");
            let after = (subject.digest(&run.machine), run.machine.poll_timeout());
            assert_eq!(before, after, "an idle poll changed the machine: {step:?}");
        }
    }
}

/// An input that is rejected leaves everything as it was.
pub fn rejected_inputs_change_nothing<S: Subject>(subject: &S, origin: Now, script: &Script<S>) {
    let mut run = Run::new(subject, origin);
    for (wait, step) in script {
        run.advance(*wait);
        let before = (subject.digest(&run.machine), run.machine.poll_timeout());
        if subject.apply(&mut run.machine, run.now, step).is_err() {
            let after = (subject.digest(&run.machine), run.machine.poll_timeout());
            assert_eq!(
                before, after,
                "a rejected input changed the machine: {step:?}"
            );
        }
        subject.after_step(&mut run.machine, run.now);
        run.drain();
    }
}

/// After a timeout at the deadline and a drain the next deadline is later.
pub fn deadlines_advance<S: Subject>(subject: &S, origin: Now, script: &Script<S>) {
    let mut run = Run::new(subject, origin);
    for step in script {
        run.step(step);
        run.drain();
        let Some((due, why)) = run.machine.poll_timeout() else {
            continue;
        };
        // A deadline may already have passed when it is set, but not again after it was served.
        let mut at = run.now;
        at.instant = due.max(run.now.instant);
        let mut other = Run::new(subject, origin);
        other.machine = std::mem::replace(&mut run.machine, other.machine);
        subject.timeout(&mut other.machine, at);
        subject.after_step(&mut other.machine, at);
        other.drain();
        if let Some((next, next_why)) = other.machine.poll_timeout() {
            assert!(
                next > at.instant,
                "{why:?} was served and {next_why:?} is due at once, after {step:?}"
            );
        }
        run.machine = other.machine;
        run.now = at;
    }
}

/// Undrained outputs are bounded: past the bound inputs are rejected and change nothing, and after
/// a drain they are taken again. `flood` must give at least one output each time.
pub fn backlog_is_bounded<S: Subject>(
    subject: &S,
    origin: Now,
    prologue: &Script<S>,
    mut flood: impl FnMut(usize) -> S::Step,
) {
    let mut run = Run::new(subject, origin);
    for step in prologue {
        run.step(step);
    }
    run.drain();
    let taken = (0..=limits::OUTPUT_BACKLOG_MAX).find(|&count| {
        subject
            .apply(&mut run.machine, run.now, &flood(count))
            .is_err()
    });
    let Some(taken) = taken else {
        assert!(taken.is_some(), "the flood was never rejected");
        return;
    };
    let before = subject.digest(&run.machine);
    let again = subject.apply(&mut run.machine, run.now, &flood(taken));
    assert!(again.is_err(), "a full machine took an input");
    assert_eq!(
        before,
        subject.digest(&run.machine),
        "a rejected input changed the machine"
    );
    assert!(run.drain().len() >= taken, "outputs were lost to the bound");
    let drained = subject.apply(&mut run.machine, run.now, &flood(taken + 1));
    assert!(drained.is_ok(), "a drained machine rejects: {drained:?}");
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Drain {
    EveryStep,
    AtTheEnd,
}

struct Run<'s, S: Subject> {
    subject: &'s S,
    machine: S::Machine,
    now: Now,
}

impl<'s, S: Subject> Run<'s, S> {
    fn new(subject: &'s S, origin: Now) -> Self {
        Self {
            subject,
            machine: subject.make(),
            now: origin,
        }
    }

    /// The outputs of a whole script, as text; rejections are among them.
    fn play(mut self, script: &Script<S>, drain: Drain) -> Vec<String> {
        let mut outputs = Vec::new();
        for step in script {
            self.step(step);
            if drain == Drain::EveryStep {
                outputs.append(&mut self.drain());
            }
        }
        outputs.append(&mut self.drain());
        outputs
    }

    fn step(&mut self, (wait, step): &(Duration, S::Step)) {
        self.advance(*wait);
        // Whether it is rejected is seen in what follows.
        let _rejected = self.subject.apply(&mut self.machine, self.now, step);
        self.subject.after_step(&mut self.machine, self.now);
    }

    /// Lets time pass, with a timeout at every deadline on the way.
    fn advance(&mut self, wait: Duration) {
        let end = self.now.after(wait);
        let mut at_once = 0;
        for _ in 0..TIMEOUTS_BETWEEN_MAX {
            let Some((due, why)) = self.machine.poll_timeout() else {
                break;
            };
            if due > end.instant {
                break;
            }
            let span = due.saturating_duration_since(self.now.instant);
            at_once = if span.is_zero() { at_once + 1 } else { 0 };
            assert!(at_once < TIMEOUTS_AT_ONCE_MAX, "spins on {why:?}");
            self.now = self.now.after(span);
            self.subject.timeout(&mut self.machine, self.now);
            self.subject.after_step(&mut self.machine, self.now);
        }
        self.now = end;
    }

    fn drain(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.machine.poll_output())
            .map(|output| format!("{output:?}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Instant;

    use super::*;
    use crate::time::{UnixMillis, origin};

    /// Counts; each count is an output; a timeout is due a second after each count.
    #[derive(Debug, Default)]
    struct Counter {
        count: u32,
        due: Option<Instant>,
        outputs: VecDeque<u32>,
        fault: Fault,
    }

    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    enum Fault {
        #[default]
        None,
        KeepsOnlyTheLastOutput,
        CountsBeforeItRejects,
        LeavesItsDeadline,
        HasNoBound,
    }

    impl Machine for Counter {
        type Input<'a> = Option<u32>;
        type Output = u32;
        type Rejected = &'static str;

        fn handle_input(&mut self, now: Now, input: Option<u32>) -> Result<(), &'static str> {
            if self.outputs.len() >= limits::OUTPUT_BACKLOG_MAX && self.fault != Fault::HasNoBound {
                return Err("backlog");
            }
            if self.fault == Fault::CountsBeforeItRejects {
                self.count += 1;
            }
            match input {
                Some(0) => return Err("zero"),
                Some(more) => {
                    self.count += more;
                    self.due = Some(now.instant + Duration::from_secs(1));
                    if self.fault == Fault::KeepsOnlyTheLastOutput {
                        self.outputs.clear();
                    }
                    self.outputs.push_back(self.count);
                }
                None if self.fault == Fault::LeavesItsDeadline => {}
                None => self.due = None,
            }
            Ok(())
        }

        fn poll_output(&mut self) -> Option<u32> {
            self.outputs.pop_front()
        }

        fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
            self.due.map(|due| (due, "count"))
        }
    }

    struct Counters(Fault);

    impl Subject for Counters {
        type Machine = Counter;
        type Step = u32;

        fn make(&self) -> Counter {
            Counter {
                fault: self.0,
                ..Counter::default()
            }
        }

        fn apply(&self, machine: &mut Counter, now: Now, step: &u32) -> Result<(), &'static str> {
            machine.handle_input(now, Some(*step))
        }

        fn timeout(&self, machine: &mut Counter, now: Now) {
            machine.handle_input(now, None).unwrap();
        }

        fn digest(&self, machine: &Counter) -> String {
            format!("{machine:?}")
        }
    }

    fn start() -> Now {
        Now {
            instant: origin(),
            wall: UnixMillis(0),
        }
    }

    const SCRIPT: [(Duration, u32); 4] = [
        (Duration::ZERO, 1),
        (Duration::from_millis(5), 2),
        (Duration::from_millis(5), 0),
        (Duration::from_secs(2), 3),
    ];

    #[test]
    fn a_machine_that_keeps_the_contract_passes() {
        check(&Counters(Fault::None), start(), &SCRIPT);
        backlog_is_bounded(&Counters(Fault::None), start(), &SCRIPT, |_| 1);
    }

    #[test]
    #[should_panic(expected = "draining late changed the outputs")]
    fn lost_outputs_are_found() {
        check(&Counters(Fault::KeepsOnlyTheLastOutput), start(), &SCRIPT);
    }

    #[test]
    #[should_panic(expected = "a rejected input changed the machine")]
    fn rejections_that_leave_a_trace_are_found() {
        check(&Counters(Fault::CountsBeforeItRejects), start(), &SCRIPT);
    }

    #[test]
    #[should_panic(expected = "is due at once")]
    fn deadlines_that_stay_are_found() {
        let script = [(Duration::ZERO, 1)];
        check(&Counters(Fault::LeavesItsDeadline), start(), &script);
    }

    #[test]
    #[should_panic(expected = "never rejected")]
    fn a_missing_bound_is_found() {
        backlog_is_bounded(&Counters(Fault::HasNoBound), start(), &[], |_| 1);
    }
}
