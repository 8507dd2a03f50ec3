//! mTLS between our own processes: who a peer is stands in its certificate, and both sides check it.
//!
//! Each certificate names one process in a URI, `spiffe://flydex/<region>/<role>/<node id>`. A server takes only clients
//! whose certificate is of the cluster's authority and whose role is allowed there; a client takes only a server of the
//! wanted role and, where it knows it, of the wanted name. TLS 1.3 alone, hybrid post-quantum key exchange first, and
//! no resumption: each connection is checked anew.
//!
//! The files are read again when they change and on SIGHUP. What does not hold together is not taken: the process goes
//! on with what it has, and says so. Connections that are up stay up with what they were opened with.

pub mod authority;
mod connector;
mod identity;
mod material;
mod metrics;
mod reload;
mod serve;
mod verify;

pub use connector::{ConnectError, Connector};
pub use identity::{Allowed, Expected, IdentityError, PeerIdentity, Role};
pub use material::{MutualConfig, MutualError};
pub use reload::MutualTls;
pub use serve::serve;

#[cfg(test)]
mod tests;
