//! `fake-upstream [PIECES] [BYTES]`: a model server that answers every question with so many pieces
//! of so many bytes (default 4 of 12). Prints the address it listens on, serves until standard input
//! ends or it is killed.

use std::io::Write;

use mesh_tests::upstream::{Answer, FakeUpstream};
use tokio::io::AsyncReadExt;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mut numbers = std::env::args()
        .skip(1)
        .map(|argument| argument.parse::<usize>());
    let pieces = numbers.next().and_then(Result::ok).unwrap_or(4);
    let bytes = numbers.next().and_then(Result::ok).unwrap_or(12);
    let upstream = FakeUpstream::start().await?;
    let piece = "x".repeat(bytes);
    upstream.always(Answer::of(&vec![piece.as_str(); pieces]).into());
    {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", upstream.address())?;
        out.flush()?;
    }
    let mut ignored = [0; 64];
    let mut stdin = tokio::io::stdin();
    while stdin.read(&mut ignored).await? != 0 {}
    Ok(())
}
