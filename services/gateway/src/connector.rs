//! Connectors: links over a WebSocket or QUIC.

pub(crate) mod link;
pub mod quic;
pub(crate) mod ws;
