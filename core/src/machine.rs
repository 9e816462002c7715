//! The one contract every state machine of the project is written to.
//!
//! A machine is driven from outside: something enters through [`Machine::handle_input`], something
//! leaves through [`Machine::poll_output`], and [`Machine::poll_timeout`] says when it wants to be
//! woken and why. Nothing else happens: no callback, no clock, no socket.
//!
//! # Invariants
//!
//! 1. Every mutation is an input. Time and randomness are inputs too.
//! 2. Outputs are queued when they arise and drained later; a caller that drains late loses none.
//! 3. An idle poll costs O(1) and changes nothing.
//! 4. `Err(Rejected)` means that the caller misused the machine, and its state is unchanged. A
//!    misbehaving peer is an output, never an error and never a panic.
//! 5. After a timeout input at the deadline and a full drain, the next deadline is later.
//! 6. The same seed and the same inputs give the same outputs.

use std::time::Instant;

use crate::time::Now;
use crate::transport::{Datagram, Transmit};

/// A deterministic step function with queued outputs and one cached deadline.
pub trait Machine {
    /// What may enter. Borrowed data lives for the one step only.
    type Input<'a>;
    /// What may leave.
    type Output;
    /// How the caller misused the machine; the state is unchanged.
    type Rejected;

    /// Takes one step: first the input itself, then whatever timers are due at `now`.
    ///
    /// # Errors
    ///
    /// [`Machine::Rejected`] when the input is not legal in this state or a bound of
    /// [`crate::limits`] is reached; nothing has changed then.
    fn handle_input(&mut self, now: Now, input: Self::Input<'_>) -> Result<(), Self::Rejected>;

    /// The next output in the order in which they arose, or `None` when drained.
    fn poll_output(&mut self) -> Option<Self::Output>;

    /// The next deadline and the reason for it. Cached: calling it costs nothing.
    fn poll_timeout(&self) -> Option<(Instant, &'static str)>;
}

/// A machine that owns a transport: what a shell's driver needs to run it.
///
/// The one exception to "outputs are queued": datagrams are sealed at the moment they are sent,
/// into a buffer that the caller owns.
pub trait RootMachine: Machine {
    /// A datagram arrived. Hostile ones are dropped, never an error.
    fn handle_datagram(&mut self, now: Now, datagram: Datagram);

    /// Datagrams arrived together: the same as one after the other, but what they amount to is
    /// worked out once, which is much of the cost of bulk. Implement it where it can be.
    fn handle_datagrams(&mut self, now: Now, datagrams: impl Iterator<Item = Datagram>)
    where
        Self: Sized,
    {
        for datagram in datagrams {
            self.handle_datagram(now, datagram);
        }
    }

    /// Runs the timers due at `now`.
    fn handle_timeout(&mut self, now: Now);

    /// The socket was replaced: the peers must learn the new address.
    fn handle_rebind(&mut self, now: Now);

    /// Writes the next datagrams into `buf`, which must be empty, or `None` when there is nothing
    /// to send now.
    fn poll_transmit(&mut self, now: Now, buf: &mut Vec<u8>) -> Option<Transmit>;
}

#[cfg(any(test, feature = "testing"))]
pub mod properties;
