//! The gateway with real sockets, a scripted node behind the real gRPC service, and clients of the real protocol.

mod attacks;
mod browser;
pub(crate) mod directory;
pub(crate) mod host;
mod lanes;
mod lifetimes;
mod link;
mod nodes;
mod overload;
mod refusals;
mod seeds;
mod wire;
pub(crate) mod world;
