//! See [`gateway_fuzz::tls_accept`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gateway_fuzz::tls_accept::run(bytes));
