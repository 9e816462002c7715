//! The wire's numbers, written down a second time from its specification.
//!
//! An oracle that shared a limit with what it judges would miss the day on which the limit is wrong.
//! Nothing here may name `mesh_core::limits`.

/// `[type: 1][length: 4]`.
pub const HEADER_BYTES: usize = 5;

/// Every frame type: number, name in the payload, longest payload in bytes.
pub const FRAMES: [(u8, &str, usize); 22] = [
    (0x01, "Heartbeat", 4096),
    (0x02, "HeartbeatAck", 4096),
    (0x03, "EscalationRequest", 10_485_760),
    (0x04, "EscalationResponse", 10_485_760),
    (0x05, "StreamChunk", 262_144),
    (0x06, "StreamEnd", 4096),
    (0x07, "Error", 4096),
    (0x08, "PrewarmSignal", 4096),
    (0x10, "Hello", 4096),
    (0x11, "HelloAck", 4096),
    (0x12, "GoAway", 4096),
    (0x13, "Resume", 4096),
    (0x14, "Cancel", 4096),
    (0x15, "ChunkAck", 4096),
    (0x16, "Notice", 4096),
    (0x20, "Call", 262_144),
    (0x21, "Reply", 262_144),
    (0x30, "UploadBegin", 4096),
    (0x31, "UploadReady", 4096),
    (0x32, "UploadChunk", 1_048_608),
    (0x33, "UploadAck", 4096),
    (0x34, "UploadDone", 4096),
];

/// The entry of a type's number.
#[must_use]
pub fn frame(number: u8) -> Option<(&'static str, usize)> {
    FRAMES
        .iter()
        .find(|(known, ..)| *known == number)
        .map(|(_, name, max)| (*name, *max))
}
