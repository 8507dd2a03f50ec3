//! `flydex-loadtest`: drives sessions and connectors of the real protocol and prints figures.

fn main() {}
