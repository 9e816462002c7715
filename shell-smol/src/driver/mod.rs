//! The event loop: one future that owns a socket and a root machine, and nothing else does.
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

use std::future::{Future, pending};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use async_io::Timer;
use mesh_core::machine::{Machine, RootMachine};
use mesh_core::time::Now;
use mesh_core::transport::Transmit;
use smol::channel::Receiver;
use smol::future::{FutureExt as _, yield_now};

pub use self::socket::{BindError, Socket};
use mesh_shell::clock::Clock;

/// Reads of one turn, 64 KiB each where the system coalesces datagrams.
const READS_PER_TURN: usize = 16;
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

/// What ends the wait of a turn.
enum Wake<C> {
    Command(C),
    /// Nobody can send commands any more.
    Abandoned,
    Readable,
    Time,
    /// There is more to send.
    Room,
}

/// A socket, a machine and its host.
#[derive(Debug)]
pub struct Driver<H: Host> {
    socket: Socket,
    machine: H::Machine,
    host: H,
    clock: Clock,
    timer: Timer,
    /// What the timer is set to; `None` once it has fired.
    armed: Option<Instant>,
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
            timer: Timer::never(),
            armed: None,
            unsent: None,
            buf: Vec::new(),
        }
    }

    /// Runs until the host breaks off or nobody can send commands any more.
    pub async fn run(mut self, commands: Receiver<H::Command>) -> H {
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
            self.arm();
            match self.wait(&commands, more_to_send).await {
                Wake::Command(command) => {
                    self.command(command);
                    for _ in 1..COMMANDS_PER_TURN {
                        let Ok(command) = commands.try_recv() else {
                            break;
                        };
                        self.command(command);
                    }
                    // Datagrams that came meanwhile must not wait for the commands to end.
                    self.receive();
                }
                Wake::Abandoned => return self.host,
                Wake::Readable => self.receive(),
                Wake::Time => {
                    self.armed = None;
                    self.time_passed();
                }
                Wake::Room => {}
            }
        }
    }

    /// The first of these is looked at first: a flood of datagrams keeps no command out.
    fn wait<'a>(
        &'a mut self,
        commands: &'a Receiver<H::Command>,
        more_to_send: bool,
    ) -> impl Future<Output = Wake<H::Command>> + 'a {
        let Self {
            socket,
            timer,
            unsent,
            ..
        } = self;
        let (socket, blocked) = (&*socket, unsent.is_some());
        let command = async { commands.recv().await.map_or(Wake::Abandoned, Wake::Command) };
        let readable = async move {
            socket.readable().await;
            Wake::Readable
        };
        let room = async move {
            if blocked {
                socket.writable().await;
            } else if more_to_send {
                // Other tasks of this thread have their turn before the next one.
                yield_now().await;
            } else {
                pending::<()>().await;
            }
            Wake::Room
        };
        let time = async {
            timer.await;
            Wake::Time
        };
        command.or(readable).or(time).or(room)
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
            // Without a new socket the old one stays.
            Request::Rebind if self.socket.rebind().is_ok() => {
                self.unsent = None;
                self.machine.handle_rebind(now);
            }
            Request::Rebind => {}
        }
    }

    fn arm(&mut self) {
        let latest = Instant::now() + LOOK_AROUND;
        let wanted = self
            .machine
            .poll_timeout()
            .map_or(latest, |(at, _)| at.min(latest));
        // A timer that fires early costs one turn; re-arming it every turn costs more.
        if self.armed.is_none_or(|armed| wanted < armed) {
            self.timer.set_at(wanted);
            self.armed = Some(wanted);
        }
    }
}

#[cfg(test)]
mod tests;
