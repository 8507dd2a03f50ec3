//! The service over a real gRPC connection in memory, with scripted gateways and connectors.

mod attacks;
mod fixture;
mod links;
mod sessions;
mod traces;
