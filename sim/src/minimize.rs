//! The smallest plan that still fails.
//!
//! A plan that breaks an invariant says little while it holds a hundred happenings. The shrinking
//! tries smaller plans, keeps each that still fails in the same way, and starts over until nothing
//! can be made smaller:
//!
//! 1. happenings are left out, in ever finer pieces (`ddmin`; A. Zeller, R. Hildebrandt, "Simplifying
//!    and Isolating Failure-Inducing Input", 2002);
//! 2. devices, gateways and accounts go, with all that happens to them, and the others close ranks;
//! 3. links become calm: first whole, then one fault after the other;
//! 4. numbers go to their least, or halve their way there; the machines' rare cases are disarmed.
//!
//! # Invariants
//!
//! 1. The plan that comes out fails; it is the one that went in, or smaller.
//! 2. No more plans are run than the budget has.
//! 3. What a plan names is there: a device that is dropped takes its happenings along.

mod numbers;
mod parts;

use crate::plan::Plan;
use crate::record::Violation;
use crate::swarm;
use crate::wire::Unbuildable;

/// What can be counted of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Happenings.
    pub happenings: usize,
    /// Devices.
    pub devices: usize,
    /// Gateways.
    pub gateways: u32,
    /// Faults of links that are on: every figure of a link that is not zero, but for its latency.
    pub link_faults: usize,
    /// How long faults strike, whole seconds.
    pub seconds: u64,
}

impl Size {
    /// Of a plan.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        Self {
            happenings: plan.happenings.len(),
            devices: plan.devices.len(),
            gateways: plan.gateways,
            link_faults: plan.devices.iter().map(numbers::link_faults).sum(),
            seconds: plan.faults_until / crate::queue::SECOND,
        }
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} happenings, {} devices, {} gateways, {} link faults, {} s of faults",
            self.happenings, self.devices, self.gateways, self.link_faults, self.seconds
        )
    }
}

/// A smaller plan that still fails.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// It.
    pub plan: Plan,
    /// Plans that were run.
    pub runs: u32,
    /// Whether the budget was used up before nothing could be made smaller.
    pub cut_short: bool,
}

/// The search: the smallest plan so far, and what may still be spent.
struct Search<'a> {
    plan: Plan,
    fails: &'a mut dyn FnMut(&Plan) -> bool,
    progress: &'a mut dyn FnMut(&str, &Plan, u32),
    runs: u32,
    runs_max: u32,
}

impl Search<'_> {
    /// Keeps a smaller plan if it still fails.
    fn keep_if_failing(&mut self, candidate: Plan) -> bool {
        if candidate == self.plan || self.is_spent() {
            return false;
        }
        self.runs += 1;
        let keeps = (self.fails)(&candidate);
        if keeps {
            self.plan = candidate;
        }
        keeps
    }

    /// The same for a change of the smallest plan so far.
    fn keep_change(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        let mut candidate = self.plan.clone();
        change(&mut candidate);
        self.keep_if_failing(candidate)
    }

    const fn is_spent(&self) -> bool {
        self.runs >= self.runs_max
    }

    fn tell(&mut self, doing: &str) {
        (self.progress)(doing, &self.plan, self.runs);
    }
}

/// Shrinks a plan of which `fails` is true, with at most `runs_max` calls of `fails`; `progress` is
/// told what was tried, the smallest plan so far and the calls.
pub fn shrink(
    plan: &Plan,
    runs_max: u32,
    fails: &mut dyn FnMut(&Plan) -> bool,
    progress: &mut dyn FnMut(&str, &Plan, u32),
) -> Shrunk {
    let mut search = Search {
        plan: plan.clone(),
        fails,
        progress,
        runs: 0,
        runs_max,
    };
    loop {
        let before = search.plan.clone();
        parts::happenings(&mut search);
        search.tell("fewer happenings");
        parts::nodes(&mut search);
        search.tell("fewer devices and gateways");
        numbers::calm_links(&mut search);
        search.tell("calmer links");
        numbers::smaller(&mut search);
        search.tell("smaller numbers");
        if search.plan == before || search.is_spent() {
            break;
        }
    }
    Shrunk {
        cut_short: search.is_spent(),
        plan: search.plan,
        runs: search.runs,
    }
}

/// Runs a plan and says which invariant it breaks.
///
/// # Errors
///
/// [`Unbuildable`].
pub fn violation_of(plan: &Plan) -> Result<Option<Violation>, Unbuildable> {
    Ok(swarm::run(plan, false)?.finished.violation)
}

/// Shrinks a plan for as long as it breaks the invariant `invariant`. A plan that cannot be built
/// breaks none.
pub fn shrink_broken(
    plan: &Plan,
    invariant: &str,
    runs_max: u32,
    progress: &mut dyn FnMut(&str, &Plan, u32),
) -> Shrunk {
    let mut fails = |candidate: &Plan| {
        violation_of(candidate).is_ok_and(|violation| {
            violation.is_some_and(|violation| violation.invariant == invariant)
        })
    };
    shrink(plan, runs_max, &mut fails, progress)
}

/// Leaves out as many of `len` things as it can, `ddmin` by complements: `keeps(kept)` says whether it
/// still fails with only those left, named by their index at the beginning, and is told of an ever
/// smaller list. The result is 1-minimal: no single one of it can be left out, unless `keeps` turned
/// false for want of a budget.
fn ddmin(len: usize, mut keeps: impl FnMut(&[usize]) -> bool) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..len).collect();
    if kept.is_empty() || keeps(&[]) {
        return Vec::new();
    }
    let mut pieces = 2;
    while kept.len() > 1 {
        let piece = kept.len().div_ceil(pieces);
        let mut at = 0;
        let mut shrank = false;
        while at < kept.len() {
            let mut rest = kept.clone();
            rest.drain(at..(at + piece).min(kept.len()));
            if !rest.is_empty() && keeps(&rest) {
                kept = rest;
                shrank = true;
            } else {
                at += piece;
            }
        }
        if piece == 1 && !shrank {
            break;
        }
        if piece > 1 {
            pieces = kept.len().div_ceil(piece).saturating_mul(2).max(2);
        }
        pieces = pieces.min(kept.len());
    }
    kept
}

#[cfg(test)]
mod tests;
