//! The device: a machine with a certificate that keeps a tunnel to its gateway.
//!
//! * [`client`]: the tunnel for the commands; [`answer`]: what comes through it.
//! * [`credentials`]: the enrolment that `synesis cloud login` keeps.
//! * [`control`]: how other programs ask through a running agent.
//! * [`vitals`]: its load.

pub mod answer;
pub mod client;
pub mod control;
pub mod credentials;
mod host;
mod route;
pub mod vitals;
