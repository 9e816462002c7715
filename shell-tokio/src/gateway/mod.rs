//! What the gateway's root machine asks for: model servers and what else lies outside of it.

mod accounts;
pub mod ca;
pub mod chores;
pub mod config;
pub mod deployment;
pub mod http;
pub mod keys;
mod outside;
pub mod payments;
mod rules;
pub mod server;
mod services;
pub mod store;
pub mod upstream;
