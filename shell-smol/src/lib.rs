//! A second shell: the same device machine as in the production shell, on smol instead of tokio.
//!
//! It shows that the core is free of its runtime, and is the smaller agent for small machines: one
//! thread for the tunnel and everything around it, and no HTTP. It reads the enrolment that
//! `synesis cloud login` keeps.
//!
//! * [`driver`]: one future that owns a socket and a machine: the whole event loop.
//! * [`device`]: the tunnel for the commands, its control socket, vitals, credentials.
//! * [`cli`]: one file per command.

#![forbid(unsafe_code)]

pub mod cli;
pub mod device;
pub mod driver;
pub mod error;
