//! Money: prices, tiers, charges, holds and the ledger. Integers only.

pub mod money;
