//! The agent's side of the control socket.

use std::time::Duration;

use mesh_core::device::control::{LineError, line};
use mesh_core::device::unfinished::Listed;
use mesh_core::error::ErrorClass;
use mesh_core::ids::RequestId;
use mesh_core::limits::{CONTROL_CLIENTS_MAX, CONTROL_COMMAND_TIMEOUT, CONTROL_LINE_BYTES_MAX};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;

use super::lines::{LineReader, write_line};
use super::{Command, ControlSocket, Event, Failure};
use crate::device::answer::Answer;
use crate::device::client::Client;
use crate::error::Error;

/// How long a refused `accept` is left alone: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves programs until dropped; their answers are cancelled then.
pub(crate) async fn serve(socket: &ControlSocket, client: &Client) {
    let mut programs = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = socket.listener.accept() => accepted,
            Some(_) = programs.join_next() => continue,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a program could not connect");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if !is_ours(&stream, socket.place.uid()) {
            turn_away(
                &stream,
                ErrorClass::Auth,
                "the agent belongs to another user",
            );
        } else if programs.len() >= CONTROL_CLIENTS_MAX {
            turn_away(
                &stream,
                ErrorClass::RateLimit,
                "too many programs talk to the agent at once",
            );
        } else {
            let client = client.clone();
            programs.spawn(async move { converse(stream, &client).await });
        }
    }
}

/// Whether the program at the other end runs as the agent's own user, or as root.
fn is_ours(stream: &UnixStream, uid: u32) -> bool {
    match stream.peer_cred() {
        Ok(peer) => peer.uid() == uid || peer.uid() == 0,
        Err(error) => {
            tracing::warn!(%error, "a program without credentials was turned away");
            false
        }
    }
}

/// Says why, as far as the socket's buffer takes it at once, and hangs up.
fn turn_away(stream: &UnixStream, class: ErrorClass, message: &str) {
    tracing::warn!(message, "a program was turned away");
    let failure = Failure::new(class, message);
    if let Ok(line) = line(&Event::Failed(failure)) {
        let _ = stream.try_write(&line);
    }
}

/// One program: its command, and what comes of it.
async fn converse(stream: UnixStream, client: &Client) {
    let (read, mut write) = stream.into_split();
    let mut commands = LineReader::new(read, CONTROL_LINE_BYTES_MAX);
    let command = tokio::time::timeout(CONTROL_COMMAND_TIMEOUT, commands.next::<Command>()).await;
    let event = match command {
        // Silent, or gone again: `AgentLink::find` only knocks.
        Err(_) | Ok(Ok(None) | Err(LineError::Io(_) | LineError::Torn)) => return,
        Ok(Err(error @ (LineError::TooLong(_) | LineError::Malformed(_)))) => {
            Event::Failed(Failure::new(ErrorClass::Validation, &error.to_string()))
        }
        Ok(Ok(Some(Command::Cancel))) => Event::Failed(Failure::new(
            ErrorClass::Validation,
            "there is no answer to cancel",
        )),
        Ok(Ok(Some(Command::Status))) => Event::Status(Box::new(client.status().await)),
        Ok(Ok(Some(Command::Ping))) => match client.ping().await {
            Ok(span) => Event::Pong(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)),
            Err(error) => Event::Failed(Failure::from(&error)),
        },
        Ok(Ok(Some(Command::Call { method, params }))) => {
            match client.call_raw(method, params).await {
                Ok(result) => Event::Result(result),
                Err(error) => Event::Failed(Failure::from(&error)),
            }
        }
        Ok(Ok(Some(Command::Unfinished))) => match unfinished(client).await {
            Ok(listed) => Event::Unfinished(listed),
            Err(error) => Event::Failed(Failure::from(&error)),
        },
        Ok(Ok(Some(Command::Resume(id)))) => match resume(client, id).await {
            Ok(answer) => return stream_answer(answer, commands, write).await,
            Err(error) => Event::Failed(Failure::from(&error)),
        },
        Ok(Ok(Some(Command::Ask(request)))) => match client.ask(*request).await {
            Ok(answer) => return stream_answer(answer, commands, write).await,
            Err(error) => Event::Failed(Failure::from(&error)),
        },
    };
    let _ = write_line(&mut write, &event).await;
}

/// What is unfinished, with what commands with a tunnel of their own have left since the agent began.
async fn unfinished(client: &Client) -> Result<Vec<Listed>, Error> {
    client.adopt().await?;
    client.unfinished().await
}

async fn resume(client: &Client, id: RequestId) -> Result<Answer, Error> {
    client.adopt().await?;
    client.resume(id).await
}

/// Passes an answer on; the program cancels it by saying so, or by hanging up.
async fn stream_answer(
    mut answer: Answer,
    mut commands: LineReader<OwnedReadHalf>,
    mut write: OwnedWriteHalf,
) {
    let mut cancelled = false;
    loop {
        let event = tokio::select! {
            part = answer.recv() => match part {
                Ok(Some(part)) => match part.into_event() {
                    Some(event) => event,
                    None => continue,
                },
                Ok(None) => match answer.receipt() {
                    Some(receipt) => Event::Ended(Box::new(receipt.clone())),
                    None => return,
                },
                Err(error) => Event::Failed(Failure::from(&error)),
            },
            command = commands.next::<Command>(), if !cancelled => match command {
                Ok(Some(Command::Cancel)) => {
                    cancelled = true;
                    answer.cancel();
                    continue;
                }
                // Hung up, or talks nonsense: dropping the answer cancels it.
                Ok(
                    None
                    | Some(
                        Command::Ask(_)
                        | Command::Resume(_)
                        | Command::Unfinished
                        | Command::Status
                        | Command::Ping
                        | Command::Call { .. },
                    ),
                )
                | Err(_) => return,
            },
        };
        let last = event.is_last();
        if write_line(&mut write, &event).await.is_err() || last {
            return;
        }
    }
}
