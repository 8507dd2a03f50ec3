//! The service over a real gRPC connection in memory, with scripted gateways and connectors.

mod attacks;
mod directory;
mod fixture;
mod fleet;
mod hand_over;
mod lease;
mod links;
mod ownership;
mod rebalance;
mod reports;
mod sessions;
mod traces;
