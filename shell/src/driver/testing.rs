//! A machine and a host for tests of drivers: what a driver hands in, when, and how often.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use mesh_core::machine::{Machine, RootMachine};
use mesh_core::time::Now;
use mesh_core::transport::{Datagram, Transmit};

use super::{Host, Request};

/// Sends back what it is sent, and answers a deadline with the output `due`, a new socket with
/// `rebound`.
#[derive(Debug)]
pub struct Echo {
    copies: usize,
    queue: VecDeque<(SocketAddr, BytesMut)>,
    deadline: Option<Instant>,
    outputs: VecDeque<&'static str>,
}

impl Echo {
    /// One that sends everything back so many times.
    #[must_use]
    pub fn new(copies: usize) -> Self {
        Self {
            copies,
            queue: VecDeque::new(),
            deadline: None,
            outputs: VecDeque::new(),
        }
    }
}

impl Machine for Echo {
    type Input<'a> = ();
    type Output = &'static str;
    type Rejected = ();

    fn handle_input(&mut self, _now: Now, (): ()) -> Result<(), ()> {
        Err(())
    }

    fn poll_output(&mut self) -> Option<&'static str> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.deadline.map(|at| (at, "echo"))
    }
}

impl RootMachine for Echo {
    fn handle_datagram(&mut self, _now: Now, datagram: Datagram) {
        for _ in 0..self.copies {
            self.queue
                .push_back((datagram.remote, datagram.data.clone()));
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        if self.deadline.is_some_and(|at| at <= now.instant) {
            self.deadline = None;
            self.outputs.push_back("due");
        }
    }

    fn handle_rebind(&mut self, _now: Now) {
        self.outputs.push_back("rebound");
    }

    fn poll_transmit(&mut self, _now: Now, buf: &mut Vec<u8>) -> Option<Transmit> {
        assert!(buf.is_empty());
        let (remote, data) = self.queue.pop_front()?;
        buf.extend_from_slice(&data);
        Some(Transmit {
            remote,
            local_ip: None,
            ecn: None,
            size: data.len(),
            segment_size: None,
        })
    }
}

/// What a [`Recorder`] is told.
#[derive(Clone, Copy, Debug)]
pub enum Command {
    /// Set the echo's deadline so far ahead.
    WakeIn(Duration),
    /// Take a new socket.
    Rebind,
    /// Have the echo ask for a new socket with the output `rebind`.
    AskToRebind,
    /// Have the echo say `stopped`, and break off at that.
    Stop,
}

/// Hands on every output of an [`Echo`].
pub struct Recorder {
    seen: Box<dyn FnMut(&'static str) + Send>,
    stop: bool,
}

impl Recorder {
    /// To `seen`.
    pub fn new(seen: impl FnMut(&'static str) + Send + 'static) -> Self {
        Self {
            seen: Box::new(seen),
            stop: false,
        }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Host for Recorder {
    type Machine = Echo;
    type Command = Command;

    fn command(&mut self, now: Now, machine: &mut Echo, command: Command) -> Request {
        match command {
            Command::WakeIn(span) => machine.deadline = Some(now.instant + span),
            Command::Rebind => return Request::Rebind,
            Command::AskToRebind => machine.outputs.push_back("rebind"),
            Command::Stop => {
                self.stop = true;
                machine.outputs.push_back("stopped");
            }
        }
        Request::None
    }

    fn output(
        &mut self,
        _now: Now,
        _machine: &Echo,
        output: &'static str,
    ) -> ControlFlow<(), Request> {
        (self.seen)(output);
        if self.stop {
            ControlFlow::Break(())
        } else if output == "rebind" {
            ControlFlow::Continue(Request::Rebind)
        } else {
            ControlFlow::Continue(Request::None)
        }
    }

    fn woke(&mut self, _now: Now, _machine: &mut Echo, _asleep: Duration) -> Request {
        Request::Rebind
    }
}
