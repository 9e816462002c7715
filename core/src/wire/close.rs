//! Why a connection is closed, as a number that both sides know.

/// Application close codes (QUIC `CONNECTION_CLOSE`, RFC 9000 §19.19). The numbers never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// Nothing more to say.
    Done,
    /// The peer broke the protocol.
    Protocol,
    /// The same device has connected anew.
    Replaced,
    /// The gateway does not know the device. Final.
    Unauthorized,
    /// The device was revoked. Final.
    Revoked,
    /// The gateway is going away: come back.
    GoingAway,
    /// Too much at once: come back later.
    Overloaded,
    /// The session was not established in time: the path or the gateway's store was too slow.
    TooSlow,
}

impl CloseCode {
    /// Every code, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Done,
        Self::Protocol,
        Self::Replaced,
        Self::Unauthorized,
        Self::Revoked,
        Self::GoingAway,
        Self::Overloaded,
        Self::TooSlow,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn as_u32(self) -> u32 {
        match self {
            Self::Done => 0,
            Self::Protocol => 1,
            Self::Replaced => 2,
            Self::Unauthorized => 3,
            Self::Revoked => 4,
            Self::GoingAway => 5,
            Self::Overloaded => 6,
            Self::TooSlow => 7,
        }
    }

    /// The code of that number, if it is one of ours.
    #[must_use]
    pub fn from_u32(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_u32() == number)
    }

    /// Whether trying again cannot help before a person does something.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::Unauthorized | Self::Revoked => true,
            Self::Done
            | Self::Protocol
            | Self::Replaced
            | Self::GoingAway
            | Self::Overloaded
            | Self::TooSlow => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_number_and_nothing_else_is() {
        for (number, code) in (0..).zip(CloseCode::ALL) {
            assert_eq!(code.as_u32(), number);
            assert_eq!(CloseCode::from_u32(number), Some(code));
        }
        assert_eq!(CloseCode::from_u32(8), None);
    }
}
