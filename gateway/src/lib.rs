//! A gateway for virtual desktops: one public TLS port in front of a manager and many Spice
//! hosts.
//!
//! Modules depend on each other in one direction, which `tests/modules.rs` checks, from what runs
//! the process down to what describes a configuration:
//!
//! `cli` -> {`server`, `doctor`, `setup`} -> `ports` -> `reload` -> {`listen`, `admin`, `handover`} -> `acme` -> `serving` ->
//! {`manager`, `desktops`, `web_client`} -> {`assignment`, `drain`} -> `channel` -> `admission` ->
//! {`ticket`, `portal`} -> {`http`, `signed`} -> {`pool`, `described`} -> `limits` -> {`metrics`,
//! `access_log`, `grant`, `measured`} -> {`host_tls`, `session`} -> `config` -> `spice_host` -> `target` ->
//! {`socket_path`, `refusal`}.
//!
//! What moves a channel's bytes is a crate of its own, `gateway_datapath`, which holds all `unsafe`
//! code and knows nothing of what is here.

#![forbid(unsafe_code)]

pub mod access_log;
pub mod acme;
pub mod admin;
pub mod admission;
pub mod assignment;
pub mod authority;
pub mod background;
pub mod canonical_path;
mod capabilities;
mod causes;
pub mod certificate_subject;
pub mod channel;
mod channel_type;
pub mod cli;
pub mod client_certificate;
pub mod config;
pub mod congestion;
pub mod described;
pub mod desktops;
mod doctor;
mod documents;
pub mod drain;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod grant;
pub mod handover;
pub mod host;
pub mod host_tls;
pub mod http;
mod https;
mod kept_file;
pub mod limits;
pub mod listen;
mod load_ebpf;
mod log;
pub mod manager;
pub mod measured;
mod memory;
pub mod metrics;
mod output;
pub mod pem;
pub mod pem_file;
pub mod pool;
pub mod portal;
pub mod ports;
mod prepared;
pub mod refusal;
pub mod reload;
pub mod runtime_dir;
pub mod secret;
pub mod server;
pub mod service;
pub mod serving;
pub mod session;
mod setup;
pub mod signed;
pub mod socket_path;
pub mod spice_host;
pub mod target;
pub mod tcp;
pub mod ticket;
pub mod ticket_sync;
pub mod timed;
pub mod tls;
pub mod web_client;
pub mod web_origin;
