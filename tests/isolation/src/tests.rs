//! Everything that can be said to the relay, and what it answers to whom.

mod frames;
mod fuzz;
mod surface;
