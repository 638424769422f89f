//! Certificates that the gateway gets by itself, from Debian's pebble and from stand-ins that
//! misbehave.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail like tests; clippy knows only functions marked as such"
)]

mod advice;
mod authority;
mod first;
mod machine;
mod renewal;
mod setup;
mod support;
