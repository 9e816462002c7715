//! The agent's control socket, as bytes: how other programs of the same user ask through its
//! tunnel. One JSON document a line; every shell speaks it.
//!
//! ```text
//!  program                                 agent
//!     │── {"ask":{…}}\n ───────────────────▶│   one command per connection
//!     │◀─────────────────── {"piece":"…"}\n │   any number of events
//!     │── "cancel"\n ─────────────────────▶ │   (only while an answer is under way)
//!     │◀────────────────── {"ended":{…}}\n  │   the last event; then the agent hangs up
//! ```

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::status::Status;
use super::unfinished::Listed;
use crate::api::{Method, Params};
use crate::dialect::chat::Delta;
use crate::error::{EXIT_CODES, ErrorClass};
use crate::ids::RequestId;
use crate::wire::message::{ErrorMessage, EscalationRequest, Notice, StreamEnd};

/// The socket, in the device's folder.
pub const SOCKET: &str = "agent.sock";
/// The file whose lock the agent holds, in the device's folder.
pub const LOCK: &str = "agent.lock";
/// Bytes of a socket's path on every Unix we know (`sun_path`, 104 on BSD and macOS), with its NUL.
pub const SOCKET_PATH_BYTES_MAX: usize = 104;

/// What a program may ask of the agent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Ask a question; answered by pieces and [`Event::Ended`].
    Ask(Box<EscalationRequest>),
    /// Which questions are unfinished? Answered by [`Event::Unfinished`].
    Unfinished,
    /// Give me the answer to one of them, from its first word on; answered like a question.
    Resume(RequestId),
    /// Stop the answer under way; its [`Event::Ended`] still comes.
    Cancel,
    /// How is the tunnel, and the account?
    Status,
    /// One round trip to the gateway.
    Ping,
    /// A typed call; answered by [`Event::Result`].
    Call {
        /// Which.
        method: Method,
        /// With what.
        #[serde(default)]
        params: Params,
    },
}

/// What the agent tells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The next piece of the answer.
    Piece(String),
    /// The answer's tunnel was lost; it goes on when there is one again.
    Cut,
    /// It goes on with this piece.
    Resumed(u64),
    /// A limit of the account came near.
    Notice(Notice),
    /// The answer is whole.
    Ended(Box<StreamEnd>),
    /// The questions that are unfinished.
    Unfinished(Vec<Listed>),
    /// How the tunnel is, and the account.
    Status(Box<Status>),
    /// The round trip took so many microseconds.
    Pong(u64),
    /// What a typed call gave.
    Result(Box<RawValue>),
    /// The command failed.
    Failed(Failure),
}

/// What a reader of an answer is given before its end.
#[derive(Clone, PartialEq, Eq)]
pub enum Part {
    /// The next piece of its text.
    Text(String),
    /// The next of what is no text, for a question that was asked with a client's own body.
    Delta(Delta),
    /// Its tunnel was lost; it goes on when there is one again.
    Cut,
    /// It goes on with this piece.
    Resumed(u64),
    /// A limit of the account came near.
    Notice(Notice),
}

impl std::fmt::Debug for Part {
    /// Shows nothing of the answer.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Delta(delta) => f.debug_tuple("Delta").field(delta).finish(),
            Self::Cut => f.write_str("Cut"),
            Self::Resumed(at) => f.debug_tuple("Resumed").field(at).finish(),
            Self::Notice(notice) => f.debug_tuple("Notice").field(notice).finish(),
        }
    }
}

impl Part {
    /// For the person who waits, if it is not text.
    #[must_use]
    pub fn words(&self) -> Option<String> {
        match self {
            Self::Text(_) | Self::Delta(_) => None,
            Self::Notice(notice) => notice.in_words(),
            Self::Cut => Some("The tunnel is lost; the answer goes on when it is back.".to_owned()),
            Self::Resumed(0) => Some("The tunnel is back; the answer begins.".to_owned()),
            Self::Resumed(at) => Some(format!(
                "The tunnel is back; the answer goes on at piece {at}."
            )),
        }
    }
}

impl Part {
    /// As other programs are told of it; they are not told of what is no text.
    #[must_use]
    pub fn into_event(self) -> Option<Event> {
        Some(match self {
            Self::Text(text) => Event::Piece(text),
            Self::Cut => Event::Cut,
            Self::Resumed(at) => Event::Resumed(at),
            Self::Notice(notice) => Event::Notice(notice),
            Self::Delta(_) => return None,
        })
    }
}

impl Event {
    /// Whether nothing follows it.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        match self {
            Self::Piece(_) | Self::Cut | Self::Resumed(_) | Self::Notice(_) => false,
            Self::Ended(_)
            | Self::Unfinished(_)
            | Self::Status(_)
            | Self::Pong(_)
            | Self::Result(_)
            | Self::Failed(_) => true,
        }
    }

    /// What it is, for a program that expected something else.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Piece(_) => "a piece of an answer",
            Self::Cut | Self::Resumed(_) | Self::Notice(_) => "news of an answer",
            Self::Unfinished(_) => "a list of unfinished questions",
            Self::Ended(_) => "the end of an answer",
            Self::Status(_) => "a status",
            Self::Pong(_) => "a pong",
            Self::Result(_) => "a call's result",
            Self::Failed(_) => "a failure",
        }
    }
}

/// An error, as it travels between agent and program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The class's name.
    pub class: String,
    /// For the person.
    pub message: String,
    /// The gateway's own words, if it is the gateway's refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Box<ErrorMessage>>,
}

impl Failure {
    /// A refusal of the agent's own.
    #[must_use]
    pub fn new(class: ErrorClass, message: &str) -> Self {
        Self {
            class: format!("{class:?}"),
            gateway: None,
            message: message.to_owned(),
        }
    }

    /// The class it names; an unknown one is the agent's own fault.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        let mut known = EXIT_CODES.iter().map(|(class, _)| *class);
        known
            .find(|class| format!("{class:?}") == self.class)
            .unwrap_or(ErrorClass::Api)
    }
}

/// Cuts a stream of bytes into lines of at most `max` bytes.
#[derive(Debug)]
pub struct Lines {
    line: Vec<u8>,
    max: usize,
}

/// A line is longer than allowed; the rest of the stream is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line is longer than {max} bytes")]
pub struct LineTooLong {
    /// What is allowed.
    pub max: usize,
}

impl Lines {
    /// At the beginning of a stream.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Self {
            line: Vec::new(),
            max,
        }
    }

    /// Takes from what has arrived up to the end of the line: how many bytes that were, and the
    /// line without its feed if it is whole.
    ///
    /// # Errors
    ///
    /// [`LineTooLong`].
    pub fn take(&mut self, arrived: &[u8]) -> Result<(usize, Option<Vec<u8>>), LineTooLong> {
        let feed = arrived.iter().position(|byte| *byte == b'\n');
        let taken = feed.unwrap_or(arrived.len());
        if self.line.len() + taken > self.max {
            return Err(LineTooLong { max: self.max });
        }
        self.line
            .extend_from_slice(arrived.get(..taken).unwrap_or_default());
        Ok(match feed {
            Some(_) => (taken + 1, Some(std::mem::take(&mut self.line))),
            None => (taken, None),
        })
    }

    /// Bytes of the line that the stream stands in.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.line.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_from_whatever_arrives() {
        let mut lines = Lines::new(4);
        assert_eq!(lines.take(b"a"), Ok((1, None)));
        assert_eq!(lines.held(), 1);
        assert_eq!(lines.take(b"bcd\nxy"), Ok((4, Some(b"abcd".to_vec()))));
        assert_eq!(lines.held(), 0);
        assert_eq!(lines.take(b"\n"), Ok((1, Some(Vec::new()))));
        assert_eq!(lines.take(b"12345\n"), Err(LineTooLong { max: 4 }));
    }

    #[test]
    fn a_call_and_its_result_are_lines_like_any_other() {
        let line = r#"{"call":{"method":"account.summary","params":{"a":1}}}"#;
        let command: Command = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&command).unwrap(), line);
        let bare: Command = serde_json::from_str(r#"{"call":{"method":"ping"}}"#).unwrap();
        assert!(matches!(
            bare,
            Command::Call {
                method: Method::Ping,
                ..
            }
        ));
        let unknown = r#"{"call":{"method":"account.delete"}}"#;
        assert!(serde_json::from_str::<Command>(unknown).is_err());
        let event: Event = serde_json::from_str(r#"{"result":{"b":[2]}}"#).unwrap();
        assert!(matches!(event, Event::Result(raw) if raw.get() == r#"{"b":[2]}"#));
    }

    #[test]
    fn a_failures_class_survives_the_way_and_an_unknown_one_is_the_agents_fault() {
        for (class, _) in EXIT_CODES {
            let line = serde_json::to_string(&Failure::new(class, "x")).unwrap();
            let back: Failure = serde_json::from_str(&line).unwrap();
            assert_eq!(back.class(), class);
        }
        let odd: Failure = serde_json::from_str(r#"{"class":"Odd","message":"x"}"#).unwrap();
        assert_eq!(odd.class(), ErrorClass::Api);
    }
}
