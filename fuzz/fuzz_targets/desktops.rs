//! See [`gateway_fuzz::desktops`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gateway_fuzz::desktops::run(bytes));
