//! websockify, the WebSocket proxy of the noVNC project, in Python: one process a channel.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result};
use testkit::cert::TestCert;
use testkit::command::find_program;
use testkit::network::Network;

use super::program::{Place, Program};

/// Starts it in front of the host.
pub(super) async fn start(
    cert: &TestCert,
    host: SocketAddr,
    network: Option<&Network>,
) -> Result<Program> {
    let place = Place::new(network)?;
    let mut command = Command::new(find_program("websockify").context("no websockify")?);
    command
        .arg("--ssl-only")
        .arg("--cert")
        .arg(cert.cert_path())
        .arg("--key")
        .arg(cert.key_path())
        .arg(place.addr.to_string())
        .arg(host.to_string());
    Program::start(command, place).await
}
