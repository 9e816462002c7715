//! Money: prices, tiers, charges, holds and the ledger. Integers only.
//!
//! * `money`: nano-dollars.
//! * `price`: what tokens cost, and the one place where a charge is rounded.
//! * `tier`: what is charged on top of, or instead of, the provider's price.
//! * `account`: the rules, as `decide` and `apply`; a store runs them inside one transaction.
//! * `lease`: whose a hold is where several gateways share a store, and when it is void.
//! * `ledger`: double entry in a hash chain per account, and the seals over all of them.
//! * `usage`: what was used, added up.
//! * `invoice`: what a month came to, in whole cents.

pub mod account;
pub mod invoice;
pub mod lease;
pub mod ledger;
pub mod money;
pub mod price;
pub mod tier;
pub mod usage;
