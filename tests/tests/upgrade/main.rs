//! Gateways that take over from one another, against the real binary over real sockets.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail like tests; clippy knows only functions marked as such"
)]

mod channels;
mod failures;
mod hosts;
mod pretender;
mod runtime_dir;
mod sockmap;
mod store;
mod support;
mod tickets;
mod tunnels;
