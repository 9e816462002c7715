//! What every benchmark shares: rounds that take turns, medians, tables, the machine in words.
//!
//! A figure is worth little on its own. Each benchmark runs its peer in the same process and the
//! same minute, a round of one after a round of the other, and reports medians and their ratio: what
//! disturbs the machine disturbs both.

pub mod certs;
pub mod fleet;
pub mod harness;
pub mod peer;
pub mod tunnel;
