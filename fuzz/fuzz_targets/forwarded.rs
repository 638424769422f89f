//! See [`gateway_fuzz::forwarded`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gateway_fuzz::forwarded::run(bytes));
