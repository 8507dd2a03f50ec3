//! The service over a real gRPC connection in memory, with scripted gateways and connectors.

mod fixture;
mod links;
mod sessions;
