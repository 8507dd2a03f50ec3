//! The control plane: accounts, sign-in, pairing, devices, machines, tickets and the audit, as one HTTP API.
//!
//! A request walks `routes` → its subject's module → [`flydex_store::Sql`], always with the account of an
//! authenticated principal. Whatever fails becomes an [`ErrorCode`](flydex_domain::error::ErrorCode); the cause
//! stays in the log. A foreign id and a missing one give the same answer.

mod account_sessions;
mod accounts;
mod agent_status;
mod attempts;
mod audit;
mod billing;
mod claims;
mod config;
mod cookie;
mod devices;
mod error;
mod extract;
mod identities;
mod internal;
mod invitations;
mod local_connect;
mod machine_auth;
mod machine_keys;
mod machines;
mod members;
mod metrics;
mod passkeys;
mod presence;
mod principal;
mod rate;
mod recovery;
mod regions;
mod routes;
mod security;
mod service;
mod sign_in;
mod tickets;
mod token_keys;
mod waiters;
mod ways_in;
mod wire;

pub use self::billing::{Billing, WebhookSecret};
pub use self::config::{Config, QuicEndpoint, Region};
pub use self::identities::{IdentityProvider, ProviderError};
pub use self::service::{Service, StartError};
pub use self::token_keys::rotate_token_key;

#[cfg(test)]
mod tests;
