//! The frame codec against tokio-util's `LengthDelimitedCodec`.
//!
//! A stream of equal frames comes in pieces of one size: 1.4 kB as QUIC delivers them, and 64 KiB.
//! The peer copies each piece into its buffer and cuts frames off; ours borrows whole frames from the
//! piece, or hands on the payload piece by piece. Two consumers: one that only takes each payload
//! over (pointer and length), and one that reads every byte once, eight at a time.
//!
//! `cargo run --release -p mesh-bench --bin frame-codec [ROUNDS]`

use std::hint::black_box;

use bytes::BytesMut;
use mesh_bench::harness::{Contender, Rounds, Table, machine, ratio, take_turns};
use mesh_core::wire::frame::{self, Bulk, BulkDecoder, FrameDecoder, FrameType};
use tokio_util::codec::{Decoder, LengthDelimitedCodec};

/// The stream that a round decodes over and over: larger than the caches nearest to a core.
const STREAM_BYTES: usize = 8 * 1024 * 1024;
/// How often a round does.
const REPEATS: usize = 4;
const ROUNDS_DEFAULT: usize = 21;

const FRAMES: [(&str, usize); 3] = [
    ("100 B", 100),
    ("16 KiB", 16 * 1024),
    ("1 MiB", 1024 * 1024),
];
const PIECES: [(&str, usize); 2] = [("1.4 kB", 1400), ("64 KiB", 64 * 1024)];

fn main() {
    let rounds = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(ROUNDS_DEFAULT);
    println!("{}; medians of {rounds} rounds\n", machine());
    println!("Payloads taken over:\n\n{}", compare(rounds, take));
    println!("Payloads read once:\n\n{}", compare(rounds, read));
}

/// Takes a payload over without looking at it.
fn take(payload: &[u8]) {
    black_box(payload);
}

/// Reads every byte of a payload.
fn read(payload: &[u8]) {
    let (words, rest) = payload.as_chunks::<8>();
    let folded = words
        .iter()
        .fold(0, |sum, word| sum ^ u64::from_ne_bytes(*word));
    black_box(rest.iter().fold(folded, |sum, &byte| sum ^ u64::from(byte)));
}

fn compare(rounds: usize, consume: fn(&[u8])) -> Table {
    let mut table = Table::new(&[
        "frames",
        "pieces",
        "LengthDelimitedCodec MB/s",
        "frames/s",
        "borrowed MB/s",
        "ratio",
        "streamed MB/s",
        "ratio",
        "spread",
    ]);
    for (frame_name, frame_bytes) in FRAMES {
        let stream = stream_of(frame_bytes);
        let frames = stream.len() / (frame_bytes + 5) * REPEATS;
        for (piece_name, piece_bytes) in PIECES {
            let pieces: Vec<&[u8]> = stream.chunks(piece_bytes).collect();
            let results = take_turns(
                rounds,
                &mut [
                    Contender::new("LengthDelimitedCodec", || peer(&pieces, frames, consume)),
                    Contender::new("borrowed", || borrowed(&pieces, frames, consume)),
                    Contender::new("streamed", || streamed(&pieces, frames, consume)),
                ],
            );
            let [theirs, borrowed, streamed] = results.as_slice() else {
                continue;
            };
            let mbs = |rounds: &Rounds| {
                format!(
                    "{:.0}",
                    megabytes(frame_bytes, frames) / rounds.wall().as_secs_f64()
                )
            };
            let times = |rounds: &Rounds| format!("{:.1}×", ratio(theirs.wall(), rounds.wall()));
            let spread = results.iter().map(Rounds::spread).fold(0.0, f64::max);
            table.row([
                frame_name.to_owned(),
                piece_name.to_owned(),
                mbs(theirs),
                per_second(frames, theirs),
                mbs(borrowed),
                times(borrowed),
                mbs(streamed),
                times(streamed),
                format!("±{:.0} %", spread * 100.0),
            ]);
        }
    }
    table
}

/// Megabytes (10⁶) of payload in a round.
fn megabytes(frame_bytes: usize, frames: usize) -> f64 {
    f64::from(u32::try_from(frame_bytes * frames / 1000).unwrap_or(u32::MAX)) / 1000.0
}

fn per_second(frames: usize, rounds: &Rounds) -> String {
    let frames = f64::from(u32::try_from(frames).unwrap_or(u32::MAX));
    format!("{:.0}", frames / rounds.wall().as_secs_f64())
}

/// Whole frames of one size, as many as fit.
fn stream_of(frame_bytes: usize) -> Vec<u8> {
    let frame_type = if frame_bytes > 256 * 1024 {
        FrameType::UploadChunk
    } else {
        FrameType::StreamChunk
    };
    let header = frame::header(frame_type, u32::try_from(frame_bytes).unwrap_or(u32::MAX));
    let mut stream = Vec::with_capacity(STREAM_BYTES);
    while stream.len() + header.len() + frame_bytes <= STREAM_BYTES {
        stream.extend_from_slice(&header);
        stream.extend((0..frame_bytes).map(|n| (n % 251) as u8));
    }
    stream
}

fn peer(pieces: &[&[u8]], frames: usize, consume: fn(&[u8])) {
    // The type byte is part of what is handed over, as it is with ours.
    let mut codec = LengthDelimitedCodec::builder()
        .length_field_offset(1)
        .length_field_length(4)
        .length_adjustment(5)
        .num_skip(0)
        .max_frame_length(10 * 1024 * 1024 + 5)
        .new_codec();
    let mut buffer = BytesMut::new();
    let mut seen = 0;
    for _ in 0..REPEATS {
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let Ok(Some(frame)) = codec.decode(&mut buffer) {
                black_box(frame[0]);
                consume(&frame[5..]);
                seen += 1;
            }
        }
    }
    assert_eq!(seen, frames, "the peer has lost frames");
}

fn borrowed(pieces: &[&[u8]], frames: usize, consume: fn(&[u8])) {
    let mut decoder = FrameDecoder::new();
    let mut seen = 0;
    for _ in 0..REPEATS {
        for piece in pieces {
            let mut found = decoder.feed(piece);
            while let Some(Ok(frame)) = found.next() {
                black_box(frame.frame_type);
                consume(frame.payload);
                seen += 1;
            }
        }
    }
    assert_eq!(seen, frames, "frames were lost");
}

fn streamed(pieces: &[&[u8]], frames: usize, consume: fn(&[u8])) {
    let mut decoder = BulkDecoder::new();
    let mut seen = 0;
    for _ in 0..REPEATS {
        for piece in pieces {
            let mut input = *piece;
            while let Ok(Some(part)) = decoder.next(&mut input) {
                match part {
                    Bulk::Begin { frame_type, .. } => {
                        black_box(frame_type);
                    }
                    Bulk::Payload(payload) => consume(payload),
                    Bulk::End => seen += 1,
                }
            }
        }
    }
    assert_eq!(seen, frames, "frames were lost");
}
