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

use crate::limits;

/// The type byte of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "each is the message of the same name")]
pub enum FrameType {
    Heartbeat = 0x01,
    HeartbeatAck = 0x02,
    EscalationRequest = 0x03,
    EscalationResponse = 0x04,
    StreamChunk = 0x05,
    StreamEnd = 0x06,
    Error = 0x07,
    PrewarmSignal = 0x08,
    Hello = 0x10,
    HelloAck = 0x11,
    GoAway = 0x12,
    Resume = 0x13,
    Cancel = 0x14,
    ChunkAck = 0x15,
    Notice = 0x16,
    Call = 0x20,
    Reply = 0x21,
    UploadBegin = 0x30,
    UploadReady = 0x31,
    UploadChunk = 0x32,
    UploadAck = 0x33,
    UploadDone = 0x34,
}

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Device → gateway.
    ToGateway,
    /// Gateway → device.
    ToDevice,
}

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Heartbeats and what governs the session; one per connection.
    Control,
    /// One typed call and its reply.
    Call,
    /// One question and its answer.
    Escalation,
    /// One adapter.
    Upload,
}

impl FrameType {
    /// Every type, in the order of their numbers.
    pub const ALL: [Self; 22] = [
        Self::Heartbeat,
        Self::HeartbeatAck,
        Self::EscalationRequest,
        Self::EscalationResponse,
        Self::StreamChunk,
        Self::StreamEnd,
        Self::Error,
        Self::PrewarmSignal,
        Self::Hello,
        Self::HelloAck,
        Self::GoAway,
        Self::Resume,
        Self::Cancel,
        Self::ChunkAck,
        Self::Notice,
        Self::Call,
        Self::Reply,
        Self::UploadBegin,
        Self::UploadReady,
        Self::UploadChunk,
        Self::UploadAck,
        Self::UploadDone,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// The type of that number, if it is one of ours.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|frame_type| frame_type.as_u8() == number)
    }

    /// The message's name in the payload's `type` field.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Heartbeat => "Heartbeat",
            Self::HeartbeatAck => "HeartbeatAck",
            Self::EscalationRequest => "EscalationRequest",
            Self::EscalationResponse => "EscalationResponse",
            Self::StreamChunk => "StreamChunk",
            Self::StreamEnd => "StreamEnd",
            Self::Error => "Error",
            Self::PrewarmSignal => "PrewarmSignal",
            Self::Hello => "Hello",
            Self::HelloAck => "HelloAck",
            Self::GoAway => "GoAway",
            Self::Resume => "Resume",
            Self::Cancel => "Cancel",
            Self::ChunkAck => "ChunkAck",
            Self::Notice => "Notice",
            Self::Call => "Call",
            Self::Reply => "Reply",
            Self::UploadBegin => "UploadBegin",
            Self::UploadReady => "UploadReady",
            Self::UploadChunk => "UploadChunk",
            Self::UploadAck => "UploadAck",
            Self::UploadDone => "UploadDone",
        }
    }

    /// The longest payload, bytes.
    #[must_use]
    pub const fn payload_max(self) -> usize {
        match self {
            Self::EscalationRequest | Self::EscalationResponse => {
                limits::FRAME_ESCALATION_BYTES_MAX
            }
            Self::UploadChunk => limits::FRAME_UPLOAD_CHUNK_BYTES_MAX,
            Self::Call | Self::Reply | Self::StreamChunk => limits::FRAME_MEDIUM_BYTES_MAX,
            Self::Heartbeat
            | Self::HeartbeatAck
            | Self::StreamEnd
            | Self::Error
            | Self::PrewarmSignal
            | Self::Hello
            | Self::HelloAck
            | Self::GoAway
            | Self::Resume
            | Self::Cancel
            | Self::ChunkAck
            | Self::Notice
            | Self::UploadBegin
            | Self::UploadReady
            | Self::UploadAck
            | Self::UploadDone => limits::FRAME_SMALL_BYTES_MAX,
        }
    }

    /// What a stream is for that begins with this frame.
    #[must_use]
    pub const fn opens(self) -> Option<StreamKind> {
        match self {
            Self::Hello => Some(StreamKind::Control),
            Self::EscalationRequest | Self::Resume => Some(StreamKind::Escalation),
            Self::Call => Some(StreamKind::Call),
            Self::UploadBegin => Some(StreamKind::Upload),
            Self::Heartbeat
            | Self::HeartbeatAck
            | Self::EscalationResponse
            | Self::StreamChunk
            | Self::StreamEnd
            | Self::Error
            | Self::PrewarmSignal
            | Self::HelloAck
            | Self::GoAway
            | Self::Cancel
            | Self::ChunkAck
            | Self::Notice
            | Self::Reply
            | Self::UploadReady
            | Self::UploadChunk
            | Self::UploadAck
            | Self::UploadDone => None,
        }
    }

    /// Whether the frame may go this way on such a stream.
    #[must_use]
    pub fn allowed(self, direction: Direction, stream: StreamKind) -> bool {
        use Direction::{ToDevice, ToGateway};
        use StreamKind::{Call, Control, Escalation, Upload};
        match self {
            Self::Error => true,
            Self::Heartbeat | Self::PrewarmSignal | Self::Hello => {
                (direction, stream) == (ToGateway, Control)
            }
            Self::HeartbeatAck | Self::HelloAck | Self::GoAway | Self::Notice => {
                (direction, stream) == (ToDevice, Control)
            }
            Self::EscalationRequest | Self::Resume | Self::Cancel | Self::ChunkAck => {
                (direction, stream) == (ToGateway, Escalation)
            }
            Self::EscalationResponse | Self::StreamChunk | Self::StreamEnd => {
                (direction, stream) == (ToDevice, Escalation)
            }
            Self::Call => (direction, stream) == (ToGateway, Call),
            Self::Reply => (direction, stream) == (ToDevice, Call),
            Self::UploadBegin | Self::UploadChunk => (direction, stream) == (ToGateway, Upload),
            Self::UploadReady | Self::UploadAck | Self::UploadDone => {
                (direction, stream) == (ToDevice, Upload)
            }
        }
    }
}

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

/// One whole frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its type.
    pub frame_type: FrameType,
    /// Its payload, borrowed from what was fed or from the decoder.
    pub payload: &'a [u8],
}

/// A checked header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header {
    Known(FrameType, usize),
    Extension(usize),
}

/// Numbers from here on are for extensions and skipped when unknown.
const EXTENSIONS_FROM: u8 = 0x80;

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
        None if number >= EXTENSIONS_FROM => Ok(Header::Extension(length)),
        None => Err(FrameError::UnknownType { number }),
    }
}

/// The five bytes of a header, gathered from however many slices.
#[derive(Clone, Copy, Debug, Default)]
struct HeaderBytes {
    bytes: [u8; limits::FRAME_HEADER_BYTES],
    have: u8,
}

impl HeaderBytes {
    /// Takes what is missing; the header once it is whole.
    fn fill(&mut self, input: &mut &[u8]) -> Option<[u8; limits::FRAME_HEADER_BYTES]> {
        let have = usize::from(self.have);
        let (taken, rest) = input.split_at(input.len().min(self.bytes.len() - have));
        self.bytes[have..have + taken.len()].copy_from_slice(taken);
        *input = rest;
        if have + taken.len() == self.bytes.len() {
            self.have = 0;
            Some(self.bytes)
        } else {
            // At most four, by the line above.
            self.have += u8::try_from(taken.len()).unwrap_or_default();
            None
        }
    }
}

#[derive(Debug)]
enum State {
    Header(HeaderBytes),
    Payload {
        frame_type: FrameType,
        length: usize,
    },
    Skip(usize),
    Broken(FrameError),
}

impl Default for State {
    fn default() -> Self {
        Self::Header(HeaderBytes::default())
    }
}

/// Whole frames out of slices of any size. See the module documentation.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    state: State,
    /// The part of a payload that came in earlier slices.
    carry: Vec<u8>,
    /// Whether `carry` holds a frame that was given out and is to be dropped.
    spent: bool,
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

    /// Bytes kept for a frame that is not whole yet.
    #[must_use]
    pub fn buffered(&self) -> usize {
        if self.spent { 0 } else { self.carry.len() }
    }
}

/// The frames of one slice, in order. See [`FrameDecoder::feed`].
#[derive(Debug)]
pub struct Frames<'d, 'i> {
    decoder: &'d mut FrameDecoder,
    input: &'i [u8],
}

impl Frames<'_, '_> {
    /// The next frame; `None` when more bytes are needed. Not an [`Iterator`]: a frame must be done
    /// with before the next is taken.
    #[expect(
        clippy::should_implement_trait,
        reason = "it lends, which an `Iterator` cannot"
    )]
    pub fn next(&mut self) -> Option<Result<Frame<'_>, FrameError>> {
        if self.decoder.spent {
            self.decoder.spent = false;
            self.decoder.carry = Vec::new();
        }
        loop {
            match &mut self.decoder.state {
                State::Broken(error) => return Some(Err(*error)),
                State::Header(gathered) => {
                    let header = gathered.fill(&mut self.input)?;
                    self.decoder.state = match parse_header(header) {
                        Ok(Header::Known(frame_type, length)) => {
                            State::Payload { frame_type, length }
                        }
                        Ok(Header::Extension(length)) => State::Skip(length),
                        Err(error) => State::Broken(error),
                    };
                }
                State::Skip(left) => {
                    let skipped = self.input.len().min(*left);
                    self.input = &self.input[skipped..];
                    *left -= skipped;
                    if *left > 0 {
                        return None;
                    }
                    self.decoder.state = State::default();
                }
                State::Payload { frame_type, length } => {
                    let (frame_type, length) = (*frame_type, *length);
                    return self.payload(frame_type, length).map(Ok);
                }
            }
        }
    }

    fn payload(&mut self, frame_type: FrameType, length: usize) -> Option<Frame<'_>> {
        let decoder = &mut *self.decoder;
        let missing = length - decoder.carry.len();
        if self.input.len() < missing {
            decoder.carry.extend_from_slice(self.input);
            self.input = &[];
            return None;
        }
        let (rest_of_frame, after) = self.input.split_at(missing);
        self.input = after;
        decoder.state = State::default();
        if decoder.carry.is_empty() {
            return Some(Frame {
                frame_type,
                payload: rest_of_frame,
            });
        }
        decoder.carry.extend_from_slice(rest_of_frame);
        decoder.spent = true;
        Some(Frame {
            frame_type,
            payload: &decoder.carry,
        })
    }
}

/// What a [`BulkDecoder`] gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Frames in pieces as they come: nothing is kept but a header cut in two.
#[derive(Debug, Default)]
pub struct BulkDecoder {
    state: State,
}

impl BulkDecoder {
    /// A decoder that waits for a frame's first byte.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what it can from the front of `input`; `None` when more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`FrameError`] when the bytes are no frame; the same for ever after.
    pub fn next<'i>(&mut self, input: &mut &'i [u8]) -> Result<Option<Bulk<'i>>, FrameError> {
        loop {
            match &mut self.state {
                State::Broken(error) => return Err(*error),
                State::Header(gathered) => {
                    let Some(header) = gathered.fill(input) else {
                        return Ok(None);
                    };
                    match parse_header(header) {
                        Ok(Header::Known(frame_type, length)) => {
                            self.state = State::Payload { frame_type, length };
                            return Ok(Some(Bulk::Begin { frame_type, length }));
                        }
                        Ok(Header::Extension(length)) => self.state = State::Skip(length),
                        Err(error) => self.state = State::Broken(error),
                    }
                }
                State::Skip(left) => {
                    let (skipped, rest) = input.split_at(input.len().min(*left));
                    *input = rest;
                    *left -= skipped.len();
                    if *left > 0 {
                        return Ok(None);
                    }
                    self.state = State::default();
                }
                State::Payload { length: 0, .. } => {
                    self.state = State::default();
                    return Ok(Some(Bulk::End));
                }
                State::Payload { length, .. } => {
                    let (piece, rest) = input.split_at(input.len().min(*length));
                    if piece.is_empty() {
                        return Ok(None);
                    }
                    *input = rest;
                    *length -= piece.len();
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Seen = Vec<Result<(FrameType, Vec<u8>), FrameError>>;

    fn decode(slices: &[&[u8]]) -> Seen {
        let mut decoder = FrameDecoder::new();
        let mut seen = Seen::new();
        for slice in slices {
            let mut frames = decoder.feed(slice);
            while let Some(frame) = frames.next() {
                seen.push(frame.map(|frame| (frame.frame_type, frame.payload.to_vec())));
                if seen.last().is_some_and(Result::is_err) {
                    return seen;
                }
            }
        }
        seen
    }

    fn decode_bulk(slices: &[&[u8]]) -> Seen {
        let mut decoder = BulkDecoder::new();
        let mut seen = Seen::new();
        let mut whole = None;
        for slice in slices {
            let mut input = *slice;
            loop {
                match decoder.next(&mut input) {
                    Ok(Some(Bulk::Begin { frame_type, .. })) => whole = Some((frame_type, vec![])),
                    Ok(Some(Bulk::Payload(piece))) => whole.as_mut().unwrap().1.extend(piece),
                    Ok(Some(Bulk::End)) => seen.push(Ok(whole.take().unwrap())),
                    Ok(None) => break,
                    Err(error) => {
                        seen.push(Err(error));
                        return seen;
                    }
                }
            }
        }
        seen
    }

    /// Ten lines that know only the format: no limits, no increments.
    fn naive(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Vec::new();
        while bytes.len() >= 5 {
            let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
            if bytes.len() < 5 + length {
                break;
            }
            frames.push((bytes[0], bytes[5..5 + length].to_vec()));
            bytes = &bytes[5 + length..];
        }
        frames
    }

    #[test]
    fn the_numbers_and_limits_are_the_documented_ones() {
        let limits = [
            (0x01, 4096),
            (0x02, 4096),
            (0x03, 10_485_760),
            (0x04, 10_485_760),
            (0x05, 262_144),
            (0x06, 4096),
            (0x07, 4096),
            (0x08, 4096),
            (0x10, 4096),
            (0x11, 4096),
            (0x12, 4096),
            (0x13, 4096),
            (0x14, 4096),
            (0x15, 4096),
            (0x16, 4096),
            (0x20, 262_144),
            (0x21, 262_144),
            (0x30, 4096),
            (0x31, 4096),
            (0x32, 1_048_608),
            (0x33, 4096),
            (0x34, 4096),
        ];
        let ours: Vec<_> = FrameType::ALL
            .into_iter()
            .map(|t| (t.as_u8(), t.payload_max()))
            .collect();
        assert_eq!(ours, limits);
    }

    #[test]
    fn the_limit_passes_and_one_more_is_refused_on_the_header() {
        for frame_type in FrameType::ALL {
            let max = frame_type.payload_max();
            let mut exact = header(frame_type, u32::try_from(max).unwrap()).to_vec();
            exact.resize(5 + max, b'x');
            assert_eq!(decode(&[&exact]).len(), 1, "{frame_type:?}");
            let over = header(frame_type, u32::try_from(max + 1).unwrap());
            let refused = Err(FrameError::TooLong {
                frame_type,
                length: max + 1,
                max,
            });
            assert_eq!(decode(&[&over]), std::slice::from_ref(&refused));
            assert_eq!(decode_bulk(&[&over]), [refused]);
        }
    }

    #[test]
    fn unknown_types_are_errors_below_0x80_and_skipped_from_there_on() {
        let mut bytes = vec![0x80, 0, 0, 0, 3, 1, 2, 3, 0xFF, 0, 0, 0, 0];
        bytes.extend(header(FrameType::Cancel, 1));
        bytes.push(b'!');
        bytes.extend([0x7F, 0, 0, 0, 0]);
        let expected = [
            Ok((FrameType::Cancel, b"!".to_vec())),
            Err(FrameError::UnknownType { number: 0x7F }),
        ];
        assert_eq!(decode(&[&bytes]), expected);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(decode(&single), expected);
    }

    #[test]
    fn after_an_error_a_decoder_stays_in_error() {
        let mut decoder = FrameDecoder::new();
        assert!(decoder.feed(&[0x7F, 0, 0, 0, 0]).next().unwrap().is_err());
        assert!(
            decoder
                .feed(&header(FrameType::Cancel, 0))
                .next()
                .unwrap()
                .is_err()
        );
    }

    #[test]
    fn an_idle_decoder_holds_no_memory() {
        let mut decoder = FrameDecoder::new();
        let mut bytes = header(FrameType::StreamChunk, 1000).to_vec();
        bytes.resize(1005, 0);
        assert!(decoder.feed(&bytes[..500]).next().is_none());
        assert_eq!(decoder.buffered(), 495);
        assert!(decoder.feed(&bytes[500..]).next().is_some());
        assert_eq!(decoder.buffered(), 0);
        assert!(decoder.feed(&[]).next().is_none());
        assert_eq!(decoder.carry.capacity(), 0);
    }

    #[test]
    fn a_frame_is_allowed_one_way_on_one_kind_of_stream() {
        let ways = [Direction::ToGateway, Direction::ToDevice];
        let kinds = [
            StreamKind::Control,
            StreamKind::Call,
            StreamKind::Escalation,
            StreamKind::Upload,
        ];
        for frame_type in FrameType::ALL {
            let allowed = ways
                .iter()
                .flat_map(|&way| kinds.iter().map(move |&kind| (way, kind)))
                .filter(|&(way, kind)| frame_type.allowed(way, kind))
                .count();
            assert_eq!(allowed, if frame_type == FrameType::Error { 8 } else { 1 });
            if let Some(kind) = frame_type.opens() {
                assert!(frame_type.allowed(Direction::ToGateway, kind));
            }
        }
    }

    proptest! {
        #[test]
        fn any_cutting_gives_the_same_frames_and_the_naive_decoder_agrees(
            frames in prop::collection::vec((0usize..22, prop::collection::vec(any::<u8>(), 0..300)), 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
            rubbish in prop::collection::vec(any::<u8>(), 0..8),
        ) {
            let mut bytes = Vec::new();
            for (at, payload) in &frames {
                bytes.extend(header(FrameType::ALL[*at], payload.len() as u32));
                bytes.extend(payload);
            }
            let clean = bytes.len();
            bytes.extend(rubbish);
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let slices: Vec<&[u8]> = at.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            let whole = decode(&[&bytes]);
            prop_assert_eq!(&decode(&slices), &whole);
            prop_assert_eq!(&decode_bulk(&slices), &whole);
            let simple: Vec<_> = naive(&bytes[..clean]);
            let known: Vec<_> = whole.into_iter().take(simple.len())
                .map(|frame| frame.map(|(t, payload)| (t.as_u8(), payload)).unwrap()).collect();
            prop_assert_eq!(known, simple);
        }
    }
}
