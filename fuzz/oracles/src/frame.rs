//! Frames: both decoders, under every kind of cut, against a decoder of ten lines.

use mesh_core::wire::frame::{self, Bulk, BulkDecoder, FrameDecoder, FrameError};

use crate::{cuts, golden, memory};

/// What the bytes before a frame's end cost at most, however they come: the first carry is 16 KiB.
const MEMORY_FIXED: usize = 20 * 1024;
/// A carry at most doubles and is copied when it grows; old and new are held together for a moment.
const MEMORY_PER_BYTE: usize = 4;

/// How a byte string ends, as a decoder of frames sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Between two frames.
    Clean,
    /// Within one.
    Inside,
    /// With a type that is not ours and no extension.
    Unknown(u8),
    /// With a length over the type's limit.
    TooLong(u8, usize),
}

type Frames = Vec<(u8, Vec<u8>)>;

/// The whole of the specification, on a whole byte string. The last is whether an extension was skipped.
fn naive(mut bytes: &[u8]) -> (Frames, End, bool) {
    let (mut frames, mut skipped) = (Vec::new(), false);
    while let [number, a, b, c, d, rest @ ..] = bytes {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        match golden::frame(*number) {
            None if *number < 0x80 => return (frames, End::Unknown(*number), skipped),
            Some((_, max)) if length > max => {
                return (frames, End::TooLong(*number, length), skipped);
            }
            Some(_) | None if rest.len() < length => return (frames, End::Inside, skipped),
            Some(_) => frames.push((*number, rest[..length].to_vec())),
            None => skipped = true,
        }
        bytes = &rest[length..];
    }
    (
        frames,
        if bytes.is_empty() {
            End::Clean
        } else {
            End::Inside
        },
        skipped,
    )
}

fn error(error: FrameError) -> End {
    match error {
        FrameError::UnknownType { number } => End::Unknown(number),
        FrameError::TooLong {
            frame_type,
            length,
            max,
        } => {
            assert_eq!(
                golden::frame(frame_type.as_u8()).map(|(_, max)| max),
                Some(max)
            );
            End::TooLong(frame_type.as_u8(), length)
        }
    }
}

fn whole(pieces: &[&[u8]]) -> (Frames, End) {
    let mut decoder = FrameDecoder::new();
    let mut frames = Vec::new();
    let mut end = None;
    for piece in pieces {
        let mut fed = decoder.feed(piece);
        // An error does not go away: it is asked for twice.
        let mut errors = 0;
        while let Some(next) = fed.next() {
            match next {
                Ok(frame) => {
                    assert_eq!(end, None, "a frame after an error");
                    frames.push((frame.frame_type.as_u8(), frame.payload.to_vec()));
                }
                Err(found) => {
                    let found = error(found);
                    assert_eq!(*end.get_or_insert(found), found, "the error changed");
                    errors += 1;
                    if errors == 2 {
                        break;
                    }
                }
            }
        }
        assert!(end.is_none() || errors == 2, "the error went away");
    }
    let between = decoder.is_between_frames();
    let end = end.unwrap_or(if between { End::Clean } else { End::Inside });
    if end != End::Inside {
        assert_eq!(decoder.buffered(), 0, "memory is held between frames");
    }
    (frames, end)
}

fn bulk(pieces: &[&[u8]]) -> (Frames, Option<End>, Option<(usize, usize)>) {
    let mut decoder = BulkDecoder::new();
    let mut frames: Frames = Vec::new();
    // What was announced for the frame under way, and what of it has come.
    let mut open: Option<(usize, usize)> = None;
    for piece in pieces {
        let mut input = *piece;
        loop {
            match decoder.next(&mut input) {
                Ok(None) => break,
                Ok(Some(Bulk::Begin { frame_type, length })) => {
                    assert_eq!(open, None, "a frame begins within another");
                    open = Some((length, 0));
                    frames.push((frame_type.as_u8(), Vec::new()));
                }
                Ok(Some(Bulk::Payload(bytes))) => {
                    assert!(!bytes.is_empty(), "an empty piece");
                    let (Some((_, have)), Some((_, payload))) = (&mut open, frames.last_mut())
                    else {
                        unreachable!("payload outside of a frame");
                    };
                    *have += bytes.len();
                    payload.extend_from_slice(bytes);
                }
                Ok(Some(Bulk::End)) => {
                    let (announced, have) = open.take().unwrap_or((0, usize::MAX));
                    assert_eq!(announced, have, "a frame ends short");
                }
                Err(found) => {
                    assert_eq!(decoder.next(&mut input), Err(found), "the error went away");
                    return (frames, Some(error(found)), open);
                }
            }
        }
        assert!(input.is_empty(), "bytes were left");
    }
    (frames, None, open)
}

/// See the module documentation.
pub fn run(data: &[u8]) {
    let (expected, end, skipped) = naive(data);
    cuts::each(data, |pieces| {
        let (frames, found) = whole(pieces);
        assert!(frames == expected, "other frames than the naive decoder's");
        assert_eq!(found, end);

        let (mut frames, found, open) = bulk(pieces);
        if open.is_some() {
            frames.pop();
        }
        assert!(frames == expected, "the bulk decoder gives other frames");
        match end {
            End::Unknown(_) | End::TooLong(..) => assert_eq!(found, Some(end)),
            End::Clean => assert_eq!((found, open), (None, None)),
            End::Inside => assert_eq!(found, None),
        }
    });
    memory_grows_with_what_has_come(data);
    encoding_is_the_inverse(data, &expected, end, skipped);
}

fn memory_grows_with_what_has_come(data: &[u8]) {
    let pieces = cuts::pseudorandom(data, 64);
    let ((), used) = memory::used(|| {
        let mut decoder = FrameDecoder::new();
        for piece in &pieces {
            let mut fed = decoder.feed(piece);
            while let Some(Ok(_)) = fed.next() {}
            assert!(decoder.buffered() <= MEMORY_FIXED + 2 * data.len());
        }
    });
    let allowed = MEMORY_FIXED + MEMORY_PER_BYTE * data.len();
    assert!(used.peak <= allowed, "{used:?} for {} bytes", data.len());
    assert!(used.total <= allowed, "{used:?} for {} bytes", data.len());
    let ((), bulk) = memory::used(|| {
        let mut decoder = BulkDecoder::new();
        for mut piece in pieces.iter().copied() {
            while let Ok(Some(_)) = decoder.next(&mut piece) {}
        }
    });
    assert_eq!(bulk.total, 0, "the bulk decoder keeps something");
}

fn encoding_is_the_inverse(data: &[u8], frames: &Frames, end: End, skipped: bool) {
    let mut encoded = Vec::new();
    for (number, payload) in frames {
        let Some(frame_type) = frame::FrameType::from_u8(*number) else {
            unreachable!("the decoder gave a type that is none");
        };
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        encoded.extend_from_slice(&frame::header(frame_type, length));
        encoded.extend_from_slice(payload);
    }
    if !skipped {
        assert!(data.starts_with(&encoded), "encoding gives other bytes");
        assert_eq!(end == End::Clean, encoded.len() == data.len());
    }
    assert!(whole(&[&encoded]) == (frames.clone(), End::Clean));
}
