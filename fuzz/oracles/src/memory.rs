//! Memory measured: an allocator that counts, per thread, what a piece of code takes.
//!
//! It is the global allocator of whatever links this crate. The counts are a thread's own, so that
//! tests that run beside each other do not disturb each other.

#![expect(unsafe_code, reason = "an allocator is unsafe by its signature")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What a piece of code took, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The most that was held at one moment, over what was held before.
    pub peak: usize,
    /// Everything that was ever asked for, growth of what was held included: a buffer that is
    /// copied over and over shows here.
    pub total: usize,
}

/// Runs `work` and measures what it takes on this thread.
pub fn used<T>(work: impl FnOnce() -> T) -> (T, Used) {
    let outer = COUNTS.with(Cell::get);
    COUNTS.with(|counts| counts.set(Counts::default()));
    let result = work();
    let inner = COUNTS.with(Cell::get);
    COUNTS.with(|counts| {
        counts.set(Counts {
            held: outer.held + inner.held,
            peak: outer.peak.max(outer.held + inner.peak),
            total: outer.total + inner.total,
        });
    });
    let used = Used {
        peak: usize::try_from(inner.peak).unwrap_or_default(),
        total: inner.total,
    };
    (result, used)
}

#[derive(Clone, Copy, Default)]
struct Counts {
    /// Below zero when more was given back than taken.
    held: isize,
    peak: isize,
    total: usize,
}

impl Counts {
    const ZERO: Self = Self {
        held: 0,
        peak: 0,
        total: 0,
    };
}

thread_local! {
    static COUNTS: Cell<Counts> = const { Cell::new(Counts::ZERO) };
}

fn count(taken: usize, given_back: usize) {
    // A thread that is ending has no counts any more.
    let _ended = COUNTS.try_with(|cell| {
        let mut counts = cell.get();
        // While memory grows, both the old and the new are held.
        counts.held = counts.held.wrapping_add_unsigned(taken);
        counts.peak = counts.peak.max(counts.held);
        counts.held = counts.held.wrapping_sub_unsigned(given_back);
        counts.total = counts.total.wrapping_add(taken);
        cell.set(counts);
    });
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(0, layout.size());
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        unsafe { System.realloc(at, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_and_the_total_of_a_known_pattern_are_counted_to_the_byte() {
        let ((), used) = used(|| {
            drop(Vec::<u8>::with_capacity(1000));
            drop(Vec::<u8>::with_capacity(300));
        });
        assert_eq!(
            used,
            Used {
                peak: 1000,
                total: 1300
            }
        );
    }

    #[test]
    fn an_inner_measurement_is_part_of_the_outer_one() {
        let (inner, outer) = used(|| {
            let kept = Vec::<u8>::with_capacity(100);
            let ((), inner) = used(|| drop(Vec::<u8>::with_capacity(50)));
            drop(kept);
            inner
        });
        assert_eq!((inner.peak, inner.total), (50, 50));
        assert_eq!((outer.peak, outer.total), (150, 150));
    }
}
