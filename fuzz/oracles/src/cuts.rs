//! Ways to cut a byte string into slices, as a network would.

/// Inputs up to this length are cut in two at every place.
const EVERYWHERE_BYTES_MAX: usize = 48;

/// Calls `feed` with the same bytes cut in several ways: whole, byte by byte (short inputs), in two at
/// every place (short inputs) or in the middle, and in pieces of lengths that depend on the bytes
/// themselves, so that an input is a message and nothing else, and still every mutation cuts anew.
pub fn each(bytes: &[u8], mut feed: impl FnMut(&[&[u8]])) {
    feed(&[bytes]);
    if bytes.len() <= EVERYWHERE_BYTES_MAX {
        feed(&bytes.chunks(1).collect::<Vec<_>>());
        for at in 1..bytes.len() {
            let (front, back) = bytes.split_at(at);
            feed(&[front, back]);
        }
    } else {
        let (front, back) = bytes.split_at(bytes.len() / 2);
        feed(&[front, back]);
    }
    feed(&pseudorandom(bytes, 16));
    feed(&pseudorandom(bytes, 2048));
}

/// Slices of 0 to `longest` bytes (small ones more often), drawn from the bytes' own hash.
#[must_use]
pub fn pseudorandom(mut bytes: &[u8], longest: usize) -> Vec<&[u8]> {
    // FNV-1a to start from, then xorshift: any sequence that repeats will do.
    let mut state = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    }) | 1;
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let drawn = usize::try_from(state >> 40).unwrap_or_default() % (longest + 1);
        // An empty slice now and then; never only empty ones.
        let length = if pieces.len() % 7 == 6 {
            0
        } else {
            drawn.max(1)
        };
        let (piece, rest) = bytes.split_at(length.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_are_the_whole_however_it_is_cut() {
        for length in [0, 1, 2, 48, 49, 5000] {
            let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let mut ways = 0;
            each(&bytes, |pieces| {
                assert_eq!(pieces.concat(), bytes);
                ways += 1;
            });
            assert!(ways >= 4);
        }
    }
}
