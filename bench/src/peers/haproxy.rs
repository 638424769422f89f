//! `HAProxy`, which takes TLS off, if there is any, and passes bytes on: what is compared with.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result};
use testkit::cert::TestCert;
use testkit::command::find_program;
use testkit::network::Network;

use super::program::{Place, Program};

/// Starts it in front of the host; without a certificate there is no TLS, and it may have the
/// kernel move the bytes.
pub(super) async fn start(
    cert: Option<&TestCert>,
    host: SocketAddr,
    network: Option<&Network>,
) -> Result<Program> {
    let place = Place::new(network)?;
    let tls = cert.map(|cert| format!(" ssl crt {}", cert.combined_path().display()));
    let splice = if cert.is_none() {
        "    option splice-auto\n"
    } else {
        ""
    };
    let config = format!(
        "global\n    maxconn 4000\n\
         defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 10m\n    timeout server 10m\n{splice}\
         listen bench\n    bind {}{}\n    server host {host}\n",
        place.addr,
        tls.unwrap_or_default(),
    );
    let config = place.write("haproxy.cfg", &config)?;
    let mut command = Command::new(find_program("haproxy").context("no haproxy")?);
    command.arg("-db").arg("-f").arg(config);
    Program::start(command, place).await
}
