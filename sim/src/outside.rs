//! The gateways' outside world: one store and the model servers, in memory, with their own delays and
//! faults.

pub mod store;
pub mod upstream;
