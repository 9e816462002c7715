//! A thread of its own for a driver and for all that it starts.
//!
//! A piece of an answer goes from a model server's socket through the machine into the tunnel's. With
//! all of that on one thread it is one wake-up; handed from thread to thread it would be several, of
//! processors that have just gone to sleep.

use std::io;

use tokio::runtime::{Builder, EnterGuard, Runtime};
use tokio::sync::{mpsc, oneshot};

use super::{Driver, Host};

/// A runtime of one thread that is still to be started.
#[derive(Debug)]
pub struct Thread {
    name: &'static str,
    runtime: Runtime,
}

/// A driver that runs on its thread. Dropping this ends it at once, with all that it started.
#[derive(Debug)]
pub struct Running {
    ended: oneshot::Receiver<()>,
    _dropped: oneshot::Sender<()>,
}

impl Thread {
    /// The thread is called `name`.
    ///
    /// # Errors
    ///
    /// When the system has no events to wait for (no file descriptor left, say).
    pub fn new(name: &'static str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { name, runtime })
    }

    /// Sockets that are made under this guard are woken on the thread.
    pub fn enter(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }

    /// Starts the thread, which ends with the driver.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub fn run<H>(
        self,
        driver: Driver<H>,
        commands: mpsc::Receiver<H::Command>,
    ) -> io::Result<Running>
    where
        H: Host + Send + 'static,
        H::Machine: Send,
        H::Command: Send,
    {
        let (ending, ended) = oneshot::channel();
        let (dropped, gone) = oneshot::channel::<()>();
        let Self { name, runtime } = self;
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        _host = driver.run(commands) => {}
                        // Nothing is ever sent: this is the drop of `Running`.
                        _ = gone => {}
                    }
                });
                // A name that is still being resolved must not hold up the end.
                runtime.shutdown_background();
                let _nobody_waits = ending.send(());
            })?;
        Ok(Running {
            ended,
            _dropped: dropped,
        })
    }
}

impl Running {
    /// Waits for the driver's end; whether it came to it. `false`: it panicked.
    ///
    /// Cancel safe, and to be called no more after it has returned.
    pub async fn ended(&mut self) -> bool {
        (&mut self.ended).await.is_ok()
    }
}
