//! Escalation: a question that the local model cannot answer, asked of the gateway.
//!
//! [`request`] has the rules that both sides check a question against, [`context`] builds one on
//! the device.

pub mod context;
pub mod request;
