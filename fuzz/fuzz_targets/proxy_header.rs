//! See [`gateway_fuzz::proxy_header`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gateway_fuzz::proxy_header::run(bytes));
