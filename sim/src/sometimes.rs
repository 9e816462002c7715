//! Rare states that a swarm must have been in: a swarm that never reaches one tests less than it
//! seems to.

use std::collections::BTreeMap;

/// The rare states, each as a sentence.
pub const RARE: &[&str] = &[
    "an answer was cut off by a lost tunnel",
    "an attempt that was given up overtook a session",
    "a device asked the same question twice",
    "a device that died went on in the middle of an answer",
    "a file of unfinished questions was torn",
    "a gateway crashed while it worked on an answer",
    "a device found the gateway that it was sent to",
    "a gateway forgot a session and reset it",
    "a gateway went away while it worked on an answer",
    "a question was asked of a gateway that went away",
    "a question was refused for concurrent answers",
    "a question was refused for its rate, and answered after waiting",
    "a question was refused for its rate, and had no time to wait",
    "an answer was cut off by a gateway that went away",
    "an answer was finished by a gateway that went away",
    "a hold was denied",
    "a late answer of the outside world was given back",
    "a model server was asked again",
    "a tunnel fell into doubt and out of it",
    "an account could not pay",
    "an answer was cancelled and charged",
    "an answer was kept no longer",
    "an answer was over when its device died, and was had after that",
    "an answer was resumed after its end",
    "an answer was resumed in the middle",
    "an answer without usage was estimated",
    "a ceiling was lowered below what had been spent",
    "a charge of an invoiced month was refunded",
    "a clock was behind its account's month",
    "a credit ended while money was set aside from it",
    "a month turned while answers were running",
    "a payment paid what was owed",
    "a payment was disputed that had been spent",
    "a reference was used for something else",
    "a refund came to a credit that had left the books",
    "an answer that a crash cut off was booked as a loss",
    "an answer was kept no longer when its device came for it",
    "an answer was told by another gateway than the one that finished it",
    "an answer was told from the store",
    "an answer under way at another gateway was asked for",
    "an order was said twice",
    "more was to be given back than there was",
    "the same question joined its answer",
];

/// How often each was seen.
#[derive(Clone, Debug, Default)]
pub struct Sometimes(BTreeMap<&'static str, u64>);

impl Sometimes {
    /// It was seen. Only what is in [`RARE`] is counted.
    pub fn saw(&mut self, state: &'static str) {
        debug_assert!(RARE.contains(&state), "{state} is in no list");
        *self.0.entry(state).or_default() += 1;
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for (&state, &times) in &other.0 {
            *self.0.entry(state).or_default() += times;
        }
    }

    /// How often each was seen, in the list's order.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        RARE.iter()
            .map(|&state| (state, self.0.get(state).copied().unwrap_or_default()))
    }
}
