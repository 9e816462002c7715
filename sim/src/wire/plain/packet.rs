//! Packets of the ideal transport as bytes. Each begins with a checksum, so that damage shows.
//!
//! | kind | rest |
//! |---|---|
//! | Hello | token, end of validity, certificate |
//! | Welcome, Reset, Refused | – |
//! | Again | token |
//! | Data | number, acknowledgement, frames |
//! | Ack | acknowledgement |
//! | Close | code, reason |
//! | Alert | TLS alert number |

/// One packet of a connection, which its tag names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    Hello {
        token: u64,
        not_after_ms: u64,
        certificate: &'a [u8],
    },
    Welcome,
    Again {
        token: u64,
    },
    Data {
        number: u32,
        ack: u32,
        frames: &'a [u8],
    },
    Ack {
        ack: u32,
    },
    Close {
        code: u32,
        reason: &'a str,
    },
    Reset,
    Refused,
    Alert {
        alert: u8,
    },
}

/// What a frame says of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Say {
    /// Bytes follow.
    Bytes { end: bool },
    /// The sender gives up.
    Reset(u32),
    /// The receiver wants no more.
    Stop(u32),
    /// The receiver takes so many KiB in all.
    Room(u32),
}

/// Bytes before a frame's own.
pub(super) const FRAME_HEADER: usize = 4 + 1 + 4 + 2;

pub(super) fn frame(out: &mut Vec<u8>, stream: u64, say: Say, bytes: &[u8]) {
    let (kind, value) = match say {
        Say::Bytes { end } => (u8::from(end), 0),
        Say::Reset(code) => (2, code),
        Say::Stop(code) => (3, code),
        Say::Room(kib) => (4, kib),
    };
    out.extend_from_slice(&u32::try_from(stream).unwrap_or(u32::MAX).to_le_bytes());
    out.push(kind);
    out.extend_from_slice(&value.to_le_bytes());
    out.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// The next frame and what follows it.
pub(super) fn next_frame(frames: &[u8]) -> Option<(u64, Say, &[u8], &[u8])> {
    let (header, rest) = frames.split_at_checked(FRAME_HEADER)?;
    let stream = u32::from_le_bytes(header[..4].try_into().ok()?);
    let value = u32::from_le_bytes(header[5..9].try_into().ok()?);
    let length = u16::from_le_bytes(header[9..].try_into().ok()?);
    let (bytes, rest) = rest.split_at_checked(length.into())?;
    let say = match header[4] {
        0 => Say::Bytes { end: false },
        1 => Say::Bytes { end: true },
        2 => Say::Reset(value),
        3 => Say::Stop(value),
        4 => Say::Room(value),
        _ => return None,
    };
    Some((u64::from(stream), say, bytes, rest))
}

/// FNV-1a over eight bytes at a time, and the length: enough against a flipped bit or a cut.
fn checksum(bytes: &[u8]) -> u32 {
    let mut sum: u64 = 0xCBF2_9CE4_8422_2325 ^ bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        sum = (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01B3);
        sum ^= sum >> 29;
    }
    let folded = (sum ^ sum >> 32) & u64::from(u32::MAX);
    u32::try_from(folded).unwrap_or_default()
}

pub(super) fn encode(tag: u64, packet: &Packet<'_>) -> Vec<u8> {
    let mut out = vec![0; 4];
    let mut begin = |kind: u8, parts: &[&[u8]]| {
        out.push(kind);
        out.extend_from_slice(&tag.to_le_bytes());
        for part in parts {
            out.extend_from_slice(part);
        }
    };
    match packet {
        Packet::Hello {
            token,
            not_after_ms,
            certificate,
        } => begin(
            1,
            &[
                &token.to_le_bytes(),
                &not_after_ms.to_le_bytes(),
                certificate,
            ],
        ),
        Packet::Welcome => begin(2, &[]),
        Packet::Again { token } => begin(3, &[&token.to_le_bytes()]),
        Packet::Data {
            number,
            ack,
            frames,
        } => begin(4, &[&number.to_le_bytes(), &ack.to_le_bytes(), frames]),
        Packet::Ack { ack } => begin(5, &[&ack.to_le_bytes()]),
        Packet::Close { code, reason } => begin(6, &[&code.to_le_bytes(), reason.as_bytes()]),
        Packet::Reset => begin(7, &[]),
        Packet::Refused => begin(8, &[]),
        Packet::Alert { alert } => begin(9, &[&[*alert]]),
    }
    let sum = checksum(&out[4..]);
    out[..4].copy_from_slice(&sum.to_le_bytes());
    out
}

/// The tag and the packet; `None` of anything damaged, cut or unknown.
pub(super) fn decode(bytes: &[u8]) -> Option<(u64, Packet<'_>)> {
    let (sum, body) = bytes.split_at_checked(4)?;
    if u32::from_le_bytes(sum.try_into().ok()?) != checksum(body) {
        return None;
    }
    let (head, rest) = body.split_at_checked(9)?;
    let tag = u64::from_le_bytes(head[1..].try_into().ok()?);
    let eight = |at: usize| Some(u64::from_le_bytes(rest.get(at..at + 8)?.try_into().ok()?));
    let four = |at: usize| Some(u32::from_le_bytes(rest.get(at..at + 4)?.try_into().ok()?));
    let packet = match head[0] {
        1 => Packet::Hello {
            token: eight(0)?,
            not_after_ms: eight(8)?,
            certificate: &rest[16..],
        },
        2 => Packet::Welcome,
        3 => Packet::Again { token: eight(0)? },
        4 => Packet::Data {
            number: four(0)?,
            ack: four(4)?,
            frames: &rest[8..],
        },
        5 => Packet::Ack { ack: four(0)? },
        6 => Packet::Close {
            code: four(0)?,
            reason: std::str::from_utf8(&rest[4..]).ok()?,
        },
        7 => Packet::Reset,
        8 => Packet::Refused,
        9 => Packet::Alert {
            alert: *rest.first()?,
        },
        _ => return None,
    };
    Some((tag, packet))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_survive_their_bytes_and_no_flipped_bit_does() {
        let mut frames = Vec::new();
        frame(&mut frames, 3, Say::Bytes { end: true }, b"hello");
        frame(&mut frames, 0, Say::Room(9), b"");
        let data = Packet::Data {
            number: 7,
            ack: 8,
            frames: &frames,
        };
        let bytes = encode(42, &data);
        assert_eq!(decode(&bytes), Some((42, data)));
        let (stream, say, bytes_of, rest) = next_frame(&frames).unwrap();
        assert_eq!(
            (stream, say, bytes_of),
            (3, Say::Bytes { end: true }, &b"hello"[..])
        );
        assert_eq!(next_frame(rest).unwrap().1, Say::Room(9));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&damaged), None, "bit {bit}");
        }
        assert!((0..bytes.len()).all(|cut| decode(&bytes[..cut]).is_none()));
    }
}
