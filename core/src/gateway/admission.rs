//! Who may begin the expensive handshake: decided from counts alone, before any cryptography.
//!
//! | handshakes under way | address proven | verdict |
//! |---|---|---|
//! | below the calm mark | either | accept |
//! | at or above the calm mark | no | retry: prove the address first |
//! | at or above the calm mark | yes | accept |
//! | at the maximum, or no room for a tunnel | either | refuse |

use crate::limits;

/// What to do with a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    Retry,
    Refuse,
}

/// Counts of what is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) handshakes: usize,
    pub(super) tunnels: usize,
    pub(super) tunnels_max: usize,
    pub(super) stopping: bool,
}

pub(super) const fn verdict(load: Load, address_proven: bool) -> Verdict {
    if load.stopping
        || load.tunnels >= load.tunnels_max
        || load.handshakes >= limits::HANDSHAKES_MAX
    {
        Verdict::Refuse
    } else if load.handshakes >= limits::HANDSHAKES_CALM && !address_proven {
        Verdict::Retry
    } else {
        Verdict::Accept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_in_the_module_documentation_holds() {
        let calm = Load {
            handshakes: 63,
            tunnels: 0,
            tunnels_max: 9,
            stopping: false,
        };
        let busy = Load {
            handshakes: 64,
            ..calm
        };
        let over = Load {
            handshakes: 1024,
            ..calm
        };
        let full = Load { tunnels: 9, ..calm };
        let stopping = Load {
            stopping: true,
            ..calm
        };
        assert_eq!(verdict(calm, false), Verdict::Accept);
        assert_eq!(verdict(busy, false), Verdict::Retry);
        assert_eq!(verdict(busy, true), Verdict::Accept);
        for load in [over, full, stopping] {
            assert_eq!(verdict(load, true), Verdict::Refuse);
        }
    }
}
