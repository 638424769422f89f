//! The HTTP side of the gateway: the manager behind it, hijacking, tickets, handshakes, limits,
//! configuration and logs, against the real binary over real sockets.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail like tests; clippy knows only functions marked as such"
)]

mod access_log;
mod access_rules;
mod capabilities;
mod certificates;
mod client_certificates;
mod client_limits;
mod command_line;
mod configuration;
mod congestion;
mod deployments;
mod desktops;
mod handshake;
mod headers;
mod hijack;
mod host_tls;
mod limits;
mod logs;
mod manager;
mod names;
mod portal;
mod reload;
mod service;
mod setup;
mod shutdown;
mod signed;
mod sockets;
mod sources;
mod streaming;
mod support;
mod threads;
mod tls;
mod tokens;
mod tunnels;
mod waves;
mod web_client;
