//! Server-sent events: the decoder, under every kind of cut, against one that splits lines.

use mesh_core::dialect::sse::{SseDecoder, SseItem};

use crate::{cuts, memory};

/// A small bound, so that it is met, and the one that gateways use.
const BOUNDS: [usize; 2] = [64, 1024 * 1024];

const MEMORY_FIXED: usize = 32 * 1024;
/// A buffer doubles and is copied as it grows; a byte that is no UTF-8 becomes three.
const MEMORY_PER_BYTE: usize = 16;

/// An event's name and data, or a comment.
pub(crate) type Item = Option<(String, String)>;

/// WHATWG HTML §9.2.6 on a whole byte string, and whether an event went over the bound.
pub(crate) fn naive(bytes: &[u8], bound: usize) -> (Vec<Item>, bool) {
    let mut rest = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let (mut items, mut name, mut data) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        let line = &rest[..end.unwrap_or(rest.len())];
        let colon = line.iter().position(|byte| *byte == b':');
        let field = &line[..colon.unwrap_or(line.len())];
        let value = &line[colon.map_or(line.len(), |at| at + 1)..];
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" if colon.is_some() || end.is_some() => data.extend_from_slice(value),
            b"event" if colon.is_some() || end.is_some() => name = value.to_vec(),
            _ => {}
        }
        // Also a line that has not ended yet is kept.
        if name.len() + data.len() > bound {
            return (items, true);
        }
        let Some(end) = end else {
            return (items, false);
        };
        match field {
            b"data" => data.push(b'\n'),
            b"" if colon.is_some() => items.push(None),
            b"" => {
                if data.pop().is_some() {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    items.push(Some((text(&name), text(&data))));
                }
                (name, data) = (Vec::new(), Vec::new());
            }
            _ => {}
        }
        if name.len() + data.len() > bound {
            return (items, true);
        }
        let crlf = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + if crlf { 2 } else { 1 }..];
    }
}

fn decode(pieces: &[&[u8]], bound: usize) -> (Vec<Item>, bool) {
    let mut decoder = SseDecoder::new(bound);
    let mut items = Vec::new();
    for piece in pieces {
        let mut input = *piece;
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(SseItem::Event { name, data })) => {
                    items.push(Some((name.into_owned(), data.into_owned())));
                }
                Ok(Some(SseItem::Comment)) => items.push(None),
                Ok(None) => break,
                Err(error) => {
                    let mut more: &[u8] = b"\n\ndata: more\n\n";
                    assert_eq!(decoder.decode(&mut more), Err(error), "the error went away");
                    return (items, true);
                }
            }
        }
        assert!(input.is_empty(), "bytes were left");
    }
    (items, false)
}

/// See the module documentation.
pub fn run(data: &[u8]) {
    for bound in BOUNDS {
        let expected = naive(data, bound);
        cuts::each(data, |pieces| {
            assert!(decode(pieces, bound) == expected, "other than line by line");
        });
    }
    let pieces = cuts::pseudorandom(data, 64);
    let (items, used) = memory::used(|| {
        let mut decoder = SseDecoder::new(BOUNDS[1]);
        let mut items = 0;
        for mut piece in pieces.iter().copied() {
            while let Ok(Some(_)) = decoder.decode(&mut piece) {
                items += 1;
            }
        }
        items
    });
    // The shortest items are `:\n` and, once per blank line, `data\n\n`.
    assert!(items <= data.len() / 2);
    let allowed = MEMORY_FIXED + MEMORY_PER_BYTE * data.len();
    assert!(
        used.peak <= allowed && used.total <= allowed,
        "{used:?} for {} bytes",
        data.len()
    );
}
