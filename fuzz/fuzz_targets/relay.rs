//! See [`gateway_fuzz::relay`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gateway_fuzz::relay::run(bytes));
