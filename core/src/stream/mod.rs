//! Streaming answers: pieces in order, once, to the end.

pub mod reassembly;
