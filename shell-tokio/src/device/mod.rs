//! The device: a machine with a certificate that keeps a tunnel to its gateway.
//!
//! * [`client`]: the tunnel for programs; [`answer`]: what comes through it.
//! * [`agent`]: the long-running device, which other programs reach by its [`control`] socket.
//! * [`endpoint`]: HTTP on loopback for any program that speaks to OpenAI or Anthropic.
//! * [`enrol`], [`credentials`]: how it got its certificate, and where that is kept.
//! * [`vitals`], [`sessions`], [`settings`], [`status`]: its load, its conversations, its owner's wishes, how it fares.

pub mod agent;
pub mod answer;
pub mod client;
pub mod control;
pub mod credentials;
pub mod endpoint;
pub mod enrol;
mod failures;
mod host;
mod route;
pub mod sessions;
pub mod settings;
pub mod vitals;

pub use mesh_core::device::status;
