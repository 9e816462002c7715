//! The wire: frames, messages, and the way between bytes and both.
//!
//! QUIC v1, TLS 1.3 with mutual authentication, ALPN [`ALPN`]. The device opens every stream, one per
//! conversation; its first frame says what it is for ([`frame::FrameType::opens`]).

pub mod close;
pub mod codec;
pub mod frame;
pub mod message;

/// The protocol's name in the TLS handshake (RFC 7301).
pub const ALPN: &[u8] = b"synesis/1";
