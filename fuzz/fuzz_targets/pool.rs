//! See [`gateway_fuzz::pool`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gateway_fuzz::pool::run(bytes));
