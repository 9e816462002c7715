//! Messages: what is understood of a payload is written back as it was meant.
//!
//! An input is a frame's type byte and its payload.

use mesh_core::wire::codec::{EncodeError, MessageError, decode, encode, split_upload_chunk};
use mesh_core::wire::frame::FrameType;
use serde_json::Value;

use crate::{golden, memory};

const MEMORY_FIXED: usize = 16 * 1024;
/// The dearest byte is that of an empty text in a list: three bytes of JSON are 24 of memory, in a
/// buffer that doubles and is copied as it grows.
const MEMORY_PER_BYTE: usize = 40;
/// `Notice` and `Error` hold trees, where `{"":0},` is a node of over 600 bytes; their frames have
/// at most 4 KiB.
const MEMORY_PER_BYTE_OF_TREES: usize = 160;
/// The dearest number is written with all its zeros: `9e15` becomes 18 characters. The fixed part
/// is what a default context has to say.
const WRITTEN_PER_BYTE: usize = 5;
const WRITTEN_FIXED: usize = 1024;

/// See the module documentation.
pub fn run(data: &[u8]) {
    let Some((&number, payload)) = data.split_first() else {
        return;
    };
    let known = golden::frame(number);
    let frame_type = FrameType::from_u8(number);
    assert_eq!(frame_type.is_some(), known.is_some(), "0x{number:02x}");
    let (Some(frame_type), Some((name, max))) = (frame_type, known) else {
        return;
    };
    assert_eq!((frame_type.name(), frame_type.payload_max()), (name, max));
    if payload.len() > max {
        return;
    }
    if name == "UploadChunk" {
        upload_chunk(payload);
        return;
    }
    let (decoded, used) = memory::used(|| decode(frame_type, payload));
    let per_byte = match name {
        "Notice" | "Error" | "Reply" => MEMORY_PER_BYTE_OF_TREES,
        _ => MEMORY_PER_BYTE,
    };
    let allowed = MEMORY_FIXED + per_byte * payload.len();
    assert!(
        used.peak <= allowed && used.total <= allowed,
        "{used:?} for {} bytes",
        payload.len()
    );
    match decoded {
        Err(error) => shows_nothing(&error),
        Ok(message) => {
            assert_eq!(message.frame_type(), frame_type);
            let mut frame = b"before".to_vec();
            match encode(&message, &mut frame) {
                Ok(()) => written_back(number, payload, &frame[6..]),
                Err(EncodeError::TooLong {
                    length, max: said, ..
                }) => {
                    assert_eq!((said, frame.as_slice()), (max, b"before".as_slice()));
                    assert!(length > max);
                    assert!(length <= WRITTEN_FIXED + WRITTEN_PER_BYTE * payload.len());
                }
                Err(EncodeError::Unwritable { .. }) => {
                    unreachable!("what was read cannot be written")
                }
            }
        }
    }
}

/// An error is a place and a type, never a part of the payload.
fn shows_nothing(error: &MessageError) {
    let shown = format!("{error} {error:?}");
    assert!(shown.len() < 250, "{shown}");
}

fn written_back(number: u8, payload: &[u8], frame: &[u8]) {
    let [first, a, b, c, d, written @ ..] = frame else {
        unreachable!("a frame without a header");
    };
    assert_eq!(*first, number);
    assert_eq!(u32::from_be_bytes([*a, *b, *c, *d]) as usize, written.len());
    assert!(written.len() <= WRITTEN_FIXED + WRITTEN_PER_BYTE * payload.len());

    let Some(frame_type) = FrameType::from_u8(number) else {
        return;
    };
    let again = decode(frame_type, written);
    let Ok(again) = again else {
        unreachable!("what was written cannot be read: {again:?}");
    };
    let mut twice = Vec::new();
    assert_eq!(encode(&again, &mut twice), Ok(()));
    if twice != frame {
        // In a tree a number of double precision may be read one unit in its last place off.
        let tree = |frame: &[u8]| serde_json::from_slice::<Value>(&frame[5..]).unwrap_or_default();
        assert!(
            matches!(number, 0x07 | 0x16),
            "written another time it is another frame"
        );
        agrees(&tree(frame), &tree(&twice), "again");
    }

    // A tree is not read deeper than 128; raw JSON may be deeper.
    let trees = (
        serde_json::from_slice::<Value>(payload),
        serde_json::from_slice::<Value>(written),
    );
    if let (Ok(meant), Ok(written)) = trees {
        assert!(meant["type"].is_string() && meant["data"].is_object());
        assert_eq!(meant["type"], written["type"]);
        agrees(&meant["data"], &written["data"], "data");
    }
}

/// Whatever is written is what was meant; what was not said is its default.
fn agrees(meant: &Value, written: &Value, at: &str) {
    match (meant, written) {
        (Value::Object(meant), Value::Object(written)) => {
            for (name, written) in written {
                match meant.get(name) {
                    Some(meant) if !meant.is_null() => agrees(meant, written, name),
                    Some(_) | None => is_default(written, name),
                }
            }
        }
        (Value::Array(meant), Value::Array(written)) => {
            assert_eq!(meant.len(), written.len(), "{at}");
            for (meant, written) in meant.iter().zip(written) {
                agrees(meant, written, at);
            }
        }
        (Value::Number(meant), Value::Number(written)) => {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the wire's fractions are single precision"
            )]
            let single = |number: &serde_json::Number| number.as_f64().map(|n| n as f32);
            assert!(meant == written || single(meant) == single(written), "{at}");
        }
        // A structure may be written as the list of its fields, a name as an object of one.
        (Value::Array(_), Value::Object(_)) => {}
        (Value::Object(meant), Value::String(written)) => {
            assert!(meant.len() == 1 && meant.contains_key(written), "{at}");
        }
        (meant, written) => assert!(meant == written, "{at}"),
    }
}

fn is_default(written: &Value, at: &str) {
    let default = match written {
        Value::Null => true,
        Value::Bool(is) => !is,
        Value::Number(number) => number.as_u64() == Some(0) || at == "escalations_max",
        Value::String(text) => matches!(text.as_str(), "" | "normal" | "professional"),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => {
            object
                .iter()
                .for_each(|(name, value)| is_default(value, name));
            true
        }
    };
    assert!(default, "{at} was not said and is written as {written}");
}

fn upload_chunk(payload: &[u8]) {
    assert!(matches!(
        decode(FrameType::UploadChunk, payload),
        Err(MessageError::Binary)
    ));
    match split_upload_chunk(payload) {
        Ok((digest, bytes)) => {
            assert!(payload.starts_with(digest) && payload.ends_with(bytes));
            assert_eq!(bytes.len() + 32, payload.len());
        }
        Err(error) => {
            assert!(payload.len() < 32);
            shows_nothing(&error);
        }
    }
}
