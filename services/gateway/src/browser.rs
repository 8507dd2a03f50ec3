//! Browsers: sessions over a WebSocket.

pub(crate) mod session;
pub(crate) mod ws;
