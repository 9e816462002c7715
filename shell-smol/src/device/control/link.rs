//! A program's side of the control socket.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use async_io::Async;
use mesh_core::device::control::{Command, Event, LineError, News, Part, SOCKET};
use mesh_core::device::status::Status;
use mesh_core::device::unfinished::Listed;
use mesh_core::error::ErrorClass;
use mesh_core::ids::RequestId;
use mesh_core::limits::CONTROL_LINE_BYTES_MAX;
use mesh_core::wire::message::{EscalationRequest, StreamEnd};

use super::lines::{LineReader, Stream, write_line};
use crate::error::Error;

/// The running agent of a data folder, of either shell.
#[derive(Clone, Debug)]
pub struct AgentLink {
    path: PathBuf,
}

impl AgentLink {
    /// The agent of this folder, or `None` if none runs.
    ///
    /// # Errors
    ///
    /// When there is one and it cannot be reached.
    pub async fn find(folder: &Path) -> Result<Option<Self>, Error> {
        let path = folder.join(SOCKET);
        match Async::<UnixStream>::connect(&path).await {
            // The agent sees a connection without a command, which it is used to.
            Ok(_) => Ok(Some(Self { path })),
            // A path that does not fit (invalid input) cannot have been bound either.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::ConnectionRefused
                        | io::ErrorKind::InvalidInput
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(Error::io("connecting to the agent", &error)),
        }
    }

    /// Asks a question through the agent's tunnel.
    ///
    /// # Errors
    ///
    /// When the agent went away.
    pub async fn ask(&self, question: EscalationRequest) -> Result<AgentAnswer, Error> {
        self.answer(&Command::Ask(Box::new(question))).await
    }

    /// Questions that are unfinished, the oldest first.
    ///
    /// # Errors
    ///
    /// When the agent went away.
    pub async fn unfinished(&self) -> Result<Vec<Listed>, Error> {
        let (_stream, mut events) = self.send(&Command::Unfinished).await?;
        Ok(told(events.next().await)?.into_unfinished()?)
    }

    /// The answer to one of them, from its first word on.
    ///
    /// # Errors
    ///
    /// When the agent went away.
    pub async fn resume(&self, id: RequestId) -> Result<AgentAnswer, Error> {
        self.answer(&Command::Resume(id)).await
    }

    async fn answer(&self, command: &Command) -> Result<AgentAnswer, Error> {
        let (stream, events) = self.send(command).await?;
        Ok(AgentAnswer {
            stream,
            events,
            receipt: None,
        })
    }

    /// How the tunnel is, and the account.
    ///
    /// # Errors
    ///
    /// When the agent went away.
    pub async fn status(&self) -> Result<Status, Error> {
        let (_stream, mut events) = self.send(&Command::Status).await?;
        Ok(*told(events.next().await)?.into_status()?)
    }

    async fn send(&self, command: &Command) -> Result<(Stream, LineReader), Error> {
        let stream = Async::<UnixStream>::connect(&self.path)
            .await
            .map_err(|error| gone(&error))?;
        let stream = Rc::new(stream);
        write_line(&stream, command)
            .await
            .map_err(|error| gone(&error))?;
        let events = LineReader::new(Rc::clone(&stream), CONTROL_LINE_BYTES_MAX);
        Ok((stream, events))
    }
}

/// An answer through the agent. Dropping it hangs up, which cancels it.
#[derive(Debug)]
pub struct AgentAnswer {
    stream: Stream,
    events: LineReader,
    receipt: Option<Box<StreamEnd>>,
}

impl AgentAnswer {
    /// The next piece of the text, or what became of the agent's tunnel; `None` when the answer is
    /// whole. Cancel safe.
    ///
    /// # Errors
    ///
    /// When the answer fails or the agent goes away; what came before is all there will be.
    pub async fn next(&mut self) -> Result<Option<Part>, Error> {
        match told(self.events.next().await)?.into_news()? {
            News::Part(part) => Ok(Some(part)),
            News::Ended(receipt) => {
                self.receipt = Some(receipt);
                Ok(None)
            }
            News::Failed(failure) => Err(failure.into()),
        }
    }

    /// Usage and charge; there once [`Self::next`] has returned `None`.
    #[must_use]
    pub fn receipt(&self) -> Option<&StreamEnd> {
        self.receipt.as_deref()
    }

    /// Asks for no more; the receipt still comes.
    pub async fn cancel(&self) {
        // An agent that is gone shows when the next piece is read.
        let _gone = write_line(&self.stream, &Command::Cancel).await;
    }
}

/// What the agent tells.
fn told(event: Result<Option<Event>, LineError>) -> Result<Event, Error> {
    match event {
        Ok(Some(event)) => Ok(event),
        Ok(None) => Err(Error::not_connected("waiting for the agent")),
        Err(error) => {
            let words = format!("the agent's answer is not understood: {error}");
            Err(Error::new(ErrorClass::Serialization, words))
        }
    }
}

fn gone(error: &io::Error) -> Error {
    Error::io("talking to the agent", error)
}
