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

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::status::Status;
use super::unfinished::Listed;
use super::{AnswerEvent, AskError};
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

/// What the source of an answer has to tell its reader: parts, then one end, which is the last.
#[derive(Debug, PartialEq)]
pub enum News<E> {
    /// The next part.
    Part(Part),
    /// It is whole: usage and charge.
    Ended(Box<StreamEnd>),
    /// It failed; parts before this stay true.
    Failed(E),
}

impl<E> News<E> {
    /// Whether nothing follows it.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        match self {
            Self::Part(_) => false,
            Self::Ended(_) | Self::Failed(_) => true,
        }
    }

    /// The same, with a shell's own error.
    pub fn map_failure<F>(self, own: impl FnOnce(E) -> F) -> News<F> {
        match self {
            Self::Part(part) => News::Part(part),
            Self::Ended(receipt) => News::Ended(receipt),
            Self::Failed(error) => News::Failed(own(error)),
        }
    }
}

impl AnswerEvent {
    /// As a reader is told of it. An answer that came as one is a part and its end.
    pub fn into_news(self) -> impl Iterator<Item = News<AskError>> {
        let (first, end) = match self {
            Self::Chunk(text) => (News::Part(Part::Text(text)), None),
            Self::Delta(delta) => (News::Part(Part::Delta(delta)), None),
            Self::Cut => (News::Part(Part::Cut), None),
            Self::Resumed { at } => (News::Part(Part::Resumed(at)), None),
            Self::Notice(notice) => (News::Part(Part::Notice(notice)), None),
            Self::Ended(end) => (News::Ended(Box::new(end)), None),
            Self::Whole(answer) => {
                let (content, end) = answer.into_parts();
                let end = News::Ended(Box::new(end));
                (News::Part(Part::Text(content)), Some(end))
            }
            Self::Failed(error) => (News::Failed(error), None),
        };
        std::iter::once(first).chain(end)
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

    /// As news of an answer.
    ///
    /// # Errors
    ///
    /// [`Instead`], when it is about something else.
    pub fn into_news(self) -> Result<News<Failure>, Instead> {
        Ok(match self {
            Self::Piece(text) => News::Part(Part::Text(text)),
            Self::Cut => News::Part(Part::Cut),
            Self::Resumed(at) => News::Part(Part::Resumed(at)),
            Self::Notice(notice) => News::Part(Part::Notice(notice)),
            Self::Ended(receipt) => News::Ended(receipt),
            Self::Failed(failure) => News::Failed(failure),
            Self::Unfinished(_) | Self::Status(_) | Self::Pong(_) | Self::Result(_) => {
                return Err(self.into());
            }
        })
    }

    /// As the answer to [`Command::Unfinished`].
    ///
    /// # Errors
    ///
    /// [`Instead`].
    pub fn into_unfinished(self) -> Result<Vec<Listed>, Instead> {
        if let Self::Unfinished(listed) = self {
            return Ok(listed);
        }
        Err(self.into())
    }

    /// As the answer to [`Command::Status`].
    ///
    /// # Errors
    ///
    /// [`Instead`].
    pub fn into_status(self) -> Result<Box<Status>, Instead> {
        if let Self::Status(status) = self {
            return Ok(status);
        }
        Err(self.into())
    }

    /// As the answer to [`Command::Ping`]: µs.
    ///
    /// # Errors
    ///
    /// [`Instead`].
    pub fn into_pong(self) -> Result<u64, Instead> {
        if let Self::Pong(micros) = self {
            return Ok(micros);
        }
        Err(self.into())
    }

    /// As the answer to [`Command::Call`].
    ///
    /// # Errors
    ///
    /// [`Instead`].
    pub fn into_result(self) -> Result<Box<RawValue>, Instead> {
        if let Self::Result(raw) = self {
            return Ok(raw);
        }
        Err(self.into())
    }
}

/// What the agent told instead of what it was asked for.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Instead {
    /// The command failed.
    #[error("{}", .0.message)]
    Failed(Failure),
    /// It speaks another language than this program.
    #[error("the agent sent {0} where none was expected; are both of the same version?")]
    Unexpected(&'static str),
}

impl From<Event> for Instead {
    fn from(event: Event) -> Self {
        let kind = event.kind();
        match event {
            Event::Failed(failure) => Self::Failed(failure),
            Event::Piece(_)
            | Event::Cut
            | Event::Resumed(_)
            | Event::Notice(_)
            | Event::Ended(_)
            | Event::Unfinished(_)
            | Event::Status(_)
            | Event::Pong(_)
            | Event::Result(_) => Self::Unexpected(kind),
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

/// A line: a document and its feed.
///
/// # Errors
///
/// What cannot be written as JSON; no [`Command`] or [`Event`] is that.
pub fn line(document: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = serde_json::to_vec(document)?;
    line.push(b'\n');
    Ok(line)
}

/// What a line has in it, without its feed.
///
/// # Errors
///
/// [`LineError::Malformed`], which does not hurt the next line.
pub fn read_line<T: DeserializeOwned>(line: &[u8]) -> Result<T, LineError> {
    serde_json::from_slice(line).map_err(LineError::Malformed)
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

/// Why the next line is none.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The stream broke.
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    /// It is longer than allowed; the rest of the stream is of no use.
    #[error(transparent)]
    TooLong(#[from] LineTooLong),
    /// It is not what was expected.
    #[error("a line is not understood: {0}")]
    Malformed(serde_json::Error),
    /// The stream ended inside it.
    #[error("the connection ended inside a line")]
    Torn,
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

    /// The stream is at its end.
    ///
    /// # Errors
    ///
    /// [`LineError::Torn`] when that is inside a line.
    pub const fn finish(&self) -> Result<(), LineError> {
        if self.line.is_empty() {
            Ok(())
        } else {
            Err(LineError::Torn)
        }
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
    fn an_end_inside_a_line_is_told_from_one_between_lines() {
        let mut lines = Lines::new(4);
        assert!(lines.finish().is_ok());
        assert_eq!(lines.take(b"1\n2"), Ok((2, Some(b"1".to_vec()))));
        assert!(lines.finish().is_ok());
        assert_eq!(lines.take(b"2"), Ok((1, None)));
        assert!(matches!(lines.finish(), Err(LineError::Torn)));
    }

    fn end() -> StreamEnd {
        let line = r#"{"request_id":"req_00000000000000000000000000000001","tokens_used":{"prompt":1,"completion":2},"cost_cents":0,"cost_nanos":5,"base_nanos":4,"model_used":"m","finish_reason":"stop","latency_ms":3}"#;
        serde_json::from_str(line).unwrap()
    }

    /// What the agent tells of an answer is what a reader in its own process is told.
    #[test]
    fn news_of_an_answer_is_the_same_through_the_agent() {
        let chunk = || AnswerEvent::Chunk("a".to_owned());
        let resumed = || AnswerEvent::Resumed { at: 3 };
        let ended = || AnswerEvent::Ended(end());
        for event in [chunk, || AnswerEvent::Cut, resumed, ended] {
            let own: Vec<_> = event().into_news().collect();
            let told = event().into_news().map(|news| match news {
                News::Part(part) => part.into_event().unwrap(),
                News::Ended(receipt) => Event::Ended(receipt),
                News::Failed(error) => Event::Failed(Failure::from(&error)),
            });
            let told: Vec<_> = told.map(|event| event.into_news().unwrap()).collect();
            let own = own.into_iter();
            let own: Vec<_> = own
                .map(|news| news.map_failure(|error| Failure::from(&error)))
                .collect();
            assert_eq!(own, told);
        }
    }

    #[test]
    fn an_event_that_was_not_asked_for_is_named_and_a_failure_is_passed_on() {
        let pong = || Event::Pong(7);
        assert_eq!(pong().into_pong(), Ok(7));
        for instead in [
            pong().into_news().map(|_| ()),
            pong().into_status().map(|_| ()),
            pong().into_unfinished().map(|_| ()),
            pong().into_result().map(|_| ()),
        ] {
            assert_eq!(instead, Err(Instead::Unexpected("a pong")));
        }
        let failure = Failure::new(ErrorClass::Timeout, "late");
        let failed = Event::Failed(failure.clone()).into_pong();
        assert_eq!(failed, Err(Instead::Failed(failure)));
        assert_eq!(failed.unwrap_err().to_string(), "late");
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
