//! A gateway for virtual desktops: one public TLS port in front of a manager and many Spice
//! hosts.
//!
//! Modules depend on each other in one direction: `cli` -> `server` -> `reload` -> `listen` -> `http` ->
//! {`manager`, `channel`} -> {`admission`, `ticket`, `websocket`, `datapath`}.

#![forbid(unsafe_code)]

pub mod access_log;
pub mod admin;
pub mod admission;
pub mod authority;
pub mod background;
pub mod canonical_path;
mod capabilities;
mod causes;
pub mod channel;
pub mod cli;
pub mod config;
pub mod congestion;
mod documents;
pub mod drain;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod handover;
pub mod host;
pub mod http;
pub mod limits;
pub mod listen;
mod log;
pub mod manager;
mod memory;
pub mod metrics;
mod output;
pub mod pem;
pub mod pem_file;
pub mod pool;
pub mod ports;
mod prepared;
pub mod reload;
pub mod runtime_dir;
pub mod server;
pub mod service;
pub mod serving;
pub mod session;
pub mod target;
pub mod tcp;
pub mod ticket;
pub mod timed;
pub mod tls;
pub mod web_origin;
