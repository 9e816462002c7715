//! Being paid through Stripe: the rules, as pure functions over bytes and objects.
//!
//! ```text
//!   webhook ─▶ signature ─▶ event: an id ─▶ request ─▶ object, as Stripe has it ─▶ credit: orders
//!                                                                                     │
//!   month's invoice ─▶ meter: send, doubt, check, confirm                             ▼
//!                                                                             the account's ledger
//! ```
//!
//! * `id`: Stripe's names of things.
//! * `signature`: who sent a webhook, and when.
//! * `event`: what a webhook is about.
//! * `request`: what is sent to Stripe, and what its failures mean.
//! * `object`: what Stripe answers.
//! * `credit`: what an object makes of an account.
//! * `pending`: when to ask about a top-up that nobody tells of.
//! * `meter`: an invoice collected exactly once, by a service that forgets.
//!
//! # Invariants
//!
//! 1. Nothing of an event is believed but ids: what it is about is fetched again from Stripe.
//! 2. A session, a refund and a dispute each move an account's money once for ever, in whatever order
//!    and however often they are told of.
//! 3. No secret is in `Debug`, an error or a request's path.

pub mod credit;
pub mod event;
pub mod id;
pub mod meter;
pub mod object;
pub mod pending;
pub mod request;
pub mod signature;
