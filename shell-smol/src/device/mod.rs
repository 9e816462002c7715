//! The device: a machine with a certificate that keeps a tunnel to its gateway.
//!
//! * [`client`]: the tunnel for the commands; [`answer`]: what comes through it.
//! * [`credentials`]: the enrolment that `synesis cloud login` keeps.
//! * [`lock`]: one agent for each folder.
//! * [`vitals`]: its load.

pub mod answer;
pub mod client;
pub mod credentials;
mod host;
pub mod lock;
mod route;
pub mod vitals;
