//! Messages ↔ frames.
//!
//! A payload is `{"type":"Heartbeat","data":{…}}`, in either order. The envelope is read first and
//! `data` kept raw, so that raw JSON inside a message stays byte for byte what it was.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::frame::{self, FrameType};
use super::message::Message;
use crate::limits;

/// Why a payload is no message of its frame's type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Not JSON, or not with the fields that the message has. Only where, never what: the payload
    /// may be private.
    #[error("the {frame_type:?} payload is not valid (line {line}, column {column})")]
    Malformed {
        /// The frame's type.
        frame_type: FrameType,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// The tag names another message than the frame's type byte.
    #[error("a {frame_type:?} frame whose payload says it is another message")]
    TagMismatch {
        /// The frame's type.
        frame_type: FrameType,
    },
    /// An upload chunk is binary, and shorter than its digest.
    #[error("an upload chunk of {length} bytes has no room for its digest")]
    ChunkTooShort {
        /// Bytes.
        length: usize,
    },
    /// An upload chunk is binary and no JSON message.
    #[error("an upload chunk is not a message")]
    Binary,
}

/// Why a message cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The payload is over its type's limit.
    #[error("a {frame_type:?} message of {length} bytes; at most {max} fit a frame")]
    TooLong {
        /// The frame's type.
        frame_type: FrameType,
        /// The payload, bytes.
        length: usize,
        /// The payload allowed, bytes.
        max: usize,
    },
    /// The message holds a number that JSON cannot write.
    #[error("a {frame_type:?} message that JSON cannot write")]
    Unwritable {
        /// The frame's type.
        frame_type: FrameType,
    },
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "type")]
    tag: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Serialize)]
struct EnvelopeRef<'a, T> {
    #[serde(rename = "type")]
    tag: &'static str,
    data: &'a T,
}

/// Reads the payload of a frame.
///
/// # Errors
///
/// [`MessageError`], which never repeats the payload.
pub fn decode(frame_type: FrameType, payload: &[u8]) -> Result<Message, MessageError> {
    if frame_type == FrameType::UploadChunk {
        return Err(MessageError::Binary);
    }
    let malformed = |error: serde_json::Error| MessageError::Malformed {
        frame_type,
        line: error.line(),
        column: error.column(),
    };
    let text = std::str::from_utf8(payload).map_err(|error| MessageError::Malformed {
        frame_type,
        line: 1,
        column: error.valid_up_to() + 1,
    })?;
    let no_object = MessageError::Malformed {
        frame_type,
        line: 1,
        column: 1,
    };
    if !is_object(text) {
        return Err(no_object);
    }
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(malformed)?;
    if envelope.tag != frame_type.name() {
        return Err(MessageError::TagMismatch { frame_type });
    }
    if !is_object(envelope.data.get()) {
        return Err(no_object);
    }
    data(frame_type, envelope.data.get())
        .map_err(malformed)?
        .ok_or(MessageError::Binary)
}

/// serde alone would also take a list of the fields' values, a second spelling that nobody meant.
fn is_object(json: &str) -> bool {
    json.trim_ascii_start().starts_with('{')
}

fn data(frame_type: FrameType, json: &str) -> Result<Option<Message>, serde_json::Error> {
    fn read<T: DeserializeOwned>(json: &str) -> Result<T, serde_json::Error> {
        serde_json::from_str(json)
    }
    Ok(Some(match frame_type {
        FrameType::Heartbeat => Message::Heartbeat(read(json)?),
        FrameType::HeartbeatAck => Message::HeartbeatAck(read(json)?),
        FrameType::EscalationRequest => Message::EscalationRequest(read(json)?),
        FrameType::EscalationResponse => Message::EscalationResponse(read(json)?),
        FrameType::StreamChunk => Message::StreamChunk(read(json)?),
        FrameType::StreamEnd => Message::StreamEnd(read(json)?),
        FrameType::Error => Message::Error(read(json)?),
        FrameType::PrewarmSignal => Message::PrewarmSignal(read(json)?),
        FrameType::Hello => Message::Hello(read(json)?),
        FrameType::HelloAck => Message::HelloAck(read(json)?),
        FrameType::GoAway => Message::GoAway(read(json)?),
        FrameType::Resume => Message::Resume(read(json)?),
        FrameType::Cancel => Message::Cancel(read(json)?),
        FrameType::ChunkAck => Message::ChunkAck(read(json)?),
        FrameType::Notice => Message::Notice(read(json)?),
        FrameType::Call => Message::Call(read(json)?),
        FrameType::Reply => Message::Reply(read(json)?),
        FrameType::UploadBegin => Message::UploadBegin(read(json)?),
        FrameType::UploadReady => Message::UploadReady(read(json)?),
        FrameType::UploadAck => Message::UploadAck(read(json)?),
        FrameType::UploadDone => Message::UploadDone(read(json)?),
        FrameType::UploadChunk => return Ok(None),
    }))
}

/// Appends the message's frame to `out`; on an error `out` is as it was.
///
/// # Errors
///
/// [`EncodeError`] when the payload is over its limit or holds a number that is none.
pub fn encode(message: &Message, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match message {
        Message::Heartbeat(data) => append(FrameType::Heartbeat, data, out),
        Message::HeartbeatAck(data) => append(FrameType::HeartbeatAck, data, out),
        Message::EscalationRequest(data) => append(FrameType::EscalationRequest, data, out),
        Message::EscalationResponse(data) => append(FrameType::EscalationResponse, data, out),
        Message::StreamChunk(data) => append(FrameType::StreamChunk, data, out),
        Message::StreamEnd(data) => append(FrameType::StreamEnd, data, out),
        Message::Error(data) => append(FrameType::Error, data, out),
        Message::PrewarmSignal(data) => append(FrameType::PrewarmSignal, data, out),
        Message::Hello(data) => append(FrameType::Hello, data, out),
        Message::HelloAck(data) => append(FrameType::HelloAck, data, out),
        Message::GoAway(data) => append(FrameType::GoAway, data, out),
        Message::Resume(data) => append(FrameType::Resume, data, out),
        Message::Cancel(data) => append(FrameType::Cancel, data, out),
        Message::ChunkAck(data) => append(FrameType::ChunkAck, data, out),
        Message::Notice(data) => append(FrameType::Notice, data, out),
        Message::Call(data) => append(FrameType::Call, data, out),
        Message::Reply(data) => append(FrameType::Reply, data, out),
        Message::UploadBegin(data) => append(FrameType::UploadBegin, data, out),
        Message::UploadReady(data) => append(FrameType::UploadReady, data, out),
        Message::UploadAck(data) => append(FrameType::UploadAck, data, out),
        Message::UploadDone(data) => append(FrameType::UploadDone, data, out),
    }
}

fn append<T: Serialize>(
    frame_type: FrameType,
    data: &T,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.extend_from_slice(&frame::header(frame_type, 0));
    let envelope = EnvelopeRef {
        tag: frame_type.name(),
        data,
    };
    if serde_json::to_writer(&mut *out, &envelope).is_err() {
        out.truncate(start);
        return Err(EncodeError::Unwritable { frame_type });
    }
    let length = out.len() - start - limits::FRAME_HEADER_BYTES;
    let max = frame_type.payload_max();
    let announced = match u32::try_from(length) {
        Ok(announced) if length <= max => announced,
        _ => {
            out.truncate(start);
            return Err(EncodeError::TooLong {
                frame_type,
                length,
                max,
            });
        }
    };
    let header = frame::header(frame_type, announced);
    out[start..start + limits::FRAME_HEADER_BYTES].copy_from_slice(&header);
    Ok(())
}

/// Appends the frame of an upload chunk to `out`; on an error `out` is as it was. `digest` is the
/// SHA-256 of `bytes`.
///
/// # Errors
///
/// [`EncodeError::TooLong`] for more than 1 MiB.
pub fn encode_upload_chunk(
    digest: &[u8; 32],
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let frame_type = FrameType::UploadChunk;
    let length = digest.len() + bytes.len();
    let max = frame_type.payload_max();
    let announced = match u32::try_from(length) {
        Ok(announced) if length <= max => announced,
        _ => {
            return Err(EncodeError::TooLong {
                frame_type,
                length,
                max,
            });
        }
    };
    out.reserve(limits::FRAME_HEADER_BYTES + length);
    out.extend_from_slice(&frame::header(frame_type, announced));
    out.extend_from_slice(digest);
    out.extend_from_slice(bytes);
    Ok(())
}

/// The payload of an upload chunk: 32 bytes of SHA-256, then the bytes it is of.
///
/// # Errors
///
/// [`MessageError::ChunkTooShort`] without room for the digest.
pub fn split_upload_chunk(payload: &[u8]) -> Result<(&[u8; 32], &[u8]), MessageError> {
    payload
        .split_first_chunk()
        .ok_or(MessageError::ChunkTooShort {
            length: payload.len(),
        })
}

#[cfg(test)]
mod tests;
