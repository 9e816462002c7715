//! A program's side of the control socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use mesh_core::api::{Method, Params};
use mesh_core::device::control::LineError;
use mesh_core::device::unfinished::Listed;
use mesh_core::ids::RequestId;
use mesh_core::limits::CONTROL_LINE_BYTES_MAX;
use mesh_core::wire::message::EscalationRequest;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::lines::{LineReader, write_line};
use super::{Command, Event, socket_path};
use crate::device::answer::{Answer, News, Source};
use crate::device::status::Status;
use crate::error::Error;

/// The running agent of a data folder.
#[derive(Clone, Debug)]
pub struct AgentLink {
    path: std::path::PathBuf,
}

/// One command's connection.
struct Exchange {
    events: LineReader<OwnedReadHalf>,
    commands: OwnedWriteHalf,
}

impl AgentLink {
    /// The agent of this folder, or `None` if none runs.
    ///
    /// # Errors
    ///
    /// When there is one and it cannot be reached.
    pub async fn find(folder: &Path) -> Result<Option<Self>, Error> {
        let path = socket_path(folder);
        match UnixStream::connect(&path).await {
            // The agent sees a connection without a command, which it is used to.
            Ok(_) => Ok(Some(Self { path })),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(None)
            }
            // A path that does not fit cannot have been bound either.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
            Err(error) => Err(Error::io("connecting to the agent", error)),
        }
    }

    /// Asks a question through the agent's tunnel.
    ///
    /// # Errors
    ///
    /// When the agent went away.
    pub async fn ask(&self, request: EscalationRequest) -> Result<Answer, Error> {
        let (answer, source) = Answer::new(request.request_id);
        let exchange = self.send(Command::Ask(Box::new(request))).await?;
        tokio::spawn(relay(exchange, source));
        Ok(answer)
    }

    /// Questions that are unfinished, the oldest first.
    ///
    /// # Errors
    ///
    /// When the agent went away.
    pub async fn unfinished(&self) -> Result<Vec<Listed>, Error> {
        Ok(self.one(Command::Unfinished).await?.into_unfinished()?)
    }

    /// The answer to one of them, from its first word on.
    ///
    /// # Errors
    ///
    /// When the agent went away.
    pub async fn resume(&self, id: RequestId) -> Result<Answer, Error> {
        let (answer, source) = Answer::new(id);
        let exchange = self.send(Command::Resume(id)).await?;
        tokio::spawn(relay(exchange, source));
        Ok(answer)
    }

    /// How the tunnel is, and the account.
    ///
    /// # Errors
    ///
    /// When the agent went away.
    pub async fn status(&self) -> Result<Status, Error> {
        Ok(*self.one(Command::Status).await?.into_status()?)
    }

    /// One round trip to the gateway and back.
    ///
    /// # Errors
    ///
    /// When there is no tunnel, or the agent went away.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let micros = self.one(Command::Ping).await?.into_pong()?;
        Ok(Duration::from_micros(micros))
    }

    /// A typed call.
    ///
    /// # Errors
    ///
    /// When there is no tunnel, the agent went away, or the gateway refuses.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        params: Params,
    ) -> Result<T, Error> {
        let told = self.one(Command::Call { method, params }).await?;
        serde_json::from_str(told.into_result()?.get()).map_err(|error| {
            Error::protocol(format!("the gateway's reply is not understood: {error}"))
        })
    }

    async fn send(&self, command: Command) -> Result<Exchange, Error> {
        let stream = UnixStream::connect(&self.path).await.map_err(gone)?;
        let (read, mut commands) = stream.into_split();
        write_line(&mut commands, &command).await.map_err(gone)?;
        Ok(Exchange {
            events: LineReader::new(read, CONTROL_LINE_BYTES_MAX),
            commands,
        })
    }

    async fn one(&self, command: Command) -> Result<Event, Error> {
        let mut exchange = self.send(command).await?;
        match exchange.events.next::<Event>().await {
            Ok(Some(event)) => Ok(event),
            Ok(None) => Err(Error::NotConnected {
                doing: "waiting for the agent",
            }),
            Err(error) => Err(broken(&error)),
        }
    }
}

/// Carries events to the answer, and its cancellation to the agent.
async fn relay(mut exchange: Exchange, mut source: Source) {
    let mut cancelled = false;
    loop {
        let event = tokio::select! {
            event = exchange.events.next::<Event>() => event,
            _ = &mut source.cancelled, if !cancelled => {
                cancelled = true;
                if write_line(&mut exchange.commands, &Command::Cancel).await.is_err() {
                    return;
                }
                continue;
            }
            // Dropped: hanging up cancels.
            () = source.news.closed() => return,
        };
        let news = match event {
            Ok(Some(event)) => match event.into_news() {
                Ok(news) => news.map_failure(Error::from),
                Err(instead) => News::Failed(instead.into()),
            },
            Ok(None) => News::Failed(Error::NotConnected {
                doing: "waiting for the agent",
            }),
            Err(error) => News::Failed(broken(&error)),
        };
        let last = news.is_last();
        if source.news.send(news).await.is_err() || last {
            return;
        }
    }
}

fn gone(error: io::Error) -> Error {
    Error::io("talking to the agent", error)
}

fn broken(error: &LineError) -> Error {
    Error::protocol(format!("the agent's answer is not understood: {error}"))
}
