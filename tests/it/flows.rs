//! Whole flows: a real Chromium, the relay, the connector and the real Codex, each as its own process.

mod approvals;
mod breaks;
mod pairing;
mod sign_in;
mod threads;
mod transports;
mod turns;
