//! The event loop: one future that owns a socket and a root machine, and nothing else does. What a
//! turn of it is stands in [`mesh_shell::driver`]; here is what ends its wait.

mod socket;

use std::future::{Future, pending};
use std::iter;
use std::ops::ControlFlow;
use std::time::Instant;

use async_io::Timer;
use mesh_shell::driver::Driven;
pub use mesh_shell::driver::{Host, Request};
pub use mesh_shell::socket::{BindError, Binding};
use smol::channel::Receiver;
use smol::future::{FutureExt as _, yield_now};

pub use self::socket::Socket;
use self::socket::Woken;

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
pub struct Driver<H: Host> {
    driven: Driven<H, Woken>,
    timer: Timer,
    /// What the timer is set to; `None` once it has fired.
    armed: Option<Instant>,
}

impl<H: Host> Driver<H> {
    /// A driver that has not begun.
    pub fn new(socket: Socket, machine: H::Machine, host: H) -> Self {
        Self {
            driven: Driven::new(socket, machine, host),
            timer: Timer::never(),
            armed: None,
        }
    }

    /// Runs until the host breaks off or nobody can send commands any more.
    pub async fn run(mut self, commands: Receiver<H::Command>) -> H {
        while let ControlFlow::Continue(more_to_send) = self.driven.turn() {
            self.arm();
            match self.wait(&commands, more_to_send).await {
                Wake::Command(first) => {
                    let more = iter::from_fn(|| commands.try_recv().ok());
                    self.driven.commands(iter::once(first).chain(more));
                }
                Wake::Abandoned => break,
                Wake::Readable => self.driven.receive(),
                Wake::Time => {
                    self.armed = None;
                    self.driven.time_passed();
                }
                Wake::Room => {}
            }
        }
        self.driven.into_host()
    }

    /// The first of these is looked at first: a flood of datagrams keeps no command out.
    fn wait<'a>(
        &'a mut self,
        commands: &'a Receiver<H::Command>,
        more_to_send: bool,
    ) -> impl Future<Output = Wake<H::Command>> + 'a {
        let Self { driven, timer, .. } = self;
        let (io, blocked) = (driven.io(), driven.is_blocked());
        let command = async { commands.recv().await.map_or(Wake::Abandoned, Wake::Command) };
        let readable = async move {
            io.readable().await;
            Wake::Readable
        };
        let room = async move {
            if blocked {
                io.writable().await;
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

    fn arm(&mut self) {
        let wanted = self.driven.deadline();
        // A timer that fires early costs one turn; re-arming it every turn costs more.
        if self.armed.is_none_or(|armed| wanted < armed) {
            self.timer.set_at(wanted);
            self.armed = Some(wanted);
        }
    }
}

#[cfg(test)]
mod tests;
