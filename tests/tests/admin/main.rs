//! What an administrator sees and does: metrics, health, the status and draining.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail like tests; clippy knows only functions marked as such"
)]

mod closed_output;
mod command_line;
mod crowd;
mod doctor;
mod drain;
mod health;
mod host_names;
mod metrics;
mod openapi;
mod page;
mod prometheus;
mod support;
mod tickets;
mod tunnels;
mod watch;
