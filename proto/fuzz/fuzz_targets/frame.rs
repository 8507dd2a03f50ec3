#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flydex_fuzz::checks::frame(data));
