//! The wire: frames, messages, and the way between bytes and both.

pub mod message;
