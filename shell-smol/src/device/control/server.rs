//! The agent's side of the control socket.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use async_io::Timer;
use mesh_core::device::control::{Command, Event, Failure, LineError, line};
use mesh_core::device::unfinished::Listed;
use mesh_core::error::ErrorClass;
use mesh_core::ids::RequestId;
use mesh_core::limits::{CONTROL_CLIENTS_MAX, CONTROL_COMMAND_TIMEOUT, CONTROL_LINE_BYTES_MAX};
use smol::LocalExecutor;
use smol::future::FutureExt as _;

use super::ControlSocket;
use super::lines::{LineReader, Stream, write_line};
use crate::device::answer::Answer;
use crate::device::client::Client;
use crate::error::Error;

/// How long a refused `accept` is left alone: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves programs until dropped.
pub(crate) async fn serve(
    executor: &LocalExecutor<'static>,
    socket: &ControlSocket,
    client: &Client,
) {
    let programs = Rc::new(Cell::new(0));
    loop {
        let Ok((stream, _)) = socket.listener.accept().await else {
            Timer::after(ACCEPT_PAUSE).await;
            continue;
        };
        let stream = Rc::new(stream);
        if !is_ours(&stream, socket.place.uid()) {
            turn_away(
                &stream,
                ErrorClass::Auth,
                "the agent belongs to another user",
            );
        } else if programs.get() >= CONTROL_CLIENTS_MAX {
            let words = "too many programs talk to the agent at once";
            turn_away(&stream, ErrorClass::RateLimit, words);
        } else {
            let program = Counted::new(&programs);
            let client = client.clone();
            let conversation = async move {
                converse(stream, &client).await;
                drop(program);
            };
            executor.spawn(conversation).detach();
        }
    }
}

/// One of the programs that are served, as long as it is.
struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn new(programs: &Rc<Cell<usize>>) -> Self {
        programs.set(programs.get() + 1);
        Self(Rc::clone(programs))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Whether the program at the other end runs as the agent's own user, or as root.
#[cfg(target_os = "linux")]
fn is_ours(stream: &Stream, uid: u32) -> bool {
    rustix::net::sockopt::socket_peercred(stream.get_ref())
        .is_ok_and(|peer| peer.uid.as_raw() == uid || peer.uid.is_root())
}

/// Elsewhere the socket's own permissions must do.
#[cfg(not(target_os = "linux"))]
fn is_ours(_stream: &Stream, _uid: u32) -> bool {
    true
}

/// Says why, as far as the socket's buffer takes it at once, and hangs up.
fn turn_away(stream: &Stream, class: ErrorClass, message: &str) {
    if let Ok(line) = line(&Event::Failed(Failure::new(class, message))) {
        let _full = std::io::Write::write(&mut stream.get_ref(), &line);
    }
}

/// One program: its command, and what comes of it.
async fn converse(stream: Stream, client: &Client) {
    let mut commands = LineReader::new(Rc::clone(&stream), CONTROL_LINE_BYTES_MAX);
    let command = async { Some(commands.next::<Command>().await) };
    let silent = async {
        Timer::after(CONTROL_COMMAND_TIMEOUT).await;
        None
    };
    let invalid = |words: &str| Event::Failed(Failure::new(ErrorClass::Validation, words));
    let event = match command.or(silent).await {
        // Silent, or gone again: whoever looks for an agent only knocks.
        None | Some(Ok(None) | Err(LineError::Io(_) | LineError::Torn)) => return,
        Some(Err(error @ (LineError::TooLong(_) | LineError::Malformed(_)))) => {
            invalid(&error.to_string())
        }
        Some(Ok(Some(Command::Cancel))) => invalid("there is no answer to cancel"),
        Some(Ok(Some(Command::Status))) => Event::Status(Box::new(client.status().await)),
        Some(Ok(Some(Command::Ping))) => match client.ping().await {
            Ok(span) => Event::Pong(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)),
            Err(error) => Event::Failed(Failure::from(&error)),
        },
        Some(Ok(Some(Command::Call { method, params }))) => {
            match client.call_raw(method, params).await {
                Ok(result) => Event::Result(result),
                Err(error) => Event::Failed(Failure::from(&error)),
            }
        }
        Some(Ok(Some(Command::Unfinished))) => match unfinished(client).await {
            Ok(listed) => Event::Unfinished(listed),
            Err(error) => Event::Failed(Failure::from(&error)),
        },
        Some(Ok(Some(Command::Resume(id)))) => match resume(client, id).await {
            Ok(answer) => return pass_on(answer, commands, &stream).await,
            Err(error) => Event::Failed(Failure::from(&error)),
        },
        Some(Ok(Some(Command::Ask(question)))) => match client.ask(*question).await {
            Ok(answer) => return pass_on(answer, commands, &stream).await,
            Err(error) => Event::Failed(Failure::from(&error)),
        },
    };
    let _gone = write_line(&stream, &event).await;
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
async fn pass_on(mut answer: Answer, mut commands: LineReader, stream: &Stream) {
    let mut cancelled = false;
    loop {
        let piece = async { Ok(answer.next().await) };
        let command = async {
            if cancelled {
                std::future::pending::<()>().await;
            }
            Err(commands.next::<Command>().await)
        };
        let event = match command.or(piece).await {
            Ok(Ok(Some(part))) => match part.into_event() {
                Some(event) => event,
                None => continue,
            },
            Ok(Ok(None)) => match answer.receipt() {
                Some(receipt) => Event::Ended(Box::new(receipt.clone())),
                None => return,
            },
            Ok(Err(error)) => Event::Failed(Failure::from(&error)),
            Err(Ok(Some(Command::Cancel))) => {
                cancelled = true;
                answer.cancel().await;
                continue;
            }
            // Hung up, or talks nonsense: dropping the answer cancels it.
            Err(
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
                | Err(_),
            ) => return,
        };
        let last = event.is_last();
        if write_line(stream, &event).await.is_err() || last {
            return;
        }
    }
}
