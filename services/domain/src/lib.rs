//! The rules of FlyDex: identity, account scope, commands, receipts, approvals, fencing and limits.
//!
//! Everything here is a value or a pure function. There is no I/O, no clock and no randomness: callers pass
//! the time and the random bytes in, so every rule can be tested with plain values.

pub mod approval;
pub mod audit;
pub mod billing;
pub mod command;
pub mod device;
pub mod encoding;
pub mod endorsement;
pub mod epoch;
pub mod error;
pub mod gate;
pub mod id;
pub mod invariant;
pub mod journal;
pub mod key;
pub mod ledger;
pub mod limits;
pub mod local_connect;
pub mod machine;
pub mod member;
pub mod pairing;
pub mod passkey;
pub mod placement;
pub mod proof;
pub mod rebalance;
pub mod region;
pub mod revocation;
pub mod rotation;
pub mod scope;
pub mod secret;
pub mod sign_in;
pub mod status;
pub mod stream;
pub mod time;
pub mod token;

#[cfg(test)]
mod vectors;
