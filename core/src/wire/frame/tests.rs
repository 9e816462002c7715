//! Frames against bytes written by hand, a naive decoder, and every way of cutting.

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
    assert_eq!(decoder.buffered(), 1000);
    let mut frames = decoder.feed(&bytes[500..]);
    assert!(frames.next().is_some());
    assert!(frames.next().is_none());
    assert_eq!(decoder.buffered(), 0);
    assert!(matches!(
        decoder.state,
        State::Header(HeaderBytes { have: 0, .. })
    ));
}

#[test]
fn a_header_alone_claims_no_memory() {
    let mut decoder = FrameDecoder::new();
    let claim = header(FrameType::EscalationRequest, 10_485_760);
    assert!(decoder.feed(&claim).next().is_none());
    assert_eq!(decoder.buffered(), 0);
    assert!(decoder.feed(b"{").next().is_none());
    assert_eq!(decoder.buffered(), 16 * 1024);
    // Whatever comes, at most twice as much is held, and never more than the payload.
    let mut come = 1;
    while come + 100_000 < 10_485_760 {
        assert!(decoder.feed(&[b' '; 100_000]).next().is_none());
        come += 100_000;
        assert!(decoder.buffered() >= come);
        assert!(decoder.buffered() <= (2 * come).min(10_485_760));
    }
}

#[test]
fn an_extension_is_dropped_as_it_comes_whatever_its_length() {
    let mut decoder = FrameDecoder::new();
    let mut bulk = BulkDecoder::new();
    let start = [0x80, 0xFF, 0xFF, 0xFF, 0xFF];
    assert!(decoder.feed(&start).next().is_none());
    assert_eq!(bulk.next(&mut start.as_slice()), Ok(None));
    // 4 294 967 295 bytes are 4095 times a MiB and one MiB less one byte.
    let mebibyte = vec![0x7F; 1024 * 1024];
    for piece in std::iter::repeat_n(&mebibyte[..], 4095).chain([&mebibyte[1..]]) {
        assert!(!decoder.is_between_frames());
        assert!(decoder.feed(piece).next().is_none());
        assert_eq!(bulk.next(&mut &*piece), Ok(None));
        assert_eq!(decoder.buffered(), 0);
    }
    assert!(decoder.is_between_frames());
    let empty = header(FrameType::Cancel, 0);
    let frame_type = FrameType::Cancel;
    assert_eq!(
        decoder.feed(&empty).next(),
        Some(Ok(Frame {
            frame_type,
            payload: &[]
        }))
    );
    assert_eq!(
        bulk.next(&mut empty.as_slice()),
        Ok(Some(Bulk::Begin {
            frame_type,
            length: 0
        }))
    );
    assert_eq!(bulk.next(&mut [].as_slice()), Ok(Some(Bulk::End)));
}

#[test]
fn a_stream_that_ends_within_a_frame_is_noticed() {
    let bytes = [0x14, 0, 0, 0, 2, b'{', b'}'];
    for end in 0..=bytes.len() {
        let mut decoder = FrameDecoder::new();
        let mut frames = decoder.feed(&bytes[..end]);
        while frames.next().is_some() {}
        assert_eq!(decoder.is_between_frames(), end == 0 || end == 7, "{end}");
    }
}

#[test]
fn a_payload_that_lies_whole_in_the_slice_is_not_copied() {
    let mut bytes = header(FrameType::Cancel, 3).to_vec();
    bytes.extend(b"abc");
    let mut decoder = FrameDecoder::new();
    // The header may have come before.
    for cut in 0..=5 {
        assert!(decoder.feed(&bytes[..cut]).next().is_none());
        let mut frames = decoder.feed(&bytes[cut..]);
        let frame = frames.next().unwrap().unwrap();
        assert!(std::ptr::eq(frame.payload, &raw const bytes[5..]));
    }
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

/// A stream of frames as a peer may send them: ours, extensions, sometimes rubbish at the end.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![
        4 => prop::sample::select(FrameType::ALL.map(FrameType::as_u8).to_vec()),
        1 => 0x80..=0xFF_u8,
    ];
    let payload = prop::collection::vec(any::<u8>(), 0..300);
    let frames = prop::collection::vec((number, payload), 0..8);
    let rubbish = prop::collection::vec(any::<u8>(), 0..8);
    (frames, rubbish).prop_map(|(frames, rubbish)| {
        let mut bytes = Vec::new();
        for (number, payload) in frames {
            bytes.push(number);
            bytes.extend((payload.len() as u32).to_be_bytes());
            bytes.extend(payload);
        }
        bytes.extend(rubbish);
        bytes
    })
}

/// What the naive decoder says should be seen: extensions left out, the first wrong header the end.
fn expected(bytes: &[u8]) -> Seen {
    let mut seen = Seen::new();
    let whole = naive(bytes);
    let used: usize = whole.iter().map(|(_, payload)| 5 + payload.len()).sum();
    let next = bytes[used..].first_chunk::<5>().map(|next| {
        let length = u32::from_be_bytes([next[1], next[2], next[3], next[4]]);
        (next[0], length as usize, None)
    });
    let frames = whole
        .into_iter()
        .map(|(number, payload)| (number, payload.len(), Some(payload)));
    for (number, length, payload) in frames.chain(next) {
        match FrameType::ALL.into_iter().find(|t| t.as_u8() == number) {
            None if number >= 0x80 => {}
            None => {
                seen.push(Err(FrameError::UnknownType { number }));
                break;
            }
            Some(frame_type) if length > frame_type.payload_max() => {
                let max = frame_type.payload_max();
                seen.push(Err(FrameError::TooLong {
                    frame_type,
                    length,
                    max,
                }));
                break;
            }
            Some(frame_type) => seen.extend(payload.map(|payload| Ok((frame_type, payload)))),
        }
    }
    seen
}

proptest! {
    #[test]
    fn any_cutting_gives_the_same_frames_and_the_naive_decoder_agrees(
        bytes in streams(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let slices: Vec<&[u8]> = at.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        let expected = expected(&bytes);
        prop_assert_eq!(&decode(&[&bytes]), &expected);
        prop_assert_eq!(&decode(&slices), &expected);
        prop_assert_eq!(&decode(&single), &expected);
        prop_assert_eq!(&decode_bulk(&[&bytes]), &expected);
        prop_assert_eq!(&decode_bulk(&slices), &expected);
        prop_assert_eq!(&decode_bulk(&single), &expected);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic_or_hold_more_than_it_was_given(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        piece in 1usize..200,
    ) {
        let slices: Vec<&[u8]> = bytes.chunks(piece).collect();
        prop_assert_eq!(decode(&slices), expected(&bytes));
        let mut decoder = FrameDecoder::new();
        for slice in slices {
            let mut frames = decoder.feed(slice);
            while let Some(Ok(_)) = frames.next() {}
            prop_assert!(decoder.buffered() <= 16 * 1024);
        }
    }
}
