//! The production shell of Synesis: sockets, timers, files and model servers around the pure core,
//! as a library and as the `synesis` binary.
//!
//! A program that wants to ask uses [`Client`].

pub mod cli;
pub mod device;
pub mod driver;
pub mod error;
pub mod gateway;
pub mod log;
pub mod paths;
pub mod tls;

pub use device::answer::{Answer, Collected};
pub use device::client::Client;
pub use error::Error;
pub use mesh_shell::{files, random};
