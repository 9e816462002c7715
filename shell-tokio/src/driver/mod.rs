//! The event loop: one task that owns a socket and a root machine, and nothing else does.
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

mod socket;
mod thread;

use std::ops::ControlFlow;
use std::pin::Pin;
use std::time::{Duration, Instant};

use mesh_core::machine::{Machine, RootMachine};
use mesh_core::time::Now;
use mesh_core::transport::Transmit;
use tokio::sync::mpsc;
use tokio::time::Sleep;

pub use self::socket::{BindError, Binding, Socket};
pub use self::thread::{Running, Thread};
pub use mesh_shell::clock::Clock;

/// Batches read in one turn.
const READS_PER_TURN: usize = 4;
/// Sends of one turn; each may hold 44 datagrams.
const SENDS_PER_TURN: usize = 8;
/// Commands taken in one turn.
const COMMANDS_PER_TURN: usize = 64;
/// With nothing else to wake for, the suspend clock is looked at this often.
const LOOK_AROUND: Duration = Duration::from_secs(5);

/// What a command asks of the driver itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Nothing.
    None,
    /// A new socket: the network has changed.
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
    ) -> ControlFlow<()>;

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

/// A socket, a machine and its host.
#[derive(Debug)]
pub struct Driver<H: Host> {
    socket: Socket,
    machine: H::Machine,
    host: H,
    clock: Clock,
    /// A send that the socket would not take: kept whole, tried first.
    unsent: Option<Unsent>,
    buf: Vec<u8>,
}

impl<H: Host> Driver<H> {
    /// A driver that has not begun.
    pub fn new(socket: Socket, machine: H::Machine, host: H) -> Self {
        Self {
            socket,
            machine,
            host,
            clock: Clock::new(),
            unsent: None,
            buf: Vec::new(),
        }
    }

    /// Runs until the host breaks off or nobody can send commands any more.
    pub async fn run(mut self, mut commands: mpsc::Receiver<H::Command>) -> H {
        let mut timer = Box::pin(tokio::time::sleep(LOOK_AROUND));
        loop {
            if self.drain().is_break() {
                self.send();
                return self.host;
            }
            let more_to_send = self.send();
            if self.drain().is_break() {
                self.send();
                return self.host;
            }
            self.host.turn_over(&self.machine);
            self.arm(&mut timer);
            tokio::select! {
                biased;
                command = commands.recv() => {
                    let Some(command) = command else { return self.host };
                    self.command(command);
                    for _ in 1..COMMANDS_PER_TURN {
                        let Ok(command) = commands.try_recv() else { break };
                        self.command(command);
                    }
                    // Datagrams that came meanwhile must not wait for the commands to end.
                    self.receive();
                }
                () = self.socket.readable() => self.receive(),
                () = self.socket.writable(), if self.unsent.is_some() => {}
                () = &mut timer => self.time_passed(),
                // Other tasks of this thread have their turn before the next one.
                () = tokio::task::yield_now(), if more_to_send => {}
            }
        }
    }

    fn now(&mut self) -> Now {
        self.clock.now()
    }

    fn drain(&mut self) -> ControlFlow<()> {
        let now = self.now();
        while let Some(output) = self.machine.poll_output() {
            self.host.output(now, &self.machine, output)?;
        }
        ControlFlow::Continue(())
    }

    /// Sends up to the turn's budget; whether there may be more that the socket would take.
    fn send(&mut self) -> bool {
        let now = self.now();
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

    fn receive(&mut self) {
        for _ in 0..READS_PER_TURN {
            let now = self.now();
            let Some(datagrams) = self.socket.receive() else {
                break;
            };
            self.machine.handle_datagrams(now, datagrams);
        }
        let now = self.now();
        self.run_due_timers(now);
    }

    fn command(&mut self, command: H::Command) {
        let now = self.now();
        let request = self.host.command(now, &mut self.machine, command);
        self.carry_out(now, request);
    }

    fn time_passed(&mut self) {
        let now = self.now();
        if let Some(asleep) = self.clock.slept() {
            let request = self.host.woke(now, &mut self.machine, asleep);
            self.carry_out(now, request);
        }
        self.run_due_timers(now);
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

    fn arm(&mut self, timer: &mut Pin<Box<Sleep>>) {
        let latest = Instant::now() + LOOK_AROUND;
        let wanted = self
            .machine
            .poll_timeout()
            .map_or(latest, |(at, _)| at.min(latest));
        let armed = timer.deadline().into_std();
        if wanted == armed && !timer.is_elapsed() {
            return;
        }
        if wanted < armed || timer.is_elapsed() {
            timer.as_mut().reset(wanted.into());
        } else {
            // Moved to later, it would still wake the thread at the earlier time, for nothing.
            timer.set(tokio::time::sleep_until(wanted.into()));
        }
    }
}

#[cfg(test)]
mod tests;
