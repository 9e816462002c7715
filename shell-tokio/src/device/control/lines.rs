//! JSON documents, one a line, over any stream of bytes; bounded and cancel safe.

use std::io;

use mesh_core::device::control::{LineError, Lines, line, read_line};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};

/// Reads lines.
#[derive(Debug)]
pub(crate) struct LineReader<R> {
    reader: BufReader<R>,
    lines: Lines,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    /// Reads from `stream` lines of at most `max` bytes.
    pub(crate) fn new(stream: R, max: usize) -> Self {
        Self {
            reader: BufReader::new(stream),
            lines: Lines::new(max),
        }
    }

    /// The next line, or `None` at the end. Cancel safe: what was read of a line is kept.
    ///
    /// # Errors
    ///
    /// [`LineError`]; a malformed line does not hurt the next one.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, LineError> {
        loop {
            let arrived = self.reader.fill_buf().await?;
            if arrived.is_empty() {
                return self.lines.finish().map(|()| None);
            }
            let (taken, line) = self.lines.take(arrived)?;
            self.reader.consume(taken);
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
pub(crate) async fn write_line(
    stream: &mut (impl AsyncWrite + Unpin),
    value: &impl Serialize,
) -> io::Result<()> {
    stream.write_all(&line(value)?).await
}

#[cfg(test)]
mod tests {
    use mesh_core::device::control::LineTooLong;

    use super::*;

    async fn all(bytes: &[u8], max: usize) -> (Vec<u32>, Option<LineError>) {
        let mut reader = LineReader::new(bytes, max);
        let mut lines = Vec::new();
        loop {
            match reader.next::<u32>().await {
                Ok(Some(line)) => lines.push(line),
                Ok(None) => return (lines, None),
                Err(error) => return (lines, Some(error)),
            }
        }
    }

    #[tokio::test]
    async fn a_line_of_exactly_the_limit_passes_and_one_byte_more_is_refused() {
        assert!(matches!(all(b"1234\n5\n", 4).await, (lines, None) if lines == [1234, 5]));
        assert!(
            matches!(all(b"1\n12345\n", 4).await, (lines, Some(LineError::TooLong(LineTooLong { max: 4 }))) if lines == [1])
        );
    }

    #[tokio::test]
    async fn a_line_without_end_is_refused_before_it_is_buffered() {
        let endless = tokio::io::repeat(b'7');
        let mut reader = LineReader::new(endless, 1000);
        assert!(matches!(
            reader.next::<u32>().await,
            Err(LineError::TooLong(_))
        ));
        assert!(reader.lines.held() <= 1000);
    }

    #[tokio::test]
    async fn a_malformed_line_does_not_hurt_the_next_one() {
        let mut reader = LineReader::new(&b"{nonsense\n\n7\n"[..], 100);
        assert!(matches!(
            reader.next::<u32>().await,
            Err(LineError::Malformed(_))
        ));
        assert!(matches!(
            reader.next::<u32>().await,
            Err(LineError::Malformed(_))
        ));
        assert!(matches!(reader.next::<u32>().await, Ok(Some(7))));
    }

    #[tokio::test]
    async fn an_end_inside_a_line_is_told_from_an_end_between_lines() {
        assert!(matches!(all(b"1\n", 9).await, (lines, None) if lines == [1]));
        assert!(matches!(all(b"1\n2", 9).await, (lines, Some(LineError::Torn)) if lines == [1]));
    }

    #[tokio::test]
    async fn a_read_that_is_given_up_loses_nothing() {
        let (mut ours, theirs) = tokio::io::duplex(64);
        let mut reader = LineReader::new(theirs, 100);
        ours.write_all(b"12").await.unwrap();
        {
            let next = reader.next::<u32>();
            tokio::pin!(next);
            // Polled once: takes "12" and waits for more.
            assert!(futures_poll(next.as_mut()).await.is_none());
        }
        ours.write_all(b"34\n").await.unwrap();
        assert!(matches!(reader.next::<u32>().await, Ok(Some(1234))));
    }

    /// Polls once.
    async fn futures_poll<F: Future + Unpin>(future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = std::future::ready(()) => None,
        }
    }
}
