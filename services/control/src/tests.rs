//! The real router over a real database, with the time in the test's hand.

mod audit;
mod billing;
mod harness;
mod identities;
mod internal;
mod isolation;
mod machine_keys;
mod machines;
mod members;
mod openapi;
mod pairing;
mod passkeys;
mod policy;
mod presence;
mod rates;
mod recovery;
mod secrets;
mod sessions;
mod sign_in;
mod surface;
mod tickets;
mod token_keys;
mod traces;
