//! What the end-to-end tests stand on: a model server that follows a script to the byte, and a
//! network that can be made bad at will.
//!
//! - [`upstream`]: a fake model server on a real TCP socket, speaking both dialects.
//! - [`cluster`]: a gateway and its devices as real processes; [`endpoint`]: a device's local HTTP.
//! - [`llama`]: a real model server.
//! - [`process`]: a running process with everything it prints, and where the binary is.
//! - [`stripe`]: a small Stripe, which takes payments and forgets.
//! - [`relay`]: a userspace UDP relay between a device and its gateway.
//!
//! Everything here waits for events, never for time to pass, except where time itself is what is
//! being imposed (a delay of the relay).

#![expect(clippy::panic, reason = "a harness fails the test that uses it")]

pub mod cluster;
pub mod endpoint;
pub mod forge;
pub mod llama;
pub mod process;
pub mod relay;
pub mod stripe;
pub mod upstream;
