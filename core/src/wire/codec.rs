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
    let envelope: Envelope<'_> = serde_json::from_slice(payload).map_err(malformed)?;
    if envelope.tag != frame_type.name() {
        return Err(MessageError::TagMismatch { frame_type });
    }
    data(frame_type, envelope.data.get())
        .map_err(malformed)?
        .ok_or(MessageError::Binary)
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
mod tests {
    use super::*;
    use crate::ids::{DeviceId, RequestId};
    use crate::time::UnixMillis;
    use crate::wire::message::{Call, Cancel, Hello, StreamChunk};

    fn cancel() -> Message {
        Message::Cancel(Cancel {
            request_id: RequestId::from_u128(0xAB),
        })
    }

    #[test]
    fn a_frame_is_the_bytes_written_by_hand() {
        let mut out = b"before".to_vec();
        encode(&cancel(), &mut out).unwrap();
        let json =
            r#"{"type":"Cancel","data":{"request_id":"req_000000000000000000000000000000ab"}}"#;
        let mut expected = b"before\x14\x00\x00\x00\x4e".to_vec();
        assert_eq!(json.len(), 0x4e);
        expected.extend_from_slice(json.as_bytes());
        assert_eq!(out, expected);
    }

    #[test]
    fn the_envelope_may_come_in_either_order_and_with_more_fields() {
        let json = br#"{"data":{"device_id":"device-00000000-0000-0000-0000-000000000001","agent":"a","new":1},"x":2,"type":"Hello"}"#;
        let Ok(Message::Hello(hello)) = decode(FrameType::Hello, json) else {
            panic!()
        };
        let device_id = DeviceId::from_u128(1);
        assert_eq!(
            hello,
            Hello {
                device_id,
                agent: "a".into(),
                features: vec![]
            }
        );
    }

    #[test]
    fn raw_json_stays_byte_for_byte_what_it_was() {
        let json = r#"{"type":"Call","data":{"id":1,"method":"m","params":{"z": 1.50,  "a":[ ]}}}"#;
        let Ok(Message::Call(call)) = decode(FrameType::Call, json.as_bytes()) else {
            panic!()
        };
        assert_eq!(
            call.params.as_ref().unwrap().get(),
            r#"{"z": 1.50,  "a":[ ]}"#
        );
        let mut out = Vec::new();
        encode(&Message::Call(Call { ..call }), &mut out).unwrap();
        assert!(
            String::from_utf8(out)
                .unwrap()
                .contains(r#"{"z": 1.50,  "a":[ ]}"#)
        );
    }

    #[test]
    fn a_tag_that_disagrees_with_the_type_byte_is_refused() {
        let json =
            br#"{"type":"Hello","data":{"request_id":"req_000000000000000000000000000000ab"}}"#;
        let error = decode(FrameType::Cancel, json).unwrap_err();
        assert_eq!(
            error,
            MessageError::TagMismatch {
                frame_type: FrameType::Cancel
            }
        );
    }

    #[test]
    fn malformed_payloads_are_refused_without_repeating_them() {
        let deep = "[".repeat(100_000);
        for payload in [
            "",
            "{",
            "null",
            "secret",
            r#"{"type":"Cancel"}"#,
            &deep,
            "\u{0}",
        ] {
            let error = decode(FrameType::Cancel, payload.as_bytes()).unwrap_err();
            assert!(matches!(error, MessageError::Malformed { .. }), "{error}");
            assert!(!error.to_string().contains("secret"));
        }
        let bad_utf8 = b"{\"type\":\"Cancel\",\"data\":{\"request_id\":\"\xFF\"}}";
        assert!(decode(FrameType::Cancel, bad_utf8).is_err());
        assert_eq!(
            decode(FrameType::UploadChunk, b"{}").unwrap_err(),
            MessageError::Binary
        );
    }

    #[test]
    fn a_payload_over_its_limit_is_not_sent_and_leaves_nothing_behind() {
        let chunk = |bytes: usize| {
            Message::StreamChunk(StreamChunk {
                request_id: RequestId::from_u128(1),
                content: "x".repeat(bytes),
                sequence: 0,
                is_final: false,
                delta: None,
            })
        };
        let mut out = b"before".to_vec();
        let frame_type = FrameType::StreamChunk;
        let error = encode(&chunk(262_144), &mut out).unwrap_err();
        assert!(
            matches!(error, EncodeError::TooLong { max: 262_144, .. }),
            "{error}"
        );
        assert_eq!(out, b"before");
        encode(&chunk(262_000), &mut out).unwrap();
        assert_eq!(out[6], frame_type.as_u8());
    }

    #[test]
    fn a_number_that_is_none_is_not_sent() {
        let vitals = crate::wire::message::Vitals {
            cpu_usage: f32::NAN,
            ..Default::default()
        };
        let beat = Message::Heartbeat(crate::wire::message::Heartbeat {
            device_id: DeviceId::from_u128(1),
            timestamp: UnixMillis(1),
            sequence: 1,
            vitals,
        });
        let mut out = Vec::new();
        // JSON has no NaN: it is written as null, which no gateway reads as a number.
        encode(&beat, &mut out).unwrap();
        assert!(decode(FrameType::Heartbeat, &out[5..]).is_err());
    }

    #[test]
    fn an_upload_chunk_needs_its_digest() {
        assert_eq!(
            split_upload_chunk(&[0; 31]),
            Err(MessageError::ChunkTooShort { length: 31 })
        );
        assert_eq!(split_upload_chunk(&[7; 33]).unwrap(), (&[7; 32], &[7][..]));
    }
}
