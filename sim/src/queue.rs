//! The world's clock and what is to come: a heap on (virtual µs, order of entry).
//!
//! Ties are broken by the order in which events were put in, so a run has one order only.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Virtual microseconds since the world began.
pub type Micros = u64;

/// One second.
pub const SECOND: Micros = 1_000_000;
/// One millisecond.
pub const MILLI: Micros = 1_000;

/// Where an event waits. The events themselves lie still while the heap moves these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    at: Micros,
    order: u64,
    slot: usize,
}

/// What is to come.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Reverse<Key>>,
    events: Vec<Option<E>>,
    free: Vec<usize>,
    now: Micros,
    order: u64,
    taken: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            now: 0,
            order: 0,
            taken: 0,
        }
    }
}

impl<E> Queue<E> {
    /// The time of the event taken last.
    #[must_use]
    pub const fn now(&self) -> Micros {
        self.now
    }

    /// Events taken.
    #[must_use]
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    /// Puts an event in; one for the past comes next.
    pub fn put(&mut self, at: Micros, event: E) {
        self.order += 1;
        let slot = self.free.pop().unwrap_or(self.events.len());
        match self.events.get_mut(slot) {
            Some(place) => *place = Some(event),
            None => self.events.push(Some(event)),
        }
        self.heap.push(Reverse(Key {
            at: at.max(self.now),
            order: self.order,
            slot,
        }));
    }

    /// Takes the next event if it is not later than `until`; else the clock moves there.
    pub fn take(&mut self, until: Micros) -> Option<E> {
        if self.heap.peek().is_none_or(|Reverse(key)| key.at > until) {
            self.now = self.now.max(until);
            return None;
        }
        let Reverse(key) = self.heap.pop()?;
        self.now = key.at;
        self.taken += 1;
        self.free.push(key.slot);
        self.events.get_mut(key.slot)?.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_time_and_then_of_entry() {
        let mut queue = Queue::default();
        for (at, name) in [(5, "b"), (3, "a"), (5, "c"), (9, "d")] {
            queue.put(at, name);
        }
        let taken: Vec<_> = std::iter::from_fn(|| queue.take(5)).collect();
        assert_eq!(taken, ["a", "b", "c"]);
        assert_eq!((queue.now(), queue.taken()), (5, 3));
        queue.put(1, "late");
        assert_eq!(queue.take(100), Some("late"));
        assert_eq!(queue.now(), 5);
    }
}
