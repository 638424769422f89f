//! See [`gateway_fuzz::signed`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gateway_fuzz::signed::run(bytes));
