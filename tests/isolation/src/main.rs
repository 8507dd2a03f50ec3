//! `flydex-isolate`: the fuzzer of two accounts, further than the tests go.

fn main() {}
