//! What a device keeps of its questions on disk until their answers are complete and handed over, so
//! that they outlive its process: what is kept, and the form it is kept in. Whose file is whose, and
//! what becomes of those of processes that are gone, is [`book`]'s.
//!
//! ```text
//!   {"format":"synesis-unfinished","version":1,"device":"device-…","sha256":"…"}\n
//!   [{"id":"req_…", …}, …]
//! ```
//!
//! A file is private: it has the question as it was sent, the text of the answer so far, and what was
//! hidden from the gateway. It is bound to its device, and a part of it is none of it: what was cut
//! short, changed or written by a later version is said to be so, and nothing of it is believed.
//! `Debug` shows nothing of what people and models wrote.

pub mod book;

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::control::Failure;
use super::{AnswerEvent, AskError};
use crate::dialect::chat::Delta;
use crate::escalation::request::validate;
use crate::escalation::words::printable;
use crate::ids::{DeviceId, RequestId};
use crate::limits;
use crate::privacy::Mapping;
use crate::time::UnixMillis;
use crate::wire::message::{EscalationRequest, StreamEnd};

/// Version of the format.
pub const VERSION: u32 = 1;
/// What marks a file of ours.
const FORMAT: &str = "synesis-unfinished";
/// Characters of a question that a list of them shows.
const TITLE_CHARS: usize = 60;

/// Everything that a device keeps, in the order in which it was asked.
#[derive(Clone, Default, PartialEq)]
pub struct Unfinished {
    pub(super) questions: Vec<Kept>,
}

impl fmt::Debug for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.questions).finish()
    }
}

/// A question with what there is of its answer.
#[derive(Clone, Serialize, Deserialize)]
pub struct Kept {
    pub(super) id: RequestId,
    /// Its id at the gateway: another one once it was asked again.
    pub(super) wire_id: RequestId,
    pub(super) title: String,
    /// What it was asked with, to know the same question again.
    pub(super) body: u64,
    pub(super) sent_at: UnixMillis,
    /// As it was sent; not kept any longer once something of its answer was given out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) request: Option<Box<EscalationRequest>>,
    pub(super) asked_anew: bool,
    /// Nobody wants it any more, and the gateway may not know.
    pub(super) cancelled: bool,
    pub(super) next_sequence: u64,
    /// Whether the final piece has come.
    pub(super) whole: bool,
    pub(super) said: Vec<Said>,
    /// What may become a token and is held back, in what it is a part of.
    pub(super) open: Open,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) held: String,
    pub(super) hidden: Mapping,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) end: Option<End>,
}

/// A part of an answer that was given out, as it was.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Said {
    Text(String),
    Reasoning(String),
    Signature(String),
    ToolCall {
        index: u32,
        id: String,
        name: String,
    },
    Arguments {
        index: u32,
        json: String,
    },
}

/// What the end of an answer so far is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Open {
    Text,
    Reasoning,
    Arguments(u32),
}

/// How an answer ended that nobody has taken yet.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum End {
    Ended(StreamEnd),
    Failed(Failure),
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("id", &self.id)
            .field("wire_id", &self.wire_id)
            .field("next_sequence", &self.next_sequence)
            .field("whole", &self.whole)
            .field("bytes", &self.bytes())
            .field("ended", &self.end.is_some())
            .finish_non_exhaustive()
    }
}

impl PartialEq for Kept {
    /// As they are written.
    fn eq(&self, other: &Self) -> bool {
        serde_json::to_string(self).ok() == serde_json::to_string(other).ok()
    }
}

/// A kept question, for a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its id.
    pub id: RequestId,
    /// How it begins.
    pub title: String,
    /// When it was sent, ms since 1970.
    pub sent_at: UnixMillis,
    /// Bytes of its answer that are here.
    pub bytes: u64,
    /// Whether more of it may come.
    pub open: bool,
}

/// Why no question goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotChosen {
    /// There is none.
    #[error("nothing to resume: no question is unfinished on this device")]
    Nothing,
    /// The one that was named is none of them.
    #[error("{0} is not unfinished on this device, or whoever asked it still reads it")]
    Unknown(RequestId),
    /// None was named, and there are several.
    #[error("{0} questions are unfinished; name one: --resume ID")]
    Several(usize),
}

/// Which of the unfinished questions goes on: the one that is named, or the only one.
///
/// # Errors
///
/// [`NotChosen`].
pub fn choose(wanted: Option<RequestId>, unfinished: &[Listed]) -> Result<RequestId, NotChosen> {
    match (wanted, unfinished) {
        (Some(id), all) if all.iter().any(|listed| listed.id == id) => Ok(id),
        (Some(id), _) => Err(NotChosen::Unknown(id)),
        (None, []) => Err(NotChosen::Nothing),
        (None, [only]) => Ok(only.id),
        (None, several) => Err(NotChosen::Several(several.len())),
    }
}

impl Listed {
    /// A line of a list for people.
    #[must_use]
    pub fn line(&self) -> String {
        let ended = if self.open { "" } else { ", ended" };
        let title = printable(&self.title);
        format!("{}  {} bytes so far{ended}  {title}", self.id, self.bytes)
    }
}

impl Said {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Text(text) | Self::Reasoning(text) | Self::Signature(text) => text.len(),
            Self::ToolCall { id, name, .. } => id.len() + name.len(),
            Self::Arguments { json, .. } => json.len(),
        }
    }

    /// More of the same is put to it.
    fn append(&mut self, more: Self) -> Option<Self> {
        match (self, more) {
            (Self::Text(text), Self::Text(more))
            | (Self::Reasoning(text), Self::Reasoning(more)) => text.push_str(&more),
            (
                Self::Arguments { index, json },
                Self::Arguments {
                    index: of,
                    json: more,
                },
            ) if *index == of => {
                json.push_str(&more);
            }
            (_, other) => return Some(other),
        }
        None
    }
}

impl From<&Delta> for Said {
    fn from(delta: &Delta) -> Self {
        match delta.clone() {
            Delta::Reasoning(text) => Self::Reasoning(text),
            Delta::Signature(text) => Self::Signature(text),
            Delta::ToolCall { index, id, name } => Self::ToolCall { index, id, name },
            Delta::Arguments { index, json } => Self::Arguments { index, json },
        }
    }
}

/// What was given out of one answer.
#[derive(Clone, Default)]
pub(super) struct Transcript {
    pub(super) parts: Vec<Said>,
    pub(super) bytes: usize,
}

impl Transcript {
    pub(super) fn of(parts: Vec<Said>) -> Self {
        let bytes = parts.iter().map(Said::bytes).sum();
        Self { parts, bytes }
    }

    pub(super) fn push(&mut self, said: Said) {
        self.bytes += said.bytes();
        let rest = match self.parts.last_mut() {
            Some(last) => last.append(said),
            None => Some(said),
        };
        self.parts.extend(rest);
    }
}

impl Kept {
    /// Bytes of text in it, about.
    pub(super) fn bytes(&self) -> usize {
        let said: usize = self.said.iter().map(Said::bytes).sum();
        let hidden: usize = self.hidden.iter().map(|(_, value)| value.len()).sum();
        said + self.held.len() + hidden
    }

    pub(super) fn listed(&self) -> Listed {
        Listed {
            id: self.id,
            title: self.title.clone(),
            sent_at: self.sent_at,
            bytes: self.said.iter().map(Said::bytes).sum::<usize>() as u64,
            open: self.end.is_none(),
        }
    }

    /// Whether its parts belong together. An answer that came as one has text and no piece.
    fn fits(&self) -> bool {
        let request = self
            .request
            .as_deref()
            .is_none_or(|request| request.request_id == self.wire_id && validate(request).is_ok());
        let nothing_came = !self.whole && self.said.is_empty();
        let pieces = self.next_sequence > 0 || self.end.is_some() || nothing_came;
        request && pieces && (self.asked_anew || self.id == self.wire_id)
    }
}

impl Said {
    /// As it is given out again: long texts in parts.
    pub(super) fn events(&self) -> Vec<AnswerEvent> {
        let parts = |text: &str, event: &dyn Fn(String) -> AnswerEvent| {
            let mut rest = text;
            let mut events = Vec::new();
            while !rest.is_empty() {
                let end = rest.floor_char_boundary(limits::UNFINISHED_PIECE_BYTES);
                let (part, after) = rest.split_at(end);
                events.push(event(part.to_owned()));
                rest = after;
            }
            events
        };
        match self {
            Self::Text(text) => parts(text, &AnswerEvent::Chunk),
            Self::Reasoning(text) => {
                parts(text, &|part| AnswerEvent::Delta(Delta::Reasoning(part)))
            }
            Self::Arguments { index, json } => parts(json, &|json| {
                let index = *index;
                AnswerEvent::Delta(Delta::Arguments { index, json })
            }),
            Self::Signature(text) => vec![AnswerEvent::Delta(Delta::Signature(text.clone()))],
            Self::ToolCall { index, id, name } => vec![AnswerEvent::Delta(Delta::ToolCall {
                index: *index,
                id: id.clone(),
                name: name.clone(),
            })],
        }
    }

    /// What an event gives out, if it gives something out.
    pub(super) fn of(event: &AnswerEvent) -> Option<Self> {
        match event {
            AnswerEvent::Chunk(text) => Some(Self::Text(text.clone())),
            AnswerEvent::Delta(delta) => Some(Self::from(delta)),
            AnswerEvent::Cut
            | AnswerEvent::Resumed { .. }
            | AnswerEvent::Notice(_)
            | AnswerEvent::Ended(_)
            | AnswerEvent::Whole(_)
            | AnswerEvent::Failed(_) => None,
        }
    }
}

/// How a question begins, for lists: one line.
pub(super) fn title(request: &EscalationRequest, hidden: &Mapping) -> String {
    let words = request.query.split_whitespace();
    let mut title = String::new();
    for word in words {
        if title.chars().count() >= TITLE_CHARS {
            break;
        }
        if !title.is_empty() {
            title.push(' ');
        }
        title.push_str(hidden.value(word).unwrap_or(word));
    }
    title.chars().take(TITLE_CHARS).collect()
}

/// What a question was asked with, as sent: equal for the same question.
pub(super) fn digest(frame: &[u8]) -> u64 {
    let hash: [u8; 32] = Sha256::digest(frame).into();
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    u64::from_be_bytes(first)
}

#[derive(Serialize, Deserialize)]
struct Head {
    format: String,
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<DeviceId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

/// Why a file is not believed. The words show nothing of what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Cut short, changed, or never a file of ours.
    #[error("it is damaged, or no file of unfinished questions")]
    Damaged,
    /// Of a later version.
    #[error("a later version of Synesis wrote it (format {0}, this one reads {VERSION})")]
    Newer(u32),
    /// Of another device.
    #[error("it is another device's")]
    Foreign,
}

impl Unfinished {
    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.questions.is_empty()
    }

    /// How many questions are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.questions.len()
    }

    /// Their ids.
    pub fn ids(&self) -> impl Iterator<Item = RequestId> {
        self.questions.iter().map(|kept| kept.id)
    }

    /// What another process of the device kept, too: the first of an id counts.
    pub fn add(&mut self, other: Self) {
        for kept in other.questions {
            if self.ids().all(|id| id != kept.id) {
                self.questions.push(kept);
            }
        }
    }

    /// The file's bytes.
    ///
    /// # Errors
    ///
    /// What cannot be written as JSON; nothing of ours is that.
    pub fn encode(&self, device: DeviceId) -> Result<Vec<u8>, serde_json::Error> {
        let body = serde_json::to_vec(&self.questions)?;
        let head = Head {
            format: FORMAT.to_owned(),
            version: VERSION,
            device: Some(device),
            sha256: Some(checksum(&body)),
        };
        let mut bytes = serde_json::to_vec(&head)?;
        bytes.push(b'\n');
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    /// Reads a file's bytes.
    ///
    /// # Errors
    ///
    /// [`Unreadable`].
    pub fn decode(bytes: &[u8], device: DeviceId) -> Result<Self, Unreadable> {
        if bytes.len() > limits::UNFINISHED_FILE_BYTES_MAX {
            return Err(Unreadable::Damaged);
        }
        let feed = bytes.iter().position(|byte| *byte == b'\n');
        let (head, body) = feed
            .and_then(|at| Some((bytes.get(..at)?, bytes.get(at + 1..)?)))
            .ok_or(Unreadable::Damaged)?;
        let head: Head = serde_json::from_slice(head)
            .ok()
            .filter(|head: &Head| head.format == FORMAT && head.version > 0)
            .ok_or(Unreadable::Damaged)?;
        if head.version > VERSION {
            return Err(Unreadable::Newer(head.version));
        }
        if head.sha256 != Some(checksum(body)) {
            return Err(Unreadable::Damaged);
        }
        if head.device != Some(device) {
            return Err(Unreadable::Foreign);
        }
        let questions: Vec<Kept> = serde_json::from_slice(body).map_err(|_| Unreadable::Damaged)?;
        if questions.iter().all(Kept::fits) {
            Ok(Self { questions })
        } else {
            Err(Unreadable::Damaged)
        }
    }
}

fn checksum(body: &[u8]) -> String {
    let hash: [u8; 32] = Sha256::digest(body).into();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl From<&AskError> for Failure {
    fn from(error: &AskError) -> Self {
        let mut failure = Self::new(error.class(), &error.to_string());
        match error {
            AskError::Remote(message) => failure.gateway = Some(message.clone()),
            AskError::Earlier(earlier) => return (**earlier).clone(),
            AskError::Invalid(_)
            | AskError::Private(_)
            | AskError::TooLarge
            | AskError::Duplicate
            | AskError::Busy
            | AskError::NotConnected(_)
            | AskError::TunnelLost(_)
            | AskError::TimedOut
            | AskError::Silent(_)
            | AskError::TooLate
            | AskError::NothingKept
            | AskError::Cancelled
            | AskError::Protocol(_) => {}
        }
        failure
    }
}

impl From<Failure> for AskError {
    fn from(failure: Failure) -> Self {
        match failure.gateway {
            Some(message) => Self::Remote(message),
            None => Self::Earlier(Box::new(failure)),
        }
    }
}

#[cfg(test)]
mod tests;
