//! Whether accounts are apart: a table of what every message of the relay answers to whom, and a fuzzer of two accounts.
//!
//! ```text
//! schema.rs   what messages and fields there are, from the .proto files
//! tests/      tables of all of them: what is answered to whom, who may say it, and what stops it; a row missing fails
//! known.rs    what an account's messages hold, and for each value a twin that nobody has
//! times.rs    whether times tell what answers do not
//! fuzz.rs     swaps values of one account's messages for the other's, and for their twins, and compares
//! stand.rs    a gateway and a node in this process, behind a real socket
//! ```
//!
//! The routes of the HTTP API have their table and their fuzzer beside the control plane, whose description they follow.

pub mod chance;
pub mod connector;
pub mod fuzz;
pub mod known;
pub mod observe;
pub mod schema;
pub mod session;
pub mod stand;
pub mod tenant;
pub mod times;
pub mod wire;

#[cfg(test)]
mod tests;
