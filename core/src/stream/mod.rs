//! Streaming answers: pieces in order, once, to the end; kept where they are made, put together where
//! they are wanted.

pub mod journal;
pub mod reassembly;
pub mod shelf;
