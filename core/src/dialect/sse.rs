//! Bytes to server-sent events, however the bytes are cut.
//!
//! The grammar is WHATWG HTML §9.2.6, "Interpreting an event stream": lines end in LF, CR or CRLF,
//! one leading byte order mark is dropped, bytes that are not UTF-8 become U+FFFD, and an event that
//! its blank line has not ended is not an event.
//!
//! ```text
//!            ':' (name empty: comment)      any byte           line end
//!   Name ──────────────────────────▶ Space ──────────▶ Value ──────────▶ Name
//!    │ line end, name empty: dispatch  │ line end                          ▲
//!    │ line end, name not empty        └───────────────────────────────────┤
//!    └─────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! # Invariants
//!
//! 1. The items, and the error, are the same however the bytes are cut.
//! 2. Every byte is looked at once; comments and fields that are not ours are never stored.
//! 3. One event holds at most the decoder's bound; past it the decoder fails and stays failed.

use std::borrow::Cow;

/// Buffers larger than this are given back after the event that needed them.
const KEPT_CAPACITY_BYTES: usize = 8 * 1024;
const BOM: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// The stream cannot be decoded any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event has more than {event_bytes_max} bytes")]
pub struct SseError {
    event_bytes_max: usize,
}

/// What a stream consists of.
#[derive(Clone, PartialEq, Eq)]
pub enum SseItem<'a> {
    /// A dispatched event.
    Event {
        /// The event's name; empty when none was given.
        name: Cow<'a, str>,
        /// The data lines, joined by LF.
        data: Cow<'a, str>,
    },
    /// A comment line: how servers keep idle connections open.
    Comment,
}

impl std::fmt::Debug for SseItem<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Event { name, data } => {
                write!(f, "Event({name:?}, {} bytes)", data.len())
            }
            Self::Comment => f.write_str("Comment"),
        }
    }
}

/// The fields that mean something here. `id` and `retry` are for reconnecting browsers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Data,
    Event,
    Comment,
    Other,
}

/// Where in a line the next byte stands.
#[derive(Clone, Copy)]
enum Line {
    /// In the field's name, of which so many bytes were seen.
    Name { seen: usize },
    /// Right behind the colon, where one space is dropped.
    Space(Field),
    /// In the value.
    Value(Field),
}

const LINE_START: Line = Line::Name { seen: 0 };

/// See the module documentation.
pub struct SseDecoder {
    event_bytes_max: usize,
    failed: bool,
    line: Line,
    /// The first bytes of the field's name; no name of ours is longer than five.
    field_name: [u8; 5],
    /// The last byte was a CR, so that a LF belongs to the same line end.
    after_cr: bool,
    /// How much of a byte order mark was seen; `None` once something else was.
    bom_seen: Option<usize>,
    /// The last item lies in the buffers until the next call.
    dispatched: bool,
    event_name: Vec<u8>,
    data: Vec<u8>,
}

impl std::fmt::Debug for SseDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SseDecoder")
            .field("failed", &self.failed)
            .field("buffered_bytes", &self.buffered_bytes())
            .finish_non_exhaustive()
    }
}

impl SseDecoder {
    /// A decoder at the start of a stream whose events (name and data) have at most
    /// `event_bytes_max` bytes.
    #[must_use]
    pub const fn new(event_bytes_max: usize) -> Self {
        Self {
            event_bytes_max,
            failed: false,
            line: LINE_START,
            field_name: [0; 5],
            after_cr: false,
            bom_seen: Some(0),
            dispatched: false,
            event_name: Vec::new(),
            data: Vec::new(),
        }
    }

    /// Reads on in `input`, which is advanced past what was read, to the next item; `None` when
    /// all of it has been read. At the end of a stream nothing is to be done: what is unfinished
    /// then is to be ignored.
    ///
    /// # Errors
    ///
    /// An event larger than the decoder's bound, now or at any earlier call.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<SseItem<'_>>, SseError> {
        if self.failed {
            return Err(self.error());
        }
        if std::mem::take(&mut self.dispatched) {
            forget(&mut self.event_name);
            forget(&mut self.data);
        }
        self.skip_bom(input);
        while let Some(&first) = input.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                *input = &input[1..];
                continue;
            }
            match self.line {
                Line::Name { seen } => self.read_name(seen, input),
                Line::Space(field) => {
                    self.line = Line::Value(field);
                    if first == b' ' {
                        *input = &input[1..];
                    }
                    continue;
                }
                Line::Value(field) => {
                    let length = line_length(input);
                    self.append(field, &input[..length])?;
                    *input = &input[length..];
                }
            }
            let Some(&end) = input.first() else { break };
            if end != b'\r' && end != b'\n' {
                continue;
            }
            *input = &input[1..];
            self.after_cr = end == b'\r';
            if let Some(item) = self.end_line()? {
                return Ok(Some(match item {
                    Ended::Comment => SseItem::Comment,
                    Ended::Event => SseItem::Event {
                        name: String::from_utf8_lossy(&self.event_name),
                        data: String::from_utf8_lossy(&self.data),
                    },
                }));
            }
        }
        Ok(None)
    }

    fn skip_bom(&mut self, input: &mut &[u8]) {
        while let (Some(seen), Some(&byte)) = (self.bom_seen, input.first()) {
            if BOM.get(seen) == Some(&byte) {
                self.bom_seen = Some(seen + 1);
                *input = &input[1..];
                continue;
            }
            self.bom_seen = None;
            if seen > 0 && seen < BOM.len() {
                // Half a mark is the beginning of a name, and of none that means something.
                self.line = Line::Name {
                    seen: self.field_name.len() + 1,
                };
            }
        }
    }

    /// Reads the name up to its colon (and past it) or up to the line's end.
    fn read_name(&mut self, mut seen: usize, input: &mut &[u8]) {
        while let Some(&byte) = input.first() {
            match byte {
                b'\r' | b'\n' => break,
                b':' => {
                    *input = &input[1..];
                    let field = self.field(seen);
                    if field == Field::Event {
                        self.event_name.clear();
                    }
                    self.line = Line::Space(field);
                    return;
                }
                _ => {
                    if let Some(slot) = self.field_name.get_mut(seen) {
                        *slot = byte;
                    }
                    // One past the longest name is as far as it matters.
                    seen = (seen + 1).min(self.field_name.len() + 1);
                    *input = &input[1..];
                }
            }
        }
        self.line = Line::Name { seen };
    }

    fn field(&self, seen: usize) -> Field {
        match self.field_name.get(..seen) {
            Some(b"data") => Field::Data,
            Some(b"event") => Field::Event,
            Some(b"") => Field::Comment,
            Some(_) | None => Field::Other,
        }
    }

    fn append(&mut self, field: Field, bytes: &[u8]) -> Result<(), SseError> {
        let buffer = match field {
            Field::Data => &mut self.data,
            Field::Event => &mut self.event_name,
            Field::Comment | Field::Other => return Ok(()),
        };
        buffer.extend_from_slice(bytes);
        if self.buffered_bytes() > self.event_bytes_max {
            self.failed = true;
            forget(&mut self.data);
            forget(&mut self.event_name);
            return Err(self.error());
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<Option<Ended>, SseError> {
        let line = std::mem::replace(&mut self.line, LINE_START);
        let field = match line {
            Line::Name { seen: 0 } => return Ok(self.dispatch()),
            Line::Name { seen } => {
                // Without a colon the whole line is the name and the value is empty.
                let field = self.field(seen);
                if field == Field::Event {
                    self.event_name.clear();
                }
                field
            }
            Line::Space(field) | Line::Value(field) => field,
        };
        match field {
            Field::Data => self.append(Field::Data, b"\n").map(|()| None),
            Field::Comment => Ok(Some(Ended::Comment)),
            Field::Event | Field::Other => Ok(None),
        }
    }

    fn dispatch(&mut self) -> Option<Ended> {
        if self.data.pop().is_none() {
            self.event_name.clear();
            return None;
        }
        self.dispatched = true;
        Some(Ended::Event)
    }

    fn buffered_bytes(&self) -> usize {
        self.data.len() + self.event_name.len()
    }

    const fn error(&self) -> SseError {
        SseError {
            event_bytes_max: self.event_bytes_max,
        }
    }
}

/// What a line's end completed.
enum Ended {
    Event,
    Comment,
}

fn line_length(input: &[u8]) -> usize {
    input
        .iter()
        .position(|&byte| byte == b'\n' || byte == b'\r')
        .unwrap_or(input.len())
}

fn forget(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.shrink_to(KEPT_CAPACITY_BYTES);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Items as owned text, comments as `None`; the error last if there is one.
    fn decode_all(pieces: &[&[u8]], bytes_max: usize) -> (Vec<Option<(String, String)>>, bool) {
        let mut decoder = SseDecoder::new(bytes_max);
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
                    Err(_) => return (items, true),
                }
            }
        }
        (items, false)
    }

    fn events(text: &[u8]) -> Vec<(String, String)> {
        let (items, failed) = decode_all(&[text], 1024);
        assert!(!failed);
        items.into_iter().flatten().collect()
    }

    fn pair(name: &str, data: &str) -> (String, String) {
        (name.to_owned(), data.to_owned())
    }

    // The examples of WHATWG HTML §9.2.6, with the results that the text there gives.
    #[test]
    fn the_standards_own_examples_decode_as_the_standard_says() {
        assert_eq!(
            events(b"data: YHOO\ndata: +2\ndata: 10\n\n"),
            [pair("", "YHOO\n+2\n10")]
        );
        assert_eq!(
            events(
                b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n"
            ),
            [
                pair("", "first event"),
                pair("", "second event"),
                pair("", " third event")
            ]
        );
        // "Fires two events"; the last block is not ended and is discarded.
        assert_eq!(
            events(b"data\n\ndata\ndata\n\ndata:"),
            [pair("", ""), pair("", "\n")]
        );
        // "Fires two identical events".
        assert_eq!(
            events(b"data:test\n\ndata: test\n\n"),
            [pair("", "test"), pair("", "test")]
        );
    }

    #[test]
    fn all_three_line_ends_end_lines_and_a_cut_crlf_ends_one() {
        for end in ["\n", "\r", "\r\n"] {
            let text = format!("event: a{end}data: 1{end}{end}data: 2{end}{end}");
            assert_eq!(events(text.as_bytes()), [pair("a", "1"), pair("", "2")]);
        }
        let (items, _) = decode_all(&[b"data: 1\r", b"\ndata: 2\r", b"\n\r", b"\n"], 99);
        assert_eq!(items, [Some(pair("", "1\n2"))]);
    }

    #[test]
    fn one_byte_order_mark_is_dropped_and_a_second_or_a_half_one_is_not() {
        assert_eq!(events(b"\xEF\xBB\xBFdata: 1\n\n"), [pair("", "1")]);
        assert_eq!(events(b"\xEF\xBB\xBF\xEF\xBB\xBFdata: 1\n\n"), []);
        assert_eq!(events(b"\xEF\xBBdata: 1\n\ndata: 2\n\n"), [pair("", "2")]);
    }

    #[test]
    fn names_are_of_one_event_only_and_foreign_fields_are_ignored() {
        assert_eq!(
            events(b"event: a\n\nevent: b\nevent: c\ndatax: 1\nDATA: 2\ndata: 3\nretry: 9\n\n"),
            [pair("c", "3")]
        );
        assert_eq!(events(b"event: a\nevent\ndata: 1\n\n"), [pair("", "1")]);
    }

    #[test]
    fn bytes_that_are_not_utf8_become_replacement_characters() {
        assert_eq!(
            events(b"data: a\xFFb\xC3\n\n"),
            [pair("", "a\u{FFFD}b\u{FFFD}")]
        );
    }

    #[test]
    fn an_event_at_the_bound_passes_and_one_byte_more_fails_for_good() {
        // Four bytes of data and the LF that is dropped at the end.
        assert_eq!(
            decode_all(&[b"data: 1234\n\n"], 5),
            (vec![Some(pair("", "1234"))], false)
        );
        assert_eq!(decode_all(&[b"data: 12345\n\n"], 5), (vec![], true));
        assert!(decode_all(&[b"event: 123\ndata: 456\n\n"], 5).1);
        assert!(decode_all(&[&b"data\n".repeat(6)], 5).1);
        let mut decoder = SseDecoder::new(5);
        assert!(decoder.decode(&mut &b"data: 123456"[..]).is_err());
        assert!(decoder.decode(&mut &b"\n\ndata: 1\n\n"[..]).is_err());
    }

    #[test]
    fn an_endless_comment_is_not_stored() {
        let mut decoder = SseDecoder::new(16);
        for _ in 0..1000 {
            let mut input: &[u8] = b": keep alive and on and on";
            assert_eq!(decoder.decode(&mut input), Ok(None));
        }
        assert_eq!(decoder.buffered_bytes(), 0);
        assert_eq!(decoder.decode(&mut &b"\n"[..]), Ok(Some(SseItem::Comment)));
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_items(
            lines in prop::collection::vec(
                prop_oneof![
                    Just("data: \u{e9}\u{1F600}x".to_owned()), Just(String::new()),
                    Just("event: n".to_owned()), Just(": c".to_owned()),
                    Just("\u{FEFF}data: b".to_owned()), "[da:te v]{0,8}",
                ], 0..20),
            ends in prop::collection::vec(prop_oneof![Just("\n"), Just("\r"), Just("\r\n")], 20),
            cuts in prop::collection::vec(0_usize..400, 0..12),
            bytes_max in 1_usize..64,
        ) {
            let text: String =
                lines.iter().zip(&ends).flat_map(|(line, end)| [line.as_str(), end]).collect();
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            let singles: Vec<&[u8]> = bytes.chunks(1).collect();
            let whole = decode_all(&[bytes], bytes_max);
            prop_assert_eq!(&decode_all(&pieces, bytes_max), &whole);
            prop_assert_eq!(&decode_all(&singles, bytes_max), &whole);
        }
    }
}
