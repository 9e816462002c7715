//! What every fuzz target of Synesis checks, as plain functions over bytes.
//!
//! Each module is one target: its `run` takes an input and panics when a rule is broken. libFuzzer
//! calls them from `fuzz/fuzz_targets`; `tests/corpus.rs` replays the committed corpora through the
//! same functions without it.
//!
//! # Rules of an oracle
//!
//! 1. It never shares a limit or a check with what it judges: numbers are written out again, from
//!    the specification ([`golden`]).
//! 2. It checks more than that nothing panics: a model written differently, an inverse, a sum that
//!    must come out, memory and work that are bounded by the input's length ([`memory`]).
//! 3. It is a function of its input: no clock, no chance, no state between two calls.

pub mod cuts;
pub mod golden;
pub mod memory;
pub mod steps;
pub mod wire;

pub mod account;
pub mod certificate;
pub mod config;
pub mod csr;
pub mod device;
pub mod exchange;
pub mod frame;
pub mod gateway;
pub mod heartbeat;
pub mod invoice;
pub mod message;
pub mod prices;
pub mod privacy;
pub mod reassembly;
pub mod seal;
pub mod sse;
pub mod text;
pub mod tunnel;
pub mod unfinished;
pub mod webhook;

/// A target's name and its check.
pub type Target = (&'static str, fn(&[u8]));

/// Every target. The name is also that of its file in `fuzz_targets`, its corpus and, where it has
/// one, its dictionary.
pub const TARGETS: &[Target] = &[
    ("frame", frame::run),
    ("message", message::run),
    ("sse", sse::run),
    ("openai", exchange::openai::run),
    ("anthropic", exchange::anthropic::run),
    ("reassembly", reassembly::run),
    ("heartbeat", heartbeat::run),
    ("tunnel", tunnel::run),
    ("device", device::run),
    ("gateway", gateway::run),
    ("account", account::run),
    ("invoice", invoice::run),
    ("seal", seal::run),
    ("text", text::run),
    ("config", config::run),
    ("certificate", certificate::run),
    ("csr", csr::run),
    ("prices", prices::run),
    ("webhook", webhook::run),
    ("privacy", privacy::run),
    ("unfinished", unfinished::run),
];
