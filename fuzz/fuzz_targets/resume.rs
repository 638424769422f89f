//! See [`gateway_fuzz::resume`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gateway_fuzz::resume::run(bytes));
