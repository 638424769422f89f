//! See [`gateway_fuzz::hijack`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gateway_fuzz::hijack::run(bytes));
