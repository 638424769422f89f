//! nginx's stream module, which takes TLS off and passes bytes on.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result};
use testkit::cert::TestCert;
use testkit::command::find_program;
use testkit::network::Network;
use testkit::packages::NGINX_STREAM_MODULE;

use super::program::{Place, Program};

/// Starts it in front of the host.
pub(super) async fn start(
    cert: &TestCert,
    host: SocketAddr,
    network: Option<&Network>,
) -> Result<Program> {
    let place = Place::new(network)?;
    let config = format!(
        "load_module {NGINX_STREAM_MODULE};\n\
         daemon off;\n\
         pid {pid};\n\
         error_log stderr warn;\n\
         worker_processes auto;\n\
         events {{ worker_connections 8192; }}\n\
         stream {{\n    server {{\n        listen {addr} ssl;\n        \
         ssl_certificate {cert};\n        ssl_certificate_key {key};\n        \
         ssl_protocols TLSv1.2 TLSv1.3;\n        proxy_pass {host};\n    }}\n}}\n",
        pid = place.path("pid").display(),
        addr = place.addr,
        cert = cert.cert_path().display(),
        key = cert.key_path().display(),
    );
    let config = place.write("nginx.conf", &config)?;
    let mut command = Command::new(find_program("nginx").context("no nginx")?);
    command.arg("-e").arg("stderr").arg("-c").arg(config);
    Program::start(command, place).await
}
