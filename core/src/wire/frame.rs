//! Bytes ↔ frames: `[type: 1 byte][length: 4 bytes, big-endian][payload]`.
//!
//! [`FrameDecoder`] gives whole frames and borrows their payload from the slice it is fed where it
//! can. [`BulkDecoder`] gives a frame in pieces as they come, for payloads that nobody needs whole.
//!
//! # Invariants
//!
//! 1. However the bytes are cut, the frames and the error are the same.
//! 2. A length over the type's limit is refused on the header, before one payload byte is kept.
//! 3. After an error a decoder stays in error.
//! 4. A decoder that waits for a frame's first byte holds no memory on the heap.
//! 5. Memory for a payload grows with the bytes that have come, not with the length that a header
//!    claims. An unknown extension is dropped as it comes, whatever its length.

mod kind;

use std::fmt;

pub use kind::{Direction, FrameType, StreamKind};

use crate::limits;

/// How bytes are no frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A type below 0x80 that is not ours.
    #[error("unknown frame type 0x{number:02x}")]
    UnknownType {
        /// Its number.
        number: u8,
    },
    /// A payload over the type's limit.
    #[error("a {frame_type:?} frame of {length} bytes; at most {max} are allowed")]
    TooLong {
        /// The frame's type.
        frame_type: FrameType,
        /// The payload announced, bytes.
        length: usize,
        /// The payload allowed, bytes.
        max: usize,
    },
}

/// One whole frame. Its payload is never printed: it may be private.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its type.
    pub frame_type: FrameType,
    /// Its payload, borrowed from what was fed or from the decoder.
    pub payload: &'a [u8],
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} frame of {} bytes",
            self.frame_type,
            self.payload.len()
        )
    }
}

/// A checked header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header {
    Known(FrameType, usize),
    Extension(usize),
}

#[inline]
fn parse_header(header: [u8; limits::FRAME_HEADER_BYTES]) -> Result<Header, FrameError> {
    let [number, length @ ..] = header;
    let length = u32::from_be_bytes(length) as usize;
    match FrameType::from_u8(number) {
        Some(frame_type) if length > frame_type.payload_max() => Err(FrameError::TooLong {
            frame_type,
            length,
            max: frame_type.payload_max(),
        }),
        Some(frame_type) => Ok(Header::Known(frame_type, length)),
        None if number >= kind::EXTENSIONS_FROM => Ok(Header::Extension(length)),
        None => Err(FrameError::UnknownType { number }),
    }
}

/// The bytes of a header that have come so far, fewer than five.
#[derive(Clone, Copy, Debug, Default)]
struct HeaderBytes {
    bytes: [u8; limits::FRAME_HEADER_BYTES],
    have: u8,
}

impl HeaderBytes {
    /// Takes what is missing from the front of `input`; the header once it is whole.
    #[inline]
    fn fill(&mut self, input: &mut &[u8]) -> Option<[u8; limits::FRAME_HEADER_BYTES]> {
        // The usual case: it lies whole in one slice.
        if self.have == 0
            && let Some((header, rest)) = input.split_first_chunk()
        {
            *input = rest;
            return Some(*header);
        }
        self.gather(input)
    }

    fn gather(&mut self, input: &mut &[u8]) -> Option<[u8; limits::FRAME_HEADER_BYTES]> {
        let missing = &mut self.bytes[usize::from(self.have)..];
        let (taken, rest) = input.split_at(input.len().min(missing.len()));
        missing[..taken.len()].copy_from_slice(taken);
        *input = rest;
        if taken.len() == missing.len() {
            self.have = 0;
            return Some(self.bytes);
        }
        // At most four, by the line above.
        self.have += u8::try_from(taken.len()).unwrap_or_default();
        None
    }
}

/// Drops up to `left` bytes from the front of `input`; what is then left to drop.
fn skip(left: usize, input: &mut &[u8]) -> usize {
    let skipped = input.len().min(left);
    *input = &input[skipped..];
    left - skipped
}

/// Where a [`FrameDecoder`] stands.
enum State {
    /// Waits for a header, or the rest of one.
    Header(HeaderBytes),
    /// Gathers the payload of a frame that did not lie whole in one slice.
    Payload {
        frame_type: FrameType,
        length: usize,
        carry: Vec<u8>,
    },
    /// Drops an unknown extension's payload.
    Skip(usize),
    /// Has lent out a gathered payload, which goes with the next step.
    Lent { carry: Vec<u8> },
    /// Has met bytes that are no frame.
    Broken(FrameError),
}

impl Default for State {
    fn default() -> Self {
        Self::Header(HeaderBytes::default())
    }
}

/// Whole frames out of slices of any size. See the module documentation.
#[derive(Default)]
pub struct FrameDecoder {
    state: State,
}

impl fmt::Debug for FrameDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Header(_) => "waits for a header",
            State::Payload { .. } => "gathers a payload",
            State::Skip(_) => "skips an extension",
            State::Lent { .. } => "has lent out a payload",
            State::Broken(_) => "broken",
        };
        f.debug_struct("FrameDecoder")
            .field("state", &state)
            .field("buffered", &self.buffered())
            .finish()
    }
}

impl FrameDecoder {
    /// A decoder that waits for a frame's first byte.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a slice; its frames come from the iterator. What the iterator is not asked for is lost,
    /// so drain it.
    pub fn feed<'d, 'i>(&'d mut self, input: &'i [u8]) -> Frames<'d, 'i> {
        Frames {
            decoder: self,
            input,
        }
    }

    /// Whether no frame is half received: a stream that ends now has ended properly.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        matches!(
            self.state,
            State::Header(HeaderBytes { have: 0, .. }) | State::Lent { .. }
        )
    }

    /// Bytes of memory held for a frame that is not whole yet.
    #[must_use]
    pub fn buffered(&self) -> usize {
        match &self.state {
            State::Payload { carry, .. } => carry.capacity(),
            State::Header(_) | State::Skip(_) | State::Lent { .. } | State::Broken(_) => 0,
        }
    }
}

/// The frames of one slice, in order. See [`FrameDecoder::feed`].
pub struct Frames<'d, 'i> {
    decoder: &'d mut FrameDecoder,
    input: &'i [u8],
}

impl fmt::Debug for Frames<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames")
            .field("decoder", &self.decoder)
            .field("left", &self.input.len())
            .finish()
    }
}

impl Frames<'_, '_> {
    /// The next frame; `None` when more bytes are needed. After an error the same error for ever:
    /// stop asking. Not an [`Iterator`]: a frame must be done with before the next is taken.
    #[expect(
        clippy::should_implement_trait,
        reason = "it lends, which an `Iterator` cannot"
    )]
    #[inline]
    pub fn next(&mut self) -> Option<Result<Frame<'_>, FrameError>> {
        // The usual case: header and payload lie whole in the slice.
        if let State::Header(HeaderBytes { have: 0, .. }) = self.decoder.state
            && let Some((header, rest)) = self.input.split_first_chunk()
            && let Ok(Header::Known(frame_type, length)) = parse_header(*header)
            && let Some((payload, rest)) = rest.split_at_checked(length)
        {
            self.input = rest;
            return Some(Ok(Frame {
                frame_type,
                payload,
            }));
        }
        self.step()
    }

    /// Everything but the usual case.
    fn step(&mut self) -> Option<Result<Frame<'_>, FrameError>> {
        loop {
            match &mut self.decoder.state {
                State::Broken(error) => return Some(Err(*error)),
                State::Lent { .. } => self.decoder.state = State::default(),
                State::Header(gathered) => {
                    let header = gathered.fill(&mut self.input)?;
                    match parse_header(header) {
                        Ok(Header::Known(frame_type, length)) => {
                            self.decoder.state = State::Payload {
                                frame_type,
                                length,
                                carry: Vec::new(),
                            };
                        }
                        Ok(Header::Extension(length)) => self.decoder.state = State::Skip(length),
                        Err(error) => self.decoder.state = State::Broken(error),
                    }
                }
                State::Skip(left) => {
                    *left = skip(*left, &mut self.input);
                    if *left > 0 {
                        return None;
                    }
                    self.decoder.state = State::default();
                }
                State::Payload {
                    frame_type,
                    length,
                    carry,
                } => {
                    let frame_type = *frame_type;
                    if carry.is_empty()
                        && let Some((payload, rest)) = self.input.split_at_checked(*length)
                    {
                        self.input = rest;
                        self.decoder.state = State::default();
                        return Some(Ok(Frame {
                            frame_type,
                            payload,
                        }));
                    }
                    gather(carry, *length, &mut self.input);
                    if carry.len() < *length {
                        return None;
                    }
                    let carry = std::mem::take(carry);
                    return Some(Ok(self.lend(frame_type, carry)));
                }
            }
        }
    }

    fn lend(&mut self, frame_type: FrameType, carry: Vec<u8>) -> Frame<'_> {
        self.decoder.state = State::Lent { carry };
        let payload = match &self.decoder.state {
            State::Lent { carry } => carry.as_slice(),
            State::Header(_) | State::Payload { .. } | State::Skip(_) | State::Broken(_) => &[],
        };
        Frame {
            frame_type,
            payload,
        }
    }
}

/// Moves what is missing of a payload from the front of `input` to `carry`.
///
/// Memory grows with what has come, not with what a header claims: past the first
/// [`limits::FRAME_CARRY_FIRST_BYTES`] it at most doubles, and never passes the payload's length.
fn gather(carry: &mut Vec<u8>, length: usize, input: &mut &[u8]) {
    let (taken, rest) = input.split_at(input.len().min(length - carry.len()));
    *input = rest;
    let needed = carry.len() + taken.len();
    if needed > carry.capacity() {
        let roomy = (carry.capacity() * 2).max(limits::FRAME_CARRY_FIRST_BYTES);
        carry.reserve_exact(roomy.min(length).max(needed) - carry.len());
    }
    carry.extend_from_slice(taken);
}

/// What a [`BulkDecoder`] gives. Payload is never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Bulk<'a> {
    /// A frame begins.
    Begin {
        /// Its type.
        frame_type: FrameType,
        /// Its payload's length, bytes.
        length: usize,
    },
    /// The next bytes of its payload, never empty.
    Payload(&'a [u8]),
    /// The frame is whole.
    End,
}

impl fmt::Debug for Bulk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin { frame_type, length } => write!(f, "Begin({frame_type:?}, {length})"),
            Self::Payload(piece) => write!(f, "Payload({} bytes)", piece.len()),
            Self::End => f.write_str("End"),
        }
    }
}

/// Where a [`BulkDecoder`] stands.
#[derive(Clone, Copy, Debug)]
enum BulkState {
    /// Waits for a header, or the rest of one.
    Header(HeaderBytes),
    /// Hands on so many bytes more.
    Payload(usize),
    /// Drops an unknown extension's payload.
    Skip(usize),
    /// Has met bytes that are no frame.
    Broken(FrameError),
}

/// Frames in pieces as they come: nothing is kept but a header cut in two.
#[derive(Debug)]
pub struct BulkDecoder {
    state: BulkState,
}

impl Default for BulkDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl BulkDecoder {
    /// A decoder that waits for a frame's first byte.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: BulkState::Header(HeaderBytes::default()),
        }
    }

    /// Takes what it can from the front of `input`; `None` when more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`FrameError`] when the bytes are no frame; the same for ever after.
    #[inline]
    pub fn next<'i>(&mut self, input: &mut &'i [u8]) -> Result<Option<Bulk<'i>>, FrameError> {
        loop {
            match &mut self.state {
                BulkState::Broken(error) => return Err(*error),
                BulkState::Header(gathered) => {
                    let Some(header) = gathered.fill(input) else {
                        return Ok(None);
                    };
                    match parse_header(header) {
                        Ok(Header::Known(frame_type, length)) => {
                            self.state = BulkState::Payload(length);
                            return Ok(Some(Bulk::Begin { frame_type, length }));
                        }
                        Ok(Header::Extension(length)) => self.state = BulkState::Skip(length),
                        Err(error) => self.state = BulkState::Broken(error),
                    }
                }
                BulkState::Skip(left) => {
                    *left = skip(*left, input);
                    if *left > 0 {
                        return Ok(None);
                    }
                    *self = Self::new();
                }
                BulkState::Payload(0) => {
                    *self = Self::new();
                    return Ok(Some(Bulk::End));
                }
                BulkState::Payload(left) => {
                    let (piece, rest) = input.split_at(input.len().min(*left));
                    if piece.is_empty() {
                        return Ok(None);
                    }
                    *input = rest;
                    *left -= piece.len();
                    return Ok(Some(Bulk::Payload(piece)));
                }
            }
        }
    }
}

/// The header of a frame.
#[must_use]
pub fn header(frame_type: FrameType, length: u32) -> [u8; limits::FRAME_HEADER_BYTES] {
    let [a, b, c, d] = length.to_be_bytes();
    [frame_type.as_u8(), a, b, c, d]
}

#[cfg(test)]
mod tests;
