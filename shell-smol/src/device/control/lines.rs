//! JSON documents, one a line, over a Unix socket; bounded and cancel safe.

use std::io;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use async_io::Async;
use mesh_core::device::control::{LineError, Lines, line, read_line};
use serde::Serialize;
use serde::de::DeserializeOwned;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Bytes of one read.
const READ_BYTES: usize = 8 * 1024;

/// One end of a conversation; clones share it, so that one may read while another writes.
pub(super) type Stream = Rc<Async<UnixStream>>;

/// Reads lines.
#[derive(Debug)]
pub(super) struct LineReader {
    stream: Stream,
    lines: Lines,
    buffer: Vec<u8>,
    /// What of the buffer was read and not taken yet.
    unread: std::ops::Range<usize>,
}

impl LineReader {
    /// Reads from `stream` lines of at most `max` bytes.
    pub(super) fn new(stream: Stream, max: usize) -> Self {
        Self {
            stream,
            lines: Lines::new(max),
            buffer: vec![0; READ_BYTES],
            unread: 0..0,
        }
    }

    /// The next line, or `None` at the end. Cancel safe: what was read of a line is kept.
    ///
    /// # Errors
    ///
    /// [`LineError`]; a malformed line does not hurt the next one.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, LineError> {
        loop {
            if self.unread.is_empty() {
                let mut stream = &*self.stream;
                let read = stream.read(&mut self.buffer).await?;
                self.unread = 0..read;
                if read == 0 {
                    return self.lines.finish().map(|()| None);
                }
            }
            let arrived = self.buffer.get(self.unread.clone()).unwrap_or_default();
            let (taken, line) = self.lines.take(arrived)?;
            self.unread.start += taken;
            if let Some(line) = line {
                return read_line(&line).map(Some);
            }
        }
    }
}

/// Writes one line.
///
/// # Errors
///
/// When the stream broke.
pub(super) async fn write_line(stream: &Stream, value: &impl Serialize) -> io::Result<()> {
    let mut stream = &**stream;
    stream.write_all(&line(value)?).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Stream, Stream) {
        let (one, other) = Async::<UnixStream>::pair().unwrap();
        (Rc::new(one), Rc::new(other))
    }

    #[test]
    fn a_line_may_come_in_parts_and_several_at_once() {
        smol::block_on(async {
            let (one, other) = pair();
            let mut reader = LineReader::new(other, 100);
            (&*one).write_all(b"1\n2\n3").await.unwrap();
            assert_eq!(reader.next::<u32>().await.unwrap(), Some(1));
            assert_eq!(reader.next::<u32>().await.unwrap(), Some(2));
            write_line(&one, &4).await.unwrap();
            assert_eq!(reader.next::<u32>().await.unwrap(), Some(34));
            drop(one);
            assert_eq!(reader.next::<u32>().await.unwrap(), None);
        });
    }

    #[test]
    fn a_line_that_is_too_long_torn_or_nonsense_is_an_error() {
        smol::block_on(async {
            let (one, other) = pair();
            let mut reader = LineReader::new(other, 4);
            (&*one).write_all(b"x\n1\n12345\n").await.unwrap();
            let nonsense = reader.next::<u32>().await;
            assert!(matches!(nonsense, Err(LineError::Malformed(_))));
            assert_eq!(reader.next::<u32>().await.unwrap(), Some(1));
            let long = reader.next::<u32>().await;
            assert!(matches!(long, Err(LineError::TooLong(_))), "{long:?}");

            let (one, other) = pair();
            let mut reader = LineReader::new(other, 4);
            (&*one).write_all(b"12").await.unwrap();
            drop(one);
            assert!(matches!(reader.next::<u32>().await, Err(LineError::Torn)));
        });
    }
}
