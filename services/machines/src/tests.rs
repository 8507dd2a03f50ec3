//! The service over a real gRPC connection in memory, with scripted gateways and connectors.

mod attacks;
mod directory;
mod fixture;
mod lease;
mod links;
mod ownership;
mod sessions;
mod traces;
