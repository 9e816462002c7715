//! The production shell of Synesis: sockets, timers, files and model servers around the pure core.

pub mod driver;
pub mod error;
pub mod files;
pub mod gateway;
pub mod random;
pub mod tls;
