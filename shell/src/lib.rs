//! What every shell needs and no runtime has a part in. It decides nothing, like any shell, and
//! waits for nothing: what waits is the runtime's, and each shell's own.
//!
//! * [`clock`], [`random`]: time and chance, as machines are given them.
//! * [`socket`], [`driver`]: datagrams, and a turn of the event loop around a machine.
//! * [`files`]: private files; [`book`]: those of unfinished questions; [`control`]: the
//!   place of an agent's socket.
//! * [`route`]: which of this machine's addresses it sends from.

#![forbid(unsafe_code)]

pub mod book;
pub mod clock;
pub mod control;
pub mod driver;
pub mod files;
pub mod random;
pub mod route;
pub mod socket;
