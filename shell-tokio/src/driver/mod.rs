//! The event loop: one task that owns a socket and a root machine, and nothing else does. What a
//! turn of it is stands in [`mesh_shell::driver`]; here is what ends its wait.

mod socket;
mod thread;

use std::iter;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::time::Instant;

pub use mesh_shell::clock::Clock;
use mesh_shell::driver::Driven;
pub use mesh_shell::driver::{Host, Request};
pub use mesh_shell::socket::{BindError, Binding};
use tokio::sync::mpsc;
use tokio::time::Sleep;

pub use self::socket::Socket;
use self::socket::Woken;
pub use self::thread::{Running, Thread};

/// A socket, a machine and its host.
pub struct Driver<H: Host>(Driven<H, Woken>);

impl<H: Host> Driver<H> {
    /// A driver that has not begun.
    pub fn new(socket: Socket, machine: H::Machine, host: H) -> Self {
        Self(Driven::new(socket, machine, host))
    }

    /// Runs until the host breaks off or nobody can send commands any more.
    pub async fn run(self, mut commands: mpsc::Receiver<H::Command>) -> H {
        let mut driven = self.0;
        let mut timer = Box::pin(tokio::time::sleep_until(driven.deadline().into()));
        while let ControlFlow::Continue(more_to_send) = driven.turn() {
            arm(&mut timer, driven.deadline());
            tokio::select! {
                biased;
                command = commands.recv() => {
                    let Some(first) = command else { break };
                    let more = iter::from_fn(|| commands.try_recv().ok());
                    driven.commands(iter::once(first).chain(more));
                }
                () = driven.io().readable() => driven.receive(),
                () = driven.io().writable(), if driven.is_blocked() => {}
                () = &mut timer => driven.time_passed(),
                // Other tasks of this thread have their turn before the next one.
                () = tokio::task::yield_now(), if more_to_send => {}
            }
        }
        driven.into_host()
    }
}

fn arm(timer: &mut Pin<Box<Sleep>>, wanted: Instant) {
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

#[cfg(test)]
mod tests;
