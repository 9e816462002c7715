//! Escalation: a question that the local model cannot answer, asked of the gateway.
//!
//! [`request`] has the rules that both sides check a question against, [`context`] builds one on
//! the device, [`receipt`] says what it cost, in [`words`] for people.

pub mod context;
pub mod receipt;
pub mod request;
pub mod words;
