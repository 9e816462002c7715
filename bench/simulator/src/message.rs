//! A heartbeat and its answer, the same bytes in every world, and what must hold of both.
//!
//! # Invariants
//!
//! 1. The server hears nothing that its client has not said.
//! 2. A client is answered nothing that the server has not heard.
//! 3. Where nothing is lost, repeated or overtaken, sequence numbers go on by one, and each answer is
//!    the one waited for.

use crate::Broken;

/// Bytes of a message.
pub(crate) const BYTES: usize = 24;
/// From one heartbeat to the next, virtual ms.
pub(crate) const EVERY_MS: u64 = 1000;
/// From one client's first heartbeat to the next client's, virtual ms.
pub(crate) const APART_MS: u64 = 10;
/// The least that a message takes, virtual ms.
pub(crate) const LATENCY_MIN_MS: u64 = 5;
/// The most.
pub(crate) const LATENCY_MAX_MS: u64 = 50;

/// Odd: every client and every number has a check of its own, so a single flipped bit shows.
const CHECK: u64 = 0x9E37_79B9_7F4A_7C15;

/// Who beats, for the how-manieth time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) client: usize,
    pub(crate) number: u64,
}

impl Message {
    pub(crate) fn encode(self) -> [u8; BYTES] {
        let client = self.client as u64;
        let check = (client.wrapping_mul(CHECK).rotate_left(32) ^ self.number).wrapping_mul(CHECK);
        let mut bytes = [0; BYTES];
        for (place, word) in bytes.chunks_exact_mut(8).zip([client, self.number, check]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// `None` of what was damaged.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
        let (words, _) = bytes.as_chunks::<8>();
        let client = words.first().map(|word| u64::from_le_bytes(*word))?;
        let number = words.get(1).map(|word| u64::from_le_bytes(*word))?;
        let message = Self {
            client: usize::try_from(client).ok()?,
            number,
        };
        (message.encode() == *bytes).then_some(message)
    }
}

/// What is known of one client and of the server's view of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    said: u64,
    heard: u64,
    answered: u64,
}

impl Known {
    /// The number of the next heartbeat.
    pub(crate) fn say(&mut self) -> u64 {
        self.said += 1;
        self.said
    }

    /// The server hears a heartbeat; `in_order` where nothing is lost, repeated or overtaken.
    pub(crate) fn hear(&mut self, number: u64, in_order: bool) -> Result<(), Broken> {
        if number > self.said || (in_order && number != self.heard + 1) {
            return Err(format!(
                "heard {number}; said {}, heard {}",
                self.said, self.heard
            ));
        }
        self.heard = self.heard.max(number);
        Ok(())
    }

    /// The client is answered; `Ok(true)` the first time that this heartbeat or a later one is.
    pub(crate) fn answer(&mut self, number: u64, in_order: bool) -> Result<bool, Broken> {
        if number > self.heard || (in_order && number != self.said) {
            return Err(format!(
                "answered {number}; said {}, heard {}",
                self.said, self.heard
            ));
        }
        let is_new = number > self.answered;
        self.answered = self.answered.max(number);
        Ok(is_new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_shows() {
        let message = Message {
            client: 98,
            number: 123_456,
        };
        let bytes = message.encode();
        assert_eq!(Message::decode(&bytes), Some(message));
        for bit in 0..BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Message::decode(&damaged), None, "bit {bit}");
        }
    }

    #[test]
    fn what_was_never_said_is_not_heard_and_what_was_not_heard_not_answered() {
        let mut known = Known::default();
        assert!(known.hear(1, false).is_err());
        assert_eq!((known.say(), known.say()), (1, 2));
        assert!(known.clone().hear(2, true).is_err(), "1 was skipped");
        assert!(known.answer(1, false).is_err());
        assert!(known.hear(2, false).is_ok());
        assert_eq!(known.answer(2, false), Ok(true));
        assert_eq!(known.answer(1, false), Ok(false), "overtaken");
    }
}
