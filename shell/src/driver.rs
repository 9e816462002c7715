//! A turn of the event loop: what a shell's driver does between one wait and the next. The wait is
//! the runtime's, and so is the timer.
//!
//! ```text
//!        ┌──────────────────────────── one turn ───────────────────────────┐
//!  socket│  drain outputs ─▶ send datagrams ─▶ arm one timer ─▶ wait for:   │
//!  ─────▶│      (host)         (a budget)                     socket, time, │
//!        │                                                    command       │
//!        └──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! It decides nothing. What an output means is the [`Host`]'s business; what a datagram means is the
//! machine's. Each turn receives and sends a bounded number of datagrams, so neither starves the
//! other or a command.

#[cfg(any(test, feature = "testing"))]
pub mod testing;

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use mesh_core::machine::{Machine, RootMachine};
use mesh_core::time::Now;
use mesh_core::transport::Transmit;

use crate::clock::Clock;
use crate::socket::{Socket, Waited};

/// Reads of one turn, 64 KiB each where the system coalesces datagrams.
const READS_PER_TURN: usize = 16;
/// Sends of one turn; each may hold 44 datagrams.
pub const SENDS_PER_TURN: usize = 8;
/// Commands taken in one turn.
const COMMANDS_PER_TURN: usize = 64;
/// With nothing else to wake for, the suspend clock is looked at this often.
const LOOK_AROUND: Duration = Duration::from_secs(5);

/// What a command or an output asks of the driver itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Nothing.
    None,
    /// A new socket: the network has changed, or nothing comes back to the old one.
    Rebind,
}

/// Carries a machine's outputs out and brings commands in.
pub trait Host {
    /// The machine that is driven.
    type Machine: RootMachine;
    /// What other tasks send it.
    type Command;

    /// A command came: hand it to the machine.
    fn command(&mut self, now: Now, machine: &mut Self::Machine, command: Self::Command)
    -> Request;

    /// An output: carry it out, without waiting. `Break` ends the driver.
    fn output(
        &mut self,
        now: Now,
        machine: &Self::Machine,
        output: <Self::Machine as Machine>::Output,
    ) -> ControlFlow<(), Request>;

    /// The machine slept (laptop lid, suspended virtual machine) for so long.
    fn woke(&mut self, now: Now, machine: &mut Self::Machine, asleep: Duration) -> Request;

    /// A turn is over and everything is sent that could be: publish what others watch.
    fn turn_over(&mut self, _machine: &Self::Machine) {}
}

/// A send, and how many bytes of it are gone.
#[derive(Debug)]
struct Unsent {
    transmit: Transmit,
    sent: usize,
}

/// A socket, a machine and its host: all of a driver but its wait.
#[derive(Debug)]
pub struct Driven<H: Host, W> {
    socket: Socket<W>,
    machine: H::Machine,
    host: H,
    clock: Clock,
    /// A send that the socket would not take: kept whole, tried first.
    unsent: Option<Unsent>,
    buf: Vec<u8>,
}

impl<H: Host, W: Waited> Driven<H, W> {
    /// With nothing done yet.
    pub fn new(socket: Socket<W>, machine: H::Machine, host: H) -> Self {
        Self {
            socket,
            machine,
            host,
            clock: Clock::new(),
            unsent: None,
            buf: Vec::new(),
        }
    }

    /// A turn, up to its wait: whether there may be more to send that the socket would take.
    /// `Break` when the host broke off; what the machine had to say until then is sent.
    pub fn turn(&mut self) -> ControlFlow<(), bool> {
        self.drain()?;
        let more_to_send = self.send();
        self.drain()?;
        self.host.turn_over(&self.machine);
        ControlFlow::Continue(more_to_send)
    }

    /// When the wait ends at the latest: then [`Self::time_passed`].
    pub fn deadline(&self) -> Instant {
        let latest = Instant::now() + LOOK_AROUND;
        self.machine
            .poll_timeout()
            .map_or(latest, |(at, _)| at.min(latest))
    }

    /// What is waited for.
    pub const fn io(&self) -> &W {
        self.socket.io()
    }

    /// Whether a send waits for the socket to take it.
    pub const fn is_blocked(&self) -> bool {
        self.unsent.is_some()
    }

    /// Takes commands, as many as a turn may: those that are over stay with the iterator.
    pub fn commands(&mut self, commands: impl Iterator<Item = H::Command>) {
        for command in commands.take(COMMANDS_PER_TURN) {
            let now = self.clock.now();
            let request = self.host.command(now, &mut self.machine, command);
            self.carry_out(now, request);
        }
        // Datagrams that came meanwhile must not wait for the commands to end.
        self.receive();
    }

    /// Reads what has come, as much as a turn may.
    pub fn receive(&mut self) {
        for _ in 0..READS_PER_TURN / self.socket.batch() {
            let now = self.clock.now();
            let Some(datagrams) = self.socket.receive() else {
                break;
            };
            self.machine.handle_datagrams(now, datagrams);
        }
        let now = self.clock.now();
        self.run_due_timers(now);
    }

    /// The deadline has come.
    pub fn time_passed(&mut self) {
        let now = self.clock.now();
        if let Some(asleep) = self.clock.slept() {
            let request = self.host.woke(now, &mut self.machine, asleep);
            self.carry_out(now, request);
        }
        self.run_due_timers(now);
    }

    /// The driver has ended.
    pub fn into_host(self) -> H {
        self.host
    }

    fn drain(&mut self) -> ControlFlow<()> {
        let now = self.clock.now();
        while let Some(output) = self.machine.poll_output() {
            match self.host.output(now, &self.machine, output) {
                ControlFlow::Continue(request) => self.carry_out(now, request),
                ControlFlow::Break(()) => {
                    self.send();
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Sends up to the turn's budget; whether there may be more that the socket would take.
    fn send(&mut self) -> bool {
        let now = self.clock.now();
        for _ in 0..SENDS_PER_TURN {
            let mut next = match self.unsent.take() {
                Some(unsent) => unsent,
                None => {
                    self.buf.clear();
                    match self.machine.poll_transmit(now, &mut self.buf) {
                        Some(transmit) => Unsent { transmit, sent: 0 },
                        None => return false,
                    }
                }
            };
            if !self.socket.send(&next.transmit, &self.buf, &mut next.sent) {
                self.unsent = Some(next);
                return false;
            }
        }
        true
    }

    fn run_due_timers(&mut self, now: Now) {
        if self
            .machine
            .poll_timeout()
            .is_some_and(|(at, _)| at <= now.instant)
        {
            self.machine.handle_timeout(now);
        }
    }

    fn carry_out(&mut self, now: Now, request: Request) {
        match request {
            Request::None => {}
            Request::Rebind => match self.socket.rebind() {
                Ok(()) => {
                    self.unsent = None;
                    self.machine.handle_rebind(now);
                }
                Err(error) => tracing::warn!(%error, "no new socket; the old one stays"),
            },
        }
    }
}

#[cfg(test)]
mod tests;
