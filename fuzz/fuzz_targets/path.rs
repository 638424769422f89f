//! See [`gateway_fuzz::path`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gateway_fuzz::path::run(bytes));
